"""Manual edits of a causal graph: a patch that is laid over whatever graph comes, and that wins over it.

The patch says what shall hold (this edge is there, that concept is called so), not how a graph was changed. It can
therefore be laid over a graph that nobody had seen when the edits were made, such as a new answer of a language model.
The graph editor of the web page reads and writes the same document; web/edits.mjs does there what this module does.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from .concepts import Concept, Concepts
from .errors import (
    CounterfactError,
    fields,
    finite,
    folded,
    identifier,
    limited,
    read_document,
    text,
    write_document,
)
from .graph import MAX_EDGES, CausalGraph, Edge
from .plan import Intervention
from .scm import SCM, Variable

KIND = "counterfact.graph_edits"
VERSION = 1
FARTHEST = 100_000.0
BY_HAND = "drawn by hand"

log = logging.getLogger("counterfact")

Pair = tuple[str, str]


class ConceptEdit(NamedTuple):
    """What is changed in a concept: its list of values, its factual value; None leaves it as it is."""

    domain: tuple[str, ...] | None = None
    value: str | None = None


class Edited(NamedTuple):
    """A graph with edits laid over it, the intervention that they hold, and what of them could not be done."""

    graph: CausalGraph
    intervention: Intervention
    notes: tuple[str, ...]


@dataclass(frozen=True)
class GraphEdits:
    """Manual edits. Names are those that the edited graph has; `removed` and the keys of `renamed` are the graph's own.

    Parameters
    ----------
    added : tuple of Concept
        Name, domain and value count. If the graph has such a concept too, domain and value are changed as by `values`.
    removed : tuple of names
    renamed : mapping from old to new name
    values : mapping from name to ConceptEdit
    edges : mapping from (source, target) to bool
        Whether the edge is there. An edge that is there takes the place of its reverse.
    confounded : mapping from pairs of names to bool
        Whether the two have a latent common cause.
    do : mapping from name to value
        The intervention.
    positions : mapping from name to (x, y)
        Where the editor draws the middle of a concept, up to 100,000 units from the origin.

    Raises
    ------
    CounterfactError
        For names or values that none can have, an edit given twice, or edges that make a cycle (names it).

    Examples
    --------
    >>> told = CausalGraph.from_edges([("foliage", "season"), ("season", "pond")])
    >>> edits = GraphEdits(edges={("season", "foliage"): True}, do={"season": "winter"})
    >>> graph, intervention, notes = edits.apply(told)
    >>> [(edge.source, edge.target) for edge in graph.edges], str(intervention), notes
    ([('season', 'pond'), ('season', 'foliage')], 'do(season = winter)', ())
    >>> GraphEdits.from_json(edits.to_json()) == edits
    True
    """

    added: tuple[Concept, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)
    values: Mapping[str, ConceptEdit] = field(default_factory=dict, hash=False)
    edges: Mapping[Pair, bool] = field(default_factory=dict, hash=False)
    confounded: Mapping[Pair, bool] = field(default_factory=dict, hash=False)
    do: Mapping[str, str] = field(default_factory=dict, hash=False)
    positions: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        put = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731  frozen, but normalised once
        added = tuple(Concept(c.name, c.domain, c.value) for c in limited(self.added, "the list of added concepts"))
        put("added", added)
        _once((c.name for c in added), "the added concept")
        removed = tuple(identifier(n, "the removed concept") for n in limited(self.removed, "the removed concepts"))
        put("removed", removed)
        _once(removed, "the removed concept")
        put("renamed", _named(self.renamed, "the renamed concept", lambda new, _: identifier(new, "the new name")))
        put("values", _named(self.values, "the changed concept", _concept_edit))
        put("edges", _links(self.edges, "->"))
        put("confounded", _links(self.confounded, "<->"))
        put("do", _named(self.do, "the intervened concept", lambda v, name: text(v, f"the value of concept {name!r}")))
        put("positions", _named(self.positions, "the placed concept", _position))
        spelling = {folded(name): name for pair in self.edges for name in pair}
        drawn = [tuple(spelling[folded(name)] for name in pair) for pair, there in self.edges.items() if there]
        if drawn:
            CausalGraph.from_edges(drawn)  # raises an error that names a cycle

    def __bool__(self) -> bool:
        """Whether there is any edit, places apart."""
        return any((self.added, self.removed, self.renamed, self.values, self.edges, self.confounded, self.do))

    def apply(self, graph: CausalGraph | None) -> Edited:
        """Lay the edits over a graph.

        Edits of what the graph does not have are left out with a note. Where manual edges and edges of the graph make
        a cycle, the graph's least confident ones are left out. Mechanisms stay where causes, confounders and values of
        the concept are the same as before, and so are those of its causes.

        Parameters
        ----------
        graph : CausalGraph, optional
            None stands for a graph without concepts.

        Raises
        ------
        CounterfactError
            If no concept is left.
        """
        notes: list[str] = []
        if graph is not None and not self:
            return Edited(graph, Intervention(), ())
        concepts, final = self._concepts(graph, notes)
        if not concepts:
            raise CounterfactError("no concept is left: add one in the editor, or reset it")
        concepts = Concepts(concepts)
        edges = self._edges(graph.edges if graph else (), concepts, final, notes)
        confounded = self._confounded(graph.confounded if graph else (), concepts, final, notes)
        do = self._do(concepts, notes)
        edited = CausalGraph(concepts, edges, confounded)
        if graph is not None and graph.scm is not None:
            edited = _with_mechanisms(edited, graph, final, notes)
        for note in notes:
            log.info("graph edits: %s", note)
        return Edited(edited, Intervention(do), tuple(notes))

    def _concepts(self, graph: CausalGraph | None, notes: list[str]) -> tuple[tuple[Concept, ...], dict[str, str]]:
        """The concepts of the edited graph, and the names that those of the graph have in it."""
        gone = set(map(folded, self.removed))
        own = {folded(c.name): c for c in graph.concepts if folded(c.name) not in gone} if graph else {}
        wanted = {}
        for old, new in self.renamed.items():
            if folded(old) in own:
                wanted[own[folded(old)].name] = new
            elif folded(new) not in own:
                notes.append(f"{old} is not renamed to {new}: there is no {old}")
        while True:
            final = {c.name: wanted.get(c.name, c.name) for c in own.values()}
            count = Counter(map(folded, final.values()))
            clash = next((name for name, new in wanted.items() if count[folded(new)] > 1), None)
            if clash is None:
                break
            notes.append(f"{clash} is not renamed to {wanted.pop(clash)}: there is such a concept already")
        concepts = {folded(final[c.name]): replace(c, name=final[c.name]) for c in own.values()}
        for concept in self.added:
            key = folded(concept.name)
            edit = ConceptEdit(concept.domain or None, concept.value)
            concepts[key] = _changed(concepts[key], edit, notes) if key in concepts else concept
        for name, edit in self.values.items():
            if folded(name) in concepts:
                concepts[folded(name)] = _changed(concepts[folded(name)], edit, notes)
            else:
                notes.append(f"the values of {name} are left out: there is no {name}")
        return tuple(concepts.values()), final

    def _edges(
        self, given: Iterable[Edge], concepts: Concepts, final: Mapping[str, str], notes: list[str]
    ) -> tuple[Edge, ...]:
        hand = _present(self.edges, "->", concepts, notes)
        edges = {}
        for edge in given:
            pair = final.get(edge.source), final.get(edge.target)
            if None not in pair and hand.get(pair) is not False and not hand.get(pair[::-1]):
                edges[pair] = Edge(*pair, edge.confidence, edge.reason)
        drawn = [pair for pair, there in hand.items() if there]
        edges.update((pair, Edge(*pair, 1.0, BY_HAND)) for pair in drawn)
        for pair in _closing(edges, drawn):
            edges.pop(pair)
            notes.append(f"{pair[0]} -> {pair[1]} is left out: it makes a cycle with the edges drawn by hand")
        return tuple(edges.values())

    def _confounded(
        self, given: Iterable[Pair], concepts: Concepts, final: Mapping[str, str], notes: list[str]
    ) -> tuple[Pair, ...]:
        pairs = {frozenset((final[a], final[b])): (final[a], final[b]) for a, b in given if a in final and b in final}
        for pair, there in _present(self.confounded, "<->", concepts, notes).items():
            if there:
                pairs.setdefault(frozenset(pair), pair)
            else:
                pairs.pop(frozenset(pair), None)
        return tuple(pairs.values())

    def _do(self, concepts: Concepts, notes: list[str]) -> dict[str, str]:
        do = {}
        for name, value in self.do.items():
            if name not in concepts:
                notes.append(f"do({name} = {value}) is left out: there is no {name}")
            elif (known := _matched(concepts[name], value)) is None:
                notes.append(f"do({name} = {value}) is left out: {concepts[name].name} cannot have this value")
            else:
                do[name] = known
        return concepts.settle(do)

    def to_json(self) -> str:
        """A `counterfact.graph_edits` document; the same edits always give the same text."""
        body = {
            "added": [{"name": c.name, "domain": list(c.domain), "value": c.value} for c in self.added],
            "removed": list(self.removed),
            "renamed": dict(self.renamed),
            "values": {
                name: {"domain": None if edit.domain is None else list(edit.domain), "value": edit.value}
                for name, edit in self.values.items()
            },
            "edges": [{"source": a, "target": b, "present": there} for (a, b), there in self.edges.items()],
            "confounded": [{"pair": list(pair), "present": there} for pair, there in self.confounded.items()],
            "do": dict(self.do),
            "positions": {name: list(at) for name, at in self.positions.items()},
        }
        return write_document(KIND, VERSION, body)

    @classmethod
    def from_json(cls, document: str) -> GraphEdits:
        """Read a `counterfact.graph_edits` document; an empty text holds no edits, anything else is a CounterfactError.

        Examples
        --------
        >>> GraphEdits.from_json("") == GraphEdits()
        True
        """
        if isinstance(document, str) and not document.strip():
            return cls()
        data = fields(
            read_document(document, KIND, VERSION), "the document",
            added=(list, []), removed=(list, []), renamed=(dict, {}), values=(dict, {}), edges=(list, []),
            confounded=(list, []), do=(dict, {}), positions=(dict, {}),
        )  # fmt: skip
        spec: dict[str, Any] = {"name": str, "domain": (list, []), "value": (str, None)}
        added = [
            Concept(**fields(item, f"added concept {i}", **spec))
            for i, item in enumerate(limited(data["added"], "the list of added concepts"), 1)
        ]
        values = {
            name: ConceptEdit(**fields(item, f"the values of {name!r}", domain=(list, None), value=(str, None)))
            for name, item in data["values"].items()
        }
        edges = [
            ((item["source"], item["target"]), item["present"])
            for item in _items(data["edges"], "edge", source=str, target=str, present=bool)
        ]
        confounded = [
            (tuple(item["pair"]), item["present"])
            for item in _items(data["confounded"], "confounded pair", pair=list, present=bool)
        ]
        return cls(
            tuple(added), tuple(data["removed"]), data["renamed"], values, _unrepeated(edges, "->"),
            _unrepeated(confounded, "<->"), data["do"], data["positions"],
        )  # fmt: skip


def _once(names: Iterable[str], what: str) -> None:
    names = list(names)
    if len(set(map(folded, names))) < len(names):
        count = Counter(map(folded, names))
        twice = next(name for name in names if count[folded(name)] > 1)
        raise CounterfactError(f"{what} {twice!r} is given twice: keep one of them")


def _named(edits: Mapping[str, Any], what: str, read: Any) -> dict[str, Any]:
    """Edits by name, checked, in the order of the names: a document keeps no other."""
    limited(list(edits), f"the list of {what.removeprefix('the ')}s")
    names = {key: identifier(key, what) for key in edits}
    _once(names.values(), what)
    return {name: read(edits[key], name) for key, name in sorted(names.items(), key=lambda item: item[1])}


def _concept_edit(edit: ConceptEdit, name: str) -> ConceptEdit:
    # Read as the whole concept would be. Whether the graph's own values have the value shows when it is applied.
    concept = Concept(name, tuple(edit.domain or ()), edit.value)
    return ConceptEdit(None if edit.domain is None else concept.domain, concept.value)


def _position(at: Any, name: str) -> tuple[float, float]:
    if not isinstance(at, (list, tuple)) or len(at) != 2:
        raise CounterfactError(f"the position of {name!r} must be two numbers, such as [120, 40]")
    return tuple(finite(x, f"the position of {name!r}", -FARTHEST, FARTHEST) for x in at)


def _items(items: list[Any], what: str, **spec: Any) -> list[dict[str, Any]]:
    items = limited(items, f"the list of {what}s", MAX_EDGES)
    return [fields(item, f"{what} {i}", **spec) for i, item in enumerate(items, 1)]


def _unrepeated(links: list[tuple[Any, bool]], arrow: str) -> dict[Any, bool]:
    """The links as a mapping, once it is known that none of them is there twice, as one of them would be lost."""
    try:
        result = dict(links)
    except TypeError:
        raise CounterfactError(f"an edit of {arrow} needs two names of concepts") from None
    if len(result) < len(links):
        pairs = [pair for pair, _ in links]
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        raise CounterfactError(f"{f' {arrow} '.join(map(str, twice))} is given twice: keep one of them")
    return result


def _links(links: Mapping[Pair, bool], arrow: str) -> dict[Pair, bool]:
    limited(list(links), f"the list of {arrow} edits", MAX_EDGES)
    result: dict[Pair, bool] = {}
    seen = set()
    for pair, there in links.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise CounterfactError(f"an edit of {arrow} needs two names of concepts")
        source, target = (identifier(name, f"in an edit of {arrow}, the concept") for name in pair)
        ends = folded(source), folded(target)
        if ends[0] == ends[1]:
            raise CounterfactError(f"{source} {arrow} {target} links a concept with itself: remove it")
        key = ends if arrow == "->" else frozenset(ends)
        if key in seen:
            raise CounterfactError(f"{source} {arrow} {target} is given twice: keep one of them")
        seen.add(key)
        result[source, target] = bool(there)
    return result


def _present(links: Mapping[Pair, bool], arrow: str, concepts: Concepts, notes: list[str]) -> dict[Pair, bool]:
    """The links between concepts that are there, in their spelling."""
    found = {}
    for pair, there in links.items():
        missing = [name for name in pair if name not in concepts]
        if not missing:
            found[concepts[pair[0]].name, concepts[pair[1]].name] = there
        elif there:
            notes.append(f"{pair[0]} {arrow} {pair[1]} is left out: there is no {missing[0]}")
    return found


def _matched(concept: Concept, value: str) -> str | None:
    """The value as the concept spells it, None if it cannot have it."""
    try:
        return concept.match(value)
    except CounterfactError:
        return None


def _changed(concept: Concept, edit: ConceptEdit, notes: list[str]) -> Concept:
    if edit.domain is not None and edit.domain != concept.domain:
        bare = Concept(concept.name, edit.domain)
        phrases = {value: ways for value, ways in concept.phrases.items() if _matched(bare, value)}
        kept = None if concept.value is None else _matched(bare, concept.value)
        concept = replace(bare, value=kept, phrases=phrases, confidence=None if kept is None else concept.confidence)
    if edit.value is None:
        return concept
    value = _matched(concept, edit.value)
    if value is None:
        notes.append(f"{concept.name} = {edit.value} is left out: {concept.name} cannot have this value")
        return concept
    return replace(concept, value=value, confidence=None)


def _closing(edges: Mapping[Pair, Edge], drawn: list[Pair]) -> list[Pair]:
    """Edges to leave out so that no cycle remains: none that is drawn by hand, and the least confident of the others.

    Taken up in the order of their confidence, edges stay unless they close a cycle with those that have stayed.
    """
    import networkx as nx

    union = nx.DiGraph(list(edges))
    if not drawn or nx.is_directed_acyclic_graph(union):
        return []
    component = {name: i for i, names in enumerate(nx.strongly_connected_components(union)) for name in names}
    kept = nx.DiGraph(drawn)
    closing = []
    others = [pair for pair in edges if pair not in set(drawn) and component[pair[0]] == component[pair[1]]]
    for source, target in sorted(others, key=lambda pair: -edges[pair].confidence):
        if target in kept and source in kept and nx.has_path(kept, target, source):
            closing.append((source, target))
        else:
            kept.add_edge(source, target)
    return closing


def _with_mechanisms(
    edited: CausalGraph, graph: CausalGraph, final: Mapping[str, str], notes: list[str]
) -> CausalGraph:
    """Give the edited graph the mechanisms of the graph that still hold, and the noise if it still explains the values.

    A mechanism reads its causes' values, so it goes where one of theirs goes.
    """
    taken = set(edited.concepts.names)
    final = dict(final)
    for variable in graph.scm.variables:
        if variable.hidden:
            name = variable.name
            while name in taken:
                name += "_"
            taken.add(name)
            final[variable.name] = name
    kept: dict[str, Variable] = {}
    for variable in graph.scm.variables:
        if all(parent in kept for parent in variable.parents) and _holds(variable, edited, graph, final):
            parents = tuple(final[parent] for parent in variable.parents)
            kept[variable.name] = replace(variable, name=final[variable.name], parents=parents)
    for variable in reversed(graph.scm.variables):  # unseen causes of nothing
        if variable.hidden and not any(variable.name in v.parents for v in graph.scm.variables if v.name in kept):
            kept.pop(variable.name, None)
    lost = [final[name] for name in graph.scm.observed if name in final and name not in kept]
    if lost:
        some = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        notes.append(f"the mechanisms of {some} are left out: what they rest on was changed by hand")
    if not kept:
        return edited
    before = graph.concepts.values()
    same = all(edited.concepts[v.name].value == before.get(name) for name, v in kept.items() if not v.hidden)
    noise = {final[name]: graph.noise[name] for name in kept} if graph.noise is not None and same else None
    return replace(edited, scm=SCM(tuple(kept.values())), noise=noise)


def _holds(variable: Variable, edited: CausalGraph, graph: CausalGraph, final: Mapping[str, str]) -> bool:
    """Whether a concept of the mechanism has the values, causes and confounders that it had before."""
    if variable.hidden:
        return True
    if variable.name not in final:
        return False
    name = final[variable.name]
    return (
        edited.concepts[name].domain == variable.domain
        and set(edited.parents(name)) == {final.get(parent) for parent in graph.parents(variable.name)}
        and _partners(edited, name) == {final.get(other) for other in _partners(graph, variable.name)}
    )


def _partners(graph: CausalGraph, name: str) -> set[str]:
    return {other for pair in graph.confounded if name in pair for other in pair if other != name}
