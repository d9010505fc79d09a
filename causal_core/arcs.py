"""Curves between boxes that lie anywhere, as latent confounders are drawn: pure geometry, no drawing.

A curve is the cheapest of many: from each side to each side, with several bends. What it costs are boxes and
other lines in its way, counted in the cells of a grid, and its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .layout import Box, Point, bezier

MAX_CAREFUL = 12
CELL = 8.0


def arcs(
    pairs: Sequence[tuple[str, str]], boxes: Mapping[str, Box], routes: Mapping[tuple[str, str], Sequence[Point]]
) -> dict[tuple[str, str], list[Point]]:
    """Curves between pairs of boxes that avoid other boxes, keep off routes where they can, and are short.

    All sides are tried with a few places on them and a few strengths of bend; a curve may reach outside the layout.
    """
    if not pairs:
        return {}
    occupied = {
        (i, j): name
        for name, box in boxes.items()
        for i in range(round((box.x - box.width / 2) / CELL), round((box.x + box.width / 2) / CELL) + 1)
        for j in range(round((box.y - box.height / 2) / CELL), round((box.y + box.height / 2) / CELL) + 1)
    }
    passed = {cell for route in routes.values() for cell in cells(route)}
    used: dict[str, list[Point]] = {}
    for (source, target), route in routes.items():
        used.setdefault(source, []).append(route[0])
        used.setdefault(target, []).append(route[-1])
    few = len(pairs) <= MAX_CAREFUL
    bends, shifts = ((30.0, 55.0, 90.0, 140.0), (0.0, -0.3, 0.3)) if few else ((55.0,), (0.0,))
    sides = [(side, shift) for shift in shifts for side in ((0, -1), (0, 1), (-1, 0), (1, 0))]

    def cost(pair: tuple[str, str], points: Sequence[Point]) -> float:
        blocked = sum(occupied.get(cell, pair[0]) not in pair for cell in cells(points[1:-1]))
        blocked += sum(boxes[name].holds(point) for name in pair for point in points[1:-1])
        touched = len(passed.intersection(cells(points[2:-2])))
        tight = sum(
            abs(end[0] - port[0]) + abs(end[1] - port[1]) < 14.0
            for name, end in zip(pair, (points[0], points[-1]))
            for port in used.get(name, ())
        )
        length = sum(abs(p[0] - q[0]) + abs(p[1] - q[1]) for p, q in zip(points, points[1:]))
        return 300.0 * blocked + 150.0 * tight + 12.0 * touched + length

    result = {}
    for pair in pairs:
        candidates = []
        for bend in bends:
            for out, shift in sides:
                for back, shift_back in sides:
                    a, d = boxes[pair[0]].side(out, shift), boxes[pair[1]].side(back, shift_back)
                    b, c = (a[0] + out[0] * bend, a[1] + out[1] * bend), (d[0] + back[0] * bend, d[1] + back[1] * bend)
                    candidates.append(bezier(a, b, c, d))
        result[pair] = min(candidates, key=lambda points: cost(pair, points))
        passed.update(cells(result[pair]))
        used.setdefault(pair[0], []).append(result[pair][0])
        used.setdefault(pair[1], []).append(result[pair][-1])
    return result


def cells(points: Sequence[Point]) -> Iterator[tuple[int, int]]:
    """The cells of a square grid (side CELL) that a polyline passes, without gaps."""
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        steps = int(max(abs(x1 - x0), abs(y1 - y0)) / CELL) + 1
        for i in range(steps):
            yield round((x0 + (x1 - x0) * i / steps) / CELL), round((y0 + (y1 - y0) * i / steps) / CELL)
