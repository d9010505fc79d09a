"""What the benchmark of extraction counts, on readings, masks and chains that are known."""

import numpy as np
import pytest

from causal_core.bench import chain, csg, extraction
from causal_core.bench.extraction import METHODS, calibration, coarse, iou, summary
from causal_core.graph import CausalGraph
from causal_core.plan import Consequence, Intervention
from causal_core.worlds import get_world

WORLD = get_world("cottage")


def measured(right, evaluations):
    """A scene with two concepts of which every method reads the first one as said, and the second one right."""
    reading = {"car": ("red" if right else "blue", 0.9, evaluations), "season": ("winter", 1.0, 10.0)}
    return {
        "truth": {"car": "red", "season": "winter"},
        "read": {**dict.fromkeys(METHODS, reading), "exhaustive": {**reading, "car": ("red", 1.0, 30.0)}},
        "iou": {"season": 0.5} if right else {"season": 0.3, "car": 0.7},
        "coarse": {"season": 0.6},
    }


def test_metrics_are_means_over_scenes_with_intervals():
    metrics = summary([measured(True, 20.0), measured(True, 20.0), measured(True, 20.0), measured(False, 40.0)], 0)
    assert metrics["extract.value_accuracy"] == 7 / 8 and metrics["extract.scene_accuracy"] == 3 / 4
    assert metrics["extract.value.car"] == 3 / 4 and metrics["extract.value.season"] == 1
    assert metrics["extract.evaluations_per_concept"] == pytest.approx((3 * 15 + 25) / 4)
    assert metrics["extract.exhaustive.value_accuracy"] == 1
    assert metrics["extract.exhaustive.evaluations_per_concept"] == 20
    assert metrics["extract.most_common.value_accuracy"] == 1
    assert metrics["extract.region_iou"] == 0.5 and metrics["extract.region_iou.season"] == pytest.approx(0.45)
    assert metrics["extract.region_iou.car"] == 0.7, "only scenes that show the car count"
    low, high = (metrics[f"extract.value.car.ci_{end}"] for end in ("low", "high"))
    assert low < 3 / 4 < high == 1
    table = extraction.table(metrics)
    assert "| ours | 0.875 (" in table and "| car | 0.750 (" in table and "| 0.8 | 4 | 0.900 | 0.750 |" in table


def test_calibration_compares_confidence_with_truth_bin_by_bin():
    found = calibration([(0.5, True), (0.5, False), (1.0, True), (1.0, True)])
    assert found == {
        "extract.confidence.0.count": 2, "extract.confidence.0.mean": 0.5, "extract.confidence.0.accuracy": 0.5,
        "extract.confidence.0.99.count": 2, "extract.confidence.0.99.mean": 1.0,
        "extract.confidence.0.99.accuracy": 1.0, "extract.calibration_error": 0.0,
    }  # fmt: skip
    assert calibration([(0.9, False)] * 3)["extract.calibration_error"] == pytest.approx(0.9)


def test_coarse_masks_are_of_squares_and_never_empty():
    mask = np.zeros((8, 8), bool)
    mask[:4, :3], mask[7, 7] = True, True
    found = coarse(mask, 4)
    assert found[:4, :4].all() and found.sum() == 16 and iou(found, mask) == 12 / 17
    mask[:4] = False
    assert coarse(mask, 4).sum() == 16
    assert iou(mask, mask) == 1 and iou(mask, ~mask) == 0


def case(number=0):
    return csg.cases(WORLD, number + 1, 3)[number]


def test_a_chain_is_right_when_values_plan_and_picture_are():
    one = case()
    known, do = WORLD.concepts(one.scene.values), one.plan.intervention
    plan = chain.planned(WORLD.graph(), known, do)
    right = chain.after(plan)
    assert chain.outcome(one, known.values(), plan, right).all_right
    other = next(v for v in known["house"].domain if v != right["house"])
    misread = {**known.values(), "house": other}
    missed = chain.outcome(one, misread, plan, right)
    assert (missed.concepts, missed.plan, missed.picture) == (False, True, True) and not missed.all_right
    drifted = chain.outcome(one, known.values(), plan, {**right, "house": other})
    assert (drifted.concepts, drifted.plan, drifted.picture) == (True, True, False)
    mine = chain.planned(WORLD.graph(), known.replace("house", value=other), do)
    wrong = chain.outcome(one, misread, mine, chain.after(mine))
    assert (wrong.concepts, wrong.plan, wrong.picture) == (False, False, True)
    impossible = known.replace("season", value="summer").replace("temperature", value="cold")
    assert chain.planned(WORLD.graph(), impossible, Intervention({"season": "winter"})) is None
    lost = chain.outcome(one, impossible.values(), None, {})
    assert not (lost.concepts or lost.plan or lost.picture)


def test_another_graph_plans_with_its_own_mechanism():
    known = WORLD.concepts(WORLD.sample(302).values)
    graph = CausalGraph.from_edges([("season", "foliage")], concepts=WORLD.concepts())
    do = Intervention({"season": "winter"})

    def bare(given):
        assert given.concepts.values() == known.values()
        return lambda names, after: {name: Consequence("bare", 1.0, "") for name in names}

    plan = chain.planned(graph, known, do, bare)
    assert {item.name: item.counterfactual for item in plan.affected} == {"season": "winter", "foliage": "bare"}
