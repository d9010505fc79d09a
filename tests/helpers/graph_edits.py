"""Manual edits and graphs: cases that Python and the page must agree on, their short form, and random ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from causal_core.apply_edits import Edited
from causal_core.concepts import Concept, Concepts
from causal_core.edits import KIND
from causal_core.graph import CausalGraph, Edge

CASES = json.loads((Path(__file__).parents[1] / "data" / "graph_edits.json").read_text(encoding="utf-8"))
NAMES = ["a", "b", "c", "d d", "10", "9", "\u00e9t\u00e9", "Zeit"]


def document(edits: dict[str, Any]) -> str:
    """The document that holds these edits."""
    return json.dumps({"kind": KIND, "schema_version": 1, **edits})


def graph_of(case: dict[str, Any] | None) -> CausalGraph | None:
    """A graph from its short form."""
    if case is None:
        return None
    concepts = (Concept(*fields[:3], interval=fields[3] if len(fields) > 3 else None) for fields in case["concepts"])
    return CausalGraph(
        Concepts(tuple(concepts)), tuple(Edge(*e) for e in case["edges"]), tuple(map(tuple, case["confounded"]))
    )


def short_form(edited: Edited) -> dict[str, Any]:
    """An edited graph as JSON would hold it."""
    return {
        "concepts": [[c.name, list(c.domain), c.value] for c in edited.graph.concepts],
        "edges": [[e.source, e.target, e.confidence, e.reason] for e in edited.graph.edges],
        "confounded": [list(pair) for pair in edited.graph.confounded],
        "do": dict(edited.intervention.do),
        "notes": list(edited.notes),
    }


def pairs(graph: CausalGraph) -> set[tuple[str, str]]:
    """Cause and effect of each edge."""
    return {(e.source, e.target) for e in graph.edges}


def random_graph(rng: random.Random) -> CausalGraph | None:
    """A graph of up to seven of the `NAMES`, often with values and latent confounders."""
    names = rng.sample(NAMES, rng.randrange(len(NAMES)))
    if not names:
        return None
    concepts = [Concept(name, rng.choice([(), ("x", "y"), ("y", "z")]), None) for name in names]
    concepts = [c if rng.random() < 0.4 else Concept(c.name, c.domain, "y") for c in concepts]
    possible = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    rng.shuffle(possible)
    edges = tuple(Edge(a, b, rng.choice([0.2, 0.5, 0.9]), "told") for a, b in possible[: rng.randrange(10)])
    return CausalGraph(Concepts(tuple(concepts)), edges, tuple(possible[-rng.randrange(1, 3) :]))


def random_edits(rng: random.Random) -> dict[str, Any]:
    """Edits of the `NAMES`, among them some that are refused and many that such a graph cannot have."""

    def some(most: int) -> list[str]:
        return [
            rng.choice(NAMES).upper() if rng.random() < 0.2 else rng.choice(NAMES) for _ in range(rng.randrange(most))
        ]

    def value() -> str | None:
        return rng.choice([None, "x", "Y", "z", "<b>"])

    def links(most: int) -> list[tuple[str, str]]:
        return list({frozenset(pair): pair for pair in zip(some(most), some(most)) if pair[0] != pair[1]}.values())

    return {
        "added": [{"name": n, "domain": rng.choice([[], ["x", "y"]]), "value": None} for n in some(3)],
        "removed": some(3),
        "renamed": {a: b for a, b in zip(some(4), some(4))},
        "values": {n: {"domain": rng.choice([None, ["x", "z"]]), "value": rng.choice([None, "x"])} for n in some(3)},
        "edges": [{"source": a, "target": b, "present": rng.random() < 0.7} for a, b in links(7)],
        "confounded": [{"pair": [a, b], "present": rng.random() < 0.7} for a, b in links(4)],
        "do": {n: value() or "x" for n in some(4)},
        "positions": {n: [rng.randrange(-900, 900), rng.random()] for n in some(2)},
    }
