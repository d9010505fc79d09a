"""Acyclic directed mixed graphs as bit masks: ancestors and c-components in a few machine words.

Directed edges are causes, bidirected ones latent confounders (Richardson 2003). Variables are numbered causes first and
a set of them is an integer, so that identification takes less than a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .graph import CausalGraph


def members(mask: int) -> Iterator[int]:
    """Numbers of the variables in a set, causes first.

    >>> list(members(0b1101))
    [0, 2, 3]
    """
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


@dataclass(frozen=True)
class ADMG:
    """A graph whose variables are numbered causes first; every set of variables is a bit mask.

    Attributes
    ----------
    names : of the variables, in their order
    parents, siblings : for each variable the set of its direct causes, and of those it shares a latent confounder with

    Examples
    --------
    >>> graph = ADMG.of(CausalGraph.from_edges([("x", "z"), ("z", "y")], [("x", "y")]))
    >>> graph.names, [graph.named(part) for part in graph.components(graph.everything)]
    (('x', 'z', 'y'), [('x', 'y'), ('z',)])
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    siblings: tuple[int, ...]

    @classmethod
    def of(cls, graph: CausalGraph) -> ADMG:
        """Edges and confounded pairs of a causal graph."""
        waiting = {name: set() for name in graph.concepts.names}
        for edge in graph.edges:
            waiting[edge.target].add(edge.source)
        names: list[str] = []
        while waiting:  # always the first concept whose causes are all there
            name = next(name for name, causes in waiting.items() if not causes)
            names.append(name)
            del waiting[name]
            for causes in waiting.values():
                causes.discard(name)
        number = {name: i for i, name in enumerate(names)}
        parents, siblings = [0] * len(names), [0] * len(names)
        for edge in graph.edges:
            parents[number[edge.target]] |= 1 << number[edge.source]
        for a, b in graph.confounded:
            siblings[number[a]] |= 1 << number[b]
            siblings[number[b]] |= 1 << number[a]
        return cls(tuple(names), tuple(parents), tuple(siblings))

    @property
    def everything(self) -> int:
        """The set of all variables."""
        return (1 << len(self.names)) - 1

    def named(self, mask: int) -> tuple[str, ...]:
        """Names of a set, causes first."""
        return tuple(self.names[i] for i in members(mask))

    def mask(self, names: Iterable[str]) -> int:
        """The set of these names."""
        return sum(1 << self.names.index(name) for name in set(names))

    def ancestors(self, of: int, within: int = -1, mute: int = 0, cut: int = 0) -> int:
        """A set and its ancestors.

        Parameters
        ----------
        of : the set
        within : the graph is restricted to these variables
        mute : variables whose outgoing edges are taken away
        cut : variables whose incoming edges are taken away
        """
        found = todo = of & within
        usable = within & ~mute
        while todo:
            v = todo.bit_length() - 1
            todo ^= 1 << v
            if not cut >> v & 1:
                new = self.parents[v] & usable & ~found
                found |= new
                todo |= new
        return found

    def parents_of(self, of: int) -> int:
        """The direct causes of a set that are not in it."""
        found = 0
        for v in members(of):
            found |= self.parents[v]
        return found & ~of

    def component(self, v: int, within: int = -1) -> int:
        """The c-component of a variable: all that bidirected edges link to it, directly or not."""
        found = todo = 1 << v
        while todo:
            v = todo.bit_length() - 1
            todo ^= 1 << v
            new = self.siblings[v] & within & ~found
            found |= new
            todo |= new
        return found

    def components(self, of: int) -> list[int]:
        """The c-components of a subgraph, by their first variables."""
        found = []
        while of:
            part = self.component((of & -of).bit_length() - 1, of)
            found.append(part)
            of &= ~part
        return found

    def links(self, of: int) -> list[tuple[str, str]]:
        """The bidirected edges within a set."""
        return [(self.names[a], self.names[b]) for a in members(of) for b in members(self.siblings[a] & of & -(2 << a))]
