"""What a world is: variables with a known structural causal model, an exact renderer and a caption grammar.

A world makes the true counterfactual image of any intervention: the exogenous noise of a scene stays, the intervened
variables are set, everything downstream is evaluated and drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..concepts import Concepts
from ..errors import fields, finite, read_document, text, write_document
from ..graph import CausalGraph

KIND, SCHEMA_VERSION = "counterfact.scene", 1


@dataclass(frozen=True)
class Scene:
    """One draw from a world.

    Attributes
    ----------
    world : name of the world
    seed : fixes the layout, sizes, textures and colour jitter (everything exogenous that is not in ``noise``)
    values : value of every variable, hidden ones included (text; continuous ones as ``repr`` of a float)
    noise : exogenous noise of every variable
    """

    world: str
    seed: int
    values: Mapping[str, str] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """A JSON document with sorted keys: the same scene gives the same bytes."""
        body = {"world": self.world, "seed": self.seed, "values": dict(self.values), "noise": dict(self.noise)}
        return write_document(KIND, SCHEMA_VERSION, body)

    @classmethod
    def from_json(cls, document: str) -> Scene:
        """The inverse of :meth:`to_json`; raises CounterfactError for anything else."""
        data = fields(
            read_document(document, KIND, SCHEMA_VERSION), "scene", world=str, seed=int, values=dict, noise=dict
        )
        values = {k: text(v, f"scene: value of {k}") for k, v in data["values"].items()}
        noise = {k: finite(v, f"scene: noise of {k}") for k, v in data["noise"].items()}
        return cls(data["world"], data["seed"], values, noise)


class World(Protocol):
    """A scene generator with ground truth; register new ones in :mod:`causal_core.worlds`."""

    name: str
    version: str

    def vocabulary(self) -> list[str]:
        """All words of all phrases, sorted."""

    def phrases(self, name: str, value: str) -> tuple[str, ...]:
        """Paraphrases of a value; the first is canonical."""

    def concepts(self, values: Mapping[str, str] | None = None) -> Concepts:
        """The observed variables, with their values if given."""

    def graph(self) -> CausalGraph:
        """The true causal graph."""

    def scene_graph(self, scene: Scene) -> CausalGraph:
        """The true graph with the scene's values, mechanisms and exogenous noise."""

    def sample(self, seed: int, do: Mapping[str, str] | None = None, mode: str = "observational") -> Scene:
        """Draw a scene; ``mode`` "uniform" draws every variable independently."""

    def counterfactual(self, scene: Scene, do: Mapping[str, str]) -> Scene:
        """The same noise under an intervention."""

    def render(self, scene: Scene, size: int = 64) -> np.ndarray:
        """Picture, uint8 [size, size, 3] RGB."""

    def masks(self, scene: Scene, size: int = 64) -> dict[str, np.ndarray]:
        """Region of each visible concept, float32 [size, size], 0 to 1."""

    def caption(self, scene: Scene) -> str:
        """Canonical phrases of all concepts, joined by commas."""
