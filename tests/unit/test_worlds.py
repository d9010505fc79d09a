"""Worlds: exact counterfactuals, readable pictures, same seed same bytes."""

import argparse
import re

import numpy as np
import pytest
from PIL import Image

from causal_core.attention.spans import phrase_spans
from causal_core.demo.tokenizer import WordTokenizer
from causal_core.errors import CounterfactError
from causal_core.worlds import WORLDS, Scene, cli, get_world
from causal_core.worlds.pendulum import mechanism

COTTAGE = get_world("cottage")


def test_the_cottage_has_the_promised_structure():
    graph = COTTAGE.graph()
    assert len(graph.concepts) >= 12
    assert max(graph.depth_from(["season"]).values()) >= 3
    isolated = [c.name for c in graph.concepts if not graph.parents(c.name) and not graph.children(c.name)]
    assert len(isolated) >= 4
    assert graph.confounded == (("time", "weather"),)


def test_the_hidden_front_makes_time_and_weather_dependent_but_not_under_intervention():
    scenes = [COTTAGE.sample(seed) for seed in range(3000)]
    cloudy = {
        t: np.mean([s.values["weather"] == "cloudy" for s in scenes if s.values["time"] == t]) for t in ("day", "night")
    }
    assert cloudy["night"] - cloudy["day"] > 0.05
    for scene in scenes[:50]:
        assert COTTAGE.counterfactual(scene, {"time": "night"}).values["weather"] == scene.values["weather"]


@pytest.mark.parametrize("name", sorted(WORLDS))
def test_null_intervention_same_picture_and_same_seed_same_bytes(name):
    world = get_world(name)
    for seed in range(3):
        scene = world.sample(seed)
        assert world.counterfactual(scene, {}) == scene == world.sample(seed)
        assert np.array_equal(world.render(scene, 64), world.render(world.sample(seed), 64))
        assert Scene.from_json(scene.to_json()) == scene
        assert set(world.masks(scene, 64)) <= {c.name for c in world.concepts()}
        assert all(m.shape == (64, 64) and m.min() >= 0 and m.max() <= 1.0001 for m in world.masks(scene).values())


def test_a_change_of_one_value_changes_the_picture_in_its_own_place():
    scene = COTTAGE.sample(1, do={"time": "day", "weather": "clear"})
    before = COTTAGE.render(scene, 64)
    for name, place in (("door", "door"), ("pond", "pond"), ("foliage", "foliage"), ("temperature", "temperature")):
        domain = COTTAGE.scm[name].domain
        other = domain[(domain.index(scene.values[name]) + 1) % len(domain)]
        changed = Scene(scene.world, scene.seed, {**scene.values, name: other}, scene.noise)
        moved = (before != COTTAGE.render(changed, 64)).any(-1)
        region = np.maximum(COTTAGE.masks(scene)[place], COTTAGE.masks(changed)[place]) > 0
        assert moved.any() and not (moved & ~region).any(), name


def test_every_pair_of_values_can_be_told_apart_in_the_picture():
    scene = COTTAGE.sample(2, do={"time": "day", "weather": "clear", "precipitation": "none"})
    for concept in COTTAGE.concepts():
        pictures = [
            COTTAGE.render(Scene(scene.world, scene.seed, {**scene.values, concept.name: value}, scene.noise))
            for value in concept.domain
        ]
        for i, first in enumerate(pictures):
            for second in pictures[i + 1 :]:
                assert (np.abs(first.astype(int) - second).max(-1) > 24).sum() >= 6, concept.name


def test_the_same_scene_at_another_size_is_the_same_picture():
    scene = COTTAGE.sample(5)
    small = COTTAGE.render(scene, 64).astype(float)
    large = np.asarray(Image.fromarray(COTTAGE.render(scene, 256)).resize((64, 64), Image.BOX)).astype(float)
    assert np.abs(small - large).mean() < 3.0


def test_caption_names_every_concept_and_its_tokens_are_known():
    scene = COTTAGE.sample(0)
    tokenizer = WordTokenizer(COTTAGE.vocabulary())
    phrases = [c.phrase() for c in COTTAGE.concepts(scene.values)]
    caption = COTTAGE.caption(scene)
    ids = tokenizer.encode(caption)
    words = re.findall("[a-z]+", caption)
    for phrase, (start, end) in zip(phrases, phrase_spans(tokenizer.encode, phrases)):
        assert words[start - 1 : end - 1] == phrase.split() and len(ids[start:end]) == len(phrase.split())
    for concept in COTTAGE.concepts():
        for value in concept.domain:
            assert len(COTTAGE.phrases(concept.name, value)) >= 2
    longest = sum(max(len(p.split()) for v in c.domain for p in c.phrases[v]) for c in COTTAGE.concepts())
    assert longest + 2 <= tokenizer.max_length


def test_uniform_mode_reaches_combinations_that_the_mechanisms_never_show():
    assert any(
        s.values["foliage"] == "blossom" and s.values["season"] == "winter"
        for s in (COTTAGE.sample(seed, mode="uniform") for seed in range(200))
    )


def test_pendulum_follows_its_formulas_and_keeps_noise():
    # A vertical pendulum: both rays hit the ground where the light sends them, and the shadow is at its shortest.
    length, _ = mechanism(0.0, 120.0)
    assert length == pytest.approx(max(3.0, 9.5 / abs(np.tan(120 * np.pi / 200))))
    world = get_world("pendulum-noise")
    scene = world.sample(3)
    after = world.counterfactual(scene, {"angle": "10.0"})
    expected, _ = mechanism(10.0, float(scene.values["light"]))
    assert float(after.values["shadow length"]) - expected == pytest.approx(scene.noise["shadow length"])
    assert after.values["light"] == scene.values["light"]


@pytest.mark.parametrize(
    ("do", "words"), [({"sesaon": "winter"}, "season"), ({"season": "monsoon"}, "spring, summer, autumn, winter")]
)
def test_unknown_concepts_and_values_are_named(do, words):
    with pytest.raises(CounterfactError, match=words):
        COTTAGE.counterfactual(COTTAGE.sample(0), do)


@pytest.mark.parametrize(
    ("do", "words"), [({"angel": "1"}, "angle"), ({"angle": "steep"}, "finite"), ({"angle": "nan"}, "finite")]
)
def test_pendulum_refuses_what_is_no_number(do, words):
    world = get_world("pendulum")
    with pytest.raises(CounterfactError, match=words):
        world.counterfactual(world.sample(0), do)


def test_unknown_world_lists_the_known_ones():
    with pytest.raises(CounterfactError, match="cottage"):
        get_world("cotage")


def _arguments(*words):
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(words)


def test_command_writes_the_same_bytes_twice(tmp_path):
    for folder in ("a", "b"):
        words = ("counterfactual", "--seed", "4", "--do", "season = winter", "--out", str(tmp_path / folder))
        assert cli.main(_arguments(*words)) == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [f"cottage_4_{kind}.{end}" for kind in ("counterfactual", "factual") for end in ("json", "png")]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    after = Scene.from_json((tmp_path / "a" / "cottage_4_counterfactual.json").read_text())
    assert after.values["season"] == "winter"


@pytest.mark.parametrize(
    "words",
    [
        ("render", "--size", "7"),
        ("render", "--seed", "-1"),
        ("counterfactual",),
        ("counterfactual", "--do", "season = x"),
    ],
)
def test_command_names_the_option_to_change(words, tmp_path):
    with pytest.raises(CounterfactError):
        cli.main(_arguments(*words, "--out", str(tmp_path)))
