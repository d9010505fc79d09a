"""The h-graph: which mechanisms have to be fitted together, and in which order (Modular-DCM, definition 4.2).

Its nodes are c-components; those that could only be matched to data together are merged. Matching one of them needs the
joint distribution of itself and of those of its ancestors through which confounding reaches it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..admg import ADMG, members
from ..graph import CausalGraph


@dataclass(frozen=True)
class Part:
    """Mechanisms that are fitted together.

    Attributes
    ----------
    names : their variables, causes first
    context : ancestors that belong to the distribution which is matched, besides; their mechanisms are fitted before
    causes : what that distribution is conditional on: P(names, context | do(causes)) = P(names, context | causes)
    """

    names: tuple[str, ...]
    context: tuple[str, ...]
    causes: tuple[str, ...]


def parts(graph: CausalGraph) -> list[Part]:
    """The h-graph of a causal graph, in the order of fitting.

    Examples
    --------
    >>> front_door = CausalGraph.from_edges([("x", "z"), ("z", "y")], [("x", "y")])
    >>> [(part.names, part.context, part.causes) for part in parts(front_door)]
    [(('z',), (), ('x',)), (('x', 'y'), ('z',), ())]
    """
    import networkx as nx

    g = ADMG.of(graph)
    components = g.components(g.everything)
    h = nx.DiGraph()
    h.add_nodes_from(range(len(components)))
    for b, part in enumerate(components):
        outside = g.parents_of(part)
        for a, other in enumerate(components):
            acting = outside & other
            if acting and not exchangeable(g, acting, part, outside & ~acting):
                h.add_edge(a, b)
    merged = nx.condensation(h)
    found = []
    for node in nx.lexicographical_topological_sort(merged, key=lambda n: min(merged.nodes[n]["members"])):
        mask = 0
        for member in merged.nodes[node]["members"]:
            mask |= components[member]
        whole = closure(g, mask)
        found.append(Part(g.named(mask), g.named(whole & ~mask), g.named(g.parents_of(whole))))
    return found


def closure(g: ADMG, part: int) -> int:
    """A set and the fewest of its ancestors for which setting the causes is the same as seeing them."""
    whole = part
    while True:
        outside = g.parents_of(whole)
        bad = 0
        for v in members(outside):
            if not exchangeable(g, 1 << v, whole, outside & ~(1 << v)):
                bad |= 1 << v
        if not bad and outside and not exchangeable(g, outside, whole, 0):
            bad = outside
        if not bad:
            return whole
        whole |= bad


def exchangeable(g: ADMG, acting: int, acted: int, given: int) -> bool:
    """Whether P(acted | do(acting), do(given)) = P(acted | acting, do(given)): do-calculus, rule 2 (Pearl 1995)."""
    # Edges into ``given`` and out of ``acting`` are gone; what connects the two then is confounding.
    return not connected(g, acting, given, mute=acting, cut=given) & acted


def connected(g: ADMG, start: int, given: int, mute: int, cut: int) -> int:
    """What is m-connected to a set given another (Richardson 2003), by the rule of the Bayes ball.

    ``mute`` variables have lost their outgoing edges, ``cut`` ones their incoming edges, bidirected ones among them.
    """
    n = len(g.names)
    parents = [0 if cut >> v & 1 else g.parents[v] & ~mute for v in range(n)]
    siblings = [0 if cut >> v & 1 else g.siblings[v] & ~cut for v in range(n)]
    children = [0] * n
    for v in range(n):
        for p in members(parents[v]):
            children[p] |= 1 << v
    # Colliders are open where they, or what follows from them, are given.
    opened = given
    for v in reversed(range(n)):
        if children[v] & opened:
            opened |= 1 << v
    found, todo, seen = 0, [(v, False) for v in members(start)], set()
    while todo:
        v, head = todo.pop()  # head: we came along an arrow into v
        if (v, head) in seen:
            continue
        seen.add((v, head))
        if not given >> v & 1:
            found |= 1 << v
        through = not given >> v & 1
        if opened >> v & 1 if head else through:
            todo += [(p, False) for p in members(parents[v])]
            todo += [(s, True) for s in members(siblings[v])]
        if through:
            todo += [(c, True) for c in members(children[v])]
    return found & ~start
