"""Mask inpainting with the true mask: what a method can do that is told where the picture changes.

An upper reference for "where", not for "what": the pixels inside the mask are drawn anew, so that nothing of the
picture there, such as textures and exact shapes, is kept.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import CounterfactError
from ...guidance.steps import ancestral_split, noised, step_mean
from .setting import Setting, guided


def latent_mask(changed: np.ndarray, grid: tuple[int, int]) -> torch.Tensor:
    """Latent positions that hold a changed pixel: float32 [h, w], 0 or 1, from bool [H, W].

    >>> latent_mask(np.eye(4, dtype=bool), (2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    return F.adaptive_max_pool2d(torch.from_numpy(changed)[None, None].float(), grid)[0, 0]


def inpaint_true_mask(setting: Setting, scale: float = 1.0) -> torch.Tensor:
    """Draw the masked part anew with the counterfactual caption, the noised picture around it at every step.

    Replacement as in RePaint (Lugmayr et al., CVPR 2022, equation 8, without resampling), with independent noise at
    every level; no inversion is needed. On twelve tuning scenes guidance 1.5 gave the same PSNR to 0.1 dB for twice the
    evaluations, and one fixed noise with a deterministic sampler 0.5 dB less.

    Raises
    ------
    CounterfactError
        Without ``setting.changed``.
    """
    if setting.changed is None:
        raise CounterfactError("inpaint_true_mask needs the true mask: give the setting's `changed`")
    inside, x0, sigmas = setting.changed.to(setting.x0), setting.x0, setting.sigmas
    denoise = setting.denoiser([setting.target, ""])
    generator = torch.Generator("cpu").manual_seed(setting.seed)

    def noise() -> torch.Tensor:
        return torch.randn(x0.shape, generator=generator).to(x0)

    def kept(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return inside * x + (1.0 - inside) * noised(x0, noise(), sigma)

    # Without a picture in it, the start needs the variance that noised pictures have.
    x = kept((1.0 + sigmas[0] ** 2) ** 0.5 * noise(), sigmas[0])
    for sigma, sigma_next in zip(sigmas, sigmas[1:]):
        mean = step_mean(x, guided(denoise, x, sigma, scale), sigma, sigma_next)
        x = kept(mean + ancestral_split(sigma, sigma_next)[1] * noise(), sigma_next)
    return x
