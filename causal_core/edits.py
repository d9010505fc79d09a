"""Manual edits of a causal graph: a patch that is laid over whatever graph comes, and that wins over it.

The patch says what shall hold (this edge is there, that concept is called so), not how a graph was changed. It can
therefore be laid over a graph that nobody had seen when the edits were made, such as a new answer of a language model.
:mod:`causal_core.apply_edits` does so. The graph editor of the web page reads and writes the same document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .concepts import Concept
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
from .graph import MAX_EDGES, CausalGraph

KIND = "counterfact.graph_edits"
VERSION = 1
FARTHEST = 100_000.0

Pair = tuple[str, str]


class ConceptEdit(NamedTuple):
    """What is changed in a concept: its list of values, its factual value; None leaves it as it is."""

    domain: tuple[str, ...] | None = None
    value: str | None = None


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
    >>> edits = GraphEdits(edges={("season", "foliage"): True}, do={"season": "winter"})
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
