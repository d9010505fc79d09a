"""Random graphs with hidden causes, and random tabular models of them in which everything can happen."""

from __future__ import annotations

import itertools

import numpy as np

from causal_core.concepts import Concept, Concepts
from causal_core.graph import CausalGraph
from causal_core.scm import SCM, Variable

BITS = ("0", "1")


def random_graph(rng: np.random.Generator, nodes: int, edge: float = 0.45, pair: float = 0.35) -> CausalGraph:
    """An ADMG over v0, v1, ... in causal order."""
    names = [f"v{i}" for i in range(nodes)]
    edges = [(a, b) for a, b in itertools.combinations(names, 2) if rng.random() < edge]
    pairs = [(a, b) for a, b in itertools.combinations(names, 2) if rng.random() < pair]
    return CausalGraph.from_edges(edges, pairs, Concepts(tuple(Concept(name, BITS) for name in names)))


def random_scm(rng: np.random.Generator, graph: CausalGraph) -> SCM:
    """A model of a graph of bits: a hidden bit behind each confounded pair, and a hidden noise behind each variable.

    A noise has four states; in the first two the variable is 0 or 1 whatever its causes are.
    """
    hidden = []
    for i in range(len(graph.confounded)):
        hidden.append(Variable(f"u{i}", BITS, (), {(): tuple(rng.dirichlet((3, 3)))}, True))
    noises, variables = [], []
    for name in graph.concepts.names:
        states = tuple("abcd")
        noises.append(Variable(f"e {name}", states, (), {(): tuple(rng.dirichlet((2, 2, 4, 4)))}, True))
        behind = tuple(u.name for u, pair in zip(hidden, graph.confounded) if name in pair)
        causes = (*graph.parents(name), *behind)
        table = {}
        for given in itertools.product(*(BITS for _ in causes)):
            for state, bit in zip(states, (0, 1, *rng.integers(2, size=2))):
                table[(*given, state)] = (1.0 - bit, float(bit))
        variables.append(Variable(name, BITS, (*causes, f"e {name}"), table))
    return SCM((*hidden, *noises, *variables))
