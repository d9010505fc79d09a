"""The one sampling step that inversion and sampling share: Euler ancestral in sigma space.

Latents follow the variance-exploding convention ``x = x0 + sigma * n``; a denoiser returns its estimate of ``x0``.
Step: Karras et al. 2022 (EDM), algorithm 2 with the ancestral split of k-diffusion.
"""

from __future__ import annotations

import math

import torch


def ancestral_split(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Split a step into a deterministic part down to ``sigma_down`` and fresh noise of level ``sigma_up``.

    Returns
    -------
    (sigma_down, sigma_up) with sigma_down**2 + sigma_up**2 = sigma_next**2; eta 0 gives (sigma_next, 0).
    """
    if eta == 0.0 or sigma_next == 0.0:
        return sigma_next, 0.0
    up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - up**2), up


def posterior_mean(x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_down: float) -> torch.Tensor:
    """Where the deterministic part of a step lands: ``D + (sigma_down / sigma) (x - D)``; any shape."""
    return denoised + (sigma_down / sigma) * (x - denoised)
