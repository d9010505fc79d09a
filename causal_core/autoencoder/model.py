"""CausalDiffAE: a diffusion autoencoder with a structural causal model inside (Komanduri et al. 2024).

Encode: the picture's variables and residual code are read, their noise u abducted, and the decoder's ODE solved
backwards to x_T. Decode: intervene, predict, and solve it forwards under the new latents, from the same x_T: what no
latent says stays as it was. Where the intervention changes the picture, little of x_T is kept.

    >>> model = CausalAutoencoder.load(weights)  # doctest: +SKIP
    >>> latent = model.encode(picture)  # doctest: +SKIP
    >>> model.decode(latent, {"light": "120"})  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CounterfactError, finite
from ..weights import read_tensors, write_tensors
from .coding import Coding
from .config import AutoencoderConfig
from .diffusion import ROUNDS, Denoiser, decode, encode, levels, released
from .mechanisms import Mechanisms
from .networks import Context, Decoder, Encoder

KIND, SCHEMA_VERSION = "counterfact.autoencoder", 2
DEFAULT_STEPS = 20
MOST_STEPS = 1000

OnEstimate = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class CausalLatent:
    """What encoding a batch of pictures gives.

    Attributes
    ----------
    z : [B, width] latents, causes first; places as in the model's coding
    u : [B, width] their exogenous noise, u_i = z_i - f_i(z_parents)
    residual : [B, R] what no variable says
    noise : [B, C, H, W] x_T at the highest noise level, divided by it: about unit variance
    steps : steps of the ODE it was made with; decoding takes the same
    """

    z: torch.Tensor
    u: torch.Tensor
    residual: torch.Tensor
    noise: torch.Tensor
    steps: int


class CausalAutoencoder(nn.Module):
    """Encoder, mechanisms and decoder with one config and one coding of the graph's variables.

    Parameters
    ----------
    config : sizes and objective
    coding : variables, causes first
    provenance : where the weights come from (images seen, steps, data), JSON values
    """

    def __init__(self, config: AutoencoderConfig, coding: Coding, provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.coding, self.provenance = config, coding, dict(provenance or {})
        self.encoder = Encoder(config, coding)
        self.mechanisms = Mechanisms(coding)
        self.decoder = Decoder(config, coding)

    @property
    def device(self) -> torch.device:
        return self.encoder.head.weight.device

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents z [B, width] and residual codes [B, R] of pictures [B, C, H, W] in -1..1."""
        readings, mean, _ = self.encoder(images)
        return self.encoder.latents(readings), mean

    @torch.no_grad()
    def encode(
        self,
        images: torch.Tensor,
        steps: int = DEFAULT_STEPS,
        rounds: int = ROUNDS,
        on_estimate: OnEstimate | None = None,
    ) -> CausalLatent:
        """Latents, noise and x_T of pictures [B, C, H, W] in -1..1.

        ``on_estimate`` is called with each of the ``steps * rounds`` estimates of x0 [B, C, H, W].

        Raises
        ------
        CounterfactError
            If size or channels are not the model's.
        """
        self._check(images, steps)
        z, r = self.read(images)
        rising = levels(steps, self.config.schedule)
        context = self.decoder.context(z, r)
        denoise = self._watched(self._denoiser(context), context, on_estimate)
        x = encode(denoise, self.decoder.rest(images, context), rising, rounds)
        return CausalLatent(z, self.mechanisms.abduct(z), r, x / rising[-1], steps)

    def intervened(
        self, latent: CausalLatent, do: Mapping[str, str], clamp: bool = False, kept: float | None = None
    ) -> CausalLatent:
        """The latents as they would have been under ``do``, see :meth:`held`.

        Raises
        ------
        CounterfactError
            If a variable or value is not known, or a number outside its interval (unless ``clamp`` moves it inside).
        """
        held = {}
        for name, value in do.items():
            i = self.coding.index(name)
            vector = torch.tensor(self.coding.variables[i].vector(value, clamp)).to(latent.z)
            held[i] = vector.expand(len(latent.z), -1)
        return self.held(latent, held, kept)

    @torch.no_grad()
    def held(self, latent: CausalLatent, do: Mapping[int, torch.Tensor], kept: float | None = None) -> CausalLatent:
        """The latents as they would have been with variables held at places [B, width of the variable].

        The residual stays, and x_T where the drawing does; where it changes, only a share ``kept`` of x_T does (1, and
        all of it does: DDIM inversion as it is published). Without it that of the config.
        """
        kept = self.config.kept if kept is None else finite(kept, "kept", 0.0, 1.0)
        z = self.mechanisms.counterfactual(latent.z, do)
        new = replace(latent, z=z, u=self.mechanisms.abduct(z))
        if kept == 1 or not self.config.drawing:
            return new
        before, after = (self.decoder.context(one.z, one.residual).drawing for one in (latent, new))
        return replace(new, noise=released(latent.noise, before, after, kept))

    @torch.no_grad()
    def decode(
        self,
        latent: CausalLatent,
        new: CausalLatent | None = None,
        strength: float = 1.0,
        on_estimate: OnEstimate | None = None,
    ) -> torch.Tensor:
        """Pictures [B, C, H, W] in -1..1 of latents, or of how they were changed.

        Parameters
        ----------
        latent : as encoded
        new : the same after :meth:`intervened`, whose x_T is taken, at strengths below 1 in part; without it the
            pictures come back as they were encoded
        strength : w in D(x | z) + w (D(x | z_new) - D(x | z)): 0 changes nothing, 1 is the intervention, more overdoes
            it
        on_estimate : called with the estimate of x0 [B, C, H, W] at each step
        """
        finite(strength, "strength", 0.0, 10.0)
        rising = levels(latent.steps, self.config.schedule)
        context = self.decoder.context(latent.z, latent.residual)
        denoise, noise = self._denoiser(context), latent.noise
        if new is not None and strength != 0:
            noise = torch.lerp(noise, new.noise, min(strength, 1.0))
            told = self.decoder.context(new.z, new.residual)
            changed = self._denoiser(told)
            denoise = changed if strength == 1 else _between(denoise, changed, strength)
            context = Context(*(None if a is None else torch.lerp(a, b, strength) for a, b in zip(context, told)))
        x = decode(self._watched(denoise, context, on_estimate), noise * rising[-1], rising)
        return self.decoder.picture(x, context).clamp(-1, 1)

    def counterfactual(
        self, images: torch.Tensor, do: Mapping[str, str], steps: int = DEFAULT_STEPS, strength: float = 1.0
    ) -> torch.Tensor:
        """Pictures [B, C, H, W] as they would have been under ``do``: encode, intervene, decode."""
        latent = self.encode(images, steps)
        return self.decode(latent, self.intervened(latent, do), strength)

    def _denoiser(self, context: Context) -> Denoiser:
        return lambda x, sigma: self.decoder.denoised(x, sigma, context)

    def _watched(self, denoise: Denoiser, context: Context, on_estimate: OnEstimate | None) -> Denoiser:
        if on_estimate is None:
            return denoise

        def watched(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            estimate = denoise(x, sigma)
            on_estimate(self.decoder.picture(estimate, context))
            return estimate

        return watched

    def _check(self, images: torch.Tensor, steps: int) -> None:
        wanted = (self.config.channels, self.config.size, self.config.size)
        if images.ndim != 4 or tuple(images.shape[1:]) != wanted:
            raise CounterfactError(
                f"image: the autoencoder takes {wanted[1]} x {wanted[2]} pixels and {wanted[0]} channels, not "
                f"{images.shape[-1]} x {images.shape[-2]} and {images.shape[1]}; allow resizing, or resize it first"
            )
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
            raise CounterfactError(f"steps must be a whole number from 1 to {MOST_STEPS}")

    def save(self, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the one weights file, safetensors with config, variables and provenance as JSON in its header."""
        document = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "config": self.config.to_dict(),
            "variables": self.coding.to_dict(),
            "provenance": self.provenance,
        }
        write_tensors(path, {name: t.to(dtype) for name, t in self.state_dict().items()}, document)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> CausalAutoencoder:
        """Read a weights file into a float32 model in evaluation mode.

        Raises
        ------
        CounterfactError
            If the file is missing, damaged, of another kind or version, or its tensors do not fit its config.
        """
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            config, coding = AutoencoderConfig.from_dict(document["config"]), Coding.from_dict(document["variables"])
            _check_shapes(cls, config, coding, tensors)
            if not all(tensor.isfinite().all() for tensor in tensors.values()):
                raise ValueError("some of its numbers are not finite")
            model = cls(config, coding, document["provenance"])
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CounterfactError(f"{path} is no usable autoencoder ({error}); download or export it again") from None
        return model.float().to(device).eval().requires_grad_(False)


def _check_shapes(
    kind: type[nn.Module], config: AutoencoderConfig, coding: Coding, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Raise ValueError if tensors are not those of a config, before its sizes take memory."""
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in kind(config, coding).state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{name} is {found.get(name, 'not there')}, its config wants {wanted.get(name, 'none')}")


def _between(factual: Denoiser, changed: Denoiser, strength: float) -> Denoiser:
    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        before = factual(x, sigma)
        return before + strength * (changed(x, sigma) - before)

    return denoise

