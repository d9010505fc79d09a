"""How near a discovered graph is to the true one, and what guessing reaches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..graph import CausalGraph

Posteriors = Mapping[tuple[str, str], tuple[float, float, float]]


def scores(found: Iterable[tuple[str, str]], truth: CausalGraph) -> dict[str, float]:
    """Distances between directed edges and those of the true graph.

    Returns
    -------
    dict
        shd : edges to add, to remove or to turn around (Tsamardinos, Brown and Aliferis 2006, on directed graphs)
        nhd : share of the n^2 entries of the adjacency matrix that differ (Kiciman et al. 2023)
        precision, recall, f1 : of directed edges; 0 where there is nothing to count

    Examples
    --------
    >>> truth = CausalGraph.from_edges([("a", "b"), ("b", "c")])
    >>> scores([("b", "a"), ("b", "c")], truth)
    {'shd': 1.0, 'nhd': 0.222..., 'precision': 0.5, 'recall': 0.5, 'f1': 0.5}
    """
    edges, true = set(found), {(edge.source, edge.target) for edge in truth.edges}
    wrong = edges ^ true
    turned = sum((effect, cause) in true for cause, effect in edges - true)
    hits = len(edges & true)
    return {
        "shd": float(len(wrong) - turned),
        "nhd": len(wrong) / len(truth.concepts) ** 2,
        "precision": hits / len(edges) if edges else 0.0,
        "recall": hits / len(true) if true else 0.0,
        "f1": 2 * hits / (len(edges) + len(true)) if edges or true else 0.0,
    }


def belief_scores(posteriors: Posteriors, truth: CausalGraph) -> dict[str, float]:
    """What the beliefs about pairs are worth before they become a graph.

    Returns
    -------
    dict
        direction : share of the true edges whose direction is thought more probable than the reverse; 0.5 is chance
        auc : probability that a true edge's pair is thought more probably linked than a pair without one; 0.5 is chance

    Examples
    --------
    >>> truth = CausalGraph.from_edges([("a", "b"), ("b", "c")])
    >>> belief_scores({("a", "b"): (0.5, 0.2, 0.3), ("c", "b"): (0.4, 0.1, 0.5), ("a", "c"): (0.1, 0.1, 0.8)}, truth)
    {'direction': 0.5, 'auc': 1.0}
    """
    true = {(edge.source, edge.target) for edge in truth.edges}
    right, linked, unlinked = [], [], []
    for (a, b), (forward, backward, none) in posteriors.items():
        if (a, b) in true or (b, a) in true:
            more = forward - backward if (a, b) in true else backward - forward
            right.append(0.5 * (np.sign(more) + 1))
            linked.append(1 - none)
        else:
            unlinked.append(1 - none)
    found = {}
    if right:
        found["direction"] = float(np.mean(right))
    if linked and unlinked:
        found["auc"] = float(np.mean(0.5 * (np.sign(np.subtract.outer(linked, unlinked)) + 1)))
    return found


def random_scores(truth: CausalGraph, seed: int, draws: int = 1000) -> dict[str, float]:
    """Mean scores of random acyclic graphs with as many edges as the true one."""
    names, count = truth.concepts.names, len(truth.edges)
    above = np.argwhere(np.triu(np.ones((len(names), len(names)), bool), 1))
    rng = np.random.default_rng([seed, 4021])
    found = []
    for _ in range(draws):
        order = rng.permutation(len(names))
        chosen = rng.choice(len(above), count, replace=False)
        found.append(scores([(names[order[i]], names[order[j]]) for i, j in above[chosen]], truth))
    return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def interval(values: Iterable[float], seed: int, rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean (Efron 1979, percentile method)."""
    values = np.asarray(list(values), np.float64)
    order = np.random.default_rng([seed, 9973]).integers(len(values), size=(rounds, len(values)))
    low, high = np.quantile(values[order].mean(1), (0.025, 0.975))
    return float(low), float(high)
