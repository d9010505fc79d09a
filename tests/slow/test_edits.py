"""Manual edits of thousands of documents and graphs: what is drawn holds, and no nonsense gets past."""

from __future__ import annotations

import json
import random
from graphlib import TopologicalSorter

from graph_edits import document, pairs, random_edits, random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from random_json import anything, text

from causal_core.apply_edits import apply_edits
from causal_core.edits import GraphEdits
from causal_core.errors import CounterfactError

GOOD = ["a", "B", "b", "c", "d d", "10", "constructor", "\u00e9", "e\u0301", "Zeit", "9", "x-y"]
BAD = ["<i>", "", "x\u0000", "-", "z" * 90]
WORDS = ["x", "y", "X", *GOOD, *BAD]


def nearly_edits(rng: random.Random) -> dict:
    """Edits of the right form, of names and values that often are none; sometimes anything in the place of anything."""

    def name():
        return rng.choice(BAD if rng.random() < 0.03 else GOOD)

    def word():
        return rng.choice("xyX") if rng.random() < 0.9 else rng.choice([*WORDS, text(rng, 5)])

    def maybe(**parts):
        return {key: rng.choice([None, make()]) for key, make in parts.items() if rng.random() < 0.5}

    def domain():
        return [word() for _ in range(rng.randrange(4))]

    def mostly(make):
        return anything(rng, WORDS) if rng.random() < 0.06 else make()

    def several(make, most):
        return lambda: [mostly(make) for _ in range(rng.randrange(most + 1))]

    def named(make, most):
        return lambda: {name(): mostly(make) for _ in range(rng.randrange(most + 1))}

    parts = {
        "added": several(lambda: {"name": name(), **maybe(domain=domain, value=word)}, 3),
        "removed": several(name, 2),
        "renamed": named(name, 3),
        "values": named(lambda: maybe(domain=domain, value=word), 2),
        "edges": several(lambda: {"source": name(), "target": name(), "present": rng.random() < 0.5}, 5),
        "confounded": several(lambda: {"pair": [name(), name()], "present": rng.random() < 0.5}, 3),
        "do": named(word, 2),
        "positions": named(lambda: [rng.uniform(-200_000, 200_000) for _ in "xy"], 2),
    }
    return {key: mostly(make) for key, make in parts.items() if rng.random() < 0.4}


class TestFuzz:
    @settings(max_examples=400, derandomize=True, deadline=None)
    @given(st.text(max_size=30), st.randoms(use_true_random=True))
    def test_any_text_is_read_or_refused(self, written, rng):
        """2400 texts."""
        documents = [document(nearly_edits(rng)) for _ in range(4)]
        for one in (written, json.dumps(anything(rng, WORDS)), *documents):
            try:
                edits = GraphEdits.from_json(one)
            except CounterfactError as error:
                assert str(error)
                continue
            assert GraphEdits.from_json(edits.to_json()) == edits

    # Few draws: drawing each name and link costs far more than what is tested.
    @settings(max_examples=400, derandomize=True, deadline=None)
    @given(st.randoms(use_true_random=True))
    def test_what_is_drawn_holds_and_nothing_else_breaks(self, rng):
        """2000 edits of as many graphs."""
        for _ in range(5):
            check_edits(random_graph(rng), document(random_edits(rng)))


def check_edits(told, written):
    try:
        edits = GraphEdits.from_json(written)
    except CounterfactError as error:
        assert any(word in str(error) for word in ("cycle", "twice", "itself", "unknown value"))
        return
    try:
        graph, intervention, notes = apply_edits(told, edits)
    except CounterfactError as error:
        assert "no concept is left" in str(error)
        return

    def spelled(pair):
        return tuple(graph.concepts[name].name if name in graph.concepts else name for name in pair)

    found = pairs(graph)
    TopologicalSorter({child: {a for a, b in found if b == child} for _, child in found}).prepare()  # no cycle
    for (a, b), there in edits.edges.items():
        if a in graph.concepts and b in graph.concepts:
            assert (spelled((a, b)) in found) == there
        elif there:
            assert any(note.startswith(f"{a} -> {b} is left out") for note in notes)
    confounded = {frozenset(pair) for pair in graph.confounded}
    for pair, there in edits.confounded.items():
        known = all(name in graph.concepts for name in pair)
        assert (frozenset(spelled(pair)) in confounded) == (there and known)
    assert intervention.do == graph.concepts.settle(intervention.do)
    assert len(intervention.do) + sum(note.startswith("do(") for note in notes) == len(edits.do)
    again = apply_edits(told, edits)
    assert again == (graph, intervention, notes)
    given_up = {tuple(note.split(" is left out")[0].split(" -> ")) for note in notes if "makes a cycle" in note}
    assert not given_up & {spelled(pair) for pair, there in edits.edges.items() if there}
