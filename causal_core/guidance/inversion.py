"""Abduction: what a sampler needs to reproduce a given picture exactly.

Two ways to a noisy latent for every level: independent noise at each of them (edit-friendly inversion,
Huberman-Spiegelglas et al., CVPR 2024, equation 6), or the deterministic path run backwards (DDIM inversion, Song et
al., ICLR 2021, section 4.3). Then, for each step, the correction that leads the sampler from one latent to the next:
scaled noise maps in the first case (equation 7), the drift of the inversion in the second (Ju et al., ICLR 2024, direct
inversion). Corrections are taken from the latents reached, so that errors do not build up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ..errors import CounterfactError
from .steps import noised, step_mean

Denoise = Callable[[torch.Tensor, float], torch.Tensor]
METHODS = ("edit-friendly", "ddim")


@dataclass(frozen=True)
class Trajectory:
    """The abducted noise of a picture under one sampler.

    Attributes
    ----------
    sigmas : N + 1 noise levels, falling, the last one 0
    latents : x_0 ... x_N, each [B, C, h, w]; x_N is the picture
    corrections : r_0 ... r_{N-1}, each [B, C, h, w]; x_{i+1} = step_mean(x_i, D(x_i)) + r_i
    eta : share of fresh noise of the sampler, 0 to 1
    flow : whether the model predicts a flow
    made_with : what the trajectory depends on, in words: model, caption, size, steps, sampler
    """

    sigmas: tuple[float, ...]
    latents: tuple[torch.Tensor, ...]
    corrections: tuple[torch.Tensor, ...]
    eta: float = 1.0
    flow: bool = False
    made_with: Mapping[str, str] = field(default_factory=dict)

    def to(self, like: torch.Tensor | str) -> Trajectory:
        """The same with its tensors on the device, and of the type, of ``like``; or on a named device."""
        moved = {name: tuple(t.to(like) for t in getattr(self, name)) for name in ("latents", "corrections")}
        return replace(self, **moved)

    def require(self, **expected: str) -> None:
        """Raise CounterfactError that names the first thing in which the trajectory was made differently."""
        for name, wanted in expected.items():
            found = self.made_with.get(name)
            if found != wanted:
                raise CounterfactError(
                    f"trajectory: it was made with another {name} ({found}, here {wanted}); connect Invert Picture to "
                    "the same inputs, or leave the trajectory unconnected"
                )


def ddim_latents(denoise: Denoise, x0: torch.Tensor, sigmas: Sequence[float], flow: bool = False) -> list[torch.Tensor]:
    """Latents x_0 ... x_{N-1} of the deterministic sampler run backwards from a picture; one evaluation a level."""
    levels = list(sigmas)[:-1][::-1]
    found = [noised(x0, torch.zeros_like(x0), 0.0, flow)]
    for sigma, sigma_next in zip([0.0, *levels], levels):
        # The usual approximation: the estimate for the next level is taken at this one; level 0 has none of its own.
        at = max(sigma, levels[0])
        estimate = denoise(found[-1], at)
        noise = (found[-1] - ((1.0 - at) if flow else 1.0) * estimate) / at
        found.append(noised(estimate, noise, sigma_next, flow))
    return found[:0:-1]


def invert(
    denoise: Denoise,
    x0: torch.Tensor,
    sigmas: Sequence[float],
    seed: int,
    eta: float = 1.0,
    flow: bool = False,
    method: str = "edit-friendly",
    made_with: Mapping[str, str] | None = None,
) -> Trajectory:
    """Abduct the noise of a picture.

    Parameters
    ----------
    denoise : function (x, sigma) -> estimate of x0; the very one that sampling uses as its base
    x0 : latent of the picture, [B, C, h, w]
    sigmas : noise levels, falling, the last one 0; at most 1 for flow models
    seed : of the independent noise, drawn on the CPU; DDIM inversion has none
    eta : share of fresh noise a step, 0 (deterministic sampler) to 1
    flow : whether the model predicts a flow
    method : "edit-friendly" or "ddim"; "ddim" takes twice the evaluations and is meant for eta 0

    Raises
    ------
    CounterfactError
        For another method, or where a step gives numbers that are not finite.
    """
    if method not in METHODS:
        raise CounterfactError(f"method: {method!r} is none of {', '.join(METHODS)}")
    if method == "ddim":
        latents = ddim_latents(denoise, x0, sigmas, flow)
    else:
        generator = torch.Generator("cpu").manual_seed(seed)
        latents = [
            noised(x0, torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0), sigma, flow)
            for sigma in sigmas[:-1]
        ]
    latents.append(x0)
    corrections = []
    for i, (sigma, sigma_next) in enumerate(zip(sigmas, sigmas[1:])):
        estimate = denoise(latents[i], sigma)
        if not torch.isfinite(estimate).all():
            raise CounterfactError(
                f"step {i + 1} of {len(sigmas) - 1} of the inversion gave numbers that are not finite; use fp32"
            )
        mean = step_mean(latents[i], estimate, sigma, sigma_next, eta, flow)
        corrections.append(latents[i + 1] - mean)
        if i + 2 < len(sigmas):
            # What sampling will reach from here, rounding included, so that errors cannot add up.
            latents[i + 1] = mean + corrections[-1]
    return Trajectory(tuple(sigmas), tuple(latents), tuple(corrections), eta, flow, dict(made_with or {}))
