"""The benchmark: the same cases for the same seed, honest counting, and what is changed by an ablation."""

import numpy as np
import pytest

from causal_core.bench import ablation, csg
from causal_core.bench.ours import without_descendants
from causal_core.guidance.csg import Settings
from causal_core.worlds import get_world

WORLD = get_world("cottage")


def test_cases_are_fixed_by_the_seed_and_never_trained_on():
    first, again, other = csg.cases(WORLD, 6, 1), csg.cases(WORLD, 6, 1), csg.cases(WORLD, 6, 2)
    assert first == again and not {c.seed for c in first} & {c.seed for c in other}
    assert max(c.seed for c in csg.cases(WORLD, 1, 900)) < 1_000_000_000
    for case in first:
        truth = {c.name: case.truth.values[c.name] for c in WORLD.concepts()}
        assert {item.name: item.counterfactual for item in case.plan.items} == truth


def test_scores_count_hits_misses_and_drift():
    case = next(c for c in csg.cases(WORLD, 60, 3) if len(c.plan.affected) > 2)
    factual, truth = WORLD.render(case.scene), WORLD.render(case.truth)
    right = {item.name: item.counterfactual for item in case.plan.items}
    before = {item.name: item.factual for item in case.plan.items}
    perfect = {key: value[0] for key, value in csg.summary([csg.scores(case, truth, factual, truth, right)]).items()}
    assert perfect["effectiveness.intervened"] == perfect["effectiveness.descendants"] == 1.0
    assert (
        perfect["invariant_drift"] == 0.0
        and perfect["psnr_truth"] == 99.0
        and perfect["ssim_truth"] == pytest.approx(1.0)
    )
    nothing = {key: value[0] for key, value in csg.summary([csg.scores(case, factual, factual, truth, before)]).items()}
    assert nothing["effectiveness.intervened"] == nothing["effectiveness.descendants"] == 0.0
    assert nothing["psnr_outside"] == 99.0 and nothing["psnr_truth"] < 40
    invariant = case.plan.invariant[0]
    drifted = {
        **right,
        invariant.name: next(v for v in case.plan.concepts[invariant.name].domain if v != invariant.factual),
    }
    moved = csg.summary([csg.scores(case, truth, factual, truth, drifted)])["invariant_drift"]
    assert moved[0] == pytest.approx(1 / len(case.plan.invariant))


def test_intervals_are_those_of_a_mean_and_gains_are_paired():
    """Against the known interval of a mean; a method that is ours less one everywhere has a gain without spread."""
    noise = np.random.default_rng(0).normal(30.0, 2.0, 400)

    def row(psnr):
        return {"intervened": [True], "descendants": [], "drift": [False], **dict.fromkeys(KEYS, float(psnr))}

    found = {"ours": [row(value) for value in noise], "other": [row(value - 1.0) for value in noise]}
    metrics = csg.intervals(found, seed=3)
    spread = 1.96 * noise.std() / 20
    assert metrics["ours.psnr_truth.ci_low"] == pytest.approx(noise.mean() - spread, abs=0.03)
    assert metrics["ours.psnr_truth.ci_high"] == pytest.approx(noise.mean() + spread, abs=0.03)
    assert metrics["other.psnr_truth.gain_low"] == pytest.approx(1.0)
    assert metrics["other.psnr_truth.gain_high"] == pytest.approx(1.0)
    assert "ours.effectiveness.descendants.ci_low" not in metrics, "nothing to count, no interval"
    assert csg.intervals(found, seed=3) == metrics


KEYS = ("psnr_outside", "psnr_truth", "ssim_truth")


def test_without_descendants_only_the_intervened_change():
    case = next(c for c in csg.cases(WORLD, 60, 3) if len(c.plan.affected) > 2)
    alone = without_descendants(case.plan)
    assert [item.role for item in alone.affected] == ["intervened"]
    assert alone.intervention == case.plan.intervention and alone.concepts == case.plan.concepts


def test_ablation_changes_one_constant_at_a_time():
    base = Settings()
    for name, values in ablation.SWEEP.items():
        assert ablation.default(name, base) in values, f"the default of {name} must be in its sweep"
        assert len(values) == len(set(values)) > 1
    assert ablation.changed(base, "delay", 0.15).how.delay == 0.15 and ablation.changed(base, "grow", 2).grow == 2
