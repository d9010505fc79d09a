"""Methods that swap the caption: keep some of the picture's noise, then denoise with the counterfactual caption."""

from __future__ import annotations

import torch

from ...guidance.inversion import ddim_latents
from ...guidance.steps import posterior_mean
from .setting import INVERSION, Setting, guided, replay, seeded_noise


def img2img(setting: Setting, share: float = 0.6, scale: float = 2.0) -> torch.Tensor:
    """Plain image-to-image (SDEdit, Meng et al., ICLR 2022): noise the picture, denoise with the new caption.

    ``share`` of the noise levels, the lower ones, are run; ``scale`` is that of classifier-free guidance.
    """
    denoise = setting.denoiser([setting.target, ""])
    kept = setting.sigmas[round((1.0 - share) * (len(setting.sigmas) - 1)) :]
    x = setting.x0 + kept[0] * seeded_noise(setting)
    for sigma, sigma_next in zip(kept, kept[1:]):
        x = posterior_mean(x, guided(denoise, x, sigma, scale), sigma, sigma_next)
    return x


def ddim(setting: Setting, scale: float = 1.0) -> torch.Tensor:
    """DDIM inversion with the factual caption, then sampling with the counterfactual one (Song et al., ICLR 2021, 4.3).

    Deterministic: the seed is not used.
    """
    inverting, denoise = setting.denoiser([setting.factual], INVERSION), setting.denoiser([setting.target, ""])
    x = ddim_latents(lambda x, sigma: inverting(x, sigma, [0])[0], setting.x0, setting.sigmas)[0]
    for sigma, sigma_next in zip(setting.sigmas, setting.sigmas[1:]):
        x = posterior_mean(x, guided(denoise, x, sigma, scale), sigma, sigma_next)
    return x


def edit_friendly(setting: Setting, scale: float = 1.0) -> torch.Tensor:
    """Edit-friendly inversion, then the counterfactual caption (Huberman-Spiegelglas et al., CVPR 2024)."""
    denoise = setting.denoiser([setting.target, ""])
    return replay(setting.trajectory(setting.factual), lambda i, x: guided(denoise, x, setting.sigmas[i], scale))
