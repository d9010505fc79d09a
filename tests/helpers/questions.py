"""Graphs of the textbook, and random questions about the variables of a graph of bits."""

from __future__ import annotations

import itertools

from causal_core.concepts import Concept, Concepts
from causal_core.expression import Symbol
from causal_core.graph import CausalGraph, parse_edges
from causal_core.query import Query, Term

from .random_scm import BITS


def graph(typed):
    edges, pairs = parse_edges(typed.replace(";", "\n"))
    names = dict.fromkeys(itertools.chain(*((e.source, e.target) for e in edges), *pairs))
    return CausalGraph.from_edges(edges, pairs, Concepts(tuple(Concept(name, BITS) for name in names)))


FRONT_DOOR = graph("x -> z -> y; x <-> y")
BACK_DOOR = graph("z -> x; z -> y; x -> y")
BOW = graph("x -> y; x <-> y")
NAPKIN = graph("w -> v -> x -> y; w <-> x; w <-> y")
MEDIATION = graph("x -> m -> y; x -> y")
INSTRUMENT = graph("z -> x -> y; x <-> y")
VERMA = graph("a -> b -> c -> d; b <-> d")


def question(rng, names):
    """A random P(y | do(x), z), with one or two interventions, up to two outcomes and conditions."""
    order = [str(name) for name in rng.permutation(names)]
    x, y, z = (int(n) for n in (rng.integers(1, 3), rng.integers(1, 3), rng.integers(3)))
    x = min(x, len(order) - 1)
    do = tuple((name, Symbol(name)) for name in sorted(order[:x]))
    outcomes, conditions = order[x:][:y], order[x:][y:][:z]
    return Query(*(tuple(Term(name, Symbol(name), do) for name in part) for part in (outcomes, conditions)))


def counterfactual(rng, names):
    """A random question about several worlds, all of whose values are given."""

    def term(worldly):
        name = str(rng.choice(names))
        do = [other for other in names if other != name and rng.random() < worldly]
        return Term(name, str(rng.integers(2)), tuple((other, str(rng.integers(2))) for other in sorted(do)))

    of = tuple(term(0.3) for _ in range(rng.integers(1, 3)))
    return Query(of, tuple(term(0.1) for _ in range(rng.integers(3))))
