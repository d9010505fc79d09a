"""A graph with manual edits laid over it: all that they ask for and the graph can have, and a note for each thing else.

What the edits say wins over the graph; where a cycle is the price, the graph's least confident edges give way. The page
shows the same graph: web/edits.mjs does there what this module does.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from .concepts import Concept, Concepts
from .edits import ConceptEdit, GraphEdits, Pair
from .errors import CounterfactError, folded
from .graph import CausalGraph, Edge
from .plan import Intervention
from .scm import SCM, Variable

BY_HAND = "drawn by hand"

log = logging.getLogger("counterfact")


class Edited(NamedTuple):
    """A graph with edits laid over it, the intervention that they hold, and what of them could not be done."""

    graph: CausalGraph
    intervention: Intervention
    notes: tuple[str, ...]


def apply_edits(graph: CausalGraph | None, edits: GraphEdits) -> Edited:
    """Lay manual edits over a graph.

    Edits of what the graph does not have are left out with a note. Where manual edges and edges of the graph make a
    cycle, the graph's least confident ones are left out. Mechanisms stay where causes, confounders and values of the
    concept are the same as before, and so are those of its causes.

    Parameters
    ----------
    graph : CausalGraph, optional
        None stands for a graph without concepts.

    Raises
    ------
    CounterfactError
        If no concept is left.

    Examples
    --------
    >>> told = CausalGraph.from_edges([("foliage", "season"), ("season", "pond")])
    >>> edits = GraphEdits(edges={("season", "foliage"): True}, do={"season": "winter"})
    >>> graph, intervention, notes = apply_edits(told, edits)
    >>> [(edge.source, edge.target) for edge in graph.edges], str(intervention), notes
    ([('season', 'pond'), ('season', 'foliage')], 'do(season = winter)', ())
    """
    notes: list[str] = []
    if graph is not None and not edits:
        return Edited(graph, Intervention(), ())
    concepts, final = _concepts(edits, graph, notes)
    if not concepts:
        raise CounterfactError("no concept is left: add one in the editor, or reset it")
    concepts = Concepts(concepts)
    edges = _edges(edits.edges, graph.edges if graph else (), concepts, final, notes)
    confounded = _confounded(edits.confounded, graph.confounded if graph else (), concepts, final, notes)
    do = _do(edits.do, concepts, notes)
    edited = CausalGraph(concepts, edges, confounded)
    if graph is not None and graph.scm is not None:
        edited = _with_mechanisms(edited, graph, final, notes)
    for note in notes:
        log.info("graph edits: %s", note)
    return Edited(edited, Intervention(do), tuple(notes))


def _concepts(
    edits: GraphEdits, graph: CausalGraph | None, notes: list[str]
) -> tuple[tuple[Concept, ...], dict[str, str]]:
    """The concepts of the edited graph, and the names that those of the graph have in it."""
    gone = set(map(folded, edits.removed))
    own = {folded(c.name): c for c in graph.concepts if folded(c.name) not in gone} if graph else {}
    wanted = {}
    for old, new in edits.renamed.items():
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
    for concept in edits.added:
        key = folded(concept.name)
        edit = ConceptEdit(concept.domain or None, concept.value)
        concepts[key] = _changed(concepts[key], edit, notes) if key in concepts else concept
    for name, edit in edits.values.items():
        if folded(name) in concepts:
            concepts[folded(name)] = _changed(concepts[folded(name)], edit, notes)
        else:
            notes.append(f"the values of {name} are left out: there is no {name}")
    return tuple(concepts.values()), final


def _edges(
    wanted: Mapping[Pair, bool],
    given: Iterable[Edge],
    concepts: Concepts,
    final: Mapping[str, str],
    notes: list[str],
) -> tuple[Edge, ...]:
    hand = _present(wanted, "->", concepts, notes)
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
    wanted: Mapping[Pair, bool],
    given: Iterable[Pair],
    concepts: Concepts,
    final: Mapping[str, str],
    notes: list[str],
) -> tuple[Pair, ...]:
    pairs = {frozenset((final[a], final[b])): (final[a], final[b]) for a, b in given if a in final and b in final}
    for pair, there in _present(wanted, "<->", concepts, notes).items():
        if there:
            pairs.setdefault(frozenset(pair), pair)
        else:
            pairs.pop(frozenset(pair), None)
    return tuple(pairs.values())


def _do(wanted: Mapping[str, str], concepts: Concepts, notes: list[str]) -> dict[str, str]:
    do = {}
    for name, value in wanted.items():
        if name not in concepts:
            notes.append(f"do({name} = {value}) is left out: there is no {name}")
        elif (known := _matched(concepts[name], value)) is None:
            notes.append(f"do({name} = {value}) is left out: {concepts[name].name} cannot have this value")
        else:
            do[name] = known
    return concepts.settle(do)


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
