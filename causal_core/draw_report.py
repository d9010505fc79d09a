"""Pictures of what an edit did to a picture: before and after, difference, regions, and a table of all concepts.

Roles look as they do in pictures of the graph (:mod:`.draw`); a difference is drawn in colours that also grow darker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from .brush import Brush
from .draw import (
    BLUE,
    CHANGED,
    HEAD,
    INK,
    INTERVENED,
    KEPT,
    MARGIN,
    MAX_PIXELS,
    MUTED,
    PAPER,
    RULE,
    SLATE,
    STEADY,
    SUPERSAMPLING,
    VERMILLION,
    Look,
    tag,
)
from .draw_regions import enlarged, outline, pixels, rgb, scaled
from .errors import CounterfactError, finite
from .layout import Box

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

REPORT_WIDTH, GAP, CAPTION, SECTION, ROW = 1024.0, 16.0, 30.0, 50.0, 28.0
COLUMNS = {"concept": 0.0, "before": 250.0, "after": 415.0, "region": 600.0, "seen": 790.0}  # of a report's table
BAR, NOTE = 110.0, 24.0
MAX_PANELS, MAX_ROWS = 24, 80
TALL = 1.4  # largest height of a picture on a report, in widths of its column
LEAST_SCALE = 0.15  # smaller differences are not blown up to the strongest colour
HEAT = "#F4F4F0", "#F7DD94", "#F2A338", VERMILLION, "#8C2D2A", "#3A0F2C"  # ever darker: readable without hues too


class ReportRow(NamedTuple):
    """One line of a report's table; what is None is not known and left open.

    Attributes
    ----------
    concept : its name
    before, after : values; equal where nothing changes
    area : share of the picture that the concept's region takes, 0 to 1
    seen : the value that was read again in the edited picture
    role : "intervened", "descendant" or "invariant", as in a plan
    """

    concept: str
    before: str | None
    after: str | None
    area: float | None = None
    seen: str | None = None
    role: str = "invariant"

    @property
    def look(self) -> Look:
        """The look of the concept's card in a graph."""
        if self.role == "intervened":
            return INTERVENED
        if self.before != self.after:
            return CHANGED
        return STEADY if self.role == "descendant" else KEPT


class Panel(NamedTuple):
    """A picture on a report, floats [H, W, 3], the words below it, and the look of the concept it shows."""

    pixels: np.ndarray
    name: str
    note: str = ""
    look: Look | None = None


def before_after(
    source: np.ndarray,
    edited: np.ndarray,
    regions: Mapping[str, np.ndarray],
    rows: Sequence[ReportRow | tuple],
    title: str = "Counterfactual report",
    width: int = 1024,
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw what an edit did: both pictures, their difference, the region of each concept, and a table.

    Parameters
    ----------
    source, edited : [H, W, 3], uint8, or floats from 0 to 1
    regions : for each concept its region [h, w], 0 to 1, in any resolution
    rows : for each concept a :class:`ReportRow`, or a tuple of its fields
    title : such as the intervention
    width : pixels, 512 to 2048; the height follows
    notes : lines below the table

    Returns
    -------
    PIL.Image.Image
        RGB. The same input gives the same picture.

    Raises
    ------
    CounterfactError
        If the two pictures have other sizes, an array has another shape, or the width is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> grey = np.full((32, 48, 3), 0.5)
    >>> before_after(grey, grey, {"car": np.eye(8)}, [("car", "red", "blue", 0.1)]).width
    1024
    """
    from PIL import Image, ImageDraw

    width = round(finite(width, "the width of the report picture", 512, 2048))
    rows = [ReportRow(*row) for row in rows]
    source, edited = pixels(source, "source"), pixels(edited, "edited")
    if source.shape != edited.shape:
        raise CounterfactError(
            f"edited: it is {edited.shape[1]} x {edited.shape[0]} pixels, but the source is {source.shape[1]} x "
            f"{source.shape[0]}; scale it to the size of the source"
        )
    heat, most = _heat(source, edited)
    pictures = _grid([Panel(source, "Source"), Panel(edited, "Counterfactual"), Panel(heat, "Difference")], 3, HEAD)
    parts = _parts(source, regions, {row.concept: row for row in rows})
    below = _foot(pictures, HEAD) + SECTION
    placed = [*pictures, *_grid(parts, _columns(len(parts)), below)]
    table = _foot(placed, HEAD) + SECTION
    shown = rows[:MAX_ROWS]
    end = table + ROW * (len(shown) + (len(rows) > MAX_ROWS)) if rows else table - SECTION
    below_table, end = end + NOTE, end + NOTE * len(notes)

    unit, room = width / REPORT_WIDTH, REPORT_WIDTH - 2 * MARGIN
    height = ceil(unit * (end + MARGIN))
    finer = SUPERSAMPLING if width * height <= MAX_PIXELS else SUPERSAMPLING - 1
    image = Image.new("RGB", (width * finer, height * finer), PAPER)
    page = Brush(ImageDraw.Draw(image), unit * finer)
    page.text((MARGIN, 44), title, 23, INK, room, bold=True)
    if rows:
        changed = sum(row.before != row.after for row in rows)
        page.text((MARGIN, 66), f"{changed} changed, {len(rows) - changed} kept", 13.5, MUTED, room)
        _table(page.moved(MARGIN, table), shown, len(rows) - len(shown), room)
    for number, note in enumerate(notes):
        page.text((MARGIN, below_table + NOTE * number), note, 13.5, INK, room)
    if parts:
        some = f", the first {len(parts)} of {len(regions)}" if len(parts) < len(regions) else ""
        page.text((MARGIN, below - 14), f"Regions{some}", 15, INK, room, bold=True)
    for panel, box in placed:
        _caption(page, panel, box)
    _colour_bar(page, pictures[-1][1], most)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    for panel, box in placed:
        _paste(image, panel.pixels, box, unit)
    return image


def _heat(source: np.ndarray, edited: np.ndarray) -> tuple[np.ndarray, float]:
    """How much each pixel changed, as colours over a faint source, and the difference of the strongest colour.

    Colours go with the root, so that small differences can be seen beside large ones.
    """
    import numpy as np

    change = np.abs(edited - source).mean(-1)
    most = max(LEAST_SCALE, float(np.quantile(change, 0.999)))
    share = np.sqrt((change / most).clip(0.0, 1.0))[..., None]
    faint = 0.80 + 0.16 * source.mean(-1, keepdims=True)
    return faint + (_heat_colour(share[..., 0]) - faint) * np.minimum(1.0, 3.0 * share), most


def _heat_colour(share: np.ndarray) -> np.ndarray:
    """The colour of a share, 0 to 1."""
    import numpy as np

    stops = np.array([rgb(colour) for colour in HEAT])
    at = np.linspace(0.0, 1.0, len(HEAT))
    return np.stack([np.interp(share, at, stops[:, i]) for i in range(3)], -1)


def _parts(source: np.ndarray, regions: Mapping[str, np.ndarray], rows: Mapping[str, ReportRow]) -> list[Panel]:
    """A panel for each region: the source in grey, the region in the colour of its concept's role, with an outline."""
    import numpy as np
    from PIL import Image

    size = enlarged(source)
    grey = Image.fromarray((255 * (0.34 + 0.58 * source.mean(-1))).astype(np.uint8))
    grey = np.asarray(grey.resize(size, Image.Resampling.LANCZOS))[..., None] / 255.0
    panels = []
    for name, region in list(regions.items())[:MAX_PANELS]:
        share = scaled(region, name, size)
        row = rows.get(name)
        look = row.look if row else CHANGED
        colour = np.array(rgb(look.colour))
        shown = grey + (colour - grey) * 0.62 * share[..., None]
        rim = outline(share >= 0.5, round(max(size) / 130))
        shown[rim] = 0.25 * shown[rim] + 0.75 * colour
        area = float(np.mean(region)) if row is None or row.area is None else row.area
        panels.append(Panel(shown, name, _share(area), look))
    return panels


def _share(share: float | None) -> str:
    if share is None:
        return ""
    return "0 %" if share <= 0 else "< 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def _columns(count: int) -> int:
    """How many panels go side by side: rows as full as possible, panels not too small."""
    return count if count in (3, 4, 5, 6) else min((4, 5, 6), key=lambda n: (-count % n, -n)) if count > 6 else 4


def _grid(panels: Sequence[Panel], columns: int, top: float) -> list[tuple[Panel, Box]]:
    """Put panels into rows; the boxes are those of their pictures, as large as column and shape allow."""
    placed = []
    wide = (REPORT_WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        shape = panel.pixels.shape[0] / panel.pixels.shape[1]
        high = wide * min(shape, TALL)
        left, above = MARGIN + column * (wide + GAP), top + row * (high + CAPTION + GAP)
        placed.append((panel, Box(left + high / shape / 2, above + high / 2, high / shape, high)))
    return placed


def _foot(placed: Sequence[tuple[Panel, Box]], top: float) -> float:
    """Where panels and the words below them end."""
    return max((box.y + box.height / 2 + CAPTION for _, box in placed), default=top)


def _caption(brush: Brush, panel: Panel, box: Box) -> None:
    left, right, base = box.x - box.width / 2, box.x + box.width / 2, box.y + box.height / 2 + 19
    if panel.look is None:
        brush.text((left, base), panel.name, 15, INK, box.width, bold=True)
        return
    brush.box(Box(left + 5, base - 4.5, 10, 10), 3.0, panel.look.colour)
    right -= brush.text((right, base), panel.note, 12.5, MUTED, 60, anchor="rs") + 8
    brush.text((left + 16, base), panel.name, 13.5, INK, right - left - 16, bold=True)


def _colour_bar(brush: Brush, box: Box, most: float) -> None:
    """What the colours of the difference mean: below the picture, at the right."""
    import numpy as np

    right, base, steps, long = box.x + box.width / 2, box.y + box.height / 2 + 19, 60, 80.0
    right -= brush.text((right, base), f"{most:.2f}", 12.5, MUTED, 60, anchor="rs") + 7
    colours = (_heat_colour(np.sqrt((np.arange(steps) + 0.5) / steps)) * 255).round().astype(np.uint8)
    brush.box(Box(right - long / 2, base - 4.5, long + 2, 12), 0.0, RULE)
    for i, colour in enumerate(colours):
        x = right - long + (i + 0.5) * long / steps
        brush.box(Box(x, base - 4.5, long / steps + 0.4, 10), 0.0, f"#{bytes(colour).hex()}")
    brush.text((right - long - 7, base), "0", 12.5, MUTED, 60, anchor="rs")


def _table(brush: Brush, rows: Sequence[ReportRow], more: int, room: float) -> None:
    heads = {"concept": "Concept", "before": "Before", "after": "After"}
    if any(row.area is not None for row in rows):
        heads["region"] = "Region"
    if any(row.seen is not None for row in rows):
        heads["seen"] = "Read again"
    for column, words in heads.items():
        brush.text((COLUMNS[column], -14), words, 12.5, MUTED, 200)
    brush.line([(0, -4), (room, -4)], SLATE, 1.0)
    for number, row in enumerate(rows):
        _line(brush.moved(0.0, ROW * number), row, room)
    if more:
        brush.text((0, ROW * len(rows) + 18), f"and {more} more", 12.5, MUTED, room)


def _line(brush: Brush, row: ReportRow, room: float) -> None:
    look, base = row.look, 18.0
    quiet = row.before == row.after
    ink = MUTED if quiet else INK
    tag(brush, (COLUMNS["concept"] + 62, base - 4.5), look)
    brush.text((COLUMNS["concept"] + 74, base), row.concept, 14, ink, 166, bold=not quiet)
    brush.text((COLUMNS["before"], base), row.before or "?", 14, MUTED, 132)
    if not quiet:
        x = COLUMNS["after"] - 24
        brush.line([(x, base - 4.5), (x + 9, base - 4.5)], look.colour, 1.6)
        brush.head((x + 14, base - 4.5), 0.0, look.colour, 6.5)
        brush.text((COLUMNS["after"], base), row.after or "?", 14, INK, 172, bold=True)
    if row.area is not None:
        high, left = 8.0, COLUMNS["region"]
        brush.box(Box(left + BAR / 2, base - 4.5, BAR, high), high / 2, RULE)
        part = BAR * min(max(row.area, 0.0), 1.0)
        if part > 0:
            brush.box(Box(left + max(part, high) / 2, base - 4.5, max(part, high), high), high / 2, look.colour)
        brush.text((left + BAR + 46, base), _share(row.area), 12.5, ink, 44, anchor="rs")
    if row.seen is not None:
        _read_again(brush.moved(COLUMNS["seen"], base), row.seen, row.seen == row.after, room - COLUMNS["seen"])
    brush.line([(0, ROW), (room, ROW)], RULE, 0.8)


def _read_again(brush: Brush, value: str, right: bool, room: float) -> None:
    """A value behind a tick, or behind a cross where it is not the one that it should be."""
    if right:
        brush.line([(0, -5), (4, -1), (11, -10)], BLUE, 2.0)
    else:
        for slope in (-4.0, 4.0):
            brush.line([(1.5, -5 - slope), (9.5, -5 + slope)], VERMILLION, 2.2)
    brush.text((20, 0), value, 14, MUTED if right else INK, room - 20, bold=not right)


def _paste(image: Image.Image, pixels: np.ndarray, box: Box, unit: float) -> None:
    """Put a picture into a box, with round corners."""
    from PIL import Image, ImageDraw

    left, top = round((box.x - box.width / 2) * unit), round((box.y - box.height / 2) * unit)
    size = max(1, round(box.width * unit)), max(1, round(box.height * unit))
    enlarged = size[0] > pixels.shape[1]
    picture = Image.fromarray((pixels * 255).round().astype("uint8"))
    picture = picture.resize(size, Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS)
    corners = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), 0)
    radius = 6 * unit * SUPERSAMPLING
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, corners.width - 1, corners.height - 1), radius, 255)
    image.paste(picture, (left, top), corners.resize(size, Image.Resampling.LANCZOS))
