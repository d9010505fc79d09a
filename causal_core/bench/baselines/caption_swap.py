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


def ddim(setting: Setting, scale: float = 2.0) -> torch.Tensor:
    """DDIM inversion with the factual caption, then sampling with the counterfactual one (Song et al., ICLR 2021, 4.3).

    Deterministic: the seed is not used. On twelve scenes of the seeds 50 and 51 guidance 2 reaches 28.7 dB to the
    truth and everything that is asked for, guidance 1 27.6 dB and 83 % of the interventions.
    """
    inverting, denoise = setting.denoiser([setting.factual], INVERSION), setting.denoiser([setting.target, ""])
    x = ddim_latents(lambda x, sigma: inverting(x, sigma, [0])[0], setting.x0, setting.sigmas)[0]
    for sigma, sigma_next in zip(setting.sigmas, setting.sigmas[1:]):
        x = posterior_mean(x, guided(denoise, x, sigma, scale), sigma, sigma_next)
    return x


def edit_friendly(setting: Setting, scale: float = 1.25) -> torch.Tensor:
    """Edit-friendly inversion, then the counterfactual caption (Huberman-Spiegelglas et al., CVPR 2024).

    Inverted at guidance 1, which makes it exact. On twelve scenes of the seeds 50 and 51 guidance 1.25 reaches 31.1 dB
    to the truth and everything that is asked for, 1.5 30.9 dB and the same, 1 30.8 dB and 92 % of the interventions.
    """
    denoise = setting.denoiser([setting.target, ""])
    return replay(setting.trajectory(setting.factual), lambda i, x: guided(denoise, x, setting.sigmas[i], scale))
