"""The page and the server agree on manual edits: the same cases, random ones, and all that the editor can do."""

from __future__ import annotations

import random
from typing import Any

import pytest
from graph_edits import CASES, document, graph_of, random_edits, random_graph, short_form

from causal_core.apply_edits import apply_edits
from causal_core.edits import GraphEdits
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph

# What the page makes of documents: null where it refuses one.
APPLY = """async (jobs) => {
    const { applyEdits, readEdits, writeEdits } = await import('/extensions/counterfact/edits.mjs');
    return jobs.map(([graph, text]) => {
        let edits;
        try {
            edits = readEdits(text);
        } catch (error) {
            return null;
        }
        const { concepts, edges, confounded, do: set, notes } = applyEdits(graph && JSON.parse(graph), edits);
        return {
            concepts: concepts.map(({ name, domain, value }) => [name, domain, value]),
            edges: edges.map(({ source, target, confidence, reason }) => [source, target, confidence, reason]),
            confounded, do: set, notes, again: JSON.stringify(readEdits(writeEdits(edits))) === JSON.stringify(edits),
        };
    });
}"""

# Random changes by hand, each followed by what the editor shows then.
CHANGE = """async ([graph, seed, steps]) => {
    const { NONE, applyEdits, readEdits, writeEdits } = await import('/extensions/counterfact/edits.mjs');
    const change = await import('/extensions/counterfact/changes.mjs');
    const base = graph && JSON.parse(graph);
    let state = seed;
    const random = (n) => (state = (state * 1103515245 + 12345) % 2147483648) % n;
    const seen = [];
    let edits = NONE;
    for (let i = 0; i < steps; i++) {
        const now = applyEdits(base, edits);
        const some = () => now.concepts[random(now.concepts.length)]?.name ?? 'none';
        const [a, b, fresh] = [some(), some(), 'n' + random(9)];
        const words = ['x', 'y', 'z'][random(3)];
        const edge = now.edges[random(now.edges.length || 1)];
        const ends = edge ? [edge.source, edge.target] : [];
        const makes = [
            ['add', () => change.addConcept(base, edits, fresh, [random(900), 5]), fresh],
            ['remove', () => change.removeConcept(base, edits, a), a],
            ['rename', () => change.renameConcept(base, edits, a, fresh), a, fresh],
            ['draw', () => change.drawEdge(base, edits, a, b), a, b],
            ['draw', () => change.drawEdge(base, edits, b, a), b, a],
            ['erase', () => change.eraseEdge(base, edits, ...ends), ...ends],
            ['reverse', () => change.reverseEdge(base, edits, ...ends), ...ends],
            ['join', () => change.setConfounded(base, edits, a, b, true), a, b],
            ['part', () => change.setConfounded(base, edits, a, b, false), a, b],
            ['set', () => change.setDo(base, edits, a, words), a, words],
            ['leave', () => change.setDo(base, edits, a, null), a],
            ['value', () => change.setValue(base, edits, a, words), a, words],
            ['domain', () => change.setDomain(base, edits, a, ['x', 'y', 'w'].slice(random(3))), a],
        ];
        const [what, make, ...names] = makes[now.concepts.length ? random(makes.length) : 0];
        if ((!edge && ['erase', 'reverse'].includes(what)) || (what === 'rename' && a === fresh)) continue;
        let refused = null;
        try {
            edits = make();
        } catch (error) {
            if (error.constructor.name !== 'Mistake') throw error;
            refused = error.message;
        }
        const { concepts, edges, confounded, do: set, notes } = applyEdits(base, edits);
        const values = concepts.map(({ name, value }) => [name, value]);
        seen.push({
            what, names, refused, text: writeEdits(edits), values, notes, confounded, do: set,
            edges: edges.map(({ source, target }) => [source, target]),
        });
    }
    return seen;
}"""


def in_python(graph: CausalGraph | None, text: str) -> dict[str, Any] | None:
    """What the server makes of a document; None where it refuses it."""
    try:
        edits = GraphEdits.from_json(text)
    except CounterfactError:
        return None
    try:
        edited = apply_edits(graph, edits)
    except CounterfactError:  # no concept is left: the page shows that
        return {"concepts": []}
    return short_form(edited)


def compare(page, jobs: list[tuple[CausalGraph | None, str]]) -> None:
    found = page.evaluate(APPLY, [[graph and graph.to_json(), text] for graph, text in jobs])
    for (graph, text), there in zip(jobs, found, strict=True):
        here = in_python(graph, text)
        if here is None or there is None:
            assert here is there, text
            continue
        assert there.pop("again"), text
        assert (there if here["concepts"] else {"concepts": there["concepts"]}) == here, text


def test_the_same_cases_as_in_python(one_canvas):
    jobs = [(graph_of(case["graph"]), document(case["edits"])) for case in CASES["valid"]]
    compare(one_canvas.page, jobs)
    found = one_canvas.page.evaluate(APPLY, [[graph and graph.to_json(), text] for graph, text in jobs])
    for case, there in zip(CASES["valid"], found, strict=True):
        assert {key: there[key] for key in case["expected"]} == case["expected"], case["name"]
    compare(one_canvas.page, [(None, case.get("text") or document(case["edits"])) for case in CASES["nonsense"]])


def test_random_documents_over_random_graphs(one_canvas):
    rng = random.Random(4)
    jobs = [(random_graph(rng), document(random_edits(rng))) for _ in range(600)]
    compare(one_canvas.page, jobs)
    read = [in_python(*job) is not None for job in jobs]
    assert 100 < sum(read) < 590, "some of the documents are to be read, some to be refused"


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_done_by_hand_the_server_does_too(one_canvas, seed):
    graph = random_graph(random.Random(seed))
    seen = one_canvas.page.evaluate(CHANGE, [graph and graph.to_json(), seed + 1, 60])
    assert sum(step["refused"] is None for step in seen) > 15
    before: dict[str, Any] = {"edges": [(e.source, e.target) for e in graph.edges] if graph else [], "text": ""}
    for step in seen:
        step["values"] = dict(step["values"])
        here = in_python(graph, step["text"]) if step["text"] or graph else {"concepts": []}
        assert here is not None, step
        assert [name for name, *_ in here["concepts"]] == list(step["values"]), step
        edges = [tuple(edge) for edge in step["edges"]]
        if here["concepts"]:
            assert edges == [tuple(edge[:2]) for edge in here["edges"]] and here["confounded"] == step["confounded"]
            assert here["notes"] == step["notes"] == [] and here["do"] == step["do"], step
        if step["refused"] is not None:
            assert step["text"] == before["text"]
            before = step
            continue
        what, (a, *rest) = step["what"], step["names"]
        if what == "draw":
            assert sorted(edges) == sorted([*map(tuple, before["edges"]), (a, *rest)])
        elif what == "erase":
            assert sorted([*edges, (a, *rest)]) == sorted(map(tuple, before["edges"])) or (a, *rest) not in edges
            assert tuple(reversed((a, *rest))) not in edges
        elif what == "reverse":
            assert (rest[0], a) in edges and (a, rest[0]) not in edges and len(edges) == len(before["edges"])
        elif what == "join":
            assert [a, *rest] in step["confounded"] or [*rest, a] in step["confounded"]
        elif what in ("remove", "rename"):
            assert a not in step["values"] and all(a not in edge for edge in edges)
            assert what == "remove" or len(edges) == len(before["edges"])
        elif what == "set":
            assert step["do"][a] == rest[0]
        elif what == "leave":
            assert a not in step["do"]
        elif what == "value":
            assert step["values"][a] == rest[0]
        before = step
