"""A brush for diagrams: lines, dashes, rounded boxes, arrowheads and text on a Pillow picture.

It draws in its own scaled and moved coordinates. Pillow's lines are not smooth: draw a few times larger, then reduce.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING

from .layout import Box, Point

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

# Fonts that many systems have, for scripts that Pillow's own font lacks.
OTHER_FONTS = ("DejaVuSans.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "msgothic.ttc")


@dataclass(frozen=True)
class Brush:
    """Draws at `scale` pixels a unit, with the origin moved by (x, y) units."""

    draw: ImageDraw.ImageDraw
    scale: float
    x: float = 0.0
    y: float = 0.0

    def moved(self, x: float, y: float) -> Brush:
        """The same brush with the origin at (x, y)."""
        return Brush(self.draw, self.scale, self.x + x, self.y + y)

    def at(self, point: Point) -> Point:
        """The pixel of a point."""
        return (point[0] + self.x) * self.scale, (point[1] + self.y) * self.scale

    def line(self, points: Sequence[Point], colour: str, width: float, dash: tuple[float, float] | None = None) -> None:
        """A polyline; `dash` gives the length of dashes and of the gaps between them."""
        thick = max(1, round(width * self.scale))
        for part in dashes(points, *dash) if dash else (points,):
            self.draw.line([self.at(point) for point in part], fill=colour, width=thick, joint="curve")

    def box(self, box: Box, radius: float, fill: str | None, outline: str | None = None, width: float = 0.0) -> None:
        """A rectangle with round corners."""
        x0, y0 = self.at((box.x - box.width / 2, box.y - box.height / 2))
        x1, y1 = self.at((box.x + box.width / 2, box.y + box.height / 2))
        thick = max(1, round(width * self.scale)) if outline else 0
        self.draw.rounded_rectangle((x0, y0, x1, y1), max(0.0, radius) * self.scale, fill, outline, thick)

    def head(self, tip: Point, angle: float, colour: str, size: float) -> None:
        """An arrowhead that points in the direction of `angle` (radians)."""
        back = [(tip[0] - size * cos(angle + turn), tip[1] - size * sin(angle + turn)) for turn in (-0.46, 0.46)]
        self.draw.polygon([self.at(point) for point in (tip, *back)], fill=colour)

    def text(
        self, at: Point, words: str, size: float, colour: str, room: float, bold: bool = False, anchor: str = "ls"
    ) -> float:
        """Write on a baseline, shortened to `room`; returns the width."""
        pixels = max(1, round(size * self.scale))
        words, font = _typeset(words, pixels)
        words = _ellipsised(words, font, room * self.scale)
        x, y = self.at(at)
        # The font has one weight: writing twice, a hair apart, makes the other without closing the letters' counters.
        for shift in (0, max(1, round(pixels / 26))) if bold else (0,):
            self.draw.text((x + shift, y), words, fill=colour, font=font, anchor=anchor)
        return font.getlength(words) / self.scale


def measure(words: str, size: float) -> float:
    """Width of words in units, as :meth:`Brush.text` writes them."""
    words, font = _typeset(words, round(size * 2))
    return font.getlength(words) / 2


def rounded(box: Box, radius: float) -> list[Point]:
    """The border of a rectangle with round corners as a closed polyline."""
    w, h = box.width / 2 - radius, box.height / 2 - radius
    points = []
    for corner, (dx, dy) in enumerate(((-w, -h), (w, -h), (w, h), (-w, h))):
        for i in range(9):
            angle = pi + (corner + i / 8) * pi / 2
            points.append((box.x + dx + radius * cos(angle), box.y + dy + radius * sin(angle)))
    return [*points, points[0]]


def length(points: Sequence[Point]) -> float:
    """Length of a polyline.

    >>> length([(0, 0), (3, 4), (3, 10)])
    11.0
    """
    return sum(hypot(q[0] - p[0], q[1] - p[1]) for p, q in zip(points, points[1:]))


def along(points: Sequence[Point], distance: float) -> Point:
    """The point at a distance along a polyline, from its end where the distance is negative.

    >>> along([(0, 0), (10, 0)], -4)
    (6.0, 0.0)
    """
    if distance < 0:
        points, distance = points[::-1], -distance
    for p, q in zip(points, points[1:]):
        step = hypot(q[0] - p[0], q[1] - p[1])
        if step > distance:
            return _between(p, q, distance / step)
        distance -= step
    return points[-1]


def part(points: Sequence[Point], start: float, end: float) -> list[Point]:
    """The piece of a polyline between two distances from its beginning.

    >>> part([(0, 0), (10, 0), (10, 10)], 5, 12)
    [(5.0, 0.0), (10, 0), (10.0, 2.0)]
    """
    piece, at = [along(points, start)], 0.0
    for p, q in zip(points, points[1:]):
        at += hypot(q[0] - p[0], q[1] - p[1])
        if start < at < end:
            piece.append(q)
    return [*piece, along(points, end)]


def dashes(points: Sequence[Point], on: float, off: float) -> Iterator[list[Point]]:
    """Cut a polyline into dashes, with a dash at both ends."""
    total = length(points)
    count = max(1, round((total + off) / (on + off)))
    stretch = total / (count * (on + off) - off)
    for i in range(count):
        start = i * (on + off) * stretch
        yield part(points, start, start + on * stretch)


def _between(p: Point, q: Point, share: float) -> Point:
    return p[0] + (q[0] - p[0]) * share, p[1] + (q[1] - p[1]) * share


def _ellipsised(words: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    if font.getlength(words) <= room:
        return words
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(words[:middle].rstrip() + "\u2026") <= room:
            low = middle
        else:
            high = middle - 1
    return words[:low].rstrip() + "\u2026"


@lru_cache(maxsize=64)
def _default_font(pixels: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=pixels)


@lru_cache(maxsize=1024)
def _typeset(words: str, pixels: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The words and a font that has all their letters; accents go where no font has them."""
    from PIL import ImageFont

    if words.isascii():
        return words, _default_font(pixels)
    for name in OTHER_FONTS:
        try:
            font = ImageFont.truetype(name, pixels)
        except OSError:
            continue
        missing = bytes(font.getmask("\uffff"))
        if all(c.isspace() or bytes(font.getmask(c)) != missing for c in words):
            return words, font
    plain = "".join(c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c))
    return plain, _default_font(pixels)
