"""Noise levels of the decoder, and its probability-flow ODE solved in both directions.

Decoding is DDIM (Song et al. 2021, equation 12, eta = 0) in the variance-exploding form x = x0 + sigma * noise, where
it is Euler's method on dx/dsigma = (x - D(x, sigma)) / sigma. Encoding solves each of the same steps backwards, by
fixed-point iteration, so that decoding what was encoded returns it: the inversion that the published algorithm of
CausalDiffAE asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F

from ..demo import schedule as cosine
from ..errors import unknown

STEPS = cosine.STEPS
# The ODE runs between these. Below, noise cannot be seen; above, nothing of a picture is left.
SIGMA_MIN, SIGMA_MAX = 0.02, 40.0
SIGMA_DATA = 0.5
ROUNDS = 3
# An intervention changes the picture where it changes the drawing, in -1..1, by more than this, and as far around as
# this share of a side.
CHANGED, MARGIN = 0.2, 1 / 21

Denoiser = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@cache
def sigmas(schedule: str = "cosine", device: torch.device | str = "cpu") -> torch.Tensor:
    """The 1000 rising noise levels of a training schedule, "cosine" or the paper's "linear"; do not write to it."""
    if schedule == "cosine":
        return cosine.sigmas().to(device)
    if schedule != "linear":
        raise unknown("noise schedule", schedule, ("cosine", "linear"))
    bar = (1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)).cumprod(0)
    return ((1 - bar) / bar).sqrt().float().to(device)


def timestep(sigma: torch.Tensor, schedule: str = "cosine") -> torch.Tensor:
    """The timestep, 0 to 999 and fractional, of noise levels [B]: linear between the levels' logarithms."""
    logs = sigmas(schedule, sigma.device).log()
    at = sigma.float().log().clamp(logs[0], logs[-1])
    above = torch.searchsorted(logs, at).clamp(1, STEPS - 1)
    low, high = logs[above - 1], logs[above]
    return above - 1 + (at - low) / (high - low)


def levels(steps: int, schedule: str = "cosine") -> torch.Tensor:
    """Rising noise levels of the ODE, [steps + 1], evenly spaced in time from SIGMA_MIN to SIGMA_MAX."""
    ends = timestep(torch.tensor([SIGMA_MIN, SIGMA_MAX]), schedule)
    t = torch.linspace(float(ends[0]), float(ends[1]), steps + 1)
    logs = sigmas(schedule).log()
    low = t.long().clamp_max(STEPS - 2)
    return (logs[low] + (t - low) * (logs[low + 1] - logs[low])).exp()


def decode(denoise: Denoiser, x: torch.Tensor, rising: torch.Tensor) -> torch.Tensor:
    """Pictures from noise.

    Parameters
    ----------
    denoise : called as denoise(x, sigma [B]), gives the estimate of x0
    x : [B, C, H, W] at the highest level
    rising : noise levels, lowest first, [steps + 1]
    """
    falling = [float(s) for s in rising.flip(0)]
    for sigma, to in zip(falling, falling[1:]):
        x = x + (to / sigma - 1) * (x - denoise(x, x.new_full((len(x),), sigma)))
    return x


def encode(denoise: Denoiser, x: torch.Tensor, rising: torch.Tensor, rounds: int = ROUNDS) -> torch.Tensor:
    """Noise [B, C, H, W] at the highest level that :func:`decode` turns into the pictures ``x``.

    Each step of :func:`decode` is to = x + (to / sigma - 1) (x - D(x, sigma)); it is solved for x by ``rounds``
    evaluations of D. What D would be for Gaussian pictures, SIGMA_DATA^2 / (SIGMA_DATA^2 + sigma^2) x (Karras et al.
    2022, table 1), is solved exactly and only the rest iterated: that converges many times faster. The usual DDIM
    inversion is a single round without it, and only nearly returns the picture.
    """
    rising = [float(s) for s in rising]
    for low, sigma in zip(rising, rising[1:]):
        level, share, source = x.new_full((len(x),), sigma), 1 - low / sigma, x
        linear = SIGMA_DATA**2 / (SIGMA_DATA**2 + sigma**2)
        for _ in range(rounds):
            x = (source - share * (denoise(x, level) - linear * x)) / (1 - share * (1 - linear))
    return x


def released(noise: torch.Tensor, before: torch.Tensor, after: torch.Tensor, kept: float) -> torch.Tensor:
    """x_T with a share ``kept`` of itself where an intervention changes the picture, all [B, C, H, W].

    Where latents say something else than before, what x_T holds is where the decoder erred on the factual picture: kept
    whole, remains of what was there shine through. But it also holds what no latent says, such as the grain of a
    surface that is only recoloured. ``before`` and ``after`` are drawings of the latents.
    """
    changed = (after - before).abs().amax(1, keepdim=True)
    radius = max(1, round(MARGIN * changed.shape[-1]))
    near = F.max_pool2d(changed, 2 * radius + 1, 1, radius) > CHANGED
    return torch.where(near, kept * noise, noise)
