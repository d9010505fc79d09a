"""Questions with pictures: one in the middle of the graph, and scenes in which the answer is to be seen.

In the first somebody means something, writes a digit, and who sees the picture of it says something; a hidden cause
acts on what is meant and on what is said. All that is meant acts through the picture: a front door. In the second the
sky and the hour of a cottage have a hidden cause. Generators and readers come with the pack; none is trained for a
question.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .. import autoencoder, demo
from ..autoencoder.coding import Coding
from ..autoencoder.model import CausalAutoencoder
from ..demo.model import DemoModel
from ..graph import CausalGraph
from ..modular.images import CaptionSampler, ConditionalSampler, DecoderSampler
from ..modular.model import ModularModel
from ..modular.records import Records
from ..worlds import Scene, get_world
from ..worlds.reader import WEIGHTS, Reader
from .modular_problems import Problem, Question, as_graph, problem

PICTURE = "picture"
BATCH = 64
Labels = Mapping[str, str]


@dataclass(frozen=True)
class View:
    """How labels are seen.

    Attributes
    ----------
    question : about labels, with what acts on what if pictures are left out
    edges : the graph with the picture in it; empty if no label follows from it
    world, side : which draws true pictures, of that side in pixels
    shown : labels that are read from pictures
    steps : of the generator's sampler
    """

    question: Question
    edges: str
    world: str
    side: int
    shown: tuple[str, ...]
    steps: int


VIEWS = {
    "frontdoor_image": View(
        Question(
            "x -> digit; digit -> answer; colour -> answer; x <-> answer", "P(answer | do(x))", "P(answer | x)",
            {"digit": ("1", "4", "8"), "colour": ("red", "green", "blue")},
        ),
        "x -> digit; digit -> picture; colour -> picture; picture -> answer; x <-> answer",
        "coloured-digits", 32, ("digit", "colour"), 8,
    ),
    "cottage_confounded": View(
        Question(
            "weather -> lamp; time -> lamp; time <-> weather", "P(lamp | do(weather))", "P(lamp | weather)",
            {"weather": ("clear", "cloudy"), "time": ("day", "dusk", "night"), "lamp": ("off", "on")},
        ),
        "", "cottage", 64, ("lamp",), 8,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pictured(Problem):
    """A question whose labels are to be seen in pictures, or act through them."""

    view: View

    def records(self, rows: int, seed: int) -> Records:
        """Observations to learn from, with true pictures where one is in the graph."""
        columns = self.observed(rows, seed)
        if PICTURE not in self.graph.concepts:
            return Records.of(Coding.of(self.graph), columns)
        pictures = rendered(self.view, _rows(columns), seed)
        return Records.of(Coding.of(self.graph, {PICTURE: self.view.side}), {**columns, PICTURE: pictures})

    @property
    def generators(self) -> dict[str, ConditionalSampler]:
        """See :attr:`Problem.generators`."""
        shown = PICTURE in self.graph.concepts
        return {PICTURE: generator(self.view.world, self.view.steps)} if shown else {}

    def read(self, model: ModularModel, count: int, seed: int) -> float:
        """How far off is what a reader finds in pictures generated of a fitted model's cases, see :meth:`apart`."""
        found = []
        for settings in self.settings:
            places = {n: torch.tensor(model.coding.variables[model.coding.index(n)].vector(v))
                      for n, v in settings.items()}  # fmt: skip
            noise = model.noise(count, torch.Generator().manual_seed(seed))
            wanted = [name for name in self.graph.concepts.names if name in get_world(self.view.world).concepts()]
            values = model.propagate(noise, places, wanted)
            columns = {v.name: [v.value(row) for row in values[v.name].tolist()] for v in model.coding.variables
                       if v.name in wanted}  # fmt: skip
            seeds = _seeds(seed, count)
            told = [scene(self.view, labels, s).values for labels, s in zip(_rows(columns), seeds)]
            known = get_world(self.view.world).concepts().names
            told = [{name: values[name] for name in known} for values in told]
            found.append(self.apart(generator(self.view.world, self.view.steps).sample(told, seeds), settings))
        return max(found)

    def floor(self, count: int, seed: int) -> float:
        """The same of true pictures of true cases: the reader's own error, and that of as few cases."""
        return max(self.apart(rendered(self.view, _rows(self.observed(count, seed, settings)), seed), settings)
                   for settings in self.settings)  # fmt: skip

    @property
    def settings(self) -> list[dict[str, str]]:
        """Every way in which the question sets something."""
        names = [symbol.variable for symbol in self.query.settings]
        return [dict(zip(names, values)) for values in itertools.product(*(self.exact.domains[n] for n in names))]

    def apart(self, pictures: np.ndarray, settings: Labels) -> float:
        """Total variation distance between what is read from pictures and what would truly be in them."""
        domains = [self.exact.domains[name] for name in self.view.shown]
        truth = self.exact.joint(self.view.shown, settings)
        found, unlike = np.zeros_like(truth), 0.0
        for values in reader(self.view.world).read(pictures):
            at = [values[name] for name in self.view.shown]
            if all(value in domain for value, domain in zip(at, domains)):
                found[tuple(domain.index(value) for value, domain in zip(at, domains))] += 1 / len(pictures)
            else:
                unlike += 1 / len(pictures)
        return float(np.abs(found - truth).sum() + unlike) / 2


def pictured(name: str, seed: int) -> Pictured:
    """A random model of one of the ``VIEWS``, see :func:`.modular_problems.problem`."""
    view = VIEWS[name]
    p = problem(view.question, seed)
    graph = p.graph
    if view.edges:
        graph = as_graph(view.edges, view.question.domains)
        # A picture has neither values nor an interval.
        concepts = (replace(c, domain=()) if c.name == PICTURE else c for c in graph.concepts)
        graph = CausalGraph.from_edges(graph.edges, graph.confounded, type(graph.concepts)(tuple(concepts)))
    return Pictured(graph, p.query, p.seeing, p.exact, p.truth, p.naive, view)


def scene(view: View, labels: Labels, seed: int) -> Scene:
    """A scene of the world in which some labels are as they should be, and all else as it happens."""
    world = get_world(view.world)
    return world.sample(seed, {name: value for name, value in labels.items() if name in world.concepts()})


def rendered(view: View, rows: Sequence[Labels], seed: int) -> np.ndarray:
    """True pictures of some labels, uint8 [N, side, side, 3]."""
    world = get_world(view.world)
    return np.stack([world.render(scene(view, labels, s), view.side)
                     for labels, s in zip(rows, _seeds(seed, len(rows)))])  # fmt: skip


@lru_cache(maxsize=1)
def generator(world: str, steps: int) -> ConditionalSampler:
    """The pretrained generator of a world's pictures, with some steps of its sampler."""
    if world == "cottage":
        concepts = get_world(world).concepts()
        # With less guidance the model hardly ever draws a lamp that burns by day, of which it has seen few.
        return CaptionSampler(DemoModel.load(demo.weights_path("micro")).eval(), concepts, steps, guidance=3.0)
    model = CausalAutoencoder.load(Path(autoencoder.__file__).parent / "weights" / f"{world}.safetensors")
    return DecoderSampler(model.eval(), steps, BATCH)


@lru_cache(maxsize=1)
def reader(world: str) -> Reader:
    """What reads the labels of a world from its pictures."""
    return Reader.load(WEIGHTS.with_name(f"{world}_reader.safetensors"))


def _rows(columns: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _seeds(seed: int, count: int) -> list[int]:
    """Of the scenes of one model, apart from those of others."""
    return list(range(seed * 10**6, seed * 10**6 + count))
