"""The pendulum world: a lamp and a pendulum cast a shadow whose length and position follow from geometry.

Variables, ranges and formulas are those of the pendulum data of CausalVAE (Yang et al., CVPR 2021), which CausalDiffAE
uses as well, with float labels. The variant ``pendulum-noise`` adds exogenous noise to the shadow, so that abduction
matters: x = f(parents) + u with u known, and a counterfactual keeps u.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..concepts import Concept, Concepts
from ..errors import CounterfactError
from .base import Scene
from .equations import EquationWorld
from .paint import Canvas

RANGES = {
    "angle": (-40.0, 43.0),
    "light": (60.0, 147.0),
    "shadow length": (3.0, 12.58),
    "shadow position": (2.0, 19.6),
}
PIVOT, BALL, REACH, GROUND_Y, LAMP_Y = (10.0, 10.5), 8.0, 9.5, -0.5, 20.5
NOISE = {"shadow length": 0.8, "shadow position": 0.8}
ANY = (-sys.float_info.max, sys.float_info.max)


def _project(x: float, y: float, base: float, phi: float) -> float:
    """Where the ray of slope tan(phi) through (x, y) meets the height ``base`` as the original data define it."""
    return (base - (y - x * math.tan(phi))) / math.tan(phi)


def shadow(angle: float, light: float) -> tuple[float, float]:
    """Shadow length (at least 3) and position, in data units, for an angle and a light in steps of pi/200."""
    theta, phi = angle * math.pi / 200, light * math.pi / 200
    if abs(math.sin(phi)) < 1e-9:
        raise CounterfactError(f"light = {light:g}: level light casts no shadow on the ground; 60 to 147 does")
    if abs(math.cos(phi)) < 1e-9:  # the light stands straight above: the ray is vertical
        start, end = PIVOT[0], PIVOT[0] + REACH * math.sin(theta)
    else:
        start = _project(*PIVOT, GROUND_Y, phi)
        end = _project(PIVOT[0] + REACH * math.sin(theta), PIVOT[1] - REACH * math.cos(theta), GROUND_Y, phi)
    return max(3.0, abs(start - end)), (start + end) / 2


class Pendulum(EquationWorld):
    """The pendulum world; the modes differ in the shadow alone, since angle and light are uniform in both.

    Angle and light are in steps of pi/200 rad, shadow length and position in the units of the 20-wide scene. Noise and
    interventions may leave the intervals, which are the ranges of the original data.
    """

    edges = tuple((cause, effect) for cause in ("angle", "light") for effect in NOISE)
    stream = 9103

    def __init__(self, noisy: bool = False) -> None:
        self.name = "pendulum-noise" if noisy else "pendulum"
        self.noisy = noisy
        margins = {name: 4 * width for name, width in NOISE.items()} if noisy else {}
        self.variables = tuple(
            Concept(name, interval=(low - margins.get(name, 0.0), high + margins.get(name, 0.0)))
            for name, (low, high) in RANGES.items()
        )
        self.free = Concepts(tuple(replace(c, interval=ANY) for c in self.variables))

    def draw_noise(self, rng: np.random.Generator) -> dict[str, float]:
        """Angle and light: the values themselves; shadow: what is added to it."""
        noise = {name: float(rng.uniform(*interval)) for name, interval in RANGES.items() if name not in NOISE}
        for name, width in NOISE.items():
            noise[name] = float(rng.normal(0.0, width)) if self.noisy else 0.0
        return noise

    def draw_uniform(self, rng: np.random.Generator) -> dict[str, str]:
        """A shadow that does not follow from angle and light."""
        return {name: repr(float(rng.uniform(*RANGES[name]))) for name in NOISE}

    def mechanism(self, name: str, values: Mapping[str, str], noise: float) -> str:
        """See :class:`EquationWorld`."""
        if name not in NOISE:
            return repr(noise)
        cast = shadow(float(values["angle"]), float(values["light"]))
        return repr(dict(zip(NOISE, cast))[name] + noise)

    def fitted(self, values: Mapping[str, str]) -> Concepts:
        """The variables, in intervals that take in the values."""
        numbers = {name: float(value) for name, value in self.free.settle(values).items()}
        return Concepts(tuple(_taking_in(c, numbers.get(c.name, c.interval[0])) for c in self.variables))

    def phrases(self, name: str, value: str) -> tuple[str, ...]:
        """The one phrase of a value, for instance "angle 12.5"."""
        return (f"{name} {float(value):.1f}",)

    def paint(self, scene: Scene, size: int, masked: bool = False) -> Canvas:
        """One line shows both how long the shadow is and where: its region belongs to both concepts."""
        v = {name: float(value) for name, value in scene.values.items()}
        theta, phi = v["angle"] * math.pi / 200, v["light"] * math.pi / 200
        canvas = Canvas(size, masked)
        canvas.rgb[:] = 1.0

        def place(x: float, y: float) -> tuple[float, float]:
            return x / 20.0, (21.0 - y) / 22.0

        (px, py) = place(*PIVOT)
        bx, by = place(PIVOT[0] + BALL * math.sin(theta), PIVOT[1] - BALL * math.cos(theta))
        lamp = PIVOT[0] if abs(math.cos(phi)) < 1e-9 else _project(*PIVOT, LAMP_Y, phi)
        lx, ly = place(lamp, LAMP_Y)
        sx, sy = place(v["shadow position"] - v["shadow length"] / 2, GROUND_Y)
        ex, _ = place(v["shadow position"] + v["shadow length"] / 2, GROUND_Y)
        canvas.ellipse(lx, ly, 3.0 / 20, 3.0 / 22, (1.0, 0.65, 0.0), concept="light")
        canvas.stroke(px, py, bx, by, 0.018, (0.0, 0.0, 0.0), concept="angle")
        canvas.ellipse(bx, by, 1.5 / 20, 1.5 / 22, (0.70, 0.13, 0.13), concept="angle")
        canvas.stroke(sx, sy, ex, sy, 0.018, (0.0, 0.0, 0.0), concept="shadow length")
        if canvas.masks and "shadow length" in canvas.masks:
            canvas.masks["shadow position"] = canvas.masks["shadow length"].copy()
        return canvas


def _taking_in(concept: Concept, number: float) -> Concept:
    low, high = concept.interval
    return concept if low <= number <= high else replace(concept, interval=(min(low, number), max(high, number)))
