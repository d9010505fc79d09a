"""The causal graph: a directed acyclic graph over concepts, with latent confounders as bidirected edges.

A graph may carry mechanisms (a tabular SCM) and the exogenous noise of the scene; without them it still says what can
follow from what. Acyclic directed mixed graphs as in Richardson (2003), Markov properties for ADMGs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .concepts import Concept, Concepts, typed_lines
from .errors import (
    MAX_DOCUMENT,
    CounterfactError,
    fields,
    finite,
    identifier,
    limited,
    read_document,
    text,
    write_document,
)

if TYPE_CHECKING:
    import networkx

    from .scm import SCM

KIND = "counterfact.graph"
VERSION = 1
MAX_EDGES = 5000
MAX_REASON = 500

_ARROW = re.compile("(<->|->|\u2194|\u2192)")


@dataclass(frozen=True)
class Edge:
    """A directed edge: `source` is a direct cause of `target`.

    Parameters
    ----------
    source, target : str
        Names of concepts.
    confidence : float
        How sure it is that the edge exists, 0 to 1.
    reason : str
        Why the edge was drawn, in a sentence; at most 500 characters.
    """

    source: str
    target: str
    confidence: float = 1.0
    reason: str = ""

    def __post_init__(self) -> None:
        source, target = identifier(self.source, "an edge's source"), identifier(self.target, "an edge's target")
        where = f"edge {source} -> {target}"
        reason = " ".join(self.reason.split()) if isinstance(self.reason, str) else self.reason
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "confidence", finite(self.confidence, f"the confidence of {where}", 0.0, 1.0))
        object.__setattr__(self, "reason", text(reason, f"the reason of {where}", MAX_REASON) if reason != "" else "")


@dataclass(frozen=True)
class CausalGraph:
    """A directed acyclic graph over concepts.

    Parameters
    ----------
    concepts : Concepts
    edges : tuple of Edge
    confounded : tuple of pairs of names
        Pairs with a latent common cause; stored in the order of the concepts.
    scm : SCM, optional
        Mechanisms of some or all concepts, with the domains of the concepts and the parents of the graph.
    noise : mapping from SCM variable to float in [0, 1), optional
        The exogenous noise of the factual scene where it is known, hidden variables included.

    Raises
    ------
    CounterfactError
        For a cycle (names it), an unknown concept (lists the known ones), an edge or pair given twice, a concept paired
        with itself, or mechanisms that do not belong to this graph.

    Examples
    --------
    >>> graph = CausalGraph.from_edges([("season", "foliage"), ("season", "temperature"), ("temperature", "pond")])
    >>> graph.descendants("season")
    ('foliage', 'temperature', 'pond')
    >>> CausalGraph.from_json(graph.to_json()) == graph
    True
    >>> CausalGraph.from_edges([("egg", "hen"), ("hen", "egg")])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: the graph has a cycle: egg -> hen -> egg. Remove one of these edges
    """

    concepts: Concepts
    edges: tuple[Edge, ...] = ()
    confounded: tuple[tuple[str, str], ...] = ()
    scm: SCM | None = field(default=None, hash=False)
    noise: Mapping[str, float] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        known = self.concepts
        edges = tuple(
            Edge(known[e.source].name, known[e.target].name, e.confidence, e.reason)
            for e in limited(self.edges, "the list of edges", MAX_EDGES)
        )
        pairs = tuple(self._pair(pair) for pair in limited(self.confounded, "the list of confounded pairs", MAX_EDGES))
        links = [f"{e.source} -> {e.target}" for e in edges] + [f"{a} <-> {b}" for a, b in pairs]
        if len(set(links)) < len(links):
            twice = next(link for link in links if links.count(link) > 1)
            raise CounterfactError(f"the edge {twice} is given twice: remove one")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "confounded", pairs)
        self._check_acyclic()
        if self.noise is not None:
            noise = {name: finite(u, f"the noise of {name}", 0.0, 1.0) for name, u in self.noise.items()}
            object.__setattr__(self, "noise", noise)
        _check_mechanisms(self)

    def _pair(self, pair: Sequence[str]) -> tuple[str, str]:
        if isinstance(pair, str) or len(pair) != 2:
            raise CounterfactError(f"a confounded pair needs two concepts, not {pair!r}")
        first, second = sorted(self.concepts.position(name) for name in pair)
        if first == second:
            raise CounterfactError(f"{pair[0]} <-> {pair[1]} pairs a concept with itself: remove it")
        return self.concepts.names[first], self.concepts.names[second]

    def _check_acyclic(self) -> None:
        import networkx as nx

        try:
            cycle = nx.find_cycle(self._directed)
        except nx.NetworkXNoCycle:
            return
        path = " -> ".join([*(source for source, _ in cycle), cycle[0][0]])
        raise CounterfactError(f"the graph has a cycle: {path}. Remove one of these edges")

    @classmethod
    def from_edges(
        cls,
        edges: Iterable[Edge | Sequence[str]],
        confounded: Iterable[Sequence[str]] = (),
        concepts: Concepts | None = None,
    ) -> CausalGraph:
        """Build a graph from pairs of names.

        Parameters
        ----------
        edges : Edge objects or pairs (source, target)
        confounded : pairs of names
        concepts : the concepts, if they are known; otherwise open concepts in the order in which the names appear
        """
        edges = tuple(e if isinstance(e, Edge) else Edge(*e) for e in edges)
        confounded = tuple(tuple(pair) for pair in confounded)
        if concepts is None:
            pairs = [(e.source, e.target) for e in edges] + [*confounded]
            concepts = Concepts(tuple(Concept(name) for name in dict.fromkeys(itertools.chain(*pairs))))
        return cls(concepts, edges, confounded)

    @cached_property
    def _directed(self) -> networkx.DiGraph:
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(self.concepts.names)
        graph.add_edges_from((e.source, e.target) for e in self.edges)
        return graph

    def _in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self.concepts.position))

    def parents(self, name: str) -> tuple[str, ...]:
        """Direct causes, in the order of the concepts."""
        return self._in_order(self._directed.predecessors(self.concepts[name].name))

    def children(self, name: str) -> tuple[str, ...]:
        """Direct effects, in the order of the concepts."""
        return self._in_order(self._directed.successors(self.concepts[name].name))

    def ancestors(self, name: str) -> tuple[str, ...]:
        """All causes, direct or not, without the concept itself, in the order of the concepts."""
        import networkx as nx

        return self._in_order(nx.ancestors(self._directed, self.concepts[name].name))

    def descendants(self, name: str) -> tuple[str, ...]:
        """All effects, direct or not, without the concept itself, in the order of the concepts."""
        import networkx as nx

        return self._in_order(nx.descendants(self._directed, self.concepts[name].name))

    def topological_order(self) -> tuple[str, ...]:
        """All names, causes first; where the edges leave it open, in the order of the concepts."""
        import networkx as nx

        return tuple(nx.lexicographical_topological_sort(self._directed, key=self.concepts.position))

    def depth_from(self, sources: Iterable[str]) -> dict[str, int]:
        """Length of the shortest directed path from any of `sources` (0 for these); unreached concepts are left out.

        Examples
        --------
        >>> CausalGraph.from_edges([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")]).depth_from(["a"])
        {'a': 0, 'b': 1, 'c': 1, 'd': 2}
        """
        import networkx as nx

        layers = nx.bfs_layers(self._directed, self._in_order({self.concepts[name].name for name in sources}))
        depth = {name: i for i, layer in enumerate(layers) for name in layer}
        return {name: depth[name] for name in self._in_order(depth)}

    def with_confounder(self, first: str, second: str, present: bool = True) -> CausalGraph:
        """The graph with a latent common cause of two concepts, or without one if it is not ``present``.

        Mechanisms that say otherwise are left out, and the noise with them.

        Examples
        --------
        >>> graph = CausalGraph.from_edges([("x", "y")]).with_confounder("y", "x")
        >>> graph.confounded, graph.with_confounder("x", "y", present=False).confounded
        ((('x', 'y'),), ())
        """
        pair = self._pair((first, second))
        pairs = dict.fromkeys((*self.confounded, pair))
        if not present:
            del pairs[pair]
        changed = {"confounded": tuple(pairs)}
        if self.scm is not None and _have_hidden_cause(self.scm, *pair) != present:
            changed |= {"scm": None, "noise": None}
        return replace(self, **changed)

    def to_networkx(self) -> networkx.DiGraph:
        """A networkx graph with the same names; edges carry `confidence` and `reason`, the graph carries `confounded`.

        Mechanisms and noise do not go along.
        """
        graph = self._directed.copy()
        graph.graph["confounded"] = list(self.confounded)
        for concept in self.concepts:
            graph.nodes[concept.name]["concept"] = concept
        for e in self.edges:
            graph.edges[e.source, e.target].update(confidence=e.confidence, reason=e.reason)
        return graph

    @classmethod
    def from_networkx(cls, graph: networkx.DiGraph) -> CausalGraph:
        """The inverse of :meth:`to_networkx`; all attributes are optional."""
        if not graph.is_directed() or graph.is_multigraph():
            raise CounterfactError(
                "the networkx graph must be a DiGraph: an edge needs a direction, and a pair one edge"
            )
        concepts = Concepts(tuple(data.get("concept") or Concept(str(name)) for name, data in graph.nodes(data=True)))
        edges = [
            Edge(str(source), str(target), data.get("confidence", 1.0), data.get("reason", ""))
            for source, target, data in graph.edges(data=True)
        ]
        return cls.from_edges(edges, graph.graph.get("confounded", ()), concepts)

    def to_json(self) -> str:
        """A `counterfact.graph` document; the same graph always gives the same text."""
        body = {
            "concepts": self.concepts.to_list(),
            "edges": [
                {"source": e.source, "target": e.target, "confidence": e.confidence, "reason": e.reason}
                for e in self.edges
            ],
            "confounded": [list(pair) for pair in self.confounded],
            "scm": None if self.scm is None else self.scm.to_dict(),
            "noise": None if self.noise is None else dict(self.noise),
        }
        return write_document(KIND, VERSION, body)

    @classmethod
    def from_json(cls, document: str) -> CausalGraph:
        """Read a `counterfact.graph` document; anything else raises CounterfactError."""
        data = fields(
            read_document(document, KIND, VERSION),
            "the document", concepts=list, edges=list, confounded=(list, []), scm=(dict, None), noise=(dict, None),
        )  # fmt: skip
        concepts = Concepts.from_list(data["concepts"])
        edges = tuple(
            Edge(**fields(item, f"edge {i}", source=str, target=str, confidence=(float, 1.0), reason=(str, "")))
            for i, item in enumerate(limited(data["edges"], "the list of edges", MAX_EDGES), 1)
        )
        for pair in data["confounded"]:
            if not isinstance(pair, list):
                raise CounterfactError('confounded must be a list of pairs, such as [["time", "weather"]]')
        if data["scm"] is not None:
            from .scm import SCM

            data["scm"] = SCM.from_dict(data["scm"])
        return cls(concepts, edges, tuple(data["confounded"]), data["scm"], data["noise"])


def parse_edges(typed: str) -> tuple[list[Edge], list[tuple[str, str]]]:
    """Read typed edges: one or a chain of them a line, `a -> b -> c`; `a <-> b` is a latent confounder; # a comment.

    Returns
    -------
    edges, confounded
        What :meth:`CausalGraph.from_edges` takes; a line typed twice counts once.

    Raises
    ------
    CounterfactError
        If a line is not made of names and arrows.

    Examples
    --------
    >>> concepts = Concepts(tuple(Concept(name) for name in ("season", "temperature", "pond", "time", "weather")))
    >>> graph = CausalGraph.from_edges(*parse_edges('''
    ... Season -> temperature -> pond   # ice
    ... time <-> weather
    ... '''), concepts=concepts)
    >>> [(e.source, e.target) for e in graph.edges], graph.confounded
    ([('season', 'temperature'), ('temperature', 'pond')], (('time', 'weather'),))
    """
    edges: dict[Edge, None] = {}
    confounded: dict[tuple[str, str], None] = {}
    for line in typed_lines(typed):
        parts = _ARROW.split(line)
        if len(parts) == 1:
            raise CounterfactError(f"cannot read the edge {line[:80]!r}: write 'cause -> effect', one a line")
        names = [identifier(part, f"in the edge line {line[:80]!r}, the concept") for part in parts[::2]]
        for source, arrow, target in zip(names, parts[1::2], names[1:]):
            if arrow in ("->", "\u2192"):
                edges[Edge(source, target)] = None
            elif (target, source) not in confounded:
                confounded[source, target] = None
    return list(edges), list(confounded)


def read_graph(path: str | Path) -> CausalGraph:
    """The causal graph in a JSON file; raises CounterfactError that names the file."""
    path = Path(path)
    try:
        if path.stat().st_size > 4 * MAX_DOCUMENT:
            raise CounterfactError(f"graph: {path} is too large to be a causal graph")
        return CausalGraph.from_json(path.read_text("utf-8-sig"))
    except OSError as error:
        raise CounterfactError(f"graph: cannot read {path} ({error.strerror}); give the path of a JSON file") from None
    except UnicodeDecodeError:
        raise CounterfactError(f"graph: {path} is not UTF-8 text; export the graph again") from None
    except CounterfactError as error:
        raise CounterfactError(f"graph {path.name}: {error}") from None


def _have_hidden_cause(scm: SCM, first: str, second: str) -> bool:
    """Whether one hidden variable acts on both, itself or through other hidden ones."""
    behind: dict[str, set[str]] = {}  # the hidden variables that reach a variable so
    for variable in scm.variables:
        behind[variable.name] = set().union(*({p, *behind[p]} for p in variable.parents if scm[p].hidden))
    return not behind.get(first, set()).isdisjoint(behind.get(second, ()))


def _check_mechanisms(graph: CausalGraph) -> None:
    """Check that mechanisms and noise belong to this graph, so that a prediction never contradicts the picture."""
    if graph.scm is None:
        if graph.noise is not None:
            raise CounterfactError(
                "the graph has noise but no mechanisms (scm): leave the noise out or add the mechanisms"
            )
        return
    hidden: dict[str, set[str]] = {}  # the observed causes that reach a variable through hidden ones
    for variable in graph.scm.variables:
        direct = {p for p in variable.parents if p not in hidden}
        causes = direct.union(*(hidden[p] for p in variable.parents if p in hidden))
        if variable.hidden:
            hidden[variable.name] = causes
            continue
        concept, parents = graph.concepts[variable.name], graph.parents(variable.name)
        where, remedy = f"the mechanism of {variable.name!r}", "make them the same, or leave the mechanisms (scm) out"
        if concept.name != variable.name or concept.domain != variable.domain:
            there, here = ", ".join(variable.domain), ", ".join(concept.domain) or "no list of values"
            raise CounterfactError(f"{where} is for the values {there}, but the concept has {here}: {remedy}")
        if causes != set(parents):
            there, here = ", ".join(sorted(causes)) or "none", ", ".join(parents) or "none"
            raise CounterfactError(f"{where} has the causes {there}, but the graph has {here}: {remedy}")
    if graph.noise is not None and set(graph.noise) != {variable.name for variable in graph.scm.variables}:
        raise CounterfactError(
            "the noise needs one number for each variable of the mechanisms: complete it or leave it out"
        )
