"""The one sampling step that inversion and sampling share, for denoising and for flow models.

Latents are ``x = x0 + sigma * n`` for denoising models (eps and v prediction, variance-exploding convention) and
``x = (1 - sigma) * x0 + sigma * n`` for flow models, 0 <= sigma <= 1; in both a denoiser returns its estimate of
``x0``, so that the prediction's own form does not matter. Ancestral steps: k-diffusion's split of Karras et al. 2022
(EDM), algorithm 2, and its counterpart for rectified flow. eta 0 is the deterministic Euler (DDIM) step.
"""

from __future__ import annotations

import math

import torch


def noised(x0: torch.Tensor, noise: torch.Tensor, sigma: float, flow: bool = False) -> torch.Tensor:
    """A picture at a noise level; any shape.

    >>> noised(torch.ones(1), torch.full((1,), 2.0), 0.5), noised(torch.ones(1), torch.full((1,), 2.0), 0.5, flow=True)
    (tensor([2.]), tensor([1.5000]))
    """
    return (1.0 - sigma) * x0 + sigma * noise if flow else x0 + sigma * noise


def ancestral_split(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """Split a step of a denoising model into a deterministic part down to ``sigma_down`` and noise of ``sigma_up``.

    Returns
    -------
    (sigma_down, sigma_up) with sigma_down**2 + sigma_up**2 = sigma_next**2; eta 0 gives (sigma_next, 0).
    """
    if eta == 0.0 or sigma_next == 0.0:
        return sigma_next, 0.0
    up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - up**2), up


def posterior_mean(x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_down: float) -> torch.Tensor:
    """Where a deterministic step lands: ``D + (sigma_down / sigma) (x - D)``; any shape, any kind of model."""
    return denoised + (sigma_down / sigma) * (x - denoised)


def step_mean(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, eta: float = 1.0, flow: bool = False
) -> torch.Tensor:
    """Where a step lands before fresh noise is added; any shape.

    Parameters
    ----------
    sigma, sigma_next : noise levels, sigma > sigma_next >= 0, at most 1 for flow models
    eta : share of fresh noise, 0 (deterministic) to 1
    """
    if not flow:
        return posterior_mean(x, denoised, sigma, ancestral_split(sigma, sigma_next, eta)[0])
    down = sigma_next * (1.0 + (sigma_next / sigma - 1.0) * eta)
    # Fresh noise takes signal with it, so that what is left must be scaled up to where the straight path would be.
    return (1.0 - sigma_next) / (1.0 - down) * posterior_mean(x, denoised, sigma, down)
