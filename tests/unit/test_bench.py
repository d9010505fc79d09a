"""The benchmark: the same cases for the same seed, honest counting, and a run that writes its numbers."""

import argparse
import json

import numpy as np
import pytest
import torch

from causal_core.bench import csg
from causal_core.demo.config import DemoConfig
from causal_core.demo.model import DemoModel
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
    perfect = csg.summary([csg.scores(case, truth, factual, truth, right)])
    assert perfect["effectiveness.intervened"] == perfect["effectiveness.descendants"] == 1.0
    assert (
        perfect["invariant_drift"] == 0.0
        and perfect["psnr_truth"] == 99.0
        and perfect["ssim_truth"] == pytest.approx(1.0)
    )
    nothing = csg.summary([csg.scores(case, factual, factual, truth, before)])
    assert nothing["effectiveness.intervened"] == nothing["effectiveness.descendants"] == 0.0
    assert nothing["psnr_outside"] == 99.0 and nothing["psnr_truth"] < 40
    invariant = case.plan.invariant[0]
    drifted = {
        **right,
        invariant.name: next(v for v in case.plan.concepts[invariant.name].domain if v != invariant.factual),
    }
    assert csg.summary([csg.scores(case, truth, factual, truth, drifted)])["invariant_drift"] == pytest.approx(
        1 / len(case.plan.invariant)
    )


def test_a_run_prints_its_table_and_writes_its_metrics(tmp_path, capsys):
    torch.manual_seed(0)
    config = DemoConfig("test", size=64, patch=4, latent_channels=8, widths=(32, 64), text_width=32, text_heads=2)
    DemoModel(config, WORLD.vocabulary()).save(tmp_path / "model.safetensors")
    parser = argparse.ArgumentParser()
    csg.add_arguments(parser)
    words = ["--n", "2", "--steps", "4", "--attributes", "2", "--weights", str(tmp_path / "model.safetensors")]
    assert csg.main(parser.parse_args([*words, "--json", str(tmp_path / "out.json")])) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["bench"] == "csg" and written["version"] == 1
    metrics = written["metrics"]
    printed = capsys.readouterr().out
    for method in ("ours", "img2img", "ddim", "edit_friendly", "vae_round_trip"):
        assert np.isfinite(metrics[f"{method}.psnr_truth"]) and f"| {method} |" in printed
    assert metrics["ours.psnr_outside"] > metrics["img2img.psnr_outside"]
    assert metrics["null.max_latent_error"] < 1e-3 and 0 <= metrics["model.attribute_accuracy"] <= 1
    assert metrics["ours.evaluations_per_step"] > 1
