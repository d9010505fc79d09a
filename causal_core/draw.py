"""Pictures for people: causal graphs, what an intervention does to them, and reports of what an edit did to a picture.

Every role has its own border and its own word, so that colour is never the only sign (palette: Okabe and Ito 2008).
An intervention cuts the edges into the concepts it sets (graph surgery; Pearl, Causality, section 3.2): they are drawn
cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import atan2, ceil
from typing import TYPE_CHECKING, NamedTuple

from .brush import Brush, along, length, measure, part, rounded
from .errors import CounterfactError, finite
from .graph import CausalGraph
from .layout import CELL, Box, Point, Spacing, arcs, cells, layered, turned

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .plan import CounterfactualPlan

SUPERSAMPLING = 3
MAX_PIXELS = 4_000_000  # larger pictures are supersampled less
TALLEST = 3.0  # largest height of a picture, in widths
MARGIN, HEAD = 36.0, 84.0
CARD_HEIGHT, CARD_WIDTHS = 58.0, (124.0, 212.0)
LEGEND_SIZE, LEGEND_ROW, SAMPLE = 12.5, 30.0, 34.0

REPORT_WIDTH, GAP, CAPTION, SECTION, ROW = 1024.0, 16.0, 30.0, 50.0, 28.0
COLUMNS = {"concept": 0.0, "before": 270.0, "after": 460.0, "region": 650.0}  # of a report's table
MAX_PANELS, MAX_ROWS = 24, 80
TALL = 1.4  # largest height of a picture on a report, in widths of its column
OVERLAY = 512  # pixels along the longer side of a region's picture
LEAST_SCALE = 0.15  # smaller differences are not blown up to the strongest colour

PAPER, CARD = "#FAFAF7", "#FFFFFF"
INK, MUTED, FAINT, RULE = "#1D2733", "#5F6A76", "#B4BCC6", "#E3E5E2"
VERMILLION, BLUE, PURPLE, SLATE = "#D55E00", "#0072B2", "#CC79A7", "#87919C"
HEAT = "#F4F4F0", "#F7DD94", "#F2A338", VERMILLION, "#8C2D2A", "#3A0F2C"  # ever darker: readable without hues too


class Look(NamedTuple):
    """How a card looks: border colour and width, fill, the word on its tag, and what the legend says of it."""

    colour: str
    width: float
    fill: str
    tag: str = ""
    legend: str = ""
    double: bool = False
    dashed: bool = False


class Stroke(NamedTuple):
    """How an edge looks, and what the legend says of it."""

    colour: str
    width: float
    legend: str
    dashed: bool = False
    cut: bool = False
    both_ends: bool = False


class Card(NamedTuple):
    """What a card says and how it looks; `before` is None where the value does not change."""

    name: str
    before: str | None
    value: str | None
    sure: str
    look: Look


class Sketch(NamedTuple):
    """Where everything goes: boxes by name, paths of edges and of latent confounders by pair."""

    boxes: Mapping[str, Box]
    edges: Mapping[tuple[str, str], Sequence[Point]]
    latent: Mapping[tuple[str, str], Sequence[Point]]

    def extent(self) -> Box:
        """The smallest box around all of it."""
        points = [box.side(side) for box in self.boxes.values() for side in ((-1, 0), (1, 0), (0, -1), (0, 1))]
        points += [point for paths in (self.edges, self.latent) for path in paths.values() for point in path]
        (left, top), (right, bottom) = (tuple(map(pick, zip(*points))) for pick in (min, max))
        return Box((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


PLAIN = Look(MUTED, 1.5, CARD)
INTERVENED = Look(VERMILLION, 2.2, "#FDF1E8", "do", "set by the intervention", double=True)
CHANGED = Look(BLUE, 2.8, "#E9F3FA", "changed", "follows and changes")
STEADY = Look(BLUE, 1.5, CARD, "same", "could follow but stays", dashed=True)
KEPT = Look(FAINT, 1.2, CARD, "kept", "invariant, must not move")

CAUSE = Stroke(SLATE, 1.5, "causes")
ACTIVE = Stroke(BLUE, 2.4, "passes the change on")
CUT = Stroke(SLATE, 1.5, "cut by the intervention", dashed=True, cut=True)
LATENT = Stroke(PURPLE, 2.0, "latent confounder", dashed=True, both_ends=True)
LATENT_CUT = LATENT._replace(cut=True)


def draw_graph(graph: CausalGraph, plan: CounterfactualPlan | None = None, width: int = 1024) -> Image.Image:
    """Draw a causal graph, and with a plan what changes in it.

    Parameters
    ----------
    graph : CausalGraph
    plan : CounterfactualPlan, optional
        A plan for the same concepts: cards then show the values before and after and the role of each concept.
    width : int
        Width of the picture in pixels, 256 to 2048. The height follows from the graph, up to three widths; larger
        graphs are drawn smaller.

    Returns
    -------
    PIL.Image.Image
        RGB. The same input gives the same picture.

    Raises
    ------
    CounterfactError
        If the plan is for other concepts, or the width is out of range.

    Examples
    --------
    >>> draw_graph(CausalGraph.from_edges([("season", "foliage")]), width=512).width
    512
    """
    from PIL import Image, ImageDraw

    width = round(finite(width, "the width of the graph picture", 256, 2048))
    if plan is not None and plan.concepts.names != graph.concepts.names:
        raise CounterfactError("the plan is for a graph with other concepts: propagate the intervention on this graph")
    cards = _cards(graph, plan)
    edges = {(e.source, e.target): _stroke(cards[e.source].look, cards[e.target].look) for e in graph.edges}
    latent = {pair: LATENT_CUT if _cut_ends(pair, cards) else LATENT for pair in graph.confounded}

    unit = min(1.0, width / 640)  # title and legend shrink in small pictures only
    room = width / unit - 2 * MARGIN
    legend, legend_height = _legend(cards, [*edges.values(), *latent.values()], room)
    foot = legend_height + 50.0
    space = room, width * TALLEST / unit - HEAD - foot
    sketch, scale = _sketch(graph, max(map(_card_width, cards.values())), space)
    extent = sketch.extent()
    height = min(ceil(unit * (HEAD + extent.height * scale + foot)), round(width * TALLEST))

    finer = SUPERSAMPLING if width * height <= MAX_PIXELS else SUPERSAMPLING - 1
    image = Image.new("RGB", (width * finer, height * finer), PAPER)
    page = Brush(ImageDraw.Draw(image), unit * finer)
    _heading(page, graph, plan, room)
    middle = width / unit / 2 / scale, HEAD / scale + extent.height / 2
    body = Brush(page.draw, page.scale * scale).moved(middle[0] - extent.x, middle[1] - extent.y)
    _edges(body, graph, cards, sketch, edges, latent)
    for name, box in sketch.boxes.items():
        _card(body, box, cards[name])
    below = page.moved(MARGIN, height / unit - foot + 26)
    below.line([(0, 0), (room, 0)], RULE, 1.0)
    for paint, x, y in legend:
        paint(below.moved(x, 24 + y))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _cards(graph: CausalGraph, plan: CounterfactualPlan | None) -> dict[str, Card]:
    if plan is None:
        return {c.name: Card(c.name, None, c.value, _percent(c.confidence), PLAIN) for c in graph.concepts}
    cards = {}
    for item in plan.items:
        look = {"intervened": INTERVENED, "invariant": KEPT}.get(item.role, CHANGED if item.changed else STEADY)
        before = (item.factual or "?") if item.changed else None
        cards[item.name] = Card(item.name, before, item.counterfactual, _percent(item.probability), look)
    return cards


def _percent(share: float | None) -> str:
    return "" if share is None or share > 0.995 else f"{100 * share:.0f} %"


def _stroke(source: Look, target: Look) -> Stroke:
    if target is INTERVENED:
        return CUT
    return ACTIVE if target is CHANGED and source in (INTERVENED, CHANGED) else CAUSE


def _cut_ends(pair: tuple[str, str], cards: Mapping[str, Card]) -> list[float]:
    """The ends of a latent confounder's path that an intervention cuts: 1 for the beginning, -1 for the end."""
    return [end for name, end in zip(pair, (1.0, -1.0)) if cards[name].look is INTERVENED]


def _sketch(graph: CausalGraph, card_width: float, space: tuple[float, float]) -> tuple[Sketch, float]:
    """Arrange the graph in the direction in which it can be drawn larger; with the scale for that, at most 1."""
    pairs = [(e.source, e.target) for e in graph.edges]
    linked = {name for pair in (*pairs, *graph.confounded) for name in pair}
    names = [name for name in graph.concepts.names if name in linked]
    alone = [name for name in graph.concepts.names if name not in linked]
    across = Spacing(card_width, CARD_HEIGHT, 62.0, 20.0, 12.0)
    down = Spacing(CARD_HEIGHT, card_width, 46.0, 24.0, 16.0)

    def arranged(vertical: bool) -> tuple[Sketch, float]:
        layout = turned(layered(names, pairs, down)) if vertical else layered(names, pairs, across, space[0])
        boxes = {**layout.boxes, **_rows(alone, layout.boxes, card_width, max(layout.width, space[0]))}
        sketch = Sketch(boxes, layout.routes, arcs(graph.confounded, layout.boxes, layout.routes))
        extent = sketch.extent()
        return sketch, min(1.0, space[0] / extent.width, space[1] / extent.height)

    sketch, scale = arranged(vertical=False)
    return max((sketch, scale), arranged(vertical=True), key=lambda found: found[1]) if scale < 0.8 else (sketch, scale)


def _rows(names: Sequence[str], boxes: Mapping[str, Box], card_width: float, room: float) -> dict[str, Box]:
    """Rows for concepts without any edge: below the layers, in line with them if they are few."""
    columns = sorted({box.x for box in boxes.values()})
    below = max((box.y + box.height / 2 + 44.0 for box in boxes.values()), default=0.0)
    in_line = len(columns) >= 3 and all(b - a >= card_width for a, b in zip(columns, columns[1:]))
    if not in_line or len(names) > 4 * len(columns):
        centre = (columns[0] + columns[-1]) / 2 if columns else room / 2
        step = card_width + 18.0
        abreast = min(len(names), max(1, int((room + 18.0) / step), round(len(names) ** 0.5)))
        columns = [centre + (i - (abreast - 1) / 2) * step for i in range(abreast)]
    rows = {}
    for i, name in enumerate(names):
        row, column = divmod(i, len(columns))
        rows[name] = Box(columns[column], below + row * (CARD_HEIGHT + 16.0) + CARD_HEIGHT / 2, card_width, CARD_HEIGHT)
    return rows


def _heading(page: Brush, graph: CausalGraph, plan: CounterfactualPlan | None, room: float) -> None:
    if plan is None:
        title = "Causal graph"
        nouns = (
            (len(graph.concepts), "concept"),
            (len(graph.edges), "edge"),
            (len(graph.confounded), "latent confounder"),
        )
        counts = [(n, noun + "s" * (n != 1)) for n, noun in nouns]
    else:
        title = str(plan.intervention)
        steady = sum(item.role == "descendant" and not item.changed for item in plan.items)
        kept = len(plan.invariant) - steady
        counts = [(len(plan.affected), "affected"), (steady, "could follow but stay"), (kept, "kept")]
    page.text((MARGIN, 44), title, 23, INK, room, bold=True)
    page.text((MARGIN, 66), ", ".join(f"{n} {words}" for n, words in counts if n), 13.5, MUTED, room)


def _card_width(card: Card) -> float:
    """Room that the words of a card need, within limits."""
    first = measure(card.name, 15) + (measure(card.look.tag, 11) + 34 if card.look.tag else 0)
    second = sum(measure(word, 14) for word in (card.before, card.value, card.sure) if word)
    second += (32 if card.before else 0) + (12 if card.sure else 0)
    return min(max(first + 28, second + 30, CARD_WIDTHS[0]), CARD_WIDTHS[1])


def _card(brush: Brush, box: Box, card: Card) -> None:
    look, quiet = card.look, card.look is KEPT
    _frame(brush, box, look, 11.0)
    left, edge = box.x - box.width / 2 + 14, box.x + box.width / 2 - 14
    base = box.y - 7 if card.value else box.y + 5
    right = edge - _tag(brush, (edge + 3, base - 5), look) - 5 if look.tag else edge
    brush.text((left, base), card.name, 15, MUTED if quiet else INK, right - left, bold=not quiet)
    if not card.value:
        return
    base, right = box.y + 17, edge
    if card.sure:
        right -= brush.text((right, base), card.sure, 11, MUTED, 60, anchor="rs") + 8
    if card.before:
        free = right - left - 30
        left += brush.text((left, base), card.before, 14, MUTED, max(free / 2, free - measure(card.value, 14))) + 8
        brush.line([(left, base - 4.5), (left + 11, base - 4.5)], look.colour, 1.6)
        brush.head((left + 15, base - 4.5), 0.0, look.colour, 6.5)
        left += 22
    brush.text((left, base), card.value, 14, MUTED if quiet else INK, right - left, bold=bool(card.before))


def _frame(brush: Brush, box: Box, look: Look, radius: float) -> None:
    brush.box(box, radius, look.fill, None if look.dashed else look.colour, look.width)
    if look.dashed:
        brush.line(rounded(box, radius), look.colour, look.width, (6.0, 4.5))
    if look.double:
        inset = look.width + 2.2
        inner = Box(box.x, box.y, box.width - 2 * inset, box.height - 2 * inset)
        brush.box(inner, radius - inset, None, look.colour, 1.3)


def _tag(brush: Brush, at: Point, look: Look) -> float:
    """A tag whose right end is `at`: filled for what is set or changes, open for what stays; returns its width."""
    locked = look is KEPT
    filled = not (look.dashed or locked)
    mark = 11.0 if locked else 0.0
    width = measure(look.tag, 11) + mark + 15
    box = Box(at[0] - width / 2, at[1], width, 17.0)
    brush.box(box, 8.5, look.colour if filled else None, look.colour, 1.1)
    ink = CARD if filled else MUTED if locked else look.colour
    brush.text((box.x + mark / 2, at[1] + 4), look.tag, 11, ink, width, bold=filled, anchor="ms")
    if locked:
        x, y = box.x - width / 2 + 11.5, at[1] + 1.6
        brush.box(Box(x, y, 7.4, 5.8), 1.4, ink)
        shackle = ((-2.2, -2.0), (-2.2, -4.2), (-1.2, -5.6), (1.2, -5.6), (2.2, -4.2), (2.2, -2.0))
        brush.line([(x + dx, y + dy) for dx, dy in shackle], ink, 1.3)
    return width


def _edges(
    brush: Brush,
    graph: CausalGraph,
    cards: Mapping[str, Card],
    sketch: Sketch,
    edges: Mapping[tuple[str, str], Stroke],
    latent: Mapping[tuple[str, str], Stroke],
) -> None:
    # What carries the change is drawn last, on top of the rest.
    for pair in sorted(edges, key=lambda pair: edges[pair] is ACTIVE):
        _edge(brush, sketch.edges[pair], edges[pair], [-1.0])
    for pair, stroke in latent.items():
        _edge(brush, sketch.latent[pair], stroke, _cut_ends(pair, cards))
    labels = {(e.source, e.target): _percent(e.confidence) for e in graph.edges if _percent(e.confidence)}
    paths = [*sketch.edges.values(), *sketch.latent.values()] if labels else []
    crowd = Counter(cell for path in paths for cell in set(cells(path)))
    for pair, label in labels.items():
        x, y = _free_spot(sketch.edges[pair], crowd)
        brush.box(Box(x, y, measure(label, 11) + 8, 15), 5.0, PAPER)
        brush.text((x, y + 4), label, 11, MUTED, 60, anchor="ms")


def _edge(brush: Brush, path: Sequence[Point], stroke: Stroke, cut_ends: Sequence[float]) -> None:
    size = 6.0 + 1.6 * stroke.width
    total = length(path)
    blunt = 0.6 * size  # a thick line must not blunt its arrowhead
    body = part(path, blunt if stroke.both_ends else 0.0, total - blunt)
    brush.line(body, stroke.colour, stroke.width, (6.0, 5.0) if stroke.dashed else None)
    for points in (path, path[::-1]) if stroke.both_ends else (path,):
        (x0, y0), (x1, y1) = along(points, -size), points[-1]
        brush.head((x1, y1), atan2(y1 - y0, x1 - x0), stroke.colour, size)
    for end in cut_ends if stroke.cut else ():
        x, y = along(path, end * min(26.0, 0.5 * total))
        brush.box(Box(x, y, 16, 16), 8.0, PAPER)
        for slope in (-4.4, 4.4):
            brush.line([(x - 4.4, y - slope), (x + 4.4, y + slope)], VERMILLION, 2.4)


def _free_spot(path: Sequence[Point], crowd: Mapping[tuple[int, int], int]) -> Point:
    """Where on a path a label has the fewest lines around it, as near to the middle as that allows."""
    total = length(path)
    spots = [along(path, share * total) for share in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82)]

    def lines_near(spot: Point) -> int:
        i, j = round(spot[0] / CELL), round(spot[1] / CELL)
        return sum(crowd.get((i + di, j + dj), 0) for di in range(-3, 4) for dj in range(-2, 3))

    return min(spots, key=lines_near)


def _legend(
    cards: Mapping[str, Card], strokes: Sequence[Stroke], room: float
) -> tuple[list[tuple[Callable[[Brush], None], float, float]], float]:
    """Explain what is in the picture: painters of the samples with their places, in rows, and the height of all."""

    def look_sample(look: Look, words: str) -> Callable[[Brush], None]:
        def paint(brush: Brush) -> None:
            _frame(brush, Box(SAMPLE / 2, 0, SAMPLE, 20), look, 6.0)
            brush.text((SAMPLE + 10, 4.5), words, LEGEND_SIZE, MUTED, room)

        return paint

    def stroke_sample(stroke: Stroke, words: str) -> Callable[[Brush], None]:
        def paint(brush: Brush) -> None:
            _edge(brush, [(0, 0), (SAMPLE, 0)], stroke, [-1.0])
            brush.text((SAMPLE + 10, 4.5), words, LEGEND_SIZE, MUTED, room)

        return paint

    looks = {card.look for card in cards.values()}
    seen = {stroke.legend for stroke in strokes} | {CUT.legend for stroke in strokes if stroke.cut}
    words = {look: f"{look.tag}: {look.legend}" for look in (INTERVENED, CHANGED, STEADY, KEPT) if look in looks}
    samples = [(look_sample(look, text), text) for look, text in words.items()]
    lines = [stroke for stroke in (CAUSE, ACTIVE, CUT, LATENT) if stroke.legend in seen]
    samples += [(stroke_sample(stroke, stroke.legend), stroke.legend) for stroke in lines]
    placed, x, y = [], 0.0, 0.0
    for paint, text in samples:
        wide = SAMPLE + 10 + measure(text, LEGEND_SIZE)
        if x and x + wide > room:
            x, y = 0.0, y + LEGEND_ROW
        placed.append((paint, x, y))
        x += wide + 30.0
    return placed, y + 20.0


class ReportRow(NamedTuple):
    """One line of a report's table; what is None is not known and left open.

    Attributes
    ----------
    concept : its name
    before, after : values; equal where nothing changes
    area : share of the picture that the concept's region takes, 0 to 1
    drift : how far a concept moved that should have stayed, in the caller's measure
    role : "intervened", "descendant" or "invariant", as in a plan
    """

    concept: str
    before: str | None
    after: str | None
    area: float | None = None
    drift: float | None = None
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
) -> Image.Image:
    """Draw what an edit did: both pictures, their difference, the region of each concept, and a table.

    Parameters
    ----------
    source, edited : [H, W, 3], uint8, or floats from 0 to 1
    regions : for each concept its region [h, w], 0 to 1, in any resolution
    rows : for each concept a :class:`ReportRow`, or a tuple of its fields
    title : such as the intervention
    width : pixels, 512 to 2048; the height follows

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
    source, edited = _pixels(source, "source"), _pixels(edited, "edited")
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


def _pixels(picture: np.ndarray, name: str) -> np.ndarray:
    """A picture as floats from 0 to 1, [H, W, 3]."""
    import numpy as np

    pixels = np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise CounterfactError(f"{name}: a picture has the shape [H, W, 3], not {list(pixels.shape)}")
    pixels = pixels.astype(np.float32) / (255.0 if pixels.dtype == np.uint8 else 1.0)
    return np.nan_to_num(pixels).clip(0.0, 1.0)


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

    stops = np.array([_rgb(colour) for colour in HEAT])
    at = np.linspace(0.0, 1.0, len(HEAT))
    return np.stack([np.interp(share, at, stops[:, i]) for i in range(3)], -1)


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _parts(source: np.ndarray, regions: Mapping[str, np.ndarray], rows: Mapping[str, ReportRow]) -> list[Panel]:
    """A panel for each region: the source in grey, the region in the colour of its concept's role, with an outline."""
    import numpy as np
    from PIL import Image

    height, width = source.shape[:2]
    zoom = OVERLAY / max(height, width)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    grey = Image.fromarray((255 * (0.34 + 0.58 * source.mean(-1))).astype(np.uint8))
    grey = np.asarray(grey.resize(size, Image.Resampling.LANCZOS))[..., None] / 255.0
    panels = []
    for name, region in list(regions.items())[:MAX_PANELS]:
        region = np.nan_to_num(np.asarray(region, dtype=np.float32)).clip(0.0, 1.0)
        if region.ndim != 2:
            raise CounterfactError(f"regions: the one of {name!r} has the shape {list(region.shape)}, not [h, w]")
        row = rows.get(name)
        look = row.look if row else CHANGED
        share = np.asarray(Image.fromarray(region).resize(size, Image.Resampling.BILINEAR))
        colour = np.array(_rgb(look.colour))
        pixels = grey + (colour - grey) * 0.62 * share[..., None]
        outline = _outline(share >= 0.5, max(1, round(max(size) / 130)))
        pixels[outline] = 0.25 * pixels[outline] + 0.75 * colour
        area = float(region.mean()) if row is None or row.area is None else row.area
        panels.append(Panel(pixels, name, _share(area), look))
    return panels


def _outline(inside: np.ndarray, width: int) -> np.ndarray:
    """Pixels inside that have a pixel outside within ``width`` in a row or column; the picture's edge is no outside."""
    import numpy as np

    height, length = inside.shape
    padded = np.pad(inside, width, mode="edge")
    steps = ((0, width), (2 * width, width), (width, 0), (width, 2 * width))
    return inside & ~np.all([padded[y : y + height, x : x + length] for y, x in steps], axis=0)


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
    for column, words in heads.items():
        brush.text((COLUMNS[column], -14), words, 12.5, MUTED, 200)
    if any(row.drift is not None for row in rows):
        brush.text((room, -14), "Drift", 12.5, MUTED, 200, anchor="rs")
    brush.line([(0, -4), (room, -4)], SLATE, 1.0)
    for number, row in enumerate(rows):
        _line(brush.moved(0.0, ROW * number), row, room)
    if more:
        brush.text((0, ROW * len(rows) + 18), f"and {more} more", 12.5, MUTED, room)


def _line(brush: Brush, row: ReportRow, room: float) -> None:
    look, base = row.look, 18.0
    quiet = row.before == row.after
    ink = MUTED if quiet else INK
    _tag(brush, (COLUMNS["concept"] + 62, base - 4.5), look)
    brush.text((COLUMNS["concept"] + 74, base), row.concept, 14, ink, 182, bold=not quiet)
    brush.text((COLUMNS["before"], base), row.before or "?", 14, MUTED, 150)
    if not quiet:
        x = COLUMNS["after"] - 24
        brush.line([(x, base - 4.5), (x + 9, base - 4.5)], look.colour, 1.6)
        brush.head((x + 14, base - 4.5), 0.0, look.colour, 6.5)
        brush.text((COLUMNS["after"], base), row.after or "?", 14, INK, 172, bold=True)
    if row.area is not None:
        long, high = 150.0, 8.0
        left = COLUMNS["region"]
        brush.box(Box(left + long / 2, base - 4.5, long, high), high / 2, RULE)
        part = long * min(max(row.area, 0.0), 1.0)
        if part > 0:
            brush.box(Box(left + max(part, high) / 2, base - 4.5, max(part, high), high), high / 2, look.colour)
        brush.text((left + long + 46, base), _share(row.area), 12.5, ink, 44, anchor="rs")
    if row.drift is not None:
        brush.text((room, base), f"{row.drift:.3f}", 12.5, ink, 70, anchor="rs")
    brush.line([(0, ROW), (room, ROW)], RULE, 0.8)


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
