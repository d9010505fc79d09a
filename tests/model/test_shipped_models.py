"""The models that come with the pack, or are fetched for it, as a user meets them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from causal_core.bench import csg
from causal_core.concepts import parse_concepts
from causal_core.demo import weights_path
from causal_core.demo.model import DemoModel
from causal_core.discovery.interview import Interview
from causal_core.discovery.mechanisms import Twin, _shares, gumbel_posterior, language_mechanism
from causal_core.extraction import classifier
from causal_core.extraction.picture import read_picture, regions_in_picture
from causal_core.graph import CausalGraph
from causal_core.guidance.csg import Settings
from causal_core.language.local import LocalModel, render
from causal_core.language.model import Prompt, Request
from causal_core.language.smollm2 import smollm2
from causal_core.plan import Intervention, propagate
from causal_core.worlds import get_world
from causal_core.worlds.reader import WEIGHTS, Reader, accuracy

WORLD = get_world("cottage")
HELD_OUT = range(5_000_000, 5_000_200)


def test_the_python_example_of_the_readme_draws_a_winter(pack_root, tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (pack_root / "README.md").read_text(encoding="utf-8"), re.S)
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102
    source = names["world"].render(names["scene"], 64)
    drawn = np.asarray(Image.open(tmp_path / "winter.png"))
    assert (drawn == names["found"].picture).all() and (drawn != source).any()
    assert "season" in names["found"].regions


def test_processes_of_a_benchmark_share_the_scenes_and_change_no_number(weights):
    start = weights, WEIGHTS, "cottage", 4, Settings(probes=1), 1, ("ours", "img2img")
    assert csg.run(start, 2, 7, 0, processes=2) == csg.run(start, 2, 7, 0)


def test_the_bundled_model_reads_a_picture_and_finds_the_house():
    model, scene = DemoModel.load(weights_path("micro")), WORLD.sample(53)
    picture, known = WORLD.render(scene), WORLD.concepts(scene.values)
    asked = known.replace("house", value=None)
    checks = []
    found = read_picture(model, picture, asked, seed=1, check=lambda: checks.append(0))
    assert found.concepts.values() == known.values() and checks
    quick = classifier.Settings(levels=1, passes=1)
    assert len({str(read_picture(model, picture, asked, 2, quick)) for _ in range(2)}) == 1
    truth = WORLD.masks(scene)["house"] >= 0.5
    region = regions_in_picture(model, picture, known, ["house"])["house"].numpy() >= 0.5
    assert (region & truth).sum() / (region | truth).sum() > 0.5


@pytest.mark.parametrize("mode", ["observational", "uniform"])
def test_the_reader_is_right_on_held_out_renders(mode):
    shares = accuracy(Reader.load(), WORLD, HELD_OUT, mode)
    assert len(shares) == 17 and min(shares.values()) >= 0.99, shares


def test_the_reader_tells_noise_from_nothing():
    """A picture of another scene must be read differently: the reader looks at the picture."""
    reader = Reader.load()
    scenes = [WORLD.sample(seed, mode="uniform") for seed in range(40)]
    read = reader.read(np.stack([WORLD.render(scene) for scene in scenes[::-1]]))
    agreement = np.mean([found[name] == scene.values[name] for found, scene in zip(read, scenes) for name in found])
    assert agreement < 0.6


def test_the_reader_reads_larger_pictures_as_well():
    scene = WORLD.sample(11)
    read = Reader.load().read(WORLD.render(scene, 128)[None])[0]
    assert sum(read[name] == scene.values[name] for name in read) >= 16


@pytest.fixture(scope="module")
def small() -> LocalModel:
    """SmolLM2, loaded once."""
    return smollm2(torch.device("cpu"))


def test_smollm2_knows_a_few_things(small):
    assert "Paris" in small.complete(Request(Prompt("What is the capital of France?"), max_tokens=8))
    wet, hot = small.choice_logprobs(Request(Prompt("Rain makes the street", chat=False), choices=(" wet", " hot")))
    assert wet > hot
    assert render(small._loaded, Prompt("Hi")).endswith("user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_smollm2_gives_mechanisms(small):
    """The plumbing, not how good the model is."""
    concepts = parse_concepts(
        "weather: clear, rain = clear\nstreet: dry, wet, flooded = dry\nshoes: clean, muddy = clean\nmood = merry\n"
        "noise: 0 .. 100 = 30"
    )
    edges = [("weather", "street"), ("street", "shoes"), ("weather", "mood"), ("weather", "noise")]
    graph = CausalGraph.from_edges(edges, concepts=concepts)
    twin = Twin(concepts["street"], {"weather": "clear"}, {"weather": "rain"})
    (shares,) = _shares([(twin, twin.concept.domain)], Interview(small))
    for row in shares:
        assert row.shape == (3,) and row.sum() == pytest.approx(1) and (row > 0).all()
    assert np.abs(shares[0] - shares[1]).max() > 0.01

    def planned():
        mechanism = language_mechanism(graph, small)
        plan = propagate(graph, Intervention({"weather": "rain"}), {"shoes": "clean"}, mechanism=mechanism)
        return {item.name: item for item in plan.items}

    first = planned()
    assert first == planned()
    assert first["street"].probability == pytest.approx(gumbel_posterior(*shares, 0).max(), abs=1e-4)
    for name in ("street", "mood", "noise"):
        assert concepts[name].match(first[name].counterfactual) and first[name].reason
