"""The cottage world: a house by a pond, seventeen concepts, a known causal model and an exact renderer.

The ground truth that the pack is measured against. Mechanisms and phrases are in :mod:`cottage_scm`, drawing in
:mod:`cottage_render`; this module joins them behind the interface of :class:`causal_core.worlds.base.World`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..concepts import Concept, Concepts, caption
from ..errors import unknown
from ..graph import CausalGraph, Edge
from .base import Scene
from .cottage_render import paint
from .cottage_scm import CONFOUNDED, COTTAGE, PHRASES


class Cottage:
    """The cottage world; see :class:`causal_core.worlds.base.World` for the methods."""

    name = "cottage"
    version = "1"
    scm = COTTAGE

    def vocabulary(self) -> list[str]:
        """All words of all phrases, sorted."""
        text = " ".join(p for values in PHRASES.values() for options in values.values() for p in options)
        return sorted(set(re.findall(r"[a-z]+", text)))

    def phrases(self, name: str, value: str) -> tuple[str, ...]:
        """Paraphrases of a value; the first is canonical."""
        return PHRASES[name][value]

    def concepts(self, values: Mapping[str, str] | None = None) -> Concepts:
        """The seventeen concepts in caption order, with their values if given."""
        return Concepts(
            tuple(Concept(name, self.scm[name].domain, (values or {}).get(name), PHRASES[name]) for name in PHRASES)
        )

    def graph(self) -> CausalGraph:
        """The true graph, without values."""
        return self._graph(None)

    def scene_graph(self, scene: Scene) -> CausalGraph:
        """The true graph with the scene's values, mechanisms and exogenous noise."""
        return self._graph(scene)

    def _graph(self, scene: Scene | None) -> CausalGraph:
        edges = (Edge(parent, name) for name in self.scm.observed for parent in self.scm[name].parents)
        return CausalGraph(
            self.concepts(scene.values if scene else None),
            tuple(edge for edge in edges if not self.scm[edge.source].hidden),
            CONFOUNDED,
            self.scm,
            scene.noise if scene else None,
        )

    def sample(self, seed: int, do: Mapping[str, str] | None = None, mode: str = "observational") -> Scene:
        """Draw a scene from a seed.

        Parameters
        ----------
        seed : int, 0 to 2**63 - 1
        do : values to set as an intervention
        mode : "observational" follows the mechanisms; "uniform" draws every variable independently of its parents, so
            that every combination occurs (its noise does not reproduce the values)
        """
        rng = np.random.default_rng([seed, 4243])
        if mode == "uniform":
            values = {v.name: v.domain[int(rng.integers(len(v.domain)))] for v in self.scm.variables}
            return Scene(self.name, seed, {**values, **(do or {})}, {v.name: 0.0 for v in self.scm.variables})
        if mode != "observational":
            raise unknown("mode", mode, ("observational", "uniform"))
        drawn = self.scm.sample(rng, do)
        return Scene(self.name, seed, drawn.values, drawn.noise)

    def counterfactual(self, scene: Scene, do: Mapping[str, str]) -> Scene:
        """The same noise, jitter and seed under an intervention."""
        do = self.concepts().settle(do)
        return Scene(self.name, scene.seed, self.scm.evaluate(scene.noise, do), scene.noise)

    def render(self, scene: Scene, size: int = 64) -> np.ndarray:
        """Picture, uint8 [size, size, 3]."""
        return paint(scene.values, scene.seed, size).finish()

    def masks(self, scene: Scene, size: int = 64) -> dict[str, np.ndarray]:
        """Region of each visible concept, float32 [size, size], 0 to 1 after occlusion."""
        return paint(scene.values, scene.seed, size, masked=True).masks or {}

    def caption(self, scene: Scene) -> str:
        """Canonical phrases of all concepts, joined by commas."""
        return caption(self.concepts(scene.values))
