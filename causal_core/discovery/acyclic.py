"""The best acyclic graph for contradictory beliefs about pairs: a maximum-weight acyclic subgraph.

Under independent beliefs about pairs, the most probable directed acyclic graph keeps the forward edges of the order of
the concepts that maximises the sum of their positive weights log p(a -> b) - log p(no edge). Only concepts on common
cycles compete: each strongly connected component is ordered on its own, exactly by dynamic programming over subsets
(Lawler 1964) up to `EXACT` concepts, above by insertion moves with restarts (Schiavinotto and Stuetzle 2004).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

EXACT = 16
MAX_CYCLES = 100

Link = tuple[int, int]


@dataclass(frozen=True)
class Acyclic:
    """A directed acyclic graph over 0..n-1.

    Attributes
    ----------
    edges : kept edges (cause, effect), sorted
    broken : edges that are not in the graph although they are the better direction of their pair and better than none
    cycles : for each of the first `MAX_CYCLES` broken edges (u, v), the cycle v -> ... -> u that it would have closed
    """

    edges: tuple[Link, ...]
    broken: tuple[Link, ...]
    cycles: tuple[tuple[int, ...], ...]


def acyclic(
    weights: np.ndarray,
    required: Collection[Link] = (),
    seed: int = 0,
    exact: int = EXACT,
    check: Callable[[], None] = lambda: None,
) -> Acyclic:
    """The acyclic graph with the largest sum of weights.

    Parameters
    ----------
    weights : float [n, n]
        What the edge i -> j is worth more than no edge; only positive ones are ever kept, -inf forbids.
    required : edges that are kept whatever they are worth; they must have no cycle
    seed : of the local search
    exact : largest component that is solved exactly
    check : called again and again; what it raises ends the search

    Examples
    --------
    >>> weights = np.array([[0, 3, 0], [0, 0, 2], [1, 0, 0]])
    >>> acyclic(weights)
    Acyclic(edges=((0, 1), (1, 2)), broken=((2, 0),), cycles=((0, 1, 2),))
    >>> acyclic(weights, required=[(2, 0)]).edges
    ((0, 1), (2, 0))
    """
    gains = np.maximum(np.nan_to_num(np.asarray(weights, np.float64), nan=0.0, posinf=1e6, neginf=0.0), 0.0)
    np.fill_diagonal(gains, 0.0)
    wanted = gains.copy()
    # Dearer than all others together, so that no order that breaks a required edge can be the best.
    fixed = np.zeros(gains.shape, bool)
    for cause, effect in required:
        fixed[cause, effect] = True
    wanted[fixed | fixed.T] = gains[fixed.T] = 0.0
    gains[fixed] = 1.0 + wanted.sum()
    place = np.empty(len(gains), np.int64)
    rng = np.random.default_rng(seed)
    count = 0
    for component in components(gains > 0):
        check()
        block = np.ix_(component, component)
        if len(component) <= exact:
            order = order_exactly(gains[block])
        else:
            order = order_by_insertion(gains[block], fixed[block], rng, check)
        place[component[order]] = np.arange(count, count + len(component))
        count += len(component)
    kept = (gains > 0) & (place[:, None] < place[None, :])
    better = (wanted > 0) & (wanted >= wanted.T)
    _add_what_fits(kept, better, wanted)
    # Of two equally good directions none is missed.
    broken = _links(better & ~kept & ~((wanted == wanted.T) & kept.T))
    cycles = tuple(_cycle(kept, *link) for link in broken[:MAX_CYCLES])
    return Acyclic(_links(kept), broken, cycles)


def components(links: np.ndarray) -> Iterator[np.ndarray]:
    """Strongly connected components of bool [n, n], causes first, each an increasing array of nodes."""
    import networkx as nx

    graph = nx.from_numpy_array(links.astype(np.int8), create_using=nx.DiGraph)
    # networkx yields a component after all that can be reached from it.
    for component in reversed(list(nx.strongly_connected_components(graph))):
        yield np.array(sorted(component))


def order_exactly(gains: np.ndarray) -> list[int]:
    """The best order of n concepts by dynamic programming over the 2^n subsets: O(2^n n) time and memory.

    Parameters
    ----------
    gains : float [n, n], 0 or more: what it is worth that i comes before j
    """
    n = len(gains)
    sets = np.arange(1 << n)
    # worth[j, s]: what it is worth that all of the set s come before j.
    worth = np.zeros((n, 1 << n))
    for i in range(n):
        worth[:, 1 << i : 2 << i] = worth[:, : 1 << i] + gains[i][:, None]
    best = np.zeros(1 << n)
    last = np.zeros(1 << n, np.int8)
    sizes = np.zeros(1 << n, np.int8)
    for i in range(n):
        sizes[1 << i : 2 << i] = sizes[: 1 << i] + 1
    for size in range(1, n + 1):
        layer = sets[sizes == size]
        found = np.full(len(layer), -np.inf)
        for j in range(n):
            has = np.flatnonzero(layer >> j & 1)
            before = layer[has] ^ (1 << j)
            value = best[before] + worth[j, before]
            better = value > found[has]
            found[has[better]] = value[better]
            last[layer[has[better]]] = j
        best[layer] = found
    order, rest = [], (1 << n) - 1
    while rest:
        order.append(int(last[rest]))
        rest ^= 1 << order[-1]
    return order[::-1]


def order_by_insertion(
    gains: np.ndarray,
    fixed: np.ndarray,
    rng: np.random.Generator,
    check: Callable[[], None] = lambda: None,
    restarts: int = 20,
) -> list[int]:
    """A good order of many concepts: each in turn moves to its best place until none gains, from several first orders.

    Parameters
    ----------
    gains : as for :func:`order_exactly`
    fixed : bool [n, n]; where i must come before j. A move that breaks this must lose.
    restarts : first orders; one by what comes out of a concept less what goes in, the others drawn
    """
    n = len(gains)
    outward = gains.sum(1) - gains.sum(0)
    best, best_value = [], -np.inf
    for restart in range(restarts):
        order = _respecting(np.argsort(-outward, kind="stable") if restart == 0 else rng.permutation(n), fixed)
        moved = True
        while moved:
            moved = False
            for node in rng.permutation(n).tolist():
                check()
                here = order.index(node)
                others = order[:here] + order[here + 1 :]
                # value[k]: what it is worth to stand before others[k], up to a constant.
                value = np.concatenate([[0.0], np.cumsum(gains[others, node] - gains[node, others])])
                there = int(value.argmax())
                if value[there] > value[here] + 1e-9:
                    order = [*others[:there], node, *others[there:]]
                    moved = True
        ordered = gains[np.ix_(order, order)]
        value = float(np.triu(ordered).sum())
        if value > best_value + 1e-9:
            best, best_value = order, value
    return best


def _respecting(order: np.ndarray, fixed: np.ndarray) -> list[int]:
    """The order nearest to `order` in which i comes before j wherever `fixed`."""
    rest, result = order.tolist(), []
    waiting = fixed.sum(0)
    while rest:
        node = next(node for node in rest if not waiting[node])
        rest.remove(node)
        result.append(node)
        waiting = waiting - fixed[node]
    return result


def _add_what_fits(kept: np.ndarray, better: np.ndarray, wanted: np.ndarray) -> None:
    """Add, in place, the better edges that close no cycle: a local search can miss some, the exact one never does."""
    added = True
    while added:
        added = False
        missed = np.argwhere(better & ~kept)
        for u, v in missed[np.argsort(-wanted[missed[:, 0], missed[:, 1]], kind="stable")].tolist():
            backward, kept[v, u] = bool(kept[v, u]), False
            if wanted[u, v] > (wanted[v, u] if backward else 0.0) and not _path(kept, v, u):
                kept[u, v] = added = True
            else:
                kept[v, u] = backward


def _cycle(kept: np.ndarray, cause: int, effect: int) -> tuple[int, ...]:
    """The cycle that an edge would close, from its effect to its cause: a longer way than the reverse edge if any."""
    direct = kept[effect, cause]
    kept[effect, cause] = False
    longer = _path(kept, effect, cause)
    kept[effect, cause] = direct
    return longer or (effect, cause)


def _path(links: np.ndarray, start: int, end: int) -> tuple[int, ...]:
    """The nodes of a shortest directed path; empty if there is none."""
    came = {start: start}
    queue = deque([start])
    while queue and end not in came:
        node = queue.popleft()
        for child in np.flatnonzero(links[node]).tolist():
            if child not in came:
                came[child] = node
                queue.append(child)
    if end not in came:
        return ()
    path = [end]
    while path[-1] != start:
        path.append(came[path[-1]])
    return tuple(path[::-1])


def _links(matrix: np.ndarray) -> tuple[Link, ...]:
    return tuple(map(tuple, np.argwhere(matrix).tolist()))
