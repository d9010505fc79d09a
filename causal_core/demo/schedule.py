"""The noise schedule and v-prediction in sigma space, and a sampler for previews and evaluation.

Cosine schedule of Nichol and Dhariwal 2021 (eq. 17) and v-prediction of Salimans and Ho 2022, with the same 1000 sigmas
and the same rounding of sigma to a timestep as ComfyUI's `ModelSamplingDiscrete` with `{"beta_schedule": "cosine"}`.
All functions use the variance exploding form x = x0 + sigma * noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch

STEPS = 1000
SAMPLING_SETTINGS = {"beta_schedule": "cosine", "timesteps": STEPS}

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@cache
def sigmas() -> torch.Tensor:
    """The 1000 noise levels, float32, rising from about 0.006 to about 20000; do not write to it."""
    s = 8e-3
    angles = (torch.arange(STEPS + 1, dtype=torch.float64) / STEPS + s) / (1 + s) * (math.pi / 2)
    bar = angles.cos() ** 2
    betas = (1 - bar[1:] / bar[:-1]).clamp(0, 0.999)
    cumulative = (1 - betas).cumprod(0)
    return ((1 - cumulative) / cumulative).sqrt().float()


def timestep(sigma: torch.Tensor) -> torch.Tensor:
    """The timestep, 0 to 999, whose sigma is nearest on a logarithmic scale; any shape."""
    logs = sigmas().to(sigma.device).log()
    return (sigma.float().log()[..., None] - logs).abs().argmin(-1)


def _like(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return sigma.to(x).reshape(-1, *[1] * (x.ndim - 1))


def scale_input(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What the UNet sees of x = x0 + sigma * noise: scaled to about unit variance; sigma [B]."""
    return x / (_like(sigma, x) ** 2 + 1) ** 0.5


def v_target(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """What the UNet should predict: (noise - sigma * x0) / sqrt(sigma^2 + 1); sigma [B]."""
    s = _like(sigma, x0)
    return (noise - s * x0) / (s**2 + 1) ** 0.5


def from_v(x: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The denoised x0 that a prediction v stands for, given x = x0 + sigma * noise; sigma [B]."""
    s = _like(sigma, x)
    return x / (s**2 + 1) - v * s / (s**2 + 1) ** 0.5


def denoised(unet: Callable, x: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The UNet's estimate of x0.

    Parameters
    ----------
    unet : called as unet(x, t, context, return_dict=False)[0], as diffusers' are
    x : x0 + sigma * noise, [B, C, H, W]
    sigma : [B]
    context : text encoder output, [B, L, W]
    """
    v = unet(scale_input(x, sigma), timestep(sigma), context, return_dict=False)[0]
    return from_v(x, v.to(x), sigma)


def sampling_sigmas(steps: int, skip: float = 0.0) -> torch.Tensor:
    """Falling noise levels, evenly spaced in time, and a final 0: [steps + 1].

    The levels of ComfyUI's scheduler "simple". ``skip`` (0 to below 1) leaves out that share of the time, the noisiest,
    and spreads the steps over the rest: above a sigma of a few tens nothing of a picture is left to edit.
    """
    total = max(steps, round(steps / (1.0 - skip)))
    t = [STEPS - 1 - int(i * STEPS / total) for i in range(total - steps, total)]
    return torch.cat([sigmas()[t], torch.zeros(1)])


def solve(denoise: Denoiser, x: torch.Tensor, levels: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Deterministic DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) from noise level to noise level.

    Parameters
    ----------
    denoise : called as denoise(x, sigma [B]), gives the estimate of x0
    x : start, x0 + levels[0] * noise
    levels : falling sigmas; a final 0 gives the denoised result
    """
    levels = [float(level) for level in levels]
    before = step_before = None
    for sigma, to in zip(levels[:-1], levels[1:]):
        x0 = denoise(x, x.new_full((len(x),), sigma))
        if to == 0:
            return x0
        step = math.log(sigma / to)
        estimate = x0 if before is None else x0 + (x0 - before) * (step / step_before) / 2
        x = (to / sigma) * x - math.expm1(-step) * estimate
        before, step_before = x0, step
    return x
