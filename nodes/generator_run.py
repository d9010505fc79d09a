"""Pretrained generators of pictures as ComfyUI runs them: a MODEL with CLIP and VAE, the decoder of an autoencoder.

Both are a :class:`causal_core.modular.images.ConditionalSampler` that says which concepts it is told. Weights are under
ComfyUI's memory management, the page shows progress, and no weight is ever changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

import comfy.model_management as memory
import comfy.sample
import comfy.samplers
import comfy.utils
import numpy as np
import torch

from ..causal_core.concepts import Concepts
from ..causal_core.errors import CounterfactError, folded
from ..causal_core.modular.images import (
    BATCH,
    Check,
    ConditionalSampler,
    DecoderSampler,
    captions,
    fingerprint,
    generators,
    in_batches,
    normal,
)
from ..causal_core.modular.model import ModularModel
from ..causal_core.modular.report import inside
from .autoencoder import graph_of
from .autoencoder_memory import ManagedAutoencoder, Progress
from .denoise import Conditioning, encode
from .memory import ran_out
from .mistakes import naming

if TYPE_CHECKING:
    from ..causal_core.query import Query

# Conditionings that are kept from one call to the next.
KEPT = 64
# The grid of Empty Latent Image, in pixels; ComfyUI brings it to that of the model.
GRID, CHANNELS = 8, 4


class Generator(ConditionalSampler, Protocol):
    """A CAUSAL_GENERATOR.

    Attributes
    ----------
    concepts : what it is told; those that have a value may be left out
    """

    concepts: Concepts


@dataclass(frozen=True, eq=False)
class ModelGenerator:
    """Any text-to-image model of ComfyUI, told the values in their canonical caption.

    The picture of a caption and a seed is that of Empty Latent Image, KSampler and VAE Decode with this seed.

    Attributes
    ----------
    model, clip, vae : of one checkpoint
    concepts : of the captions, in their order
    style : text before each caption
    negative : the text of the other conditioning
    width, height : in pixels
    steps, cfg, sampler, scheduler : as KSampler has them
    """

    model: Any
    clip: Any
    vae: Any
    concepts: Concepts
    style: str = ""
    negative: str = ""
    width: int = 512
    height: int = 512
    steps: int = 20
    cfg: float = 8.0
    sampler: str = "euler"
    scheduler: str = "normal"

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`causal_core.modular.images.ConditionalSampler.sample`; pictures of one caption are batched."""
        said = [", ".join(filter(None, (self.style.strip(), text))) for text in captions(self.concepts, values)]

        def drawn(texts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
            return self._drawn(texts, seeds, check)

        return in_batches(drawn, said, seeds, max(len(said), 1), check)

    def fingerprint(self) -> str:
        """See :meth:`causal_core.modular.images.ConditionalSampler.fingerprint`.

        Models are unloaded first, since what LoRAs change while a model is loaded is put back then.
        """
        memory.unload_all_models()
        return fingerprint(self.model.model, self.clip.cond_stage_model, self.vae.first_stage_model)

    @cached_property
    def encoded(self) -> Callable[[str], Conditioning]:
        """The conditioning of a text."""
        return lru_cache(KEPT)(lambda text: encode(self.clip, [text])[0])

    def _drawn(self, texts: Sequence[str], seeds: Sequence[int], check: Check) -> np.ndarray:
        # All texts first: then the text encoder can make room for the model.
        conditionings = {text: self.encoded(text) for text in dict.fromkeys(texts)}
        most = BATCH if self.steady else 1
        groups = [[i for i, other in enumerate(texts) if other == text] for text in conditionings]
        # Without previews: the page would go on showing them in place of what the node shows in the end.
        bar = comfy.utils.ProgressBar(self.steps * sum(ceil(len(group) / most) for group in groups))
        found: dict[int, np.ndarray] = {}
        for group in groups:
            while group:
                check()
                try:
                    pictures = self._sampled(conditionings[texts[group[0]]], [seeds[i] for i in group[:most]], bar)
                except Exception as error:
                    if most == 1 or not ran_out(error):
                        raise
                    pictures = None
                if pictures is None:
                    # Only out here, without the error and its traceback, is the memory of the failed attempt free.
                    memory.soft_empty_cache(True)
                    most = 1
                    continue
                found |= zip(group, pictures)
                group = group[most:]
        return np.stack([found[i] for i in range(len(texts))])

    def _sampled(self, positive: Conditioning, seeds: Sequence[int], bar: comfy.utils.ProgressBar) -> np.ndarray:
        empty = torch.zeros(len(seeds), CHANNELS, self.height // GRID, self.width // GRID)
        latent = comfy.sample.fix_empty_latent_channels(self.model, empty, GRID)
        noise = normal(generators(seeds), *latent.shape[1:])
        samples = comfy.sample.sample(
            self.model, noise, self.steps, self.cfg, self.sampler, self.scheduler, positive,
            self.encoded(self.negative), latent, callback=lambda *_: bar.update(1), disable_pbar=True,
            seed=int(seeds[0]) % 2**63,
        )  # fmt: skip
        images = self.vae.decode(samples)
        images = images.reshape(-1, *images.shape[-3:])[..., :3].float().clamp(0, 1)
        return (images * 255).round().byte().cpu().numpy()

    @cached_property
    def steady(self) -> bool:
        """Whether the sampler goes on with a picture the same way whichever others are sampled with it.

        Others draw noise for all of them at once, or choose their steps by all of them.
        """
        function = getattr(comfy.samplers.sampler_object(self.sampler), "sampler_function", None)
        return (
            function is not None
            and self.sampler != "dpm_adaptive"
            and "noise_sampler" not in inspect.signature(function).parameters
        )


@dataclass(frozen=True, eq=False)
class DecoderGenerator:
    """The decoder of a causal autoencoder, told the values as latents.

    Attributes
    ----------
    autoencoder : under ComfyUI's memory management
    steps : of its decoder, 1 to 1000
    """

    autoencoder: ManagedAutoencoder
    steps: int

    @cached_property
    def concepts(self) -> Concepts:
        """Its variables; none has a value of its own."""
        return graph_of(self.autoencoder.model.coding).concepts

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`causal_core.modular.images.ConditionalSampler.sample`."""
        batch = min(BATCH, self.autoencoder.loaded(max(len(values), 1)))
        show = Progress(self.steps * ceil(len(values) / batch))
        device = self.autoencoder.patcher.load_device
        return DecoderSampler(self.autoencoder.model, self.steps, batch, device, show).sample(values, seeds, check)

    def fingerprint(self) -> str:
        """See :meth:`causal_core.modular.images.ConditionalSampler.fingerprint`."""
        return fingerprint(self.autoencoder.model)


@dataclass(frozen=True)
class Told:
    """A generator for one modular model: it is told the labels that it knows, and its mistakes name the input.

    Attributes
    ----------
    generator : of pictures
    labels : of the modular model, with their ranges
    """

    generator: Generator
    labels: Concepts

    @classmethod
    def of(cls, generator: Generator, model: ModularModel) -> Told:
        """The generator, once it is known to go with a model.

        Raises
        ------
        CounterfactError
            If it does not know a cause of the model's picture, needs a concept that it is not told, or is told nothing.
        """
        causes = [name for picture in model.pictures for name in model.causes(picture)]
        for name in causes:
            if name not in generator.concepts:
                raise CounterfactError(
                    f"pictures: in the model {name} causes the picture, but the generator knows no {name}; connect a "
                    f"generator that is told {name}"
                )
        labels = {folded(name) for name in (causes if model.pictures else model.coding.names)}
        for concept in generator.concepts:
            if concept.value is None and folded(concept.name) not in labels:
                whence = "causes no picture in the model" if concept.name in model.concepts else "is not in the model"
                raise CounterfactError(
                    f"pictures: the generator needs a value of {concept.name}, which {whence}; give {concept.name} a "
                    "value in the generator's graph, or connect a generator without it"
                )
        if not model.pictures and not labels.intersection(map(folded, generator.concepts.names)):
            raise CounterfactError(
                f"pictures: the generator knows none of the model's concepts ({', '.join(model.concepts.names)}), so "
                "that all pictures would show the same; connect a generator of these"
            )
        return cls(generator, model.concepts)

    def sample(
        self, values: Sequence[Mapping[str, str]], seeds: Sequence[int], check: Check = lambda: None
    ) -> np.ndarray:  # fmt: skip
        """See :meth:`causal_core.modular.images.ConditionalSampler.sample`."""
        known = self.generator.concepts
        with naming("pictures"):
            told = [
                known.settle({name: value for name, value in inside(self.labels, one).items() if name in known})
                for one in values
            ]
            return self.generator.sample(told, seeds, check)

    def fingerprint(self) -> str:
        """See :meth:`causal_core.modular.images.ConditionalSampler.fingerprint`."""
        return self.generator.fingerprint()


def require(model: ModularModel, query: Query) -> None:
    """Raise CounterfactError for a question that only a generator of pictures can help to answer."""
    for term in (*query.of, *query.given):
        behind = set(model.needed([term.variable], dict(term.do))).intersection(model.pictures)
        for picture in behind:
            why = "is asked for" if term.variable == picture else f"{term.variable} depends on"
            raise CounterfactError(
                f"pictures: nothing is connected that could draw the {picture}, which {why}; connect Model as "
                "Generator or Autoencoder as Generator"
            )
