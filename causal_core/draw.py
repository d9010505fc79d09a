"""Pictures of causal graphs for people, and of what an intervention does to them.

Every role has its own border and its own word, so that colour is never the only sign (palette: Okabe and Ito 2008).
An intervention cuts the edges into the concepts it sets (graph surgery; Pearl, Causality, section 3.2): they are drawn
cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import atan2, ceil
from typing import TYPE_CHECKING, NamedTuple

from .arcs import CELL, arcs, cells
from .brush import Brush, along, length, measure, part, rounded
from .errors import CounterfactError, finite
from .graph import CausalGraph
from .layout import Box, Point, Spacing, layered, turned

if TYPE_CHECKING:
    from PIL import Image

    from .plan import CounterfactualPlan

SUPERSAMPLING = 3
MAX_PIXELS = 4_000_000  # larger pictures are supersampled less
TALLEST = 3.0  # largest height of a picture, in widths
MARGIN, HEAD = 36.0, 84.0
CARD_HEIGHT, CARD_WIDTHS = 58.0, (124.0, 212.0)
LEGEND_SIZE, LEGEND_ROW, SAMPLE = 12.5, 30.0, 34.0

PAPER, CARD = "#FAFAF7", "#FFFFFF"
INK, MUTED, FAINT, RULE = "#1D2733", "#5F6A76", "#B4BCC6", "#E3E5E2"
VERMILLION, BLUE, PURPLE, SLATE = "#D55E00", "#0072B2", "#CC79A7", "#87919C"


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
    right = edge - tag(brush, (edge + 3, base - 5), look) - 5 if look.tag else edge
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


def tag(brush: Brush, at: Point, look: Look) -> float:
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
