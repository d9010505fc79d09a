"""Worlds whose mechanisms are equations: every variable is a function of its parents and of noise of its own.

A scene knows its noise, so its counterfactuals are exact: the noise stays, the intervened variables are set, and the
equations are evaluated again (Pearl, Causality, 2nd edition, theorem 7.1.7). A world of this kind says how its noise
is drawn, what its equations are and how it is painted; the rest is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..concepts import Concept, Concepts, caption
from ..errors import unknown
from ..graph import CausalGraph
from .base import Scene
from .paint import Canvas


class EquationWorld(ABC):
    """See :class:`causal_core.worlds.base.World` for the methods.

    Values of continuous variables are texts of floats. Interventions must lie in the domain or interval of their
    variable, so every value always does, unless a world widens them (see :meth:`fitted`).

    Attributes
    ----------
    name, version : of the world
    variables : concepts with domain or interval, causes first
    edges : pairs (cause, effect)
    grey : whether the three channels of every picture are the same
    stream : number that keeps the world's draws apart from those of others with the same seed
    """

    name: str
    version = "1"
    variables: tuple[Concept, ...]
    edges: tuple[tuple[str, str], ...]
    grey = False
    stream = 5077

    @abstractmethod
    def draw_noise(self, rng: np.random.Generator) -> dict[str, float]:
        """Exogenous noise of every variable."""

    def draw_uniform(self, rng: np.random.Generator) -> dict[str, str]:
        """Values that depend on no cause, for the mode "uniform"."""
        return {concept.name: _uniform(concept, rng) for concept in self.variables}

    @abstractmethod
    def mechanism(self, name: str, values: Mapping[str, str], noise: float) -> str:
        """Value of a variable, given those of its causes and its noise."""

    @abstractmethod
    def paint(self, scene: Scene, size: int, masked: bool = False) -> Canvas:
        """The painted scene."""

    def fitted(self, values: Mapping[str, str]) -> Concepts:
        """The variables, in intervals that take in these values where the world allows it; here it does not."""
        return Concepts(self.variables)

    def vocabulary(self) -> list[str]:
        """Words of the captions, sorted; numbers are not part of it."""
        return sorted({word for concept in self.variables for word in concept.name.split()})

    def phrases(self, name: str, value: str) -> tuple[str, ...]:
        """The one phrase of a value, for instance "thickness 2.50" or "digit 7"."""
        continuous = Concepts(self.variables)[name].interval is not None
        return (f"{name} {float(value):.2f}" if continuous else f"{name} {value}",)

    def concepts(self, values: Mapping[str, str] | None = None) -> Concepts:
        """The variables, with their values if given."""
        shown = values or {}
        return Concepts(
            tuple(
                replace(c, value=shown[c.name], phrases={shown[c.name]: self.phrases(c.name, shown[c.name])})
                if c.name in shown
                else c
                for c in self.fitted(shown)
            )
        )

    def graph(self) -> CausalGraph:
        """The true graph, without values."""
        return CausalGraph.from_edges(self.edges, concepts=self.concepts())

    def scene_graph(self, scene: Scene) -> CausalGraph:
        """The true graph with the scene's values; its mechanisms are equations, so the graph carries no tables."""
        return CausalGraph.from_edges(self.edges, concepts=self.concepts(scene.values))

    def sample(self, seed: int, do: Mapping[str, str] | None = None, mode: str = "observational") -> Scene:
        """Draw a scene; "uniform" draws every variable independently of its causes (its noise does not show)."""
        rng = np.random.default_rng([seed, self.stream])
        noise = self.draw_noise(rng)
        if mode == "uniform":
            do = {**self.draw_uniform(rng), **(do or {})}
        elif mode != "observational":
            raise unknown("mode", mode, ("observational", "uniform"))
        return Scene(self.name, seed, self._evaluate(noise, do or {}), noise)

    def counterfactual(self, scene: Scene, do: Mapping[str, str]) -> Scene:
        """The same noise and seed under an intervention."""
        return Scene(self.name, scene.seed, self._evaluate(scene.noise, do), scene.noise)

    def _evaluate(self, noise: Mapping[str, float], do: Mapping[str, str]) -> dict[str, str]:
        do = self.fitted(do).settle(do)
        values: dict[str, str] = {}
        for concept in self.variables:
            name = concept.name
            values[name] = do[name] if name in do else self.mechanism(name, values, noise[name])
        return values

    def render(self, scene: Scene, size: int = 64) -> np.ndarray:
        """Picture, uint8 [size, size, 3]."""
        return self.paint(scene, size).finish()

    def masks(self, scene: Scene, size: int = 64) -> dict[str, np.ndarray]:
        """Region of each concept, float32 [size, size], 0 to 1."""
        return self.paint(scene, size, masked=True).masks or {}

    def caption(self, scene: Scene) -> str:
        """Phrases of all concepts, joined by commas."""
        return caption(self.concepts(scene.values))


def _uniform(concept: Concept, rng: np.random.Generator) -> str:
    if concept.interval is not None:
        return repr(float(rng.uniform(*concept.interval)))
    return concept.domain[int(rng.integers(len(concept.domain)))]
