"""The best acyclic subgraph, against brute force over all orders."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest

from causal_core.discovery.acyclic import EXACT, Acyclic, acyclic, order_by_insertion, order_exactly
from causal_core.errors import CounterfactError


def brute_force(weights: np.ndarray, required: set[tuple[int, int]]) -> float:
    """The largest sum of positive weights of forward edges over all orders that the required edges allow."""
    places = np.array(list(itertools.permutations(range(len(weights)))))
    forward = places[:, :, None] < places[:, None, :]
    causes, effects = np.array(list(required), int).reshape(-1, 2).T
    gains = np.maximum(weights, 0.0)
    gains[causes, effects] = 0.0
    return (forward * gains).sum((1, 2))[forward[:, causes, effects].all(1)].max()


def value(weights: np.ndarray, edges: set[tuple[int, int]], required: set[tuple[int, int]]) -> float:
    return sum(weights[link] for link in edges - required)


def is_acyclic(edges: set[tuple[int, int]], n: int) -> bool:
    rest = set(edges)
    for _ in range(n):
        rest = {(a, b) for a, b in rest if a in {effect for _, effect in rest}}
    return not rest


def random_problem(seed: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    weights = rng.normal(0.0, 1.0, (n, n)).round(1)  # ties on purpose
    weights[rng.random((n, n)) < 0.2] = -np.inf
    order = rng.permutation(n).tolist()
    required = {pair for pair in itertools.combinations(order, 2) if rng.random() < 0.15}
    return weights, required


@cache
def solved(seed: int, exact: int) -> Acyclic:
    """What is found for a random problem; several tests look at it."""
    return acyclic(*random_problem(seed), seed, exact)


@pytest.mark.parametrize("seed", range(200))
def test_exact_is_the_best_of_all_orders(seed):
    weights, required = random_problem(seed)
    edges = set(solved(seed, EXACT).edges)
    assert required <= edges and is_acyclic(edges, len(weights))
    assert all(weights[link] > 0 for link in edges - required)
    assert value(weights, edges, required) == pytest.approx(brute_force(weights, required))


@pytest.mark.parametrize("seed", range(100))
def test_local_search_is_acyclic_keeps_what_is_required_and_is_nearly_the_best(seed):
    weights, required = random_problem(seed)
    edges = set(solved(seed, 0).edges)
    assert required <= edges and is_acyclic(edges, len(weights))
    assert value(weights, edges, required) >= 0.95 * brute_force(weights, required)


@pytest.mark.parametrize("seed", range(100))
def test_every_broken_edge_comes_with_the_cycle_that_it_would_close(seed):
    weights, _ = random_problem(seed)
    for exact in (0, EXACT):
        found = solved(seed, exact)
        edges = set(found.edges)
        assert len(found.cycles) == len(found.broken)
        for (cause, effect), cycle in zip(found.broken, found.cycles):
            assert (cause, effect) not in edges and weights[cause, effect] > 0
            assert weights[cause, effect] >= weights[effect, cause]
            assert (cycle[0], cycle[-1]) == (effect, cause)
            assert all(link in edges for link in zip(cycle, cycle[1:]))


def test_local_search_agrees_with_dynamic_programming_on_thirteen():
    rng = np.random.default_rng(5)
    for _ in range(3):
        gains = np.maximum(rng.normal(0, 1, (13, 13)), 0)
        np.fill_diagonal(gains, 0)

        def worth(order, gains=gains):
            return np.triu(gains[np.ix_(order, order)]).sum()

        free = np.zeros((13, 13), bool)
        assert worth(order_by_insertion(gains, free, rng)) == pytest.approx(worth(order_exactly(gains)))


def test_many_concepts_with_required_edges():
    rng = np.random.default_rng(0)
    weights = rng.normal(-3.0, 1.5, (120, 120))
    order = rng.permutation(120).tolist()
    required = set(zip(order[:20], order[1:21]))
    found = acyclic(weights, required)
    assert required <= set(found.edges) and is_acyclic(set(found.edges), 120)
    assert found == acyclic(weights, required), "the same problem has the same answer"


def test_what_a_poor_order_misses_is_added(monkeypatch):
    """Also where the search ends badly, no edge is given up that closes no cycle."""
    monkeypatch.setattr(
        "causal_core.discovery.acyclic.order_by_insertion", lambda gains, *rest: list(range(len(gains)))[::-1]
    )
    rng = np.random.default_rng(2)
    for _ in range(20):
        weights = rng.normal(0, 1, (8, 8))
        found = acyclic(weights, exact=0)
        assert is_acyclic(set(found.edges), 8)
        for (cause, effect), cycle in zip(found.broken, found.cycles):
            assert (cycle[0], cycle[-1]) == (effect, cause) and set(zip(cycle, cycle[1:])) <= set(found.edges)


def test_edges_between_components_are_all_kept():
    weights = np.full((4, 4), -1.0)
    weights[0, 1], weights[1, 0], weights[0, 2], weights[1, 3] = 2.0, 1.0, 0.1, 0.2
    found = acyclic(weights)
    assert found.edges == ((0, 1), (0, 2), (1, 3)) and found.broken == ()


def test_nothing_to_order():
    assert acyclic(np.zeros((0, 0))).edges == acyclic(np.zeros((1, 1))).edges == ()
    assert acyclic(np.full((3, 3), np.nan)).edges == acyclic(np.full((3, 3), -np.inf)).edges == ()


def test_the_search_can_be_stopped():
    def stop():
        raise CounterfactError("stopped")

    with pytest.raises(CounterfactError, match="stopped"):
        acyclic(np.ones((30, 30)), check=stop)
