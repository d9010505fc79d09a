"""The last step of an edit: pixels of the source wherever nothing was meant to change, pixels of the edit elsewhere.

A VAE loses a little everywhere and instruction-following editors drift everywhere. Blending pixels with the source, one
of the ways to restore a background in Avrahami et al. (Blended Latent Diffusion, SIGGRAPH 2023), ends both outside the
mask. Masks here have a border of known width, so that "outside" is exact and not nearly so.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F

from ..errors import CounterfactError, finite, unknown

LEVEL = 0.75
RIM = 32
RATIOS = 4, 8, 16, 32
FITS = STRETCH, CROP, SAME_SCALE = "stretch", "centred crop", "same scale"


def composite(source: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Blend two pictures: ``mask * edited + (1 - mask) * source``.

    Parameters
    ----------
    source, edited : float [B, H, W, C], 0 to 1; one of them may have a batch of 1
    mask : float [B or 1, H, W], 0 to 1

    Returns
    -------
    [B, H, W, C] with the type and on the device of ``source``. Pixels are the source's bit for bit where the mask is 0,
    and the edit's where it is 1, whatever the other picture holds there; where both agree nothing changes either.

    Raises
    ------
    CounterfactError
        If the sizes do not fit or the mask has other numbers than 0 to 1.

    Examples
    --------
    >>> source, edited = torch.zeros(1, 1, 3, 3), torch.full((1, 1, 3, 3), 0.8)
    >>> composite(source, edited, torch.tensor([[[0.0, 0.5, 1.0]]]))[..., 0]
    tensor([[[0.0000, 0.4000, 0.8000]]])
    """
    for name, picture in (("source", source), ("edited", edited)):
        if picture.ndim != 4:
            raise CounterfactError(f"{name}: a picture has the shape [B, H, W, C], not {list(picture.shape)}")
    if edited.shape[1:] != source.shape[1:]:
        raise CounterfactError(
            f"edited: it is {_sized(edited)}, but the source is {_sized(source)}; scale it to the size of the source"
        )
    _check_mask(mask)
    if mask.shape[1:] != source.shape[1:3]:
        raise CounterfactError(
            f"mask: it is {mask.shape[2]} x {mask.shape[1]} pixels, but the source is {_sized(source)}; scale it to "
            "the size of the source"
        )
    batch = max(len(source), len(edited))
    for name, given in (("source", source), ("edited", edited), ("mask", mask)):
        if len(given) not in (1, batch):
            raise CounterfactError(f"{name}: it has {len(given)} items for {batch} pictures; give it 1 or {batch}")
    edited, mask = edited.to(source), mask.to(source)[..., None]
    blend = torch.lerp(source, edited, mask)
    return torch.where(mask == 0, source, torch.where(mask == 1, edited, blend))


def feathered(mask: torch.Tensor, grow: int, feather: int) -> torch.Tensor:
    """Widen a mask, then let it fade out.

    Parameters
    ----------
    mask : float [B, H, W], 0 to 1
    grow : pixels, 0 and up, by which every value is spread to all sides
    feather : pixels, 0 and up, of the fading border that comes after; an even number fades most evenly

    Returns
    -------
    [B, H, W], 0 to 1: nowhere darker than ``mask``, exactly 1 up to ``grow`` pixels from where it is 1, and exactly 0
    further than ``grow + feather`` pixels from where it is not 0. Distances are along rows and columns; a mask that
    meets the edge of the picture does not fade towards it.

    Examples
    --------
    >>> feathered(torch.tensor([[[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]]), grow=1, feather=2)
    tensor([[[0.0000, 0.3333, 0.6667, 1.0000, 1.0000, 1.0000]]])
    """
    blur = feather // 2
    wide = _largest(mask, grow + feather - blur)
    # Two passes make an even slope without kinks. Means of ones and of zeros are exact.
    return _mean(_mean(wide, blur - blur // 2), blur // 2)


def pixel_mask(
    regions: Iterable[torch.Tensor],
    size: tuple[int, int],
    feather: int,
    ratio: int | None = None,
    level: float = LEVEL,
) -> torch.Tensor:
    """Where a picture may change, from regions in latent pixels.

    The union of the regions is enlarged to the picture; it is 1 where it reaches ``level`` and fades out from there.
    A region's own soft values do not weaken the edit a second time: the sampler has already blended with them.

    Parameters
    ----------
    regions : float [h, w] each, 0 to 1; none of them gives an empty mask
    size : height and width of the picture
    feather : pixels, 0 and up
    ratio : pixels of the picture a latent pixel. Needed where the picture's sides are no multiples of it: ComfyUI's VAE
        then cuts off a rim of less than ``ratio`` pixels, centred. The mask is 0 there, and fades towards it.
    level : above 0, up to 1

    Returns
    -------
    float32 [H, W], exactly 0 from ``feather`` pixels outside the union on

    Raises
    ------
    CounterfactError
        If the regions have other sizes than each other or than the picture divided by ``ratio``.

    Examples
    --------
    >>> region = torch.tensor([[0.0, 1.0]])
    >>> pixel_mask([region], (4, 8), feather=2).mean(0)
    tensor([0.0000, 0.0000, 0.0000, 0.3333, 0.6667, 1.0000, 1.0000, 1.0000])
    """
    regions, (height, width) = list(regions), size
    if not regions:
        return torch.zeros(height, width)
    grid = regions[0].shape
    for region in regions:
        if region.ndim != 2 or region.shape != grid:
            raise CounterfactError(f"regions: they must all be [h, w] and of one size, not {list(region.shape)}")
        _check_mask(region[None], "regions")
    h, w = grid
    exact = ratio is None
    ratio = max(1, height // h) if ratio is None else ratio
    if (height // ratio, width // ratio) != (h, w) or (exact and (h * ratio, w * ratio) != size):
        raise CounterfactError(
            f"regions: {w} x {h} latent pixels of {ratio} pixels each do not make a picture of {width} x {height}; "
            "give the ratio of the VAE, and the size of the picture that was encoded"
        )
    union = torch.stack([region.float() for region in regions]).amax(0)
    large = F.interpolate(union[None, None], scale_factor=ratio, mode="bilinear")[0]
    inside, covered = _placed((large >= finite(level, "level", 1e-6, 1.0)).float()[..., None], (height, width))
    return within(feathered(inside[..., 0], 0, feather), covered, feather)[0]


def within(mask: torch.Tensor, covered: torch.Tensor, feather: int) -> torch.Tensor:
    """Take away what is not covered [H, W] (true or false) from a mask [B, H, W], fading towards it on the inside."""
    if covered.all():
        return mask
    return torch.minimum(mask, 1 - feathered(1 - covered[None].to(mask), 0, feather))


def fitted(edited: torch.Tensor, size: tuple[int, int], fit: str = STRETCH) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring an edited picture to the size of its source.

    Parameters
    ----------
    edited : float [B, h, w, C], 0 to 1
    size : height and width of the source
    fit : what happened to the picture. "stretch": all of it was scaled, each side by its own factor. "centred crop":
        its middle was cut out in the shape of ``edited``, as large as possible, and scaled evenly. "same scale": only
        rims were cut off or added, the same on both sides, as ComfyUI's VAE does with sides that are no multiples of
        its ratio.

    Returns
    -------
    picture [B, H, W, C] and where it is known [H, W], true or false; it is 0 elsewhere

    Examples
    --------
    >>> picture, covered = fitted(torch.ones(1, 8, 8, 3), (16, 20), "centred crop")
    >>> covered.sum(1)[0], covered.all(0).sum()
    (tensor(16), tensor(16))
    """
    height, width = size
    h, w = edited.shape[1:3]
    if fit == SAME_SCALE:
        return _placed(edited, size)
    if fit == STRETCH:
        return _scaled(edited, size), torch.ones(size, dtype=torch.bool, device=edited.device)
    if fit != CROP:
        raise unknown("fit", fit, FITS, "ways to fit")
    scale = min(height / h, width / w)
    # ComfyUI's centred crop takes the same whole number of pixels off both sides.
    inner = [max(1, side - 2 * round((side - short * scale) / 2)) for side, short in ((height, h), (width, w))]
    return _placed(_scaled(edited, inner), size)


def mask_fitted(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bring a mask [B, h, w] to the size of its picture: [B, H, W].

    A mask of the size to which ComfyUI's VAE crops the picture belongs to the middle and is continued to the rims; any
    other is scaled, each side by its own factor.
    """
    given = tuple(mask.shape[1:])
    if given == size:
        return mask
    if any(given == tuple(side // ratio * ratio for side in size) for ratio in RATIOS):
        rims = [((big - small) // 2, big - small - (big - small) // 2) for big, small in zip(size, given)]
        return F.pad(mask[None], (*rims[1], *rims[0]), mode="replicate")[0]
    scaled = F.interpolate(mask[None].float(), size=size, mode="bilinear", antialias=True)[0].to(mask)
    # What was black or white all over stays so exactly.
    return torch.where(scaled < 1e-4, 0.0, torch.where(scaled > 1 - 1e-4, 1.0, scaled)).to(mask)


def best_fit(source: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor) -> str:
    """The way to fit under which source and edited picture differ least outside the mask.

    Parameters
    ----------
    source, edited : float [B, H, W, C] and [B, h, w, C], 0 to 1
    mask : float [B, H, W]; only pixels where it is 0 in all pictures count

    Returns
    -------
    one of ``FITS``; "stretch" where too little of the source lies outside the mask to tell
    """
    size = tuple(source.shape[1:3])
    if size == tuple(edited.shape[1:3]):
        return STRETCH
    ways = [STRETCH, CROP]
    if max(abs(a - b) for a, b in zip(size, edited.shape[1:3])) < RIM:
        ways.append(SAME_SCALE)
    pictures = {way: fitted(edited[:1], size, way) for way in ways}
    outside = (mask == 0).all(0)
    for _, covered in pictures.values():
        outside = outside & covered.to(outside.device)
    if outside.float().mean() < 0.01:
        return STRETCH
    here = source[0][outside.to(source.device)]
    errors = {
        way: float((picture.to(source)[0][outside.to(source.device)] - here).abs().mean())
        for way, (picture, _) in pictures.items()
    }
    return min(ways, key=errors.__getitem__)


def _check_mask(mask: torch.Tensor, name: str = "mask") -> None:
    if mask.ndim != 3:
        raise CounterfactError(f"{name}: a mask has the shape [B, H, W], not {list(mask.shape)}")
    # NaN is not within limits either.
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise CounterfactError(f"{name}: it has numbers that are not from 0 to 1; connect a mask, or clamp it")


def _sized(picture: torch.Tensor) -> str:
    _, height, width, channels = picture.shape
    return f"{width} x {height} pixels with {channels} channels"


def _scaled(picture: torch.Tensor, size: tuple[int, int] | list[int]) -> torch.Tensor:
    if tuple(size) == tuple(picture.shape[1:3]):
        return picture
    planes = picture.movedim(-1, 1).float()
    scaled = F.interpolate(planes, size=tuple(size), mode="bicubic", antialias=True)
    return scaled.movedim(1, -1).clamp(0, 1).to(picture.dtype)


def _placed(picture: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a picture [B, h, w, C] into the middle of an empty one [B, H, W, C], and say where it lies there [H, W]."""
    whole = picture.new_zeros(len(picture), *size, picture.shape[-1])
    covered = torch.zeros(size, dtype=torch.bool, device=picture.device)
    rows, columns = ((slice((big - small) // 2, (big - small) // 2 + small), slice(None)) if big >= small else
                     (slice(None), slice((small - big) // 2, (small - big) // 2 + big))
                     for big, small in zip(size, picture.shape[1:3]))  # fmt: skip
    whole[:, rows[0], columns[0]] = picture[:, rows[1], columns[1]]
    covered[rows[0], columns[0]] = True
    return whole, covered


def _largest(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """The largest value within ``reach`` pixels along rows and columns."""
    for kernel in ((1, 2 * reach + 1), (2 * reach + 1, 1)) if reach else ():
        padding = tuple(side // 2 for side in kernel)
        mask = F.max_pool2d(mask, kernel, stride=1, padding=padding)
    return mask


def _mean(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """The mean within ``reach`` pixels along rows and columns, of the pixels that the picture has."""
    for kernel in ((1, 2 * reach + 1), (2 * reach + 1, 1)) if reach else ():
        padding = tuple(side // 2 for side in kernel)
        mask = F.avg_pool2d(mask, kernel, stride=1, padding=padding, count_include_pad=False)
    return mask
