"""A tiny anti-aliased painter: signed distances to simple shapes, composited on a float canvas.

Coordinates are fractions of the picture (x to the right, y downwards, both 0 to 1), so a scene looks the same at every
size. Each shape is evaluated in its own window only, which keeps a 64-px picture within a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Colour = Sequence[float]


class Canvas:
    """A square RGB canvas with optional concept masks.

    Parameters
    ----------
    size : int
        Side length in pixels.
    masked : bool
        Also keep, for every concept named while painting, how much of each pixel it shows (0 to 1, after occlusion).

    Attributes
    ----------
    rgb : float32 array [size, size, 3], 0 to 1
    masks : dict of float32 arrays [size, size]
    light : float32 array [3]
        Multiplies every colour painted with ``lit=True``.
    """

    def __init__(self, size: int, masked: bool = False) -> None:
        self.size = size
        self.rgb = np.zeros((size, size, 3), np.float32)
        self.masks: dict[str, np.ndarray] | None = {} if masked else None
        self.light = np.ones(3, np.float32)
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        self.x, self.y = centres[None, :], centres[:, None]

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Rows and columns that cover a box, with a margin of two pixels."""
        n = self.size

        def clip(v: float) -> int:
            return min(n, max(0, int(v)))

        return slice(clip(y0 * n - 2), clip(y1 * n + 3)), slice(clip(x0 * n - 2), clip(x1 * n + 3))

    def blend(
        self, where: tuple[slice, slice], alpha: np.ndarray, colour: Colour, concept: str | None, lit: bool
    ) -> None:
        """Composite ``colour`` with coverage ``alpha`` [rows, columns] over a window."""
        rgb = np.asarray(colour, np.float32)
        if lit:
            rgb = rgb * self.light
        view = self.rgb[where]
        view += alpha[..., None] * (rgb - view)
        if self.masks is not None:
            for mask in self.masks.values():
                mask[where] *= 1.0 - alpha
            if concept:
                self._mask(concept)[where] += alpha

    def _mask(self, concept: str) -> np.ndarray:
        assert self.masks is not None
        return self.masks.setdefault(concept, np.zeros((self.size, self.size), np.float32))

    def _fill(
        self,
        box: tuple[float, float, float, float],
        distance: Callable[[np.ndarray, np.ndarray], np.ndarray],
        colour: Colour,
        alpha: float,
        concept: str | None,
        lit: bool,
        soft: float,
    ) -> None:
        where = self.window(*box)
        x, y = self.x[:, where[1]], self.y[where[0]]
        if not x.size or not y.size:
            return
        scale = 1.0 / max(soft, 1.0 / self.size)
        coverage = np.clip(0.5 - distance(x, y) * scale, 0.0, 1.0)
        if alpha != 1.0:
            coverage = coverage * np.float32(alpha)
        self.blend(where, coverage, colour, concept, lit)

    def ellipse(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        colour: Colour,
        alpha: float = 1.0,
        concept: str | None = None,
        lit: bool = True,
        soft: float = 0.0,
        slant: float = 0.0,
    ) -> None:
        """An ellipse; ``slant`` shears it sideways (x shift for each unit of y), ``soft`` is the edge width."""
        reach = rx + abs(slant) * ry + soft
        r = min(rx, ry)

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            dy = y - cy
            dx = x - cx - slant * dy
            return (np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2) - 1.0) * r

        self._fill(
            (cx - reach, cy - ry - soft, cx + reach, cy + ry + soft), distance, colour, alpha, concept, lit, soft
        )

    def box(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        colour: Colour,
        alpha: float = 1.0,
        concept: str | None = None,
        lit: bool = True,
        soft: float = 0.0,
        round_: float = 0.0,
    ) -> None:
        """An axis-parallel rectangle with corners of radius ``round_``."""
        cx, cy, hx, hy = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 - round_, (y1 - y0) / 2 - round_

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            dx, dy = np.abs(x - cx) - hx, np.abs(y - cy) - hy
            if round_ == 0.0:
                return np.maximum(dx, dy)
            outside = np.sqrt(np.maximum(dx, 0.0) ** 2 + np.maximum(dy, 0.0) ** 2)
            return outside + np.minimum(np.maximum(dx, dy), 0.0) - round_

        self._fill((x0 - soft, y0 - soft, x1 + soft, y1 + soft), distance, colour, alpha, concept, lit, soft)

    def convex(
        self,
        points: Sequence[tuple[float, float]],
        colour: Colour,
        alpha: float = 1.0,
        concept: str | None = None,
        lit: bool = True,
        soft: float = 0.0,
    ) -> None:
        """A convex polygon; the points go clockwise as seen on the picture."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            d = None
            for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]]):
                ex, ey = bx - ax, by - ay
                length = max((ex * ex + ey * ey) ** 0.5, 1e-9)
                edge = ((x - ax) * (ey / length)) - ((y - ay) * (ex / length))
                d = edge if d is None else np.maximum(d, edge)
            return d

        box = (min(xs) - soft, min(ys) - soft, max(xs) + soft, max(ys) + soft)
        self._fill(box, distance, colour, alpha, concept, lit, soft)

    def stroke(
        self,
        x0: float,
        y0: float,
        x1: float,
        y1: float,
        width: float,
        colour: Colour,
        alpha: float = 1.0,
        concept: str | None = None,
        lit: bool = True,
        soft: float = 0.0,
    ) -> None:
        """A line with round ends, ``width`` across."""
        ex, ey, w = x1 - x0, y1 - y0, width / 2
        square = max(ex * ex + ey * ey, 1e-12)

        def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            t = np.clip(((x - x0) * ex + (y - y0) * ey) / square, 0.0, 1.0)
            return np.sqrt((x - x0 - t * ex) ** 2 + (y - y0 - t * ey) ** 2) - w

        box = (min(x0, x1) - w - soft, min(y0, y1) - w - soft, max(x0, x1) + w + soft, max(y0, y1) + w + soft)
        self._fill(box, distance, colour, alpha, concept, lit, soft)

    def below(self, ridge: np.ndarray, colour: Colour | np.ndarray, concept: str | None = None) -> None:
        """Everything below a skyline ``ridge`` [size] (y of each column); a colour or one a pixel [size, size, 3]."""
        coverage = np.clip(0.5 + (self.y - ridge[None, :]) * self.size, 0.0, 1.0)
        self.blend((slice(None), slice(None)), coverage, colour, concept, True)

    def glow(self, cx: float, cy: float, radius: float, colour: Colour, strength: float) -> None:
        """Add light around a point, falling to zero at ``radius``; it is light, not an object, so no mask changes."""
        where = self.window(cx - radius, cy - radius, cx + radius, cy + radius)
        x, y = self.x[:, where[1]], self.y[where[0]]
        fall = np.clip(1.0 - np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / radius, 0.0, 1.0)
        self.rgb[where] += (strength * fall * fall)[..., None] * np.asarray(colour, np.float32)

    def finish(self) -> np.ndarray:
        """The picture as uint8 [size, size, 3]."""
        return (np.clip(self.rgb, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, cells: int, size: int) -> np.ndarray:
    """Smooth random texture, float32 [size, size], mean near 0, range -1 to 1: bilinear interpolation of a coarse grid.

    The same generator state gives the same texture at every size.
    """
    grid = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)).astype(np.float32)
    t = (np.arange(size, dtype=np.float32) + 0.5) / size * cells
    i = np.minimum(t.astype(int), cells - 1)
    f = t - i
    f = f * f * (3.0 - 2.0 * f)
    rows = grid[i] * (1.0 - f[:, None]) + grid[i + 1] * f[:, None]
    return rows[:, i] * (1.0 - f[None, :]) + rows[:, i + 1] * f[None, :]
