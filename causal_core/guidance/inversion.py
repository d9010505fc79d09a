"""Abduction: the noise that makes a sampler reproduce a given picture exactly.

Edit-friendly inversion (Huberman-Spiegelglas et al., CVPR 2024, equations 6 and 7) in sigma space: latents of
independent noise at every level, and the noise maps that lead a stochastic sampler from each to the next. Because the
maps are taken from the latents reached, errors do not build up; the last step keeps what is left as a residual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .steps import ancestral_split, posterior_mean

Denoise = Callable[[torch.Tensor, float], torch.Tensor]


@dataclass(frozen=True)
class Trajectory:
    """The abducted noise of a picture under one sampler.

    Attributes
    ----------
    sigmas : N + 1 noise levels, falling, the last one 0
    latents : x_0 ... x_N, each [B, C, h, w]; x_N is the picture
    noises : z_0 ... z_{N-2}, each [B, C, h, w]; not of unit variance
    residual : picture minus the last prediction, [B, C, h, w]
    """

    sigmas: tuple[float, ...]
    latents: tuple[torch.Tensor, ...]
    noises: tuple[torch.Tensor, ...]
    residual: torch.Tensor


def invert(denoise: Denoise, x0: torch.Tensor, sigmas: Sequence[float], seed: int, eta: float = 1.0) -> Trajectory:
    """Abduct the noise of a picture.

    Parameters
    ----------
    denoise : function (x, sigma) -> estimate of x0; the very one that sampling uses as its base
    x0 : latent of the picture, [B, C, h, w]
    sigmas : noise levels, falling, the last one 0
    seed : of the independent noise, drawn on the CPU
    eta : share of fresh noise a step, above 0 and at most 1
    """
    generator = torch.Generator("cpu").manual_seed(seed)

    def noise() -> torch.Tensor:
        return torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0)

    latents = [x0 + sigma * noise() for sigma in sigmas[:-1]]
    noises = []
    for i, (sigma, sigma_next) in enumerate(zip(sigmas[:-2], sigmas[1:-1])):
        down, up = ancestral_split(sigma, sigma_next, eta)
        mean = posterior_mean(latents[i], denoise(latents[i], sigma), sigma, down)
        noises.append((latents[i + 1] - mean) / up)
        # What sampling will reach from here, rounding included, so that errors cannot add up.
        latents[i + 1] = mean + up * noises[-1]
    residual = x0 - denoise(latents[-1], sigmas[-2])
    return Trajectory(tuple(sigmas), (*latents, x0), tuple(noises), residual)
