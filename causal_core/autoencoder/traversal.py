"""One variable swept over its range, everything else as it follows: frames, and contact sheets of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..concepts import Concept, parse_concepts
from .coding import Variable
from .model import DEFAULT_STEPS, CausalAutoencoder, OnEstimate

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

GAP = 2
CELL, CAPTION, COLUMNS = 128, 24, 8


def sweep(variable: Variable, count: int, low: float | None = None, high: float | None = None) -> list[str]:
    """Values of a variable from its lowest to its highest: ``count`` of a continuous one, all of a discrete one.

    Examples
    --------
    >>> sweep(Variable("angle", interval=(0.0, 10.0)), 3)
    ['0.0', '5.0', '10.0']
    """
    if variable.domain:
        return list(variable.domain)
    first, last = (variable.interval[i] if end is None else end for i, end in enumerate((low, high)))
    return [repr(first + (last - first) * i / max(count - 1, 1)) for i in range(count)]


def parse_sweep(typed: str, variable: Variable, count: int) -> list[str]:
    """Read which values to go through: nothing for all of them, a range of numbers, or a list.

    Raises
    ------
    CounterfactError
        For a value that the variable cannot take.

    Examples
    --------
    >>> angle, season = Variable("angle", interval=(0.0, 10.0)), Variable("season", ("summer", "winter"))
    >>> parse_sweep("", angle, 3), parse_sweep("1 .. 5", angle, 3), parse_sweep("5, 2.5", angle, 3)
    (['0.0', '5.0', '10.0'], ['1.0', '3.0', '5.0'], ['5.0', '2.5'])
    >>> parse_sweep("Winter", season, 3)
    ['winter']
    """
    asked = parse_concepts(f"{variable.name}: {' '.join(typed.split())}")[variable.name]
    known = Concept(variable.name, variable.domain, interval=variable.interval)
    ends = [float(known.match(repr(end))) for end in asked.interval or ()]
    return [known.match(value) for value in asked.domain] or sweep(variable, count, *ends)


def traverse(
    model: CausalAutoencoder,
    images: torch.Tensor,
    name: str,
    values: Sequence[str],
    steps: int = DEFAULT_STEPS,
    strength: float = 1.0,
) -> torch.Tensor:
    """Pictures [V, B, C, H, W] in -1..1 of do(name = value) for each value, out of pictures [B, C, H, W] in -1..1."""
    latent = model.encode(images, steps)
    return torch.stack([model.decode(latent, model.intervened(latent, {name: v}), strength) for v in values])


def sheet(
    model: CausalAutoencoder,
    image: torch.Tensor,
    count: int = 5,
    steps: int = DEFAULT_STEPS,
    on_estimate: OnEstimate | None = None,
) -> torch.Tensor:
    """A contact sheet [1, H, W, 3] in 0..1 of one picture [1, C, H, W] in -1..1.

    The picture and what comes back when it is encoded and decoded, then a row a variable. ``on_estimate`` is called
    after every evaluation of the decoder.
    """
    latent = model.encode(image, steps, on_estimate=on_estimate)
    rows = [[image, model.decode(latent, on_estimate=on_estimate)]]
    for variable in model.coding.variables:
        changed = (model.intervened(latent, {variable.name: v}) for v in sweep(variable, count))
        rows.append([model.decode(latent, new, on_estimate=on_estimate) for new in changed])
    columns = max(map(len, rows))
    blank = torch.ones_like(image)
    strips = [
        torch.cat([F.pad(cell, (0, GAP, 0, GAP), value=0.5) for cell in row + [blank] * (columns - len(row))], 3)
        for row in rows
    ]
    found = (torch.cat(strips, 2).movedim(1, -1) + 1) / 2
    return (found if found.shape[-1] == 3 else found[..., :1].expand(-1, -1, -1, 3)).clamp(0, 1).cpu()


def captioned(frames: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """A contact sheet with words: a column a frame, at most eight side by side, and a row a picture.

    Parameters
    ----------
    frames : floats [V, B, H, W, 3] in 0..1, as :func:`traverse` gives them for B pictures
    captions : for each frame what it shows

    Examples
    --------
    >>> import numpy as np
    >>> captioned(np.zeros((9, 2, 32, 32, 3)), [f"angle = {n}" for n in range(9)]).size
    (1054, 596)
    """
    from PIL import Image, ImageDraw

    from ..brush import Brush
    from ..draw import INK, PAPER

    frames_count, pictures, height, width = frames.shape[:4]
    scale = max(1.0, CELL / max(height, width))
    cell = round(width * scale), round(height * scale)
    gap = CELL // 9
    columns, blocks = min(frames_count, COLUMNS), -(-frames_count // COLUMNS)
    block = pictures * (cell[1] + 2) + CAPTION + gap
    page = Image.new("RGB", (columns * (cell[0] + 2) + gap, blocks * block), PAPER)
    brush = Brush(ImageDraw.Draw(page), 1.0)
    pixels = (frames * 255).round().astype("uint8")
    for number, caption in enumerate(captions):
        row, column = divmod(number, COLUMNS)
        left, top = gap // 2 + column * (cell[0] + 2), gap // 2 + row * block
        for picture in range(pictures):
            shown = Image.fromarray(pixels[number, picture]).resize(cell, Image.Resampling.BICUBIC)
            page.paste(shown, (left, top + picture * (cell[1] + 2)))
        brush.text((left, top + pictures * (cell[1] + 2) + CAPTION - 9), caption, 13, INK, cell[0])
    return page
