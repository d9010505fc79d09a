"""The benchmark of causal autoencoders in whole runs: its command, and its reader that learns."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image

from causal_core.bench import autoencoder as bench
from causal_core.bench import autoencoder_measure as measure
from causal_core.bench import autoencoder_reader as reader
from causal_core.bench import disentanglement
from causal_core.bench.baselines.autoencoders import METHODS, replica
from causal_core.concepts import Concept, Concepts
from causal_core.graph import CausalGraph

from ..helpers.brightness import TINY, Brightness


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(replica, "LEAST_STEPS", 2)


def test_the_reader_learns_what_it_sees_and_loads_as_saved(tmp_path):
    source = Brightness()
    read = reader.trained(source, 36 * reader.BATCH, tmp_path)
    images, labels, _ = source.batch(range(20))
    found, features = read.read(torch.from_numpy(images).movedim(-1, 1) / 127.5 - 1)
    assert (found[:, 0] - labels[:, 0]).abs().mean() < 0.3
    assert found[:, 1:].sum(1).numpy() == pytest.approx(1) and found[:, 1].min() > 0.9
    assert features.shape == (20, reader.HIDDEN)
    again = reader.ValueReader.load(tmp_path / "reader.safetensors")
    assert torch.equal(again.read(torch.zeros(1, 1, 16, 16))[0], read.read(torch.zeros(1, 3, 16, 16))[0])


def options(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def test_the_command_measures_a_world(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    monkeypatch.setattr(disentanglement, "ROUNDS", 3)
    for module in (measure, bench):
        monkeypatch.setattr(module, "LONG_STEPS", 3)
    config, out = tmp_path / "tiny.json", tmp_path / "out.json"
    config.write_text(json.dumps(TINY.to_dict()))
    own = METHODS["ours"].trained(TINY, reader.UniformScenes("pendulum", 16), tmp_path / "own")
    code = bench.main(
        options(
            "--config", config, "--also", f"half={own}", "--methods", "ours", "replica",
            "--parts", "effects", "axioms", "latents", "strength", "steps",
            "--n", 3, "--axioms", 1, "--graded", 1, "--long", 1, "--codes", 40, "--pictures", 8, "--reader-images", 64,
            "--steps", 2, "--device", "cpu", "--json", out,
        )
    )  # fmt: skip
    assert code == 0
    document = json.loads(out.read_text())
    found = document["metrics"]
    assert (document["bench"], document["version"]) == ("autoencoder", 1)
    assert document["config"]["provenance"]["replica"]["images"] == 8
    for name in ("ours", "replica", "half"):
        for key in ("intervened_mae", "descendant_mae", "drift", "composition_1", "composition_10", "reversibility",
                    "minimality", "psnr_truth", "frechet", "seconds_per_image", "intervened_mae.angle",
                    "dci.disentanglement", "dci.completeness", "infomec.infom", "infomec.infoc"):  # fmt: skip
            assert isinstance(found[f"{name}.{key}"], float), f"{name}.{key}"
    for key in ("reader_floor", "reader_floor.light", "truth.drift", "ours.strength.0.5.angle",
                "ours.strength.monotone", "ours.steps2_over_3", "ours.steps2_over_3.pixels", "replica.drift.gain_low",
                "half.drift.gain_high"):  # fmt: skip
        assert isinstance(found[key], float), key
    shown = capsys.readouterr().out
    assert "| replica |" in shown and "| truth |" in shown and "shadow length" in shown


def test_the_command_measures_a_strangers_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(disentanglement, "ROUNDS", 3)
    folder, lines = tmp_path / "pictures", ["file,grey,dark"]
    folder.mkdir()
    for i in range(24):
        Image.fromarray(np.full((20, 16), i * 10, np.uint8)).save(folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{i * 10},{'yes' if i < 12 else 'no'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    concepts = Concepts((Concept("grey", interval=(0.0, 230.0)), Concept("dark", ("yes", "no"))))
    (tmp_path / "graph.json").write_text(CausalGraph.from_edges([("grey", "dark")], concepts=concepts).to_json())
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps({**TINY.to_dict(), "channels": 1}))
    out = tmp_path / "out.json"
    bench.main(
        options(
            "--images", folder, "--labels", tmp_path / "labels.csv", "--graph", tmp_path / "graph.json",
            "--config", config, "--methods", "ours", "conditional_ddpm", "--parts", "effects", "axioms", "latents",
            "--n", 4, "--axioms", 1, "--codes", 20, "--reader-images", 64, "--steps", 1, "--device", "cpu",
            "--json", out,
        )
    )  # fmt: skip
    found = json.loads(out.read_text())["metrics"]
    assert {"ours.intervened_mae", "ours.drift", "ours.composition_10", "ours.frechet", "ours.minimality"} <= set(found)
    assert not {"ours.psnr_truth", "ours.descendant_mae", "truth.drift"} & set(found)
    assert "conditional_ddpm.dci.completeness" not in found
    assert capsys.readouterr().out
