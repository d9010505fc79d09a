"""Known editing methods on the same denoiser, the same noise levels and the same captions as ours.

Each is a function of a denoiser over the rows (factual caption, counterfactual caption, empty caption), the latent of
the picture, the noise levels and a seed; it returns the edited latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..guidance.csg import Rows
from ..guidance.inversion import invert
from ..guidance.steps import ancestral_split, posterior_mean

FACTUAL, TARGET, EMPTY = 0, 1, 2


def _guided(denoise: Rows, x: torch.Tensor, sigma: float, scale: float) -> torch.Tensor:
    """Classifier-free guidance towards the counterfactual caption; scale 1 is the caption alone."""
    if scale == 1.0:
        return denoise(x, sigma, [TARGET])[0]
    target, empty = denoise(x, sigma, [TARGET, EMPTY])
    return empty + scale * (target - empty)


def img2img(
    denoise: Rows, x0: torch.Tensor, sigmas: Sequence[float], seed: int, share: float = 0.6, scale: float = 2.0
) -> torch.Tensor:
    """Plain image-to-image (SDEdit, Meng et al., ICLR 2022): noise the picture, denoise with the new caption.

    ``share`` of the noise levels, the lower ones, are run.
    """
    kept = list(sigmas)[round((1.0 - share) * (len(sigmas) - 1)) :]
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    x = x0 + kept[0] * noise.to(x0)
    for sigma, sigma_next in zip(kept, kept[1:]):
        x = posterior_mean(x, _guided(denoise, x, sigma, scale), sigma, sigma_next)
    return x


def ddim(denoise: Rows, x0: torch.Tensor, sigmas: Sequence[float], seed: int, scale: float = 1.0) -> torch.Tensor:
    """DDIM inversion with the factual caption, then sampling with the counterfactual one (Song et al., ICLR 2021, 4.3).

    Deterministic: ``seed`` is not used.
    """
    levels = list(sigmas)[:-1][::-1]
    x = x0 + 0.0
    for sigma, sigma_next in zip([0.0, *levels], levels):
        # The usual approximation: the noise estimate of the next level is taken at this one.
        estimate = denoise(x, max(sigma, levels[0]), [FACTUAL])[0]
        noise = (x - estimate) / max(sigma, levels[0])
        x = estimate + sigma_next * noise
    for sigma, sigma_next in zip(sigmas, sigmas[1:]):
        x = posterior_mean(x, _guided(denoise, x, sigma, scale), sigma, sigma_next)
    return x


def edit_friendly(
    denoise: Rows, x0: torch.Tensor, sigmas: Sequence[float], seed: int, scale: float = 1.0
) -> torch.Tensor:
    """Edit-friendly inversion, then the counterfactual caption (Huberman-Spiegelglas et al., CVPR 2024)."""
    trajectory = invert(lambda x, sigma: denoise(x, sigma, [FACTUAL])[0], x0, sigmas, seed)
    x = trajectory.latents[0]
    for i, (sigma, sigma_next) in enumerate(zip(sigmas[:-2], sigmas[1:-1])):
        down, _ = ancestral_split(sigma, sigma_next)
        x = posterior_mean(x, _guided(denoise, x, sigma, scale), sigma, down) + trajectory.corrections[i]
    return _guided(denoise, x, sigmas[-2], scale)


BASELINES = {"img2img": img2img, "ddim": ddim, "edit_friendly": edit_friendly}
