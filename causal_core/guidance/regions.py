"""Where a concept changes the picture: its attention maps and the size of its direction, as a mask from 0 to 1.

Magnitude masks follow DiffEdit (Couairon et al., ICLR 2023, section 3.2), averaged over noise levels of the picture's
own trajectory; their product with attention maps follows LEDITS++ (Brack et al., CVPR 2024, equations 9 to 11), here
soft and with a guard against an empty intersection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def normalised(image: torch.Tensor, quantile: float = 0.98) -> torch.Tensor:
    """Scale a map [h, w] so that 0 stays 0 and its quantile becomes 1; larger values are clipped."""
    top = torch.quantile(image.flatten().float(), quantile)
    return (image / top.clamp_min(1e-8)).clamp(0.0, 1.0)


def magnitude(direction: torch.Tensor) -> torch.Tensor:
    """Root mean square over batch and channels of a direction [B, C, h, w]: [h, w]."""
    return direction.float().pow(2).mean((0, 1)).sqrt()


def soft_threshold(image: torch.Tensor, threshold: float, width: float) -> torch.Tensor:
    """A smooth step from 0 to 1 around ``threshold``, ``width`` wide."""
    return ((image - threshold) / width + 0.5).clamp(0.0, 1.0)


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of a map [h, w], repeating the border; ``sigma`` in latent pixels, 0 for none."""
    if sigma <= 0.0:
        return image
    reach = max(1, int(2.5 * sigma + 0.5))
    x = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def dilated(image: torch.Tensor, pixels: int) -> torch.Tensor:
    """The maximum within ``pixels`` latent pixels, [h, w]."""
    if pixels <= 0:
        return image
    return F.max_pool2d(image[None, None], 2 * pixels + 1, stride=1, padding=pixels)[0, 0]


def region(
    size: torch.Tensor,
    attention: torch.Tensor | None = None,
    threshold: float = 0.2,
    attention_weight: float = 0.5,
    grow: int = 1,
) -> torch.Tensor:
    """The region of one concept.

    Parameters
    ----------
    size : mean magnitude of the concept's direction, [h, w]
    attention : mean attention to the concept's tokens, [h, w], or None where the model gives none
    threshold : 0 to 1, of the largest magnitude; lower is wider
    attention_weight : 0 to 1; how far attention may lower the magnitude's say
    grow : latent pixels by which the region is widened

    Returns
    -------
    float32 [h, w], 0 to 1
    """
    strength = normalised(size)
    if attention is not None and attention_weight > 0.0:
        looked_at = normalised(attention - attention.min())
        weighted = strength * (1.0 - attention_weight + attention_weight * looked_at)
        # An intersection that all but vanishes says that attention looks elsewhere, at an absent object for example.
        if weighted.mean() >= 0.25 * strength.mean():
            strength = normalised(weighted)
    return dilated(soft_threshold(strength, threshold, threshold), grow)
