"""Questions with a known answer: random small models with hidden causes, in which seeing is not doing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..autoencoder.coding import Coding
from ..concepts import Concept, Concepts
from ..exact import ExactSCM
from ..graph import CausalGraph, parse_edges
from ..modular.images import ConditionalSampler
from ..modular.records import Records
from ..query import Query, parse_query
from ..scm import SCM, Variable

BITS = ("0", "1")
HIDDEN_STATES = 3
# Draws of a model until plain conditioning is wrong by at least this total variation distance.
GAP, MOST_DRAWS = 0.1, 5000
LEAST = 0.06


class Question(NamedTuple):
    """What is asked of which graph, and what somebody would compute who takes seeing for doing."""

    edges: str
    query: str
    naive: str
    domains: Mapping[str, tuple[str, ...]] = {}


QUESTIONS: dict[str, Question] = {
    "frontdoor": Question("x -> z -> y; x <-> y", "P(y | do(x))", "P(y | x)"),
    "backdoor": Question("z -> x; z -> y; x -> y", "P(y | do(x))", "P(y | x)"),
    "napkin": Question("w -> v -> x -> y; w <-> x; w <-> y", "P(y | do(x))", "P(y | x)"),
    "iv": Question("z -> x -> y; x <-> y", "P(y | do(z), x)", "P(y | x)"),
    "verma": Question("a -> b -> c -> d; a -> d; b <-> d", "P(d | do(c))", "P(d | c)"),
    "diamond": Question("x -> a -> y; x -> b -> y; x <-> y", "P(y | do(x))", "P(y | x)"),
    "treated": Question("x -> z -> y; x <-> y", "P(y_{x=1} | x=0)", "P(y | x=1)"),
    "mediation": Question("x -> m -> y; x -> y; c -> x; c -> y", "P(y_{x=1, m}, m_{x=0})", "P(y, m | x=1)"),
}
# Refused; bounded instead.
REFUSED: dict[str, Question] = {
    "bow": Question("x -> y; x <-> y", "P(y | do(x))", "P(y | x)"),
    "instrument": Question("z -> x -> y; x <-> y", "P(y | do(x))", "P(y | x)"),
    "necessity": Question("x -> y", "P(y_{x=1}=1, y_{x=0}=0)", "P(y=1 | x=1)"),
}


@dataclass(frozen=True)
class Problem:
    """A question with its answer.

    Attributes
    ----------
    graph, query : what is asked
    seeing : what somebody asks who takes seeing for doing
    exact : the true model
    truth, naive : true answers to both, an axis for each of ``query.symbols``
    """

    graph: CausalGraph
    query: Query
    seeing: Query
    exact: ExactSCM
    truth: np.ndarray
    naive: np.ndarray

    def observed(self, rows: int, seed: int, do: Mapping[str, str] | None = None) -> dict[str, list[str]]:
        """Values of every label in some cases of the true model, in which some may be set."""
        rng = np.random.default_rng([seed, 77])
        states = rng.choice(len(self.exact.weights), rows, p=self.exact.weights / self.exact.weights.sum())
        values = self.exact.values(do or {})
        return {
            concept.name: np.array(concept.domain)[values[concept.name][states]].tolist()
            for concept in self.graph.concepts
            if concept.domain
        }

    def records(self, rows: int, seed: int) -> Records:
        """Observations to learn from."""
        return Records.of(Coding.of(self.graph), self.observed(rows, seed))

    @property
    def generators(self) -> dict[str, ConditionalSampler]:
        """What draws the pictures of the graph, by name."""
        return {}


def as_graph(edges: str, domains: Mapping[str, tuple[str, ...]] | None = None) -> CausalGraph:
    """The graph of typed edges, over bits where no values are given."""
    directed, pairs = parse_edges(edges.replace(";", "\n"))
    names = dict.fromkeys(itertools.chain(*((e.source, e.target) for e in directed), *pairs))
    domains = domains or {}
    concepts = Concepts(tuple(Concept(name, domains.get(name, BITS)) for name in names))
    return CausalGraph.from_edges(directed, pairs, concepts)


def random_model(graph: CausalGraph, rng: np.random.Generator) -> SCM:
    """A model of a graph: each confounded pair has a hidden cause of three states, no probability is below 6 %."""
    hidden = [
        Variable(f"hidden {a} {b}", tuple(map(str, range(HIDDEN_STATES))), (), {(): _row(rng, HIDDEN_STATES)}, True)
        for a, b in graph.confounded
    ]
    behind = {concept.name: [h for h, pair in zip(hidden, graph.confounded) if concept.name in pair]
              for concept in graph.concepts}  # fmt: skip
    domains = {concept.name: concept.domain for concept in graph.concepts} | {h.name: h.domain for h in hidden}
    variables = []
    for concept in graph.concepts:
        causes = (*graph.parents(concept.name), *(h.name for h in behind[concept.name]))
        table = {given: _row(rng, len(concept.domain)) for given in itertools.product(*(domains[c] for c in causes))}
        variables.append(Variable(concept.name, concept.domain, causes, table))
    return SCM((*hidden, *variables))


def _row(rng: np.random.Generator, size: int) -> tuple[float, ...]:
    """Probabilities, mostly far from even."""
    row = LEAST + (1 - size * LEAST) * rng.dirichlet(np.full(size, 0.35))
    return tuple((row / row.sum()).tolist())


def problem(question: Question, seed: int) -> Problem:
    """A random model in which the question has an answer that plain conditioning does not give.

    Raises
    ------
    RuntimeError
        If no such model is found, as for a question in which seeing is doing.
    """
    graph = as_graph(question.edges, question.domains)
    query, seeing = (parse_query(typed, graph.concepts) for typed in (question.query, question.naive))
    rng = np.random.default_rng([seed, 5])
    for _ in range(MOST_DRAWS):
        exact = ExactSCM(random_model(graph, rng))
        truth = exact.answer(query)
        naive = np.broadcast_to(aligned(seeing, exact.answer(seeing), query), truth.shape)
        if distance(query, naive, truth) >= GAP:
            return Problem(graph, query, seeing, exact, truth, naive)
    raise RuntimeError(f"seeing is doing for {question.query}")


def aligned(own: Query, table: np.ndarray, query: Query) -> np.ndarray:
    """A table of a query's own symbols with the axes of another's, which may have more; of length 1 where it does."""
    sizes = dict(zip(own.symbols, table.shape))
    table = table.transpose([own.symbols.index(symbol) for symbol in query.symbols if symbol in sizes])
    return table.reshape([sizes.get(symbol, 1) for symbol in query.symbols])


def distance(query: Query, found: np.ndarray, truth: np.ndarray) -> float:
    """The largest total variation distance of two answers over the values of the settings, 0 to 1."""
    over = tuple(i for i, symbol in enumerate(query.symbols) if symbol in query.outcomes)
    apart = np.abs(found - truth)
    return float(np.max(apart.sum(over) / 2 if over else apart))
