"""Pictures given values of concepts, from pretrained generators that stay as they are.

ID-GEN and Modular-DCM take any conditional generative model of a picture for a part of theirs, no matter how it was
trained (Rahman, Jordan and Kocaoglu 2024; Rahman and Kocaoglu 2024). Here a text-to-image model is one, told the values
in a caption, and so is the decoder of a causal autoencoder, told them as latents. No weight is ever changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from ..autoencoder.model import DEFAULT_STEPS, MOST_STEPS, CausalAutoencoder, CausalLatent, OnEstimate
from ..concepts import Concepts, caption
from ..demo.model import DemoModel, to_uint8
from ..demo.schedule import denoised, sampling_sigmas, solve
from ..errors import CounterfactError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# On a CPU the bundled model is no faster with more at once.
BATCH, MOST_BATCH = 8, 4096
# What a pipeline is not told by options: there is one caption, one generator and one picture of each case.
OURS = ("prompt", "generator", "num_images_per_prompt", "output_type")

Check = Callable[[], object]
Told = TypeVar("Told")


class ConditionalSampler(Protocol):
    """Pictures given values of concepts.

    The same values and seed give the same picture, whichever others are asked for with it: the same noise in two worlds
    is the same case in both. Rounding alone depends on the batch: now and then a pixel differs by one grey level.
    """

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """Pictures, uint8 [N, H, W, 3].

        Parameters
        ----------
        values : for each picture the values of its concepts
        seeds : for each picture the seed of everything that its values do not say
        check : called before each batch; may raise to end it

        Raises
        ------
        CounterfactError
            If there is no picture to draw or not a seed for each, or a value is missing, unknown or out of range.
        """

    def fingerprint(self) -> str:
        """SHA-256 of all weights, in hexadecimal: the same before and after sampling."""


@dataclass(frozen=True)
class CaptionSampler:
    """The bundled text-to-image model, told the values in their canonical caption.

    Attributes
    ----------
    model : in evaluation mode; words that it does not know say nothing to it
    concepts : the concepts of its captions, in their order; a value that they have holds where none is given
    steps : of the sampler, 1 to 1000
    guidance : scale of classifier-free guidance; 1 is the conditional prediction alone, and half the work
    batch : how many pictures are drawn at once, at most
    """

    model: DemoModel
    concepts: Concepts
    steps: int = 20
    guidance: float = 2.0
    batch: int = BATCH

    def __post_init__(self) -> None:
        _check_whole("steps", self.steps, MOST_STEPS)
        _check_whole("batch", self.batch, MOST_BATCH)

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`ConditionalSampler.sample`; for a seed the picture of :func:`causal_core.demo.model.generate`."""
        return in_batches(self._draw, captions(self.concepts, values), seeds, self.batch, check)

    def fingerprint(self) -> str:
        """See :meth:`ConditionalSampler.fingerprint`."""
        return fingerprint(self.model)

    def _draw(self, texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        config, levels = self.model.config, sampling_sigmas(self.steps)
        contexts = [self.model.context(texts)]
        if self.guidance != 1:
            contexts.append(self.model.context([""]).expand_as(contexts[0]))
        context, copies = torch.cat(contexts), len(contexts)

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            both = denoised(self.model.unet, x.repeat(copies, 1, 1, 1), sigma.repeat(copies), context)
            with_text, without = both[: len(x)], both[-len(x) :]
            return torch.lerp(without, with_text, self.guidance)

        noise = normal(generators(seeds), config.latent_channels, config.latent_size, config.latent_size)
        start = noise.to(self.model.device) * (1 + levels[0] ** 2).sqrt()
        return to_uint8(self.model.latents.decode(solve(denoise, start, levels)))


@dataclass(frozen=True)
class DecoderSampler:
    """The decoder of a causal autoencoder, told the values as latents.

    Its residual code, which holds what no variable says, is drawn from the prior it is trained towards, N(0, 1).

    Attributes
    ----------
    model : in evaluation mode; grey pictures come in colour
    steps : of the decoder's ODE, 1 to 1000
    batch : how many pictures are drawn at once, at most
    device : where the networks compute; where the model is, if not given
    on_estimate : see :meth:`CausalAutoencoder.decode`
    """

    model: CausalAutoencoder
    steps: int = DEFAULT_STEPS
    batch: int = BATCH
    device: torch.device | None = None
    on_estimate: OnEstimate | None = None

    def __post_init__(self) -> None:
        _check_whole("steps", self.steps, MOST_STEPS)
        _check_whole("batch", self.batch, MOST_BATCH)

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`ConditionalSampler.sample`."""
        return in_batches(self._draw, [self._latents(one) for one in values], seeds, self.batch, check)

    def fingerprint(self) -> str:
        """See :meth:`ConditionalSampler.fingerprint`."""
        return fingerprint(self.model)

    def _latents(self, values: Mapping[str, str]) -> torch.Tensor:
        """Latents z [width] of the values of all variables."""
        coding = self.model.coding
        for name in values:
            coding.index(name)
        _check_complete(coding.names, values)
        return coding.vector(values)

    def _draw(self, latents: Sequence[torch.Tensor], seeds: Sequence[int]) -> np.ndarray:
        model, rngs = self.model, generators(seeds)
        config, z = model.config, torch.stack(list(latents)).to(self.device or model.device)
        residual = normal(rngs, config.residual).to(z)
        noise = normal(rngs, config.channels, config.size, config.size).to(z)
        latent = CausalLatent(z, model.mechanisms.abduct(z), residual, noise, self.steps)
        found = model.decode(latent, on_estimate=self.on_estimate)
        return to_uint8(found if config.channels == 3 else found[:, :1].expand(-1, 3, -1, -1))


@dataclass(frozen=True)
class PipelineSampler:
    """A text-to-image pipeline of diffusers that the caller has loaded, told the values in their canonical caption.

    Attributes
    ----------
    pipeline : called with a list of captions and a generator for each; a scheduler that draws noise of its own
        (DPMSolverSDEScheduler) makes pictures depend on more than their seeds
    concepts : the concepts of the captions, in their order; a value that they have holds where none is given
    options : further arguments of every call, such as num_inference_steps, guidance_scale, height and width
    batch : how many pictures are drawn at once, at most

    Raises
    ------
    CounterfactError
        If an option is one that follows from values and seeds.
    """

    pipeline: DiffusionPipeline
    concepts: Concepts
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = BATCH

    def __post_init__(self) -> None:
        _check_whole("batch", self.batch, MOST_BATCH)
        if taken := [name for name in OURS if name in self.options]:
            raise CounterfactError(f"options: {', '.join(taken)} follow from values and seeds; leave them out")

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`ConditionalSampler.sample`; H and W are the pipeline's."""
        return in_batches(self._draw, captions(self.concepts, values), seeds, self.batch, check)

    def fingerprint(self) -> str:
        """See :meth:`ConditionalSampler.fingerprint`; of all networks of the pipeline."""
        parts = sorted(self.pipeline.components.items())
        return fingerprint(*(part for _, part in parts if isinstance(part, nn.Module)))

    def _draw(self, texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        # Generators of the CPU give a seed the same noise on every device.
        call = {"prompt": list(texts), "generator": generators(seeds), "output_type": "pt"}
        # "pt" has numbers in 0..1.
        return to_uint8(self.pipeline(**self.options, **call).images.float() * 2 - 1)


def captions(concepts: Concepts, values: Sequence[Mapping[str, str]]) -> list[str]:
    """The canonical caption of each picture's values; CounterfactError if a concept has none."""
    for one in values:
        _check_complete(concepts.names, {**concepts.values(), **concepts.settle(one)})
    return [caption(concepts, one) for one in values]


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator for each picture, on the CPU: its noise depends neither on other pictures nor on the device."""
    return [torch.Generator().manual_seed(int(seed) % 2**63) for seed in seeds]


def normal(rngs: Sequence[torch.Generator], *shape: int) -> torch.Tensor:
    """Standard normal numbers [N, *shape], those of each picture from its own generator."""
    return torch.stack([torch.randn(shape, generator=rng) for rng in rngs])


def in_batches(
    draw: Callable[[Sequence[Told], Sequence[int]], np.ndarray], told: Sequence[Told], seeds: Sequence[int], batch: int,
    check: Check = lambda: None,
) -> np.ndarray:  # fmt: skip
    """Pictures [N, H, W, 3], at most ``batch`` of them at once.

    Parameters
    ----------
    draw : pictures of what a generator is told and of seeds
    told, seeds : of each picture
    check : called before each batch; may raise to end it

    Raises
    ------
    CounterfactError
        If there is no picture to draw, or not a seed for each.
    """
    if not told or len(told) != len(seeds):
        raise CounterfactError(
            f"there are values of {len(told)} pictures and {len(seeds)} seeds: give a seed for each picture, and at "
            "least one of both"
        )
    found = []
    for start in range(0, len(told), batch):
        check()
        with torch.inference_mode():
            found.append(draw(told[start : start + batch], seeds[start : start + batch]))
    return np.concatenate(found)


def fingerprint(*modules: nn.Module) -> str:
    """SHA-256, in hexadecimal, of all parameters and buffers of some networks: names, types, shapes and numbers.

    Raises
    ------
    CounterfactError
        If weights are not in memory.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            if tensor.is_meta:
                raise CounterfactError(
                    f"the weights {name} are not in memory: load the model without offloading to disk"
                )
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            # As bytes: numpy knows no bfloat16.
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_whole(name: str, x: int, most: int) -> None:
    if isinstance(x, bool) or not isinstance(x, int) or not 1 <= x <= most:
        raise CounterfactError(f"{name} must be a whole number from 1 to {most}")


def _check_complete(names: Sequence[str], values: Mapping[str, str | None]) -> None:
    missing = [name for name in names if values.get(name) is None]
    if missing:
        raise CounterfactError(f"values: {', '.join(missing)} missing; give every concept of the picture a value")
