"""Discovery of the graph of two hundred concepts."""

from __future__ import annotations

import random

from graph_edits import pairs

from causal_core.concepts import Concept, Concepts
from causal_core.discovery import Oracle, discover
from causal_core.graph import CausalGraph


def test_two_hundred_concepts():
    rng = random.Random(0)
    names = [f"concept {i}" for i in range(200)]
    truth = CausalGraph.from_edges([(names[rng.randrange(i)], names[i]) for i in range(1, 200)])
    found = discover(truth.concepts, Oracle(truth, 0.004), "breadth_first")
    assert found.calls == 201 and len(pairs(found.graph) & pairs(truth)) > 180


def test_a_model_that_says_yes_to_everything_about_two_hundred_concepts():
    concepts = Concepts(tuple(Concept(f"concept {i}") for i in range(200)))

    class Yes:
        name, scores = "yes", "nothing"

        def batch(self, requests, progress, check):
            return ["Yes"] * len(requests)

    found = discover(concepts, Yes(), "yes_no")
    assert len(found.graph.edges) == 5000, "as many as a graph may have"
