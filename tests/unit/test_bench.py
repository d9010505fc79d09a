"""The benchmark: the same cases for the same seed, honest counting, and a run that writes its numbers."""

import argparse
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from causal_core.bench import ablation, csg
from causal_core.bench.baselines import BASELINES
from causal_core.bench.ours import Ours, variants, without_descendants
from causal_core.demo.model import DemoModel
from causal_core.guidance.csg import Settings
from causal_core.worlds import get_world
from causal_core.worlds.reader import WEIGHTS

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


def test_variants_share_work_and_count_it_each(tiny):
    model = DemoModel.load(tiny)
    bench = csg.Bench(model, None, WORLD, 4, Settings(probes=2))
    many = next(c for c in csg.cases(WORLD, 60, 3) if len(c.plan.affected) == 3)
    one = next(c for c in csg.cases(WORLD, 60, 3) if len(c.plan.affected) == 1)
    kinds = variants(bench.settings)
    ours = Ours(bench.setting(many, WORLD.render(many.scene, 64)))
    done = {name: ours(variant) for name, variant in kinds.items()}
    assert done["ours"] is done["no_composite"] and done["ours"] is not done["fused"]
    assert (done["ours"].rows_per_step, done["ours"].evaluations) == (4, 4 + 2 * 4 + 4 * 4)
    assert (done["fused"].rows_per_step, done["fused"].evaluations) == (2, 4 + 2 * 2 + 4 * 2)
    assert (done["global_cfg"].evaluations, done["no_descendants"].rows_per_step) == (4 + 4 * 2, 2)
    assert all(bool((region == 1).all()) for region in done["global_cfg"].regions.values())
    assert not torch.equal(done["m1_only"].latent, done["m2_only"].latent)
    single = Ours(bench.setting(one, WORLD.render(one.scene, 64)))
    assert single(kinds["fused"]) is single(kinds["ours"]) is single(kinds["no_descendants"])


def test_ablation_changes_one_constant_at_a_time(tiny, tmp_path, capsys):
    base = Settings()
    for name, values in ablation.SWEEP.items():
        assert ablation.default(name, base) in values, f"the default of {name} must be in its sweep"
        assert len(values) == len(set(values)) > 1
    assert ablation.changed(base, "delay", 0.15).how.delay == 0.15 and ablation.changed(base, "grow", 2).grow == 2
    parser = argparse.ArgumentParser()
    ablation.add_arguments(parser)
    words = ["--n", "1", "--steps", "4", "--only", "strength", "skip", "inversion", "--weights", str(tiny)]
    assert ablation.main(parser.parse_args([*words, "--json", str(tmp_path / "out.json")])) == 0
    metrics = json.loads((tmp_path / "out.json").read_text())["metrics"]
    assert {name.removesuffix(".psnr_truth") for name in metrics if name.endswith(".psnr_truth")} == {
        "default", "strength=0.75", "strength=1.0", "strength=1.5", "strength=2.0", "skip=0.0", "skip=0.2", "skip=0.35",
        "inversion=ddim",
    }  # fmt: skip
    assert "| inversion=ddim |" in capsys.readouterr().out
    assert metrics["strength=2.0.psnr_truth"] != metrics["default.psnr_truth"] != metrics["skip=0.35.psnr_truth"]


def test_a_run_prints_its_table_and_writes_its_metrics(tiny, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    csg.add_arguments(parser)
    words = ["--n", "1", "--steps", "4", "--attributes", "2", "--axioms", "1", "--weights", str(tiny)]
    assert csg.main(parser.parse_args([*words, "--json", str(tmp_path / "out.json")])) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["bench"] == "csg" and written["version"] == 1
    metrics = written["metrics"]
    printed = capsys.readouterr().out
    for method in ("ours", "fused", "no_blend", *BASELINES, *csg.COMPOSITED.values(), "vae_round_trip"):
        assert np.isfinite(metrics[f"{method}.psnr_truth"]) and f"| {method} |" in printed
    assert metrics["ours.psnr_outside"] >= metrics["no_composite.psnr_outside"] > metrics["img2img.psnr_outside"]
    assert metrics["ours.psnr_truth.ci_low"] <= metrics["ours.psnr_truth"] <= metrics["ours.psnr_truth.ci_high"]
    assert metrics["null.max_latent_error"] < 1e-4 and 0 <= metrics["model.attribute_accuracy"] <= 1
    assert metrics["fused.evaluations_per_step"] <= 2 < metrics["ours.evaluations"] / 4
    assert metrics["edit_friendly_composite.psnr_outside"] >= metrics["edit_friendly.psnr_outside"]
    assert np.isfinite(metrics["reversibility.psnr"])


class Pool:
    """A pool of one process, which is this one; all that would go from process to process is pickled."""

    def __init__(self, processes, initializer, arguments):
        initializer(*pickle.loads(pickle.dumps(arguments)))

    __enter__, __exit__ = lambda self: self, lambda self, *error: None

    def imap(self, function, tasks):
        return (pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps((task,)))))) for task in tasks)


def test_processes_share_the_scenes_and_change_no_number(tiny, monkeypatch):
    start = tiny, WEIGHTS, "cottage", 4, Settings(probes=1), 1, ("ours", "img2img")
    alone = csg.run(start, 2, 7, 0)
    monkeypatch.setattr(csg.multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=Pool))
    assert csg.run(start, 2, 7, 0, processes=2) == alone
