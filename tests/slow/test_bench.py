"""The benchmark of guidance in whole runs, which write their numbers."""

import argparse
import json
import pickle
from types import SimpleNamespace

import numpy as np
import torch

from causal_core.bench import ablation, csg
from causal_core.bench.baselines import BASELINES
from causal_core.bench.ours import Ours, variants
from causal_core.demo.model import DemoModel
from causal_core.guidance.csg import Settings
from causal_core.worlds import get_world
from causal_core.worlds.reader import WEIGHTS

WORLD = get_world("cottage")


def test_ablation_measures_each_change_of_a_constant(tiny, tmp_path, capsys):
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
