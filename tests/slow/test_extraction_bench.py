"""The benchmark of extraction in whole runs on a model of random weights, and on dozens of scenes."""

import argparse
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from causal_core.bench import chain, csg, extraction
from causal_core.bench.extraction import METHODS
from causal_core.extraction.classifier import Settings
from causal_core.graph import CausalGraph
from causal_core.worlds import get_world

WORLD = get_world("cottage")


def arguments(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=7)
    extraction.add_arguments(parser)
    chain.add_arguments(parser)
    return parser.parse_args([*map(str, words)])


def test_a_run_gives_all_metrics(tiny, monkeypatch):
    monkeypatch.setattr(extraction, "METHODS", {name: replace(s, levels=1, passes=1) for name, s in METHODS.items()})
    found = extraction.run(arguments("--scenes", 1, "--weights", tiny))
    for name in ("value_accuracy", "evaluations_per_concept", "region_iou", "exhaustive.value_accuracy",
                 "exhaustive.evaluations_per_concept", "alone.value_accuracy", "value.season"):  # fmt: skip
        assert np.isfinite(found[f"extract.{name}"])
    # One first look with the 47 values, and one level with the 30 that were not taken and one caption for all.
    assert found["extract.exhaustive.evaluations_per_concept"] == pytest.approx((47 + 31) / 17)
    json.dumps(found, allow_nan=False)


def test_the_right_plan_does_not_know_the_noise_of_the_scene():
    """What the scene's own noise gives is often what is most probable, but not always."""
    outcomes = []
    for one in csg.cases(WORLD, 60, 3):
        plan = chain.planned(WORLD.scene_graph(one.scene), WORLD.concepts(one.scene.values), one.plan.intervention)
        outcomes.append(chain.outcome(one, one.scene.values, plan, {}))
    assert all(one.plan for one in outcomes)
    assert 0.5 < np.mean([one.exact for one in outcomes]) < 1
    metrics = chain.shares([replace(one, concepts=True, picture=True) for one in outcomes], 0)
    assert metrics["chain.all_right"] == 1 > metrics["chain.all_right_exact"]
    assert "| all_right | 1.000 (1.000 to 1.000) |" in chain.table(metrics)


def test_a_chain_of_random_weights_is_measured_end_to_end(tiny, monkeypatch):
    monkeypatch.setattr(chain, "read_picture", partial(chain.read_picture, settings=Settings(levels=1, passes=1)))
    args = arguments("--scenes", 1, "--weights", tiny, "--steps", 4)
    found = chain.run(args)
    assert set(found) == {
        f"chain.{name}{end}"
        for name in ("concepts_right", "plan_right", "picture_right", "all_right", "all_right_exact")
        for end in ("", ".ci_low", ".ci_high")
    }
    assert found["chain.all_right"] == 0
    graph = CausalGraph.from_edges([], concepts=WORLD.concepts())
    given = chain.run(args, graph, found=[WORLD.concepts(case.scene.values) for case in csg.cases(WORLD, 1, 7)])
    assert given["chain.concepts_right_llm"] == 1 and "chain.all_right_llm" in given
