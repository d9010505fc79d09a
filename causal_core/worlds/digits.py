"""The digits world: handwritten digits whose stroke thickness makes the ink brighter.

Variables and equations are those of MorphoMNIST as used for counterfactuals by Pawlowski et al. (NeurIPS 2020,
section 4.1): thickness t = 0.5 + Gamma(10, rate 5) and intensity 64 + 191 sigmoid(2 (t - 2.5) + 0.5 e), e standard
normal. The digits are not from a data set but drawn: curves through a few points, a line of exactly the thickness t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from ..concepts import Concept
from .base import Scene
from .equations import EquationWorld
from .paint import Canvas

# Thickness is in pixels of a picture 28 pixels wide, as in MNIST. Fewer than one draw in 500 is clipped to the range.
THICKNESS, INTENSITY, WIDTH = (1.0, 5.5), (64.0, 255.0), 28.0
PIECES = 6
INKS = {"red": (1.0, 0.25, 0.2), "green": (0.25, 0.95, 0.35), "blue": (0.3, 0.45, 1.0), "yellow": (1.0, 0.9, 0.25)}

Point = tuple[float, float]
Stroke = tuple[Point, ...]

# Ways to write each digit: strokes through points of the unit square, x to the right and y downwards. A stroke is a
# smooth curve; a corner is where two strokes meet.
GLYPHS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (
        (((0.5, 0), (0.12, 0.18), (0, 0.5), (0.12, 0.84), (0.5, 1), (0.88, 0.84), (1, 0.5), (0.88, 0.18), (0.5, 0)),),
        (((0.62, 0), (0.2, 0.2), (0.06, 0.58), (0.25, 0.95), (0.6, 0.93), (0.9, 0.6), (0.88, 0.22), (0.55, 0.03)),),
    ),
    (
        (((0.5, 0), (0.5, 1)),),
        (((0.2, 0.24), (0.55, 0)), ((0.55, 0), (0.55, 1))),
        (((0.2, 0.24), (0.53, 0)), ((0.53, 0), (0.53, 1)), ((0.15, 1), (0.91, 1))),
    ),
    (
        (((0.05, 0.24), (0.2, 0.04), (0.55, 0), (0.88, 0.15), (0.85, 0.4), (0.5, 0.7), (0, 1)), ((0, 1), (1, 1))),
        (
            ((0.08, 0.2), (0.3, 0.02), (0.65, 0.02), (0.86, 0.22), (0.72, 0.52), (0.38, 0.8), (0.04, 1)),
            ((0.04, 1), (0.32, 0.88), (0.6, 0.98), (1, 0.94)),
        ),
    ),
    (
        (
            ((0.08, 0.12), (0.45, 0), (0.85, 0.13), (0.82, 0.36), (0.38, 0.47)),
            ((0.38, 0.47), (0.86, 0.57), (0.95, 0.82), (0.52, 1), (0.02, 0.88)),
        ),
        (
            ((0.08, 0), (0.92, 0)),
            ((0.92, 0), (0.42, 0.4)),
            ((0.42, 0.4), (0.85, 0.5), (0.95, 0.78), (0.52, 1), (0.02, 0.88)),
        ),
    ),
    (
        (((0.18, 0), (0.04, 0.56)), ((0.04, 0.56), (1, 0.56)), ((0.76, 0.05), (0.7, 1))),
        (((0.7, 0), (0, 0.68)), ((0, 0.68), (1, 0.68)), ((0.7, 0), (0.7, 1))),
    ),
    (
        (
            ((0.92, 0), (0.2, 0)),
            ((0.2, 0), (0.1, 0.44)),
            ((0.1, 0.44), (0.52, 0.36), (0.93, 0.53), (0.9, 0.85), (0.48, 1), (0.02, 0.9)),
        ),
    ),
    (
        (((0.8, 0), (0.35, 0.22), (0.05, 0.66), (0.25, 0.96), (0.62, 0.99), (0.92, 0.8), (0.8, 0.54), (0.42, 0.5),
          (0.08, 0.7)),),
        (((0.5, 0), (0.14, 0.4), (0.08, 0.78), (0.4, 1), (0.82, 0.93), (0.88, 0.66), (0.56, 0.52), (0.13, 0.68)),),
    ),
    (
        (((0, 0), (1, 0)), ((1, 0), (0.6, 0.45), (0.36, 1))),
        (((0, 0), (1, 0)), ((1, 0), (0.6, 0.45), (0.36, 1)), ((0.3, 0.52), (0.9, 0.48))),
    ),
    (
        (((0.5, 0.46), (0.16, 0.3), (0.2, 0.07), (0.5, 0), (0.8, 0.07), (0.84, 0.3), (0.5, 0.46), (0.08, 0.64),
          (0.08, 0.9), (0.5, 1), (0.92, 0.9), (0.92, 0.64), (0.5, 0.46)),),
        (((0.86, 0.14), (0.5, 0), (0.14, 0.14), (0.28, 0.38), (0.74, 0.62), (0.9, 0.86), (0.5, 1), (0.1, 0.86),
          (0.26, 0.62), (0.72, 0.38), (0.86, 0.14)),),
    ),
    (
        (((0.9, 0.2), (0.55, 0), (0.14, 0.1), (0.08, 0.38), (0.45, 0.52), (0.82, 0.38), (0.9, 0.2)),
         ((0.9, 0.2), (0.86, 0.6), (0.72, 1))),
        (((0.9, 0.2), (0.55, 0), (0.14, 0.1), (0.08, 0.38), (0.45, 0.52), (0.82, 0.38), (0.9, 0.2)),
         ((0.9, 0.2), (0.9, 0.6), (0.66, 0.95), (0.15, 0.92))),
    ),
)  # fmt: skip


class Digits(EquationWorld):
    """The digits world; the digit has no cause and no effect.

    How a digit is written (slant, size, place, bent strokes, which of several forms) comes from the scene's seed, apart
    from the digit, so a counterfactual digit is in the same hand. The ink has grey level ``intensity`` on black.
    """

    name = "digits"
    variables = (
        Concept("digit", tuple("0123456789")),
        Concept("thickness", interval=THICKNESS),
        Concept("intensity", interval=INTENSITY),
    )
    edges = (("thickness", "intensity"),)
    grey = True

    def draw_noise(self, rng: np.random.Generator) -> dict[str, float]:
        """Digit: uniform in [0, 1); thickness: the thickness itself; intensity: standard normal."""
        return {
            "digit": float(rng.random()),
            "thickness": float(np.clip(0.5 + rng.gamma(10.0, 1 / 5.0), *THICKNESS)),
            "intensity": float(rng.normal()),
        }

    def mechanism(self, name: str, values: Mapping[str, str], noise: float) -> str:
        """See :class:`EquationWorld`."""
        if name == "digit":
            return str(int(10 * noise))
        if name == "thickness":
            return repr(noise)
        low, high = INTENSITY
        return repr(low + (high - low) / (1 + math.exp(-2 * (float(values["thickness"]) - 2.5) - 0.5 * noise)))

    def paint(self, scene: Scene, size: int, masked: bool = False) -> Canvas:
        """White ink on black; all concepts are in the ink."""
        grey = float(scene.values["intensity"]) / 255
        return self.inked(scene, float(scene.values["thickness"]), (grey, grey, grey), size, masked)

    def inked(self, scene: Scene, thickness: float, ink: tuple[float, float, float], size: int, masked: bool) -> Canvas:
        """The scene's digit in ink of a colour, 0 to 1 each, on black."""
        half = thickness / 2 / WIDTH
        canvas = Canvas(size, masked)
        distance = np.full((size, size), np.inf, np.float32)
        for a, b in _written(int(scene.values["digit"]), np.random.default_rng([scene.seed, 6151])):
            (left, right), (top, bottom) = sorted((a[0], b[0])), sorted((a[1], b[1]))
            where = canvas.window(left - half, top - half, right + half, bottom + half)
            x, y = canvas.x[:, where[1]] - a[0], canvas.y[where[0]] - a[1]
            along = b - a
            t = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-12), 0.0, 1.0)
            nearer = np.sqrt((x - t * along[0]) ** 2 + (y - t * along[1]) ** 2)
            distance[where] = np.minimum(distance[where], nearer)
        coverage = np.clip(0.5 - (distance - half) * size, 0.0, 1.0)
        canvas.blend((slice(None), slice(None)), coverage, ink, None, False)
        if canvas.masks is not None:
            canvas.masks.update({concept.name: coverage.copy() for concept in self.variables})
        return canvas


class ColouredDigits(Digits):
    """Digits in one of four colours, which neither causes nor follows from the digit.

    Thickness and brightness are part of the hand, and come from the scene's seed. What makes digit and colour depend on
    each other, and something else on the picture, is up to those who use it: the benchmark of modular models hides a
    common cause of a digit and of what somebody says who sees the picture.
    """

    name = "coloured-digits"
    variables = (Concept("digit", tuple("0123456789")), Concept("colour", tuple(INKS)))
    edges = ()
    grey = False

    def draw_noise(self, rng: np.random.Generator) -> dict[str, float]:
        """A uniform number in [0, 1) for each variable."""
        return {"digit": float(rng.random()), "colour": float(rng.random())}

    def mechanism(self, name: str, values: Mapping[str, str], noise: float) -> str:
        """Every value is as likely as any other."""
        domain = next(concept.domain for concept in self.variables if concept.name == name)
        return domain[int(len(domain) * noise)]

    def paint(self, scene: Scene, size: int, masked: bool = False) -> Canvas:
        """Ink of the colour on black."""
        hand = np.random.default_rng([scene.seed, 6152])
        thickness, light = hand.uniform(2.0, 4.0), hand.uniform(0.75, 1.0)
        red, green, blue = (light * channel for channel in INKS[scene.values["colour"]])
        return self.inked(scene, thickness, (red, green, blue), size, masked)


def _written(digit: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ends of the short lines that a digit is made of, in the hand that `rng` draws; fractions of the picture."""
    # Everything is drawn before the digit is looked at: the hand must not depend on the digit.
    form = rng.random()
    height, aspect = rng.uniform(15.5, 19.0) / WIDTH, rng.uniform(0.52, 0.72)
    slant, turn = rng.normal(0.12, 0.16), rng.normal(0.0, 0.06)
    place = 0.5 + rng.normal(0.0, 0.5, 2) / WIDTH
    waves = rng.normal(0.0, 0.035, (2, 4))
    shear = np.array([[1.0, -slant], [0.0, 1.0]])
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forms = GLYPHS[digit]
    for stroke in forms[int(form * len(forms))]:
        points = _curve(np.array(stroke))
        points = (_bent(points, waves) - 0.5) * (height * aspect, height)
        points = points @ (rotation @ shear).T + place
        yield from zip(points, points[1:])


def _bent(points: np.ndarray, waves: np.ndarray) -> np.ndarray:
    """Points [n, 2] of the unit square moved by a smooth field: strokes that meet go on meeting."""
    x, y = points[:, 0], points[:, 1]
    basis = np.stack([np.sin(math.pi * x), np.sin(math.pi * y), np.cos(math.pi * (x + y)), np.cos(math.pi * (x - y))])
    return points + (waves @ basis).T


def _curve(points: np.ndarray) -> np.ndarray:
    """Points of a Catmull-Rom curve through `points` [n, 2]; a curve that ends where it starts is closed smoothly."""
    if len(points) == 2:
        t = np.linspace(0, 1, PIECES + 1)[:, None]
        return points[0] * (1 - t) + points[1] * t
    if np.array_equal(points[0], points[-1]):
        before, after = points[-2], points[1]
    else:
        before, after = 2 * points[0] - points[1], 2 * points[-1] - points[-2]
    p = np.stack([before, *points, after])
    t = (np.arange(PIECES) / PIECES)[:, None, None]
    p0, p1, p2, p3 = p[:-3], p[1:-2], p[2:-1], p[3:]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.concatenate([curve.transpose(1, 0, 2).reshape(-1, 2), points[-1:]])
