"""`counterfact bench graph`, the discovery part: known graphs, scores by hand, and a run with oracles."""

from __future__ import annotations

import argparse
import json

import pytest

from causal_core.bench import graph, graph_discovery
from causal_core.bench.graph_scores import belief_scores, interval, random_scores, scores
from causal_core.bench.graphs import DEVELOPMENT, DEVELOPMENT_PAIRS, GRAPHS, PAIRS
from causal_core.discovery import STRATEGIES, Oracle
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.language import backends

SIZES = {
    "cottage": (17, 15), "pendulum": (4, 4), "cancer": (5, 4), "survey": (6, 6), "asia": (8, 8), "sachs": (11, 17),
    "child": (20, 25),
}  # fmt: skip


class TestKnown:
    def test_graphs_have_the_size_that_their_sources_give(self):
        made = {name: known.make() for name, known in GRAPHS.items()}
        assert {name: (len(one.concepts), len(one.edges)) for name, one in made.items()} == SIZES
        assert [name for name, known in GRAPHS.items() if known.development] == ["cancer", "survey"]
        assert all(known.development for known in DEVELOPMENT.values())

    def test_some_parents(self):
        child, sachs = GRAPHS["child"].make(), GRAPHS["sachs"].make()
        assert child.parents("hypoxia under oxygen") == ("cardiac mixing", "lung parenchyma")
        assert sachs.parents("Mek") == ("protein kinase A", "protein kinase C", "Raf")
        assert GRAPHS["asia"].make().descendants("visit to Asia") == (
            "chest x-ray", "shortness of breath", "tuberculosis", "tuberculosis or lung cancer",
        )  # fmt: skip

    def test_pairs_are_twenty_and_none_was_developed_on(self):
        assert len(PAIRS) == 20 and not {frozenset(p) for p in PAIRS} & {frozenset(p) for p in DEVELOPMENT_PAIRS}
        truth, asked = graph_discovery.everyday(PAIRS)
        true = {(edge.source, edge.target) for edge in truth.edges}
        assert sum(pair in true for pair in asked) == sum(pair[::-1] in true for pair in asked) == 10

    def test_the_order_of_the_concepts_is_that_of_their_names(self):
        truth = GRAPHS["cottage"].make()
        sorted_truth = graph_discovery.by_name(truth)
        assert list(sorted_truth.concepts.names) == sorted(truth.concepts.names)
        assert {(e.source, e.target) for e in sorted_truth.edges} == {(e.source, e.target) for e in truth.edges}


class TestScores:
    TRUTH = CausalGraph.from_edges([("a", "b"), ("b", "c"), ("c", "d")])

    def test_right_turned_missing_and_extra(self):
        found = scores([("a", "b"), ("c", "b"), ("a", "d")], self.TRUTH)
        # b -> c is turned, c -> d is missing, a -> d is extra; the turned edge is two entries of the matrix.
        assert found == {"shd": 3.0, "nhd": 4 / 16, "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3}

    def test_the_truth_and_nothing(self):
        right = scores([(e.source, e.target) for e in self.TRUTH.edges], self.TRUTH)
        assert right == {"shd": 0.0, "nhd": 0.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}
        nothing = {"shd": 3.0, "nhd": 3 / 16, "precision": 0.0, "recall": 0.0, "f1": 0.0}
        assert scores([], self.TRUTH) == nothing

    def test_beliefs(self):
        posteriors = {
            ("a", "b"): (0.6, 0.2, 0.2), ("c", "b"): (0.5, 0.1, 0.4), ("c", "d"): (0.2, 0.2, 0.6),
            ("a", "c"): (0.3, 0.2, 0.5), ("a", "d"): (0.1, 0.1, 0.8),
        }  # fmt: skip
        found = belief_scores(posteriors, self.TRUTH)
        assert found["direction"] == pytest.approx((1 + 0 + 0.5) / 3)
        assert found["auc"] == pytest.approx(5 / 6)
        assert belief_scores({}, self.TRUTH) == {}

    def test_random_graphs_hit_as_often_as_they_must(self):
        truth = GRAPHS["asia"].make()
        found = random_scores(truth, 0)
        # Each of the 8 edges is one of 56 directed edges that a random graph has with probability 8 / 56.
        assert found["recall"] == pytest.approx(8 / 56, abs=0.01) == found["precision"]
        assert found["nhd"] == pytest.approx(2 * 8 * (1 - 8 / 56) / 64, abs=0.005)

    def test_interval(self):
        low, high = interval([0.0, 1.0] * 200, 0)
        assert low == pytest.approx(0.451, abs=0.01) and high == pytest.approx(0.549, abs=0.01)
        assert interval([0.5], 0) == (0.5, 0.5)


def parsed(*words):
    parser = argparse.ArgumentParser()
    graph.add_arguments(parser)
    return parser.parse_args(["--parts", "discovery", *words])


def test_a_run_with_a_model_and_oracles(tmp_path, capsys, monkeypatch):
    truth = graph_discovery.by_name(GRAPHS["cancer"].make())
    monkeypatch.setattr(backends, "open_model", lambda name, **options: Known(truth))
    out = tmp_path / "out.json"
    assert graph.main(parsed("--graphs", "cancer", "--n", "3", "--json", str(out))) == 0
    document = json.loads(out.read_text("utf-8"))
    assert (document["bench"], document["version"]) == ("graph", 1) and document["config"]["n"] == 3
    metrics = document["metrics"]
    for strategy in STRATEGIES:
        assert metrics[f"cancer.{strategy}.f1"] == 1.0 and metrics[f"cancer.{strategy}.shd"] == 0.0
        assert metrics[f"cancer.{strategy}.calls_per_second"] > 0
        for oracle in ("oracle_10", "oracle_20", "oracle_30"):
            name = f"cancer.{oracle}.{strategy}.f1"
            assert metrics[f"{name}.ci_low"] <= metrics[name] <= metrics[f"{name}.ci_high"]
    assert metrics["cancer.pairwise.calls"] == 40 and metrics["cancer.yes_no.nhd"] == 0.0
    assert metrics["cancer.empty.shd"] == 4.0 and 0 < metrics["cancer.random.f1"] < 0.5
    printed = capsys.readouterr().out
    assert "used for development" in printed and "| oracle_30.triplets |" in printed and "| random |" in printed


class Known(Oracle):
    """An oracle that also answers the greeting with which a run begins."""

    def complete(self, request, check=lambda: None):
        return "Hello" if request.prompt.text == "Hello" else super().complete(request, check)


def test_pairs_have_directions_only(capsys):
    args = parsed("--graphs", "pairs", "--backend", "none", "--n", "2", "--strategies", "pairwise", "triplets")
    metrics = graph_discovery.run(args)
    assert {name.split(".")[2] for name in metrics} == {"pairwise"}
    assert 0.5 < metrics["pairs.oracle_10.pairwise.direction"] <= 1.0 and "pairs.oracle_10.pairwise.f1" not in metrics
    assert metrics == graph_discovery.run(args), "the same seed, the same numbers"
    args.seed = 2
    assert metrics != graph_discovery.run(args)


def test_a_model_that_nobody_can_read_is_an_empty_graph():
    found = graph_discovery.measured(GRAPHS["cancer"].make(), Oracle(GRAPHS["cancer"].make(), garbled=1.0), "yes_no")
    assert found["f1"] == 0.0 and found["shd"] == 4.0 and found["direction"] == 0.5 and found["unreadable"] == 1.0


def test_mistakes():
    with pytest.raises(CounterfactError, match="--n must be at least 1"):
        graph_discovery.run(parsed("--n", "0", "--backend", "none"))
