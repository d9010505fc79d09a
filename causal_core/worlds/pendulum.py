"""The pendulum world: a lamp and a pendulum cast a shadow whose length and position follow from geometry.

Variables, ranges and formulas are those of the pendulum data of CausalVAE (Yang et al., CVPR 2021), which CausalDiffAE
uses as well, with float labels. The variant ``pendulum-noise`` adds exogenous noise to the shadow, so that abduction
matters: x = f(parents) + u with u known, and a counterfactual keeps u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..concepts import Concept, Concepts, caption
from ..errors import finite, unknown
from ..graph import CausalGraph
from .base import Scene
from .paint import Canvas

RANGES = {
    "angle": (-40.0, 43.0),
    "light": (60.0, 147.0),
    "shadow length": (3.0, 12.58),
    "shadow position": (2.0, 19.6),
}
EDGES = tuple((cause, effect) for cause in ("angle", "light") for effect in ("shadow length", "shadow position"))
PIVOT, BALL, REACH, GROUND_Y, LAMP_Y = (10.0, 10.5), 8.0, 9.5, -0.5, 20.5
NOISE = {"shadow length": 0.8, "shadow position": 0.8}


def _project(x: float, y: float, base: float, phi: float) -> float:
    """Where the ray of slope tan(phi) through (x, y) meets the height ``base`` as the original data define it."""
    return (base - (y - x * math.tan(phi))) / math.tan(phi)


def mechanism(angle: float, light: float) -> tuple[float, float]:
    """Shadow length (at least 3) and position, in data units, for an angle and a light in steps of pi/200."""
    theta, phi = angle * math.pi / 200, light * math.pi / 200
    if abs(math.cos(phi)) < 1e-9:  # the light stands straight above: the ray is vertical
        start, end = PIVOT[0], PIVOT[0] + REACH * math.sin(theta)
    else:
        start = _project(*PIVOT, GROUND_Y, phi)
        end = _project(PIVOT[0] + REACH * math.sin(theta), PIVOT[1] - REACH * math.cos(theta), GROUND_Y, phi)
    return max(3.0, abs(start - end)), (start + end) / 2


class Pendulum:
    """The pendulum world; see :class:`causal_core.worlds.base.World` for the methods.

    Values are texts of floats: angle and light in steps of pi/200 rad (-40 to 43 and 60 to 147), shadow length and
    position in the units of the 20-wide scene.
    """

    version = "1"

    def __init__(self, noisy: bool = False) -> None:
        self.name = "pendulum-noise" if noisy else "pendulum"
        self.noisy = noisy

    def vocabulary(self) -> list[str]:
        """Words of the captions, sorted; numbers are not part of it."""
        return sorted({word for name in RANGES for word in name.split()})

    def phrases(self, name: str, value: str) -> tuple[str, ...]:
        """The one phrase of a value, for instance "angle 12.5"."""
        return (f"{name} {float(value):.1f}",)

    def concepts(self, values: Mapping[str, str] | None = None) -> Concepts:
        """The four continuous concepts."""
        items = []
        for name, interval in RANGES.items():
            if self.noisy:
                interval = (interval[0] - 4 * NOISE.get(name, 0.0), interval[1] + 4 * NOISE.get(name, 0.0))
            value = (values or {}).get(name)
            phrases = {value: self.phrases(name, value)} if value is not None else {}
            # Noise and interventions may leave the range of the original data.
            wide = interval if value is None else (min(interval[0], float(value)), max(interval[1], float(value)))
            items.append(Concept(name, value=value, phrases=phrases, interval=wide))
        return Concepts(tuple(items))

    def graph(self) -> CausalGraph:
        """The true graph, without values."""
        return CausalGraph.from_edges(EDGES, concepts=self.concepts())

    def scene_graph(self, scene: Scene) -> CausalGraph:
        """The true graph with the scene's values; its mechanisms are functions, so the graph carries no tables."""
        return CausalGraph.from_edges(EDGES, concepts=self.concepts(scene.values))

    def sample(self, seed: int, do: Mapping[str, str] | None = None, mode: str = "observational") -> Scene:
        """Draw a scene; "uniform" draws the shadow independently of its causes as well."""
        rng = np.random.default_rng([seed, 9103])
        noise = {name: float(rng.uniform(*interval)) for name, interval in list(RANGES.items())[:2]}
        for name, width in NOISE.items():
            noise[name] = float(rng.normal(0.0, width)) if self.noisy else 0.0
        if mode == "uniform":
            do = {**{name: repr(float(rng.uniform(*RANGES[name]))) for name in NOISE}, **(do or {})}
        elif mode != "observational":
            raise unknown("mode", mode, ("observational", "uniform"))
        return Scene(self.name, seed, self._evaluate(noise, do or {}), noise)

    def _evaluate(self, noise: Mapping[str, float], do: Mapping[str, str]) -> dict[str, str]:
        for name, value in do.items():
            if name not in RANGES:
                raise unknown("concept", name, RANGES)
            finite(_number(value), f"do({name})")
        angle, light = (float(do.get(name, noise[name])) for name in ("angle", "light"))
        shadow = dict(zip(NOISE, mechanism(angle, light)))
        values = {"angle": angle, "light": light}
        values.update({name: float(do.get(name, shadow[name] + noise[name])) for name in NOISE})
        return {name: repr(value) for name, value in values.items()}

    def counterfactual(self, scene: Scene, do: Mapping[str, str]) -> Scene:
        """The same noise under an intervention."""
        return Scene(self.name, scene.seed, self._evaluate(scene.noise, do), scene.noise)

    def _paint(self, scene: Scene, size: int, masked: bool) -> Canvas:
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
        # One line shows both how long the shadow is and where: its region belongs to both concepts.
        canvas.stroke(sx, sy, ex, sy, 0.018, (0.0, 0.0, 0.0), concept="shadow length")
        if canvas.masks is not None:
            canvas.masks["shadow position"] = canvas.masks["shadow length"].copy()
        return canvas

    def render(self, scene: Scene, size: int = 64) -> np.ndarray:
        """Picture, uint8 [size, size, 3]."""
        return self._paint(scene, size, False).finish()

    def masks(self, scene: Scene, size: int = 64) -> dict[str, np.ndarray]:
        """Region of each concept, float32 [size, size], 0 to 1."""
        return self._paint(scene, size, True).masks or {}

    def caption(self, scene: Scene) -> str:
        """Phrases of all concepts, joined by commas."""
        return caption(self.concepts(scene.values))


def _number(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
