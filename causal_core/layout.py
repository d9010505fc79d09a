"""Layered layout of a directed acyclic graph, left to right: pure geometry, no drawing.

The steps of Sugiyama, Tagawa and Toda (1981): longest-path layers, stand-ins where an edge passes a layer, an order in
layers by barycentres and swaps, and coordinates. The last step is an isotonic regression (pool adjacent violators):
every slot goes as near to the mean of its neighbours as order and spacing allow.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_STAND_INS = 4000
MAX_SWAPPED = 250

Point = tuple[float, float]
Slot = tuple[str, ...]  # (name,) for a node, (source, target, layer) for a stand-in
Links = dict[Slot, list[Slot]]


class Box(NamedTuple):
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float

    def side(self, direction: Point, shift: float = 0.0) -> Point:
        """A point on the side that lies in a direction ((1, 0), (-1, 0), (0, 1), (0, -1)).

        `shift` moves it along the side, from -0.5 (one corner) over 0 (the middle) to 0.5 (the other corner).
        """
        dx, dy = direction[0] / 2 + shift * abs(direction[1]), direction[1] / 2 + shift * abs(direction[0])
        return self.x + dx * self.width, self.y + dy * self.height

    def holds(self, point: Point) -> bool:
        """Whether a point lies inside."""
        return abs(point[0] - self.x) < self.width / 2 and abs(point[1] - self.y) < self.height / 2


@dataclass(frozen=True)
class Spacing:
    """Sizes in the unit of the layout: of a node, between layers, between slots of a layer, and of a stand-in."""

    width: float
    height: float
    between_layers: float
    between_slots: float
    stand_in: float


@dataclass(frozen=True)
class Layout:
    """Node boxes by name, one polyline per edge as dense as it is drawn, and the extent of it all from (0, 0)."""

    boxes: Mapping[str, Box]
    routes: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def layered(names: Sequence[str], edges: Sequence[tuple[str, str]], spacing: Spacing, room: float = 0.0) -> Layout:
    """Lay out a directed acyclic graph; the same input always gives the same layout.

    Parameters
    ----------
    names : all nodes; ties are broken by their order
    edges : pairs (source, target)
    spacing : Spacing
    room : width to fill where that takes at most doubling the space between layers

    Examples
    --------
    >>> layout = layered(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")], Spacing(100, 40, 60, 20, 10))
    >>> [layout.boxes[name].x for name in "abc"]
    [50.0, 210.0, 370.0]
    """
    if not names:
        return Layout({}, {}, 0.0, 0.0)
    columns, chains = _columns(names, edges)
    left, right = _links(chains.values())
    columns = _ordered(columns, left, right)
    height = {slot: spacing.height if len(slot) == 1 else spacing.stand_in for column in columns for slot in column}
    y = _placed(columns, left, right, height, spacing.between_slots)
    free = (room - len(columns) * spacing.width) / max(1, len(columns) - 1)
    between = min(max(free, spacing.between_layers), 2 * spacing.between_layers)
    step = spacing.width + between
    x = {slot: i * step + spacing.width / 2 for i, column in enumerate(columns) for slot in column}
    boxes = {name: Box(x[name,], y[name,], spacing.width, spacing.height) for name in names}
    leave = {slot: _ports(slot, near, y, spacing.height) for slot, near in right.items() if len(slot) == 1}
    enter = {slot: _ports(slot, near, y, spacing.height) for slot, near in left.items() if len(slot) == 1}
    routes = {}
    for edge, chain in chains.items():
        points: list[Point] = []
        for slot, following in zip(chain, chain[1:]):
            start = x[slot] + spacing.width / 2, y[slot] if len(slot) > 1 else leave[slot][following]
            end = x[following] - spacing.width / 2, y[following] if len(following) > 1 else enter[following][slot]
            reach = min((end[0] - start[0]) / 2, between)
            points += bezier(start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
        routes[edge] = tuple(points)
    return Layout(boxes, routes, len(columns) * step - between, max(y[s] + height[s] / 2 for s in y))


def turned(layout: Layout) -> Layout:
    """The same layout from top to bottom instead of left to right."""
    return Layout(
        {name: Box(box.y, box.x, box.height, box.width) for name, box in layout.boxes.items()},
        {edge: tuple((y, x) for x, y in route) for edge, route in layout.routes.items()},
        layout.height,
        layout.width,
    )


def bezier(a: Point, b: Point, c: Point, d: Point, steps: int = 24) -> list[Point]:
    """Points on the cubic Bezier curve from `a` to `d` with control points `b` and `c`."""
    points = []
    for i in range(steps + 1):
        t = i / steps
        u = 1 - t
        wa, wb, wc, wd = u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t
        points.append((wa * a[0] + wb * b[0] + wc * c[0] + wd * d[0], wa * a[1] + wb * b[1] + wc * c[1] + wd * d[1]))
    return points


def _columns(
    names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[Slot]], dict[tuple[str, str], list[Slot]]]:
    """Longest-path layers with stand-ins, and for each edge the slots that it passes."""
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(edges)
    layers = list(nx.topological_generations(graph))
    layer = {name: i for i, members in enumerate(layers) for name in members}
    columns: list[list[Slot]] = [[(name,) for name in names if layer[name] == i] for i in range(len(layers))]
    passing = sum(layer[target] - layer[source] - 1 for source, target in edges)
    chains = {}
    for source, target in edges:
        between = range(layer[source] + 1, layer[target]) if passing <= MAX_STAND_INS else ()
        stand_ins: list[Slot] = [(source, target, str(i)) for i in between]
        for i, slot in zip(between, stand_ins):
            columns[i].append(slot)
        chains[source, target] = [(source,), *stand_ins, (target,)]
    return columns, chains


def _links(chains: Iterable[Sequence[Slot]]) -> tuple[Links, Links]:
    """Neighbours of each slot to the left and to the right."""
    left: Links = {}
    right: Links = {}
    for chain in chains:
        for slot, following in zip(chain, chain[1:]):
            right.setdefault(slot, []).append(following)
            left.setdefault(following, []).append(slot)
    return left, right


def _ordered(columns: list[list[Slot]], left: Links, right: Links, sweeps: int = 12) -> list[list[Slot]]:
    """Reduce crossings: sort columns by barycentre in both directions, swap neighbours, keep the best order seen."""
    columns = [list(column) for column in columns]
    place: dict[Slot, float] = {}

    def renumber(column: list[Slot]) -> None:
        # Relative places: columns of different lengths stay comparable where an edge has no stand-ins.
        place.update((slot, (i + 0.5) / len(column)) for i, slot in enumerate(column))

    def barycentre(slot: Slot, links: Links) -> float:
        near = links.get(slot)
        return sum(place[n] for n in near) / len(near) if near else place[slot]

    for column in columns:
        renumber(column)
    best, fewest = [list(column) for column in columns], _crossings(columns, right, place)
    for sweep in range(sweeps):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            column.sort(key=lambda slot: barycentre(slot, left if forward else right))
            renumber(column)
        if len(place) <= MAX_SWAPPED:
            for column in columns:
                _swap(column, left, right, place)
        crossings = _crossings(columns, right, place)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _swap(column: list[Slot], left: Links, right: Links, place: dict[Slot, float]) -> None:
    """Swap neighbours in a column as long as that removes crossings."""

    def crossed(upper: Slot, lower: Slot) -> int:
        return sum(
            place[a] > place[b] for links in (left, right) for a in links.get(upper, ()) for b in links.get(lower, ())
        )

    better = True
    while better:
        better = False
        for i, (upper, lower) in enumerate(zip(column, column[1:])):
            if crossed(upper, lower) > crossed(lower, upper):
                column[i : i + 2] = lower, upper
                place[upper], place[lower] = place[lower], place[upper]
                better = True
                break


def _crossings(columns: list[list[Slot]], right: Links, place: Mapping[Slot, float]) -> int:
    """Crossings between neighbouring columns: inversions among the far ends of links sorted by their near ends."""
    total = 0
    for column in columns:
        seen: list[float] = []
        for slot in column:
            ends = [place[n] for n in right.get(slot, ())]
            total += sum(len(seen) - bisect.bisect_right(seen, end) for end in ends)
            for end in ends:
                bisect.insort(seen, end)
    return total


def _placed(
    columns: list[list[Slot]], left: Links, right: Links, height: Mapping[Slot, float], gap: float, rounds: int = 40
) -> dict[Slot, float]:
    """Vertical centres, from 0 down: relax every slot towards its neighbours, column by column, both ways."""
    y: dict[Slot, float] = {}
    for column in columns:
        at = -sum(height[slot] + gap for slot in column) / 2
        for slot in column:
            y[slot] = at + height[slot] / 2
            at += height[slot] + gap

    def pull(slot: Slot) -> float:
        near = left.get(slot, []) + right.get(slot, [])
        # A long edge bends for its nodes rather than they for it.
        weights = [0.3 if len(n) > len(slot) else 1.0 for n in near]
        return sum(w * y[n] for w, n in zip(weights, near)) / sum(weights) if near else y[slot]

    for turn in range(rounds):
        for column in columns if turn % 2 else reversed(columns):
            wanted = [pull(slot) for slot in column]
            y.update(zip(column, spread(wanted, [height[slot] for slot in column], gap)))
    top = min(y[slot] - height[slot] / 2 for slot in y)
    return {slot: at - top for slot, at in y.items()}


def spread(wanted: Sequence[float], sizes: Sequence[float], gap: float) -> list[float]:
    """Centres in the given order, at least `gap` apart, with the least sum of squared distances to `wanted`.

    Examples
    --------
    >>> spread([0.0, 0.0, 50.0], [10, 10, 10], 2)
    [-6.0, 6.0, 50.0]
    """
    offsets = [0.0]
    for size, following in zip(sizes, sizes[1:]):
        offsets.append(offsets[-1] + (size + following) / 2 + gap)
    pools: list[list[float]] = []  # [sum, count] of neighbours that share one shift
    for want, offset in zip(wanted, offsets):
        pools.append([want - offset, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    shifts = [total / count for total, count in pools for _ in range(int(count))]
    return [shift + offset for shift, offset in zip(shifts, offsets)]


def _ports(slot: Slot, near: Sequence[Slot], y: Mapping[Slot, float], height: float) -> dict[Slot, float]:
    """Where the links of a node meet its side: spread over the middle of it in the order of their other ends."""
    step = min(11.0, 0.72 * height / max(1, len(near) - 1))
    ordered = sorted(near, key=lambda n: y[n])
    return {n: y[slot] + (i - (len(ordered) - 1) / 2) * step for i, n in enumerate(ordered)}
