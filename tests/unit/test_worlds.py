"""Worlds: exact counterfactuals, readable pictures, same seed same bytes."""

import argparse
import re

import numpy as np
import pytest
from PIL import Image

from causal_core.attention.spans import phrase_spans
from causal_core.demo.tokenizer import WordTokenizer
from causal_core.errors import CounterfactError
from causal_core.worlds import WORLDS, Scene, cli, digits, get_world
from causal_core.worlds.beta import beta_cdf, beta_quantile
from causal_core.worlds.circuit import BUTTONS, pressed
from causal_core.worlds.dataset import SceneData
from causal_core.worlds.pendulum import shadow

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
    length, _ = shadow(0.0, 120.0)
    assert length == pytest.approx(max(3.0, 9.5 / abs(np.tan(120 * np.pi / 200))))
    world = get_world("pendulum-noise")
    scene = world.sample(3)
    after = world.counterfactual(scene, {"angle": "10.0"})
    expected, _ = shadow(10.0, float(scene.values["light"]))
    assert float(after.values["shadow length"]) - expected == pytest.approx(scene.noise["shadow length"])
    assert after.values["light"] == scene.values["light"]


@pytest.mark.parametrize("name", ["pendulum", "pendulum-noise"])
def test_interventions_on_the_pendulum_may_leave_the_range(name):
    world = get_world(name)
    scene = world.sample(0)
    after = world.counterfactual(scene, {"angle": "44", "shadow position": "30"})
    assert numbers(after)["angle"] == 44 and numbers(after)["shadow position"] == 30
    assert world.concepts(after.values)["angle"].interval == (-40, 44)
    assert world.concepts()["angle"].interval == world.concepts(scene.values)["angle"].interval == (-40, 43)
    assert set(world.masks(after)) == {"light", "angle"}, "the shadow is outside the picture"
    with pytest.raises(CounterfactError, match="level light casts no shadow"):
        world.counterfactual(scene, {"light": "0"})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numbers(scene):
    return {name: float(value) for name, value in scene.values.items()}


def test_thickness_and_intensity_of_digits_follow_their_equations():
    world = get_world("digits")
    scenes = [world.sample(seed) for seed in range(1500)]
    thickness, intensity = np.array([[float(s.values[k]) for k in ("thickness", "intensity")] for s in scenes]).T
    assert thickness.mean() == pytest.approx(2.5, abs=0.06) and thickness.std() == pytest.approx(0.632, abs=0.04)
    share = (intensity - 64) / 191
    noise = (np.log(share / (1 - share)) - 2 * (thickness - 2.5)) / 0.5
    assert noise == pytest.approx([s.noise["intensity"] for s in scenes], abs=1e-6)
    assert abs(noise.mean()) < 0.1 and noise.std() == pytest.approx(1.0, abs=0.06)
    counts = np.bincount([int(s.values["digit"]) for s in scenes], minlength=10)
    assert counts.min() > 100 and counts.max() < 200


def test_counterfactual_digits_keep_noise_and_hand():
    world = get_world("digits")
    scene = world.sample(4, {"digit": "3"})
    before, after = numbers(scene), numbers(world.counterfactual(scene, {"digit": "3", "thickness": "3.5"}))
    assert after["intensity"] == pytest.approx(64 + 191 * sigmoid(2 * (3.5 - 2.5) + 0.5 * scene.noise["intensity"]))
    assert numbers(world.counterfactual(scene, {"digit": "7", "intensity": "99"})) == {
        "digit": 7, "thickness": before["thickness"], "intensity": 99,
    }  # fmt: skip
    # The same strokes, thinner: dimmer ink nowhere where there was none.
    thin = world.render(world.counterfactual(scene, {"digit": "3", "thickness": "1.2", "intensity": "255"}), 64)
    thick = world.render(world.counterfactual(scene, {"digit": "3", "thickness": "4", "intensity": "255"}), 64)
    assert (thin <= thick).all() and thick.sum() > 2 * thin.sum()


def test_the_hand_does_not_depend_on_the_digit(monkeypatch):
    world = get_world("digits")
    monkeypatch.setattr(digits, "GLYPHS", digits.GLYPHS[:3] + digits.GLYPHS[7:8] + digits.GLYPHS[4:])
    for seed in range(5):
        three, seven = (world.render(world.counterfactual(world.sample(seed), {"digit": d}), 32) for d in "37")
        assert np.array_equal(three, seven)


def test_ink_has_the_thickness_and_the_grey_level_of_its_labels():
    world, size = get_world("digits"), 168  # six pixels to a unit of thickness
    for seed in range(2):
        scene = world.sample(seed)
        thin, thick = (
            world.render(world.counterfactual(scene, {"thickness": t, "intensity": "200"}), size) for t in ("1", "4")
        )
        assert thick.max() == 200 and np.array_equal(thick[..., 0], thick[..., 2])
        ink = np.argwhere(thin[..., 0] > 100)
        rows, columns = np.indices((size, size))[:, ::3, ::3]
        nearest = np.sqrt(((np.stack([rows, columns], -1)[:, :, None] - ink) ** 2).sum(-1).min(-1))
        # Three units wider: the ink reaches one and a half further to each side, nine pixels.
        thick = thick[::3, ::3, 0]
        assert (thick[nearest < 8.5] > 100).all() and (thick[nearest > 9.6] < 100).all()


def test_digits_differ_from_each_other_and_from_hand_to_hand():
    world = get_world("digits")
    clear = {"thickness": "2.5", "intensity": "255"}
    glyphs = [[world.render(world.sample(s, {"digit": str(d), **clear}), 32) / 255 for d in range(10)] for s in (1, 2)]
    for a in range(10):
        assert np.abs(glyphs[0][a] - glyphs[1][a]).mean() > 0.02
        for b in range(a):
            assert np.abs(glyphs[0][a] - glyphs[0][b]).mean() > 0.03


def test_lamps_of_the_circuit_follow_their_equations():
    world = get_world("circuit")
    assert [pressed(BUTTONS[lamp], lamp) for lamp in BUTTONS] == [1, 1, 1]
    assert [pressed(at, "blue") for at in (0.275, 0.35, 0.5)] == pytest.approx([0.75, 0, 0])
    assert world.graph().depth_from(["arm"]) == {"arm": 0, "blue": 1, "green": 1, "red": 1}
    assert world.graph().parents("red") == ("arm", "blue", "green")
    for seed in range(20):
        scene = world.sample(seed)
        for do in ({}, {"arm": "0.2"}, {"blue": "0.9"}, {"arm": "0.8", "blue": "0"}):
            after = world.counterfactual(scene, do)
            v = numbers(after)
            for lamp in ("blue", "green", "red"):
                if lamp in do:
                    continue
                drive = pressed(v["arm"], lamp) + (v["blue"] + v["green"] if lamp == "red" else 0)
                mean = 0.2 + 0.6 * min(1.0, drive)
                assert beta_cdf(v[lamp], 5 * mean, 5 - 5 * mean) == pytest.approx(scene.noise[lamp], abs=1e-9)
    lit = np.mean([numbers(world.sample(seed, {"arm": "0.2"}))["blue"] for seed in range(300)])
    dark = np.mean([numbers(world.sample(seed, {"arm": "0.8"}))["blue"] for seed in range(300)])
    assert (lit, dark) == pytest.approx((0.8, 0.2), abs=0.05)


def test_beta_distribution_has_its_closed_forms_and_its_quantiles_invert_it():
    for x in (0.0, 1e-9, 0.01, 0.3, 0.5, 0.77, 0.999, 1.0):
        assert beta_cdf(x, 3.5, 1) == pytest.approx(x**3.5, rel=1e-12)
        assert beta_cdf(x, 1, 2.5) == pytest.approx(1 - (1 - x) ** 2.5, abs=1e-14)
        assert beta_cdf(x, 2, 3) == pytest.approx(6 * x**2 - 8 * x**3 + 3 * x**4, abs=1e-14)
        assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / np.pi * np.arcsin(np.sqrt(x)), abs=1e-13)
        assert beta_cdf(x, 60, 40) == pytest.approx(1 - beta_cdf(1 - x, 40, 60), abs=1e-11)
    for a in (0.3, 1.0, 1.7, 4.0, 60.0):
        quantiles = [beta_quantile(u, a, 5 - min(a, 4.0)) for u in np.linspace(0, 1, 41)]
        assert quantiles[0] == 0 and quantiles[-1] == 1 and np.all(np.diff(quantiles) > 0)
        for u, x in list(zip(np.linspace(0, 1, 41), quantiles))[1:-1]:
            assert beta_cdf(x, a, 5 - min(a, 4.0)) == pytest.approx(u, abs=1e-11)


@pytest.mark.parametrize(
    ("name", "do", "free"),
    [
        ("digits", {"digit": "8"}, ()),
        ("digits", {"thickness": "4.5"}, ()),
        ("circuit", {"red": "1.0"}, ("arm", "blue", "green")),
        ("circuit", {"blue": "1.0"}, ("arm", "green")),
        ("circuit", {"arm": "0.5"}, ()),
    ],
)
def test_only_what_follows_from_an_intervention_moves(name, do, free):
    world = get_world(name)
    for seed in range(4):
        scene = world.sample(seed)
        after = world.counterfactual(scene, do)
        (cause,) = do
        affected = {cause, *world.graph().descendants(cause)}
        assert all(scene.values[n] == after.values[n] for n in set(scene.values) - affected)
        moved = (world.render(scene, 64) != world.render(after, 64)).any(-1)
        masks, later = world.masks(scene, 64), world.masks(after, 64)
        region = sum(masks[n] + later[n] for n in affected) > 0
        assert moved.any() and not (moved & ~region).any()
        for other in free:
            assert not (moved & (masks[other] > 0)).any(), other


@pytest.mark.parametrize("name", ["digits", "circuit"])
def test_every_value_lies_in_its_domain_or_interval(name):
    world = get_world(name)
    for seed in range(200):
        for mode in ("observational", "uniform"):
            world.concepts(world.sample(seed, mode=mode).values)
    assert getattr(world, "grey", False) == (name == "digits")
    with pytest.raises(CounterfactError, match="mode"):
        world.sample(0, mode="random")


@pytest.mark.parametrize(
    ("name", "do", "words"),
    [
        ("digits", {"digit": "12"}, "values: 0, 1, 2"),
        ("digits", {"thickness": "9"}, "from 1 to 5.5"),
        ("circuit", {"bleu": "1"}, "Did you mean 'blue'"),
        ("circuit", {"arm": "left"}, "finite"),
    ],
)
def test_interventions_must_lie_in_the_domain(name, do, words):
    world = get_world(name)
    with pytest.raises(CounterfactError, match=words):
        world.counterfactual(world.sample(0), do)


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


@pytest.mark.parametrize(("name", "do"), [("digits", "thickness = 4, digit = 2"), ("circuit", "arm = 0.5")])
def test_command_draws_every_world(name, do, tmp_path):
    words = ("counterfactual", "--world", name, "--size", "32", "--do", do, "--out", str(tmp_path))
    assert cli.main(_arguments(*words)) == 0
    factual, counterfactual = (Image.open(tmp_path / f"{name}_0_{k}.png") for k in ("factual", "counterfactual"))
    assert factual.size == (32, 32) and factual.info["caption"] != counterfactual.info["caption"]
    assert np.abs(np.asarray(factual).astype(int) - np.asarray(counterfactual)).max() > 60


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


@pytest.mark.parametrize("world", ["pendulum", "digits", "cottage"])
def test_a_quarter_of_the_training_scenes_is_intervened_on(world, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    data = SceneData(get_world(world), 16, count=200)
    assert not any(data.intervened(i) for i in range(0, 200, 2))
    assert all(data.intervened(i) == set(data.names) for i in range(1, 200, 4))
    chosen = [data.intervened(i) for i in range(3, 200, 4)]
    assert {name for done in chosen for name in done} == set(data.names)
    graph = data.world.graph()
    ancestors = {name: set(graph.ancestors(name)) for name in data.names}
    for index, done in zip(range(3, 200, 4), chosen):
        scene = data.scene(index)
        free = data.world.sample(scene.seed)
        for name in set(data.names) - done:
            if not ancestors[name] & done:
                assert scene.values[name] == free.values[name]
