"""Where a concept changes the picture: the size of its direction and its attention maps, as a mask from 0 to 1.

Magnitude masks follow DiffEdit (Couairon et al., ICLR 2023, section 3.2); their product with attention maps follows
LEDITS++ (Brack et al., CVPR 2024, equations 9 to 11), here soft, with thresholds taken inside the user's mask and with
a guard against an empty intersection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

PEAK = 1 / 256


def normalised(image: torch.Tensor, within: torch.Tensor | None = None) -> torch.Tensor:
    """Scale a map [h, w] so that 0 stays 0 and its peak becomes 1; larger values are clipped.

    The peak is the mean of the largest values, one of 256, among those where ``within`` is above one half.
    """
    inside = image[within > 0.5] if within is not None and bool((within > 0.5).any()) else image.flatten()
    peak = inside.float().topk(max(1, round(PEAK * inside.numel()))).values.mean()
    return (image / peak.clamp_min(1e-8)).clamp(0.0, 1.0)


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
    threshold: float = 0.1,
    attention_weight: float = 0.25,
    grow: int = 0,
    within: torch.Tensor | None = None,
    protected: torch.Tensor | None = None,
) -> torch.Tensor:
    """The region of one concept.

    Parameters
    ----------
    size : magnitude of the concept's direction, [h, w]
    attention : mean attention to the concept's tokens, [h, w], or None where the model gives none
    threshold : above 0 to 1, of the largest magnitude; lower is wider
    attention_weight : 0 to 1; how far attention may lower the magnitude's say
    grow : latent pixels by which the region is widened
    within : mask [h, w], 0 to 1, that bounds the region; the largest magnitude is that inside of it
    protected : 0 to 1, [h, w], how far the region must keep away, such as from invariant concepts

    Returns
    -------
    float32 [h, w], 0 to 1
    """
    strength = normalised(size, within)
    if attention is not None and attention_weight > 0.0:
        looked_at = normalised(attention - attention.min(), within)
        weighted = strength * (1.0 - attention_weight + attention_weight * looked_at)
        # An intersection that all but vanishes says that attention looks elsewhere, at an absent object for example.
        if weighted.mean() >= 0.25 * strength.mean():
            strength = normalised(weighted, within)
    if protected is not None:
        strength = strength * (1.0 - protected)
    found = dilated(soft_threshold(strength, threshold, 1.25 * threshold), grow)
    return found if within is None else found * within


def misses(size: torch.Tensor, within: torch.Tensor, threshold: float) -> bool:
    """Whether a mask [h, w] leaves out all of a change: inside of it there is less than ``threshold`` of the most."""
    return bool((size * (within > 0.5)).max() < threshold * size.max())


def protection(own: torch.Tensor | None, others: Sequence[torch.Tensor], amount: float) -> torch.Tensor | None:
    """How far a concept must keep away from the invariant ones: 0 to 1, [h, w]; None where it need not.

    Parameters
    ----------
    own : attention to the concept, [h, w]
    others : attention to each invariant concept, [h, w]
    amount : 0 (off) to 1 (nothing changes where only an invariant concept is attended to)
    """
    if own is None or not others or amount <= 0.0:
        return None
    theirs = torch.stack([normalised(image - image.min()) for image in others]).amax(0)
    return amount * theirs * (1.0 - normalised(own - own.min()))


def union(regions: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Where any of the regions is, [h, w]; there must be one at least."""
    return torch.stack(list(regions.values())).amax(0)


def shared(regions: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Overlaps shared out, so that nowhere more than a whole region acts: ``W_k / max(1, sum_j W_j)``."""
    total = torch.stack(list(regions.values())).sum(0).clamp_min(1.0) if regions else None
    return {name: image / total for name, image in regions.items()}
