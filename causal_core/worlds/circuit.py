"""The circuit world: a robot arm over three buttons switches three lamps, two of which also drive the third.

A small picture of the CausalCircuit scene of Brehmer et al. (NeurIPS 2022) with its structural equations: lamps are
Beta variables, v = 0.2 + 0.6 x and z ~ Beta(5 v, 5 (1 - v)), where x is how hard the lamp's button is pressed, for the
red lamp also how bright the green and the blue lamp are. The graph is two edges deep and its noise is not Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..concepts import Concept
from .base import Scene
from .beta import beta_quantile
from .equations import EquationWorld
from .paint import Canvas, smooth_noise

# Where along the arm's arc, 0 (left) to 1 (right), each button lies, and how far from it the arm still presses it.
BUTTONS = {"blue": 0.2, "red": 0.5, "green": 0.8}
REACH = 0.15
COLOURS = {"blue": (0.22, 0.42, 1.0), "red": (1.0, 0.2, 0.16), "green": (0.2, 0.9, 0.3)}

BASE, ARM, SWING = (0.5, 0.93), 0.43, math.radians(130)
LAMP_Y, BULB, HALO = 0.2, 0.06, 0.13


def pressed(arm: float, lamp: str) -> float:
    """How hard an arm at a position 0 to 1 presses the button of a lamp, 0 to 1.

    Examples
    --------
    >>> pressed(0.5, "red"), pressed(0.5, "blue")
    (1.0, 0.0)
    """
    return max(0.0, 1.0 - ((arm - BUTTONS[lamp]) / REACH) ** 2)


class Circuit(EquationWorld):
    """The circuit world.

    ``arm`` is the position along the arc, ``blue``, ``green`` and ``red`` the brightness of the lamps, all 0 to 1; the
    noise of each is its quantile, uniform in [0, 1). Table, places and light come from the scene's seed.
    """

    name = "circuit"
    variables = tuple(Concept(name, interval=(0.0, 1.0)) for name in ("arm", "blue", "green", "red"))
    edges = (("arm", "blue"), ("arm", "green"), ("arm", "red"), ("blue", "red"), ("green", "red"))

    def draw_noise(self, rng: np.random.Generator) -> dict[str, float]:
        """A uniform number for each variable."""
        return {concept.name: float(rng.random()) for concept in self.variables}

    def mechanism(self, name: str, values: Mapping[str, str], noise: float) -> str:
        """See :class:`EquationWorld`."""
        if name == "arm":
            return repr(noise)
        drive = pressed(float(values["arm"]), name)
        if name == "red":
            drive = min(1.0, drive + float(values["blue"]) + float(values["green"]))
        v = 0.2 + 0.6 * drive
        return repr(beta_quantile(noise, 5 * v, 5 * (1 - v)))

    def paint(self, scene: Scene, size: int, masked: bool = False) -> Canvas:
        """The table from above; a lamp's region is its bulb and its halo, the arm's takes in its shadow."""
        rng = np.random.default_rng([scene.seed, 3307])
        canvas = Canvas(size, masked)
        table = np.array([0.52, 0.47, 0.42]) + rng.uniform(-0.07, 0.07, 3)
        shade = 1.06 - 0.22 * canvas.y + 0.05 * smooth_noise(rng, 5, size)
        canvas.rgb[:] = shade[..., None] * table.astype(np.float32)
        shift = rng.uniform(-0.015, 0.015, 2)
        base = (BASE[0] + shift[0], BASE[1] + shift[1])
        lamps = {name: (_along(base, at)[0], LAMP_Y + rng.uniform(-0.015, 0.015)) for name, at in BUTTONS.items()}
        light = rng.uniform(-0.03, 0.03)

        self._wires(canvas, lamps)
        arm = float(scene.values["arm"])
        for name, at in BUTTONS.items():
            _button(canvas, *_along(base, at), COLOURS[name], light)
        _arm(canvas, base, _along(base, arm), light)
        for name, place in lamps.items():
            _lamp(canvas, name, *place, float(scene.values[name]))
        return canvas

    def _wires(self, canvas: Canvas, lamps: Mapping[str, tuple[float, float]]) -> None:
        for cause, effect in self.edges:
            if cause in lamps:
                canvas.stroke(*lamps[cause], *lamps[effect], 0.014, (0.16, 0.15, 0.15))


def _along(base: tuple[float, float], at: float) -> tuple[float, float]:
    """The point of the arm's arc at a position 0 to 1."""
    angle = (at - 0.5) * SWING
    return base[0] + ARM * math.sin(angle), base[1] - ARM * math.cos(angle)


def _button(canvas: Canvas, x: float, y: float, colour: tuple[float, float, float], light: float) -> None:
    canvas.ellipse(x + light, y + 0.02, 0.06, 0.05, (0.0, 0.0, 0.0), alpha=0.35, soft=0.03)
    canvas.ellipse(x, y + 0.008, 0.058, 0.05, tuple(0.35 * c for c in colour))
    canvas.ellipse(x, y - 0.006, 0.05, 0.042, tuple(0.25 + 0.5 * c for c in colour))


def _arm(canvas: Canvas, base: tuple[float, float], tip: tuple[float, float], light: float) -> None:
    dark, metal, bright = (0.15, 0.16, 0.19), (0.86, 0.87, 0.9), (0.97, 0.97, 0.98)
    (bx, by), (tx, ty) = base, tip
    canvas.stroke(bx + light, by + 0.03, tx + light, ty + 0.03, 0.07, (0.0, 0.0, 0.0), 0.35, "arm", soft=0.03)
    canvas.ellipse(bx, by, 0.1, 0.085, dark, concept="arm")
    canvas.stroke(bx, by, tx, ty, 0.062, dark, concept="arm")
    canvas.stroke(bx, by, tx, ty, 0.042, metal, concept="arm")
    canvas.ellipse(bx, by, 0.055, 0.047, bright, concept="arm")
    canvas.ellipse(tx, ty, 0.045, 0.04, dark, concept="arm")
    canvas.ellipse(tx, ty, 0.022, 0.02, bright, concept="arm")


def _lamp(canvas: Canvas, name: str, x: float, y: float, brightness: float) -> None:
    colour = np.array(COLOURS[name])
    canvas.glow(x, y, HALO, colour, 0.9 * brightness)
    canvas.ellipse(x, y + 0.01, BULB + 0.02, BULB + 0.02, (0.13, 0.13, 0.14))
    canvas.ellipse(x, y, BULB, BULB, colour * (0.15 + 0.85 * brightness), concept=name)
    canvas.ellipse(x, y, 0.6 * BULB, 0.6 * BULB, 0.4 + 0.6 * colour, alpha=0.8 * brightness, concept=name, soft=0.03)
    if canvas.masks is not None:
        inside = np.clip(1.0 - np.hypot(canvas.x - x, canvas.y - y) / HALO, 0.0, 1.0)
        canvas.masks[name] = np.maximum(canvas.masks[name], inside)
