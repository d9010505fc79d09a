"""The benchmark of causal autoencoders in runs: all methods trained and measured, its reader, and its command."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from causal_core.autoencoder.coding import Coding
from causal_core.autoencoder.config import AutoencoderConfig
from causal_core.autoencoder.model import CausalAutoencoder, CausalLatent
from causal_core.bench import autoencoder as bench
from causal_core.bench import autoencoder_measure as measure
from causal_core.bench import autoencoder_reader as reader
from causal_core.bench import disentanglement
from causal_core.bench.autoencoder_cases import world_cases
from causal_core.bench.baselines.autoencoders import METHODS, replica
from causal_core.bench.baselines.autoencoders.method import Method
from causal_core.bench.baselines.autoencoders.replica import Replica
from causal_core.concepts import Concept, Concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.worlds import get_world

from ..helpers.brightness import CHAIN, TINY, Brightness


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(replica, "LEAST_STEPS", 2)


@pytest.fixture(scope="module")
def pendulum():
    return reader.UniformScenes("pendulum", 16)


@pytest.fixture(scope="module")
def trained(pendulum, tmp_path_factory):
    """Weights files of all methods after two steps, and a reader after one."""
    folder = tmp_path_factory.mktemp("run")
    paths = {name: method.trained(TINY, pendulum, folder) for name, method in METHODS.items()}
    reader.trained(pendulum, 64, folder)
    return folder, paths


@pytest.fixture(scope="module")
def setup(trained):
    folder, paths = trained
    weights = {name: (name, path) for name, path in paths.items()}
    return measure.Setup(weights, folder / "reader.safetensors", "pendulum", None, 16, 2, 1, numbers=(1, 2, 3))


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


def test_the_command_measures_a_world(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    monkeypatch.setattr(disentanglement, "ROUNDS", 3)
    for module in (measure, bench):
        monkeypatch.setattr(module, "LONG_STEPS", 3)
    config, out = tmp_path / "tiny.json", tmp_path / "out.json"
    config.write_text(json.dumps(TINY.to_dict()))
    own = trained[1]["ours"]
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


def test_a_reader_of_other_pictures_is_not_used(trained):
    with pytest.raises(CounterfactError, match="--run"):
        reader.trained(Brightness(), 64, trained[0])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_draws_pictures_and_is_trained_once(name, trained, pendulum):
    folder, paths = trained
    before = paths[name].stat().st_mtime_ns
    assert METHODS[name].trained(TINY, pendulum, folder) == paths[name]
    assert paths[name].stat().st_mtime_ns == before
    method = METHODS[name].load(paths[name])
    assert method.provenance["images"] == 8 and method.provenance["data"] == pendulum.key
    cases = world_cases(get_world("pendulum"), method.coding, 16, (1, 2))
    latent = method.encode(cases.images, cases.labels, 2, torch.Generator().manual_seed(0))
    for number, do in enumerate(cases.do):
        made = method.decode(method.intervened(latent, {number: do}))
        assert made.shape == cases.images.shape and made.isfinite().all() and made.abs().max() <= 1


def test_weights_of_another_config_are_not_taken(trained, pendulum):
    other = AutoencoderConfig.from_dict({**TINY.to_dict(), "learning_rate": 0.5})
    with pytest.raises(CounterfactError, match="--run"):
        METHODS["causal_vae"].trained(other, pendulum, trained[0])
    with pytest.raises(CounterfactError, match="no usable replica"):
        METHODS["replica"].load(trained[1]["causal_vae"])


def test_training_goes_on_where_it_stopped(pendulum, tmp_path):
    assert METHODS["causal_vae"].trained(TINY, pendulum, tmp_path).exists()
    longer = AutoencoderConfig.from_dict({**TINY.to_dict(), "images": 12})
    path = METHODS["causal_vae"].trained(longer, pendulum, tmp_path)
    assert METHODS["causal_vae"].load(path).provenance["images"] == 12
    steps = [json.loads(line)["step"] for line in (tmp_path / "causal_vae" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 3]


def test_averaged_weights_come_with_the_statistics_of_the_normalisations(trained):
    norm = next(m for m in Replica.load(trained[1]["replica"]).modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert norm.num_batches_tracked == 2


class Identity(Method):
    """A method that returns the picture, whatever is asked."""

    losses = None

    def encode(self, images, labels, steps, rng):
        return CausalLatent(labels, labels, labels[:, :0], images, steps)

    def intervened(self, latent, do):
        return latent

    def decode(self, latent):
        return latent.noise


def test_a_method_that_does_nothing_keeps_everything_and_hits_nothing(setup):
    here = measure.Bench(setup, {"identity": Identity(TINY, Coding.of(get_world("pendulum").graph()))})
    rows = here.effects("identity", (1, 2))
    assert (rows["composition_1"] == 0).all()
    axioms = here.axioms("identity", (1, 2))
    assert (axioms["composition_10"] == 0).all() and (axioms["reversibility"] == 0).all()
    # Minimality: nothing of the new value is as near, all of the old value are as far.
    assert rows["minimality"] == pytest.approx(math.log(0.8 + 0.2 * math.e))
    truth = here.effects(measure.TRUTH, (1, 2))
    assert rows["psnr_truth"].max() < 50 and truth["features"].shape == (2, 4, reader.HIDDEN)


class Shade(Identity):
    """A method that makes a picture lighter by the mean of its latents, and knows what it made."""

    def encode(self, images, labels, steps, rng):
        return CausalLatent(labels, labels, labels[:, :0], images - 0.1 * labels.mean(1)[:, None, None, None], steps)

    def intervened(self, latent, do):
        z = latent.z.clone()
        for i, value in do.items():
            z[:, i : i + 1] = value
        return replace(latent, z=z)

    def decode(self, latent):
        return latent.noise + 0.1 * latent.z.mean(1)[:, None, None, None]


def test_an_intervention_is_undone_by_the_factual_value(setup):
    here = measure.Bench(setup, {"shade": Shade(TINY, Coding.of(get_world("pendulum").graph()))})
    rows = here.axioms("shade", (1, 2))
    assert rows["reversibility"].max() < 1e-6 and rows["composition_10"].max() < 1e-6
    cases, method = here.cases((1,)), here.loaded["shade"]
    pictures = here.made(method, method.encode(cases.images, cases.labels, 1, None), cases)
    assert all((picture - cases.images).abs().max() > 1e-3 for picture in pictures)


def test_speed_and_memory_are_those_of_this_process(setup):
    found = measure.speed(setup, "causal_vae", 2)
    assert found["counterfactuals_per_second"] > 0 and found["peak_memory_mb"] > 100


def test_weights_of_other_variables_are_told(monkeypatch, tmp_path, trained):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    path = tmp_path / "other.safetensors"
    CausalAutoencoder(TINY, CHAIN).save(path)
    for words in (["--weights", path], ["--also", f"mine={path}"]):
        with pytest.raises(CounterfactError, match="other variables"):
            bench.prepare(options(*words, "--methods", "ours", "--pictures", 4, "--run", tmp_path / "run"))
    assert not (tmp_path / "run").exists(), "told before anything is trained"
