"""Where concepts are in a picture: all their regions on it at once, each with its own colour, hatching, rim and name.

Regions of causes and effects lie on top of each other, and colours mix there: lines in different directions do not, and
tell them apart without colours too (palette: Okabe and Ito 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, cos, radians, sin
from typing import TYPE_CHECKING

from .brush import Brush, measure
from .draw import BLUE, CARD, INK, MAX_PIXELS, MUTED, PURPLE, SUPERSAMPLING, VERMILLION
from .errors import CounterfactError
from .layout import Box, Point

if TYPE_CHECKING:
    import numpy as np

SIDE = 512  # pixels that the longer side of a picture has at least; lengths below are in 512ths of it
COLOURS = VERMILLION, BLUE, "#009E73", "#E69F00", PURPLE, "#56B4E9", "#F0E442", INK
ANGLES = 45, 135, 0, 90, 67, 157, 22, 112
MOST = 24
PERIOD, STROKE, RIM = 13.0, 2.2, 3.0
FILL, LINES = 0.28, 0.75
COLOUR_KEPT = 0.35  # of the picture's own colours
TEXT, TAG, CHIP = 15.0, 24.0, 14.0


def overlay(source: np.ndarray, regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw regions on a picture.

    Parameters
    ----------
    source : [H, W, 3], uint8, or floats from 0 to 1
    regions : for each concept its region [h, w], 0 to 1, in any resolution. After the first 24 they are only counted.

    Returns
    -------
    float32 [H, W, 3], 0 to 1; pictures whose longer side has less than 512 pixels are enlarged to that, so that names
    can be read. The same input gives the same picture.

    Raises
    ------
    CounterfactError
        If an array has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> overlay(np.full((64, 48, 3), 0.5), {"pond": np.eye(16)}).shape
    (512, 384, 3)
    """
    import numpy as np
    from PIL import Image, ImageDraw

    source = pixels(source, "source")
    size = enlarged(source)
    finer = SUPERSAMPLING - 1 if size[0] * size[1] * (SUPERSAMPLING - 1) ** 2 <= MAX_PIXELS else 1
    fine = size[0] * finer, size[1] * finer
    unit = max(fine) / SIDE
    picture = _resized(source, fine)
    picture = COLOUR_KEPT * picture + (1 - COLOUR_KEPT) * picture.mean(-1, keepdims=True)
    shares = {name: scaled(region, name, fine) for name, region in list(regions.items())[:MOST]}
    styles = {name: _style(number) for number, name in enumerate(shares)}
    found = [name for name in sorted(shares, key=lambda name: -shares[name].sum()) if (shares[name] >= 0.5).any()]
    rows, columns = (np.arange(side, dtype=np.float32) for side in (fine[1], fine[0]))
    for name in found:
        colour, angle = np.array(rgb(styles[name][0]), np.float32), radians(styles[name][1])
        lines = (columns * cos(angle) + rows[:, None] * sin(angle)) % (PERIOD * unit) < STROKE * unit
        alpha = np.where(lines & (shares[name] >= 0.5), np.float32(LINES), FILL * shares[name])
        picture += (colour - picture) * alpha[..., None]
    for name in found:
        inside = shares[name] >= 0.5
        picture[outline(inside, round(1.6 * RIM * unit))] = rgb(CARD)
        picture[outline(inside, round(RIM * unit))] = rgb(styles[name][0])
    image = Image.fromarray(_bytes(picture))
    brush = Brush(ImageDraw.Draw(image), unit)
    room = fine[0] / unit, fine[1] / unit
    notes = [f"{name}: no region" for name in shares if name not in found]
    notes += [f"and {len(regions) - len(shares)} more"] if len(regions) > len(shares) else []
    taken = [_note(brush, words, number, room) for number, words in enumerate(notes)]
    places = _places({name: shares[name] for name in reversed(found)}, room, taken)
    for name, (box, anchor) in places.items():
        if anchor is not None:
            brush.line([(box.x, box.y), anchor], CARD, 4.0)
            brush.line([(box.x, box.y), anchor], styles[name][0], 2.0)
            brush.box(Box(*anchor, 7, 7), 3.5, styles[name][0], CARD, 1.0)
    for name, (box, _) in places.items():
        _name(brush, box, name, styles[name])
    image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.float32) / 255.0


def pixels(picture: np.ndarray, name: str) -> np.ndarray:
    """A picture as floats from 0 to 1, [H, W, 3]; `name` is what an error calls it."""
    import numpy as np

    found = np.asarray(picture)
    if found.ndim != 3 or found.shape[2] != 3:
        raise CounterfactError(f"{name}: a picture has the shape [H, W, 3], not {list(found.shape)}")
    found = found.astype(np.float32) / (255.0 if found.dtype == np.uint8 else 1.0)
    return np.nan_to_num(found).clip(0.0, 1.0)


def enlarged(picture: np.ndarray) -> tuple[int, int]:
    """Width and height of a picture [H, W, 3] once its longer side has 512 pixels at least."""
    height, width = picture.shape[:2]
    zoom = max(1.0, SIDE / max(height, width))
    return max(1, round(width * zoom)), max(1, round(height * zoom))


def scaled(region: np.ndarray, name: str, size: tuple[int, int]) -> np.ndarray:
    """The region of a concept, 0 to 1, in this width and height."""
    import numpy as np
    from PIL import Image

    region = np.nan_to_num(np.asarray(region, dtype=np.float32)).clip(0.0, 1.0)
    if region.ndim != 2:
        raise CounterfactError(f"regions: the one of {name!r} has the shape {list(region.shape)}, not [h, w]")
    return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.BILINEAR))


def outline(inside: np.ndarray, width: int) -> np.ndarray:
    """Pixels inside that have a pixel outside within ``width`` in a row or column; the picture's edge is no outside."""
    import numpy as np

    width = max(1, width)
    height, length = inside.shape
    padded = np.pad(inside, width, mode="edge")
    steps = ((0, width), (2 * width, width), (width, 0), (width, 2 * width))
    return inside & ~np.all([padded[y : y + height, x : x + length] for y, x in steps], axis=0)


def rgb(colour: str) -> list[float]:
    """A colour such as "#0072B2" as three numbers from 0 to 1."""
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _style(number: int) -> tuple[str, int]:
    """Colour and angle of the lines, in degrees; no two of 24 are the same."""
    turn, at = divmod(number, len(COLOURS))
    return COLOURS[at], ANGLES[(at + 3 * turn) % len(ANGLES)]


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(_bytes(picture)).resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255.0


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().astype("uint8")


def _name(brush: Brush, box: Box, name: str, style: tuple[str, int]) -> None:
    """A concept's name and a sample of its hatching in a box."""
    brush.box(box, 6.0, CARD, style[0], 2.0)
    left = box.x - box.width / 2
    _chip(brush, Box(left + 7 + CHIP / 2, box.y, CHIP, CHIP), style)
    brush.text((left + CHIP + 13, box.y + 5), name, TEXT, INK, box.width - CHIP - 19, bold=True)


def _chip(brush: Brush, box: Box, style: tuple[str, int]) -> None:
    """A sample of a region's hatching."""
    brush.box(box, 0.0, CARD)
    angle = radians(style[1])
    along, across = (-sin(angle), cos(angle)), (cos(angle), sin(angle))
    for shift in (-5.0, 0.0, 5.0):
        x, y = box.x + shift * across[0], box.y + shift * across[1]
        # As far in both directions as the sample reaches.
        reach = [
            min((box.width / 2 - turn * (p - centre) * (1 if a > 0 else -1)) / abs(a)
                for p, centre, a in ((x, box.x, along[0]), (y, box.y, along[1])) if abs(a) > 1e-6)
            for turn in (1, -1)
        ]  # fmt: skip
        ends = [(x + far * along[0], y + far * along[1]) for far in (reach[0], -reach[1])]
        brush.line(ends, style[0], STROKE)
    brush.box(box, 0.0, None, style[0], 1.6)


def _note(brush: Brush, words: str, number: int, room: tuple[float, float]) -> Box:
    """A line in the lower left corner, above earlier ones, about what is not in the picture."""
    width = min(measure(words, 13.0) + 16, room[0] - 8)
    box = Box(4 + width / 2, room[1] - 4 - TAG * (number + 0.5), width, TAG - 4)
    brush.box(box, 5.0, CARD, MUTED, 1.0)
    brush.text((box.x - width / 2 + 8, box.y + 4.5), words, 13.0, MUTED, width - 14)
    return box


def _places(
    shares: Mapping[str, np.ndarray], room: tuple[float, float], taken: Sequence[Box]
) -> dict[str, tuple[Box, Point | None]]:
    """Where each name goes: into its own region, off the others and off `taken`, and as little over small things.

    Returns
    -------
    boxes by name; with the middle of the region where the name stands beside it and a line must lead there
    """
    import numpy as np

    # A coarse grid is enough for places.
    cell = max(room) / 128
    grid = max(1, round(room[0] / cell)), max(1, round(room[1] / cell))
    soft = {name: scaled(share, name, grid) for name, share in shares.items()}
    masks = {name: share >= min(0.5, share.max()) for name, share in soft.items()}
    crowd = np.sum(list(masks.values()), axis=0, initial=0)
    places: dict[str, tuple[Box, Point | None]] = {}
    for name, own in masks.items():
        width = min(measure(name, TEXT) + CHIP + 22, room[0])
        wide, high = min(grid[0], ceil(width / cell)), min(grid[1], ceil(TAG / cell))
        mine, all_there = _box_sums(own, wide, high), _box_sums(crowd, wide, high)
        rows, columns = np.mgrid[: mine.shape[0], : mine.shape[1]]
        x = (columns * cell + width / 2).clip(width / 2, max(width / 2, room[0] - width / 2))
        y = (rows * cell + TAG / 2).clip(TAG / 2, max(TAG / 2, room[1] - TAG / 2))
        anchor = _middle(own, cell)
        far = np.hypot(x - anchor[0], y - anchor[1]) / max(room)
        score = (mine - 0.1 * all_there) / (wide * high) - mine / own.sum() - 1.5 * far
        for box in (*taken, *(box for box, _ in places.values())):
            near = (np.abs(x - box.x) < (width + box.width) / 2 + 3) & (np.abs(y - box.y) < (TAG + box.height) / 2 + 3)
            score = score - 10.0 * near
        best = np.unravel_index(np.argmax(score), score.shape)
        box = Box(float(x[best]), float(y[best]), width, TAG)
        places[name] = box, None if mine[best] > 0.3 * wide * high else anchor
    return places


def _middle(mask: np.ndarray, cell: float) -> Point:
    """The point of a mask that has most of it around."""
    import numpy as np

    reach = max(mask.shape) // 6
    around = _box_sums(np.pad(mask, reach), 2 * reach + 1, 2 * reach + 1) * mask
    row, column = np.unravel_index(np.argmax(around), around.shape)
    return (column + 0.5) * cell, (row + 0.5) * cell


def _box_sums(mask: np.ndarray, wide: int, high: int) -> np.ndarray:
    """Sums over all boxes of a size, by their upper left corners."""
    import numpy as np

    total = np.pad(mask.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return total[high:, wide:] - total[:-high, wide:] - total[high:, :-wide] + total[:-high, :-wide]
