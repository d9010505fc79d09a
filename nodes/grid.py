"""Masks of a picture as regions of its latent, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ..causal_core.errors import CounterfactError


def flat(masks: torch.Tensor) -> torch.Tensor:
    """A MASK as [B, H, W], whatever number of dimensions it has."""
    return masks.reshape(-1, *masks.shape[-2:])


def ratio_of(model) -> int:
    """Pixels of a picture, along one side, that a MODEL's latent has one pixel for."""
    return model.get_model_object("latent_format").spacial_downscale_ratio


def regions_of_picture(
    masks: torch.Tensor, plan, picture: int, images: int, name: str = "regions"
) -> dict[str, torch.Tensor]:
    """The masks [H, W] of one of several pictures by affected concept.

    Parameters
    ----------
    masks : MASK of 1, K or K * images masks for the K affected concepts of the plan; 1 stands for all concepts, K for
        all pictures
    name : of the input
    """
    names, masks = [item.name for item in plan.affected], flat(masks)
    if len(masks) not in (1, len(names), len(names) * images):
        raise CounterfactError(
            f"{name}: there are {len(masks)} masks for {len(names)} affected concepts ({', '.join(names)}); give one "
            "for each in this order, or one for all"
        )
    first = picture * len(names) if len(masks) == len(names) * images else 0
    return dict(zip(names, masks.expand(len(names), -1, -1) if len(masks) == 1 else masks[first:]))


def on_grid(
    masks: torch.Tensor | None, plan, grid: tuple[int, int], ratio: int, picture: int = 0, images: int = 1
) -> dict[str, torch.Tensor]:
    """The user's own regions of one of several pictures, [h, w] each; none if there are none.

    Parameters
    ----------
    masks : see :func:`regions_of_picture`, or None
    grid : (h, w) of the latent
    ratio : pixels of the picture a latent pixel

    Raises
    ------
    CounterfactError
        If number or size of the masks do not fit, or all of one picture are empty.
    """
    if masks is None or not plan.affected:
        return {}
    found = regions_of_picture(masks, plan, picture, images)
    require_size(masks, grid, ratio, "regions: the masks are", "them")
    small = F.interpolate(torch.stack(list(found.values()))[:, None].float(), size=grid, mode="area")[:, 0].clamp(0, 1)
    if not bool(small.any()):
        raise CounterfactError("regions: the masks are empty; paint where the concepts may change")
    return dict(zip(found, small))


def require_size(masks: torch.Tensor, grid: tuple[int, int], ratio: int, told: str, them: str) -> None:
    """Raise CounterfactError for masks [..., H, W] that are of another size than the picture, or the latent (h, w)."""
    (height, width), (mask_height, mask_width) = grid, masks.shape[-2:]
    off = max(abs(mask_height - ratio * height), abs(mask_width - ratio * width))
    # Pictures whose sides are no multiples of the ratio are cropped by the VAE, masks are not.
    if off >= ratio and (mask_height, mask_width) != (height, width):
        raise CounterfactError(
            f"{told} {mask_width} x {mask_height} pixels, but the picture is {ratio * width} x {ratio * height}; scale "
            f"{them} to the size of the picture"
        )


def require_mask(latent: Mapping, ratio: int) -> None:
    """Raise CounterfactError for a noise mask that does not fit its latent in size or number."""
    mask, samples = latent.get("noise_mask"), latent["samples"]
    if mask is None:
        return
    require_size(mask, tuple(samples.shape[-2:]), ratio, "latent: its noise mask is", "the mask")
    masks = mask.shape[0] if mask.ndim > 2 else 1
    if masks not in (1, len(samples)):
        raise CounterfactError(
            f"latent: it has {len(samples)} pictures and {masks} masks; give it one mask, or one for each"
        )


def enlarged(plan, found: Sequence[Mapping[str, torch.Tensor]], grid: tuple[int, int], ratio: int) -> torch.Tensor:
    """Regions of the affected concepts as MASK [images * concepts, H, W]; one empty mask if nothing is affected.

    Parameters
    ----------
    found : one dict of regions [h, w] by concept a picture
    grid : (h, w) of the latent
    ratio : pixels of the picture a latent pixel
    """
    empty = torch.zeros(*grid)
    regions = [one.get(item.name, empty).float().cpu() for one in found for item in plan.affected]
    stacked = torch.stack(regions or [empty])[:, None]
    return F.interpolate(stacked, scale_factor=ratio, mode="bilinear")[:, 0].clamp(0, 1)
