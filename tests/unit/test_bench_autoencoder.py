"""The benchmark of causal autoencoders: metrics against cases worked out by hand, and what methods have in them."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from causal_core.autoencoder.coding import Coding, Variable
from causal_core.bench import autoencoder as bench
from causal_core.bench import autoencoder_measure as measure
from causal_core.bench import autoencoder_metrics as metrics
from causal_core.bench import autoencoder_reader as reader
from causal_core.bench.autoencoder_cases import folder_cases, scales, world_cases
from causal_core.bench.autoencoder_training import Part
from causal_core.bench.baselines.autoencoders import METHODS
from causal_core.bench.baselines.autoencoders.autoencoder import residual_code
from causal_core.bench.baselines.autoencoders.replica import Replica
from causal_core.bench.disentanglement import Code, boosted, dci, infomec
from causal_core.errors import CounterfactError
from causal_core.worlds import get_world

from ..helpers.brightness import CHAIN, TINY, Brightness

MIXED = Coding((Variable("season", ("winter", "summer")), Variable("snow", interval=(0.0, 4.0))), ((), (0,)))


@pytest.fixture(scope="module")
def pendulum():
    return reader.UniformScenes("pendulum", 16)


def uniform(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape)


# Disentanglement


def test_boosted_trees_find_the_feature_that_matters():
    binned = np.random.default_rng(0).integers(64, size=(400, 3))
    target = np.where(binned[:, 1] > 20, 3.0, -1.0)
    known = np.arange(400) < 300
    predicted, importances = boosted(binned, target, known)
    assert importances == pytest.approx([0, 1, 0])
    assert np.abs(predicted - target).max() < 1e-3


def test_a_perfect_code_has_all_scores_and_a_rotated_one_has_not():
    variables = uniform(1500, 2)
    turned = variables @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2)
    perfect, rotated = (dci(Code(z), Code(variables)) for z in (variables, turned))
    assert all(value > 0.99 for value in perfect.values())
    assert rotated["disentanglement"] < 0.7 and rotated["completeness"] < 0.7
    assert rotated["informativeness"] > 0.9
    perfect, rotated = (infomec(Code(z), Code(variables)) for z in (variables, turned))
    assert all(value > 0.98 for value in perfect.values())
    assert rotated["infom"] < 0.5 and rotated["infoc"] < 0.5
    assert rotated["infoe"] == pytest.approx(1)


def test_a_variable_told_by_two_latents_is_complete_only_as_one_group():
    variables = uniform(1500, 2)
    parts = np.sign(variables[:, :1]), np.abs(variables[:, :1]), variables[:, 1:]
    values = np.concatenate(parts, 1)
    apart, grouped = (
        dci(Code(values, groups), Code(variables)) for groups in ((), (slice(0, 2), slice(2, 3)))
    )  # fmt: skip
    assert apart["disentanglement"] > 0.99 and grouped["completeness"] > 0.99
    assert apart["completeness"] < 0.95


def test_discrete_variables_are_one_group_each():
    kinds = np.eye(3)[np.random.default_rng(1).integers(3, size=900)]
    values = np.concatenate([kinds, uniform(900, 1)], 1)
    code = Code(values, (slice(0, 3), slice(3, 4)), (True, False))
    for scores in (dci(code, code), infomec(code, code)):
        assert all(value > 0.98 for value in scores.values())


def test_a_code_that_knows_nothing_scores_nothing():
    noise = np.random.default_rng(5).normal(size=(1500, 2))
    scores = infomec(Code(noise), Code(uniform(1500, 2)))
    assert scores["infom"] == scores["infoc"] == 0 and scores["infoe"] < 0.01
    assert dci(Code(noise), Code(uniform(1500, 2)))["informativeness"] < 0.05


def test_a_residual_that_knows_nothing_costs_no_modularity():
    variables = uniform(1500, 2)
    with_noise = np.concatenate([variables, np.random.default_rng(5).normal(size=(1500, 8))], 1)
    assert infomec(Code(with_noise), Code(variables))["infom"] > 0.98


# Effectiveness


def test_errors_are_in_units_of_the_scale_and_right_or_wrong():
    read = torch.tensor([[0.3, 0.7, 0.5], [0.9, 0.1, -1.0]])
    truth = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, torch.nan]])
    found = metrics.errors(MIXED, [1.0, 4.0], read, truth)
    # Half the interval is 2: a distance of 0.5 is 1 in the label's units, a quarter of the scale.
    assert found[0].tolist() == [1.0, 0.25]
    assert found[1, 0] == 0 and found[1, 1].isnan()


def test_errors_of_an_unknown_value_are_unknown():
    read = torch.tensor([[0.3, 0.7, 0.5]])
    assert metrics.errors(MIXED, [1.0, 2.0], read, torch.full((1, 3), torch.nan)).isnan().all()


def test_effectiveness_sorts_errors_by_role():
    # [do, picture, read]: do(a) has descendants b and c, do(b) has c, do(c) has none.
    found = torch.arange(9.0).reshape(3, 1, 3)
    rows = metrics.effectiveness(CHAIN, found)
    assert rows["intervened_mae"] == pytest.approx([(0 + 4 + 8) / 3])
    assert rows["descendant_mae"] == pytest.approx([(1 + 2 + 5) / 3])
    assert rows["drift"] == pytest.approx([(3 + 6 + 7) / 3])
    assert rows["descendant_mae.b"] == [5] and rows["drift.c"] == [6.5] and rows["intervened_mae.a"] == [0]
    assert "descendant_mae.c" not in rows and "drift.a" not in rows


def test_the_pendulum_is_measured_in_the_units_of_the_paper():
    coding = Coding.of(get_world("pendulum").graph())
    assert dict(zip(coding.names, scales(coding, "pendulum"))) == {
        "angle": 42, "light": 44, "shadow length": 4.5, "shadow position": 8,
    }  # fmt: skip
    assert scales(MIXED, "elsewhere") == [1.0, 2.0]


# Pictures


def test_pixel_distance_is_zero_for_the_same_and_one_for_black_and_white():
    white = torch.ones(2, 3, 4, 4)
    assert metrics.pixel_distance(white, white).tolist() == [0, 0]
    assert metrics.pixel_distance(white, -white).tolist() == [1, 1]
    assert metrics.pixel_distance(white, white - 0.5).tolist() == [0.25, 0.25]


def test_frechet_distance_of_gaussians():
    x = np.random.default_rng(0).normal(size=(400, 3))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    assert metrics.frechet(x, x) == pytest.approx(0, abs=1e-9)
    # Means 3, 0, 0 apart; deviations 1 against 2 in each direction add (1 - 2)^2.
    assert metrics.frechet(x, 2 * x + np.array([3.0, 0, 0])) == pytest.approx(9 + 3)


def test_minimality_counts_pictures_that_are_nearer():
    pool = np.array([[0.0]] * 5 + [[1.0]] * 5)
    # All of value 0 are 0.1 away, all of value 1 are 0.5 away.
    distances = np.where(pool.T == 0, 0.1, 0.5)
    factual, counterfactual = np.array([[0.0]] * 3), np.array([[1.0]] * 3)
    moved = np.array([0.3, 0.6, 0.05])
    found = metrics.latent_divergence(moved, distances.repeat(3, 0), factual, counterfactual, pool)
    first, second = metrics.CLD_WEIGHTS
    none, far, idle = 0.0, math.log(first * math.e + second), math.log(first + second * math.e)
    assert found == pytest.approx([none, far, idle], abs=1e-12)


def test_strength_is_the_share_of_the_way():
    factual, target = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]]), torch.tensor([[1.0], [-0.5]])
    read = torch.tensor([[[0.0], [0.5]], [[0.5], [0.0]], [[1.0], [0.2]]]).expand(-1, -1, 3)
    gone = metrics.way(CHAIN, 0, read, factual, target)
    assert gone.tolist() == [[0, 0], [0.5, 0.5], [1, pytest.approx(0.3)]]
    shares, rising = metrics.strength(CHAIN, 0, gone, factual, target, 5.0)
    assert shares == pytest.approx([0, 0.5, 0.65])
    assert rising.tolist() == [True, False]


def test_strength_of_a_discrete_variable_is_a_probability():
    factual, target = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1]])
    read = torch.tensor([[[0.9, 0.1, 0]], [[0.2, 0.8, 0]]])
    shares, rising = metrics.strength(MIXED, 0, metrics.way(MIXED, 0, read, factual, target), factual, target, 1.0)
    assert shares == pytest.approx([0.1, 0.8]) and rising.all()


# The reader


def test_the_readers_scenes_cannot_be_guessed_from_each_other(pendulum):
    images, labels, free = pendulum.batch(range(300))
    correlations = np.corrcoef(labels.numpy().T) - np.eye(4)
    assert np.abs(correlations).max() < 0.2 and not free.any()
    assert images.shape == (300, 16, 16, 3)


def test_a_grey_world_has_grey_pictures(monkeypatch):
    monkeypatch.setattr(type(get_world("pendulum")), "grey", True, raising=False)
    grey = reader.UniformScenes("pendulum", 16)
    cases = world_cases(get_world("pendulum"), grey.coding, 16, (1, 2))
    assert grey.channels == 1 and grey.batch([0])[0].shape == (1, 16, 16, 1)
    assert cases.images.shape == (2, 1, 16, 16) and cases.truth.shape == (4, 2, 1, 16, 16)


# Methods


def latents(method, do):
    """Latents of a black picture, and those under an intervention."""
    images, labels = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3)
    latent = method.eval().encode(images, labels, 1, torch.Generator().manual_seed(0))
    return latent, method.intervened(latent, do)


def test_diffae_leaves_descendants_and_ours_does_not():
    value = {0: torch.tensor([[0.75]])}
    torch.manual_seed(0)
    before, after = latents(METHODS["diffae"](TINY, CHAIN), value)
    assert after.z[0, 0] == 0.75 and torch.equal(after.z[:, 1:], before.z[:, 1:])
    before, after = latents(METHODS["ours"](TINY, CHAIN), value)
    assert after.z[0, 0] == 0.75 and (after.z[:, 1:] != before.z[:, 1:]).all()


class Whisper(torch.nn.Module):
    """An encoder whose residual code is all noise, though its mean tells of the picture."""

    coding = CHAIN

    def forward(self, images):
        brightness = images.mean((1, 2, 3))[:, None]
        return images.new_zeros(len(images), CHAIN.width), 1e-3 * brightness, torch.zeros(len(images), 1)

    def latents(self, readings):
        return readings


def test_what_decoders_cannot_hear_is_no_code():
    images = torch.from_numpy(uniform(400, 1, 2, 2))
    code = residual_code(Whisper(), images).values[:, -1]
    assert abs(np.corrcoef(code, images.mean((1, 2, 3)))[0, 1]) < 0.2 and code.std() > 0.9


def test_the_replica_has_parents_noises_and_no_descendants_of_a_middle_variable():
    torch.manual_seed(0)
    method = Replica(TINY, CHAIN)
    with torch.no_grad():
        before, after = latents(method, {0: torch.tensor([[0.75]])})
        assert (after.u[:, 0] == 0.75).all() and torch.equal(after.u[:, 1:], before.u[:, 1:])
        # b follows the noise of a; c follows the noise of b alone, which has not changed.
        assert (after.z[:, 1] != before.z[:, 1]).any() and torch.equal(after.z[:, 2], before.z[:, 2])
        before, after = latents(method, {1: torch.tensor([[0.75]])})
        assert (after.z[:, 1] == 0.75).all() and torch.equal(after.z[:, [0, 2]], before.z[:, [0, 2]])


def test_the_papers_weight_rises_with_the_training_of_ours(pendulum):
    from causal_core.autoencoder.data import as_batch

    method, batch = METHODS["ours"](replace(TINY, ramp=2), pendulum.coding), as_batch(pendulum, range(4))
    for progress, weight in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        terms = method.losses(batch, torch.Generator().manual_seed(0), progress)
        rest = sum(getattr(TINY, name) * terms[name] for name in ("alignment", "mechanism", "prior", "independence"))
        expected = (terms["diffusion"] + weight * rest + TINY.drawing * terms["drawing"]).item()
        assert terms["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_replicas_weight_rises_with_the_training(pendulum):
    from causal_core.autoencoder.data import as_batch

    method, batch = Replica(TINY, pendulum.coding), as_batch(pendulum, range(4))
    start, end = (method.losses(batch, torch.Generator().manual_seed(0), p) for p in (0.0, 1.0))
    assert start["loss"] == start["diffusion"]
    added = 0.7 * (end["prior"] + end["alignment"])
    assert float(end["loss"].detach()) == pytest.approx(float((end["diffusion"] + added).detach()), rel=1e-5)


def test_labels_are_numbers_to_the_replica():
    numbers = Replica(TINY, MIXED).numbers(torch.tensor([[1.0, 0, 0.3], [0, 1, -0.2]]))
    assert numbers.numpy() == pytest.approx(np.array([[-1, 0.3], [1, -0.2]]))


def test_unlabelled_pictures_train_every_method():
    class Half(Brightness):
        def batch(self, indices):
            images, labels, free = super().batch(indices)
            labels[::2] = torch.nan
            return images, labels, free

    from causal_core.autoencoder.data import as_batch

    batch = as_batch(Half(), range(4))
    for kind in METHODS.values():
        loss = kind(TINY, Half.coding).losses(batch, torch.Generator().manual_seed(0), 0.5)["loss"]
        assert loss.isfinite()


# Measuring


def test_answers_are_those_of_the_world(pendulum):
    cases = world_cases(get_world("pendulum"), pendulum.coding, 16, (5,))
    names = pendulum.coding.names
    for i in range(4):
        assert cases.answers[i, 0, i] == pytest.approx(float(cases.do[i][0]), abs=1e-6)
    length, position = names.index("shadow length"), names.index("shadow position")
    assert torch.equal(cases.answers[length, 0, :2], cases.labels[0, :2])
    assert cases.answers[names.index("light"), 0, position] != cases.labels[0, position]
    again = world_cases(get_world("pendulum"), pendulum.coding, 16, (4, 5))
    assert torch.equal(again.truth[:, 1], cases.truth[:, 0])


def test_of_a_folder_only_what_is_sure_is_an_answer():
    class Unlabelled(Brightness):
        coding = Coding(Brightness.coding.variables, ((), (0,)))

        def batch(self, indices):
            images, labels, free = super().batch(indices)
            labels[0, 1:] = torch.nan
            return images, labels, free

    read = torch.tensor([[0.0, 0.2, 0.8]])
    cases = folder_cases(Unlabelled(), (3, 4), 1, lambda images: read.expand(len(images), -1))
    assert cases.truth is None and cases.labels[0, 1:].tolist() == [0, 1] and cases.labels[1, 1:].tolist() == [1, 0]
    # do(grey) leaves its descendant unknown; do(side) sets the other side and keeps the grey.
    assert cases.answers[0, :, 1:].isnan().all() and torch.equal(cases.answers[0, :, :1], cases.do[0])
    assert cases.answers[1, 0].tolist() == [cases.labels[0, 0], 1, 0]


def test_a_folder_is_split_into_parts_that_share_nothing():
    train, test = measure.split(Brightness())
    assert not set(train.indices) & set(test) and len(train) + len(test) == 200
    assert len(test) == pytest.approx(40, abs=2)
    chosen = measure.chosen_numbers(1, 10, test)
    assert len(set(chosen)) == 10 and set(chosen) <= set(test.tolist())
    assert isinstance(train, Part) and np.array_equal(train.batch([0])[0], Brightness().batch(train.indices[:1])[0])


def test_a_damaged_picture_is_in_neither_part():
    class Damaged(Brightness):
        def readable(self, index):
            return index % 3 > 0

    train, test = measure.split(Damaged())
    assert len(train) + len(test) == 133 and all(i % 3 for i in (*train.indices, *test))


def test_a_folder_that_is_too_small_is_told():
    class Three(Brightness):
        def __len__(self):
            return 3

    with pytest.raises(CounterfactError, match="the folder has 3 usable pictures: too few"):
        measure.split(Three())


def test_the_clock_waits_for_the_gpu(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    assert measure.clock("cuda:0") > 0 and measure.clock("cpu") > 0 and waited == ["cuda:0"]


def test_gains_are_ours_minus_the_other_picture_by_picture():
    rows = {"ours": {"drift": np.array([0.1, 0.2])}, "other": {"drift": np.array([0.3, 0.4]), "features": np.ones(2)}}
    found = bench.summary(rows, 0)
    assert found["other.drift"] == pytest.approx(0.35) and "other.features" not in found
    assert found["other.drift.gain_low"] == pytest.approx(found["other.drift.gain_high"]) == pytest.approx(-0.2)


# The command


def options(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--images", "folder"), "--labels"),
        (("--graph", "graph.json"), "--images"),
        (("--also", "half"), "NAME=FILE"),
        (("--also", "replica=file"), "NAME=FILE"),
        (("--also", "half=a", "half=b"), "NAME=FILE"),
        (("--json", "nowhere/out.json"), "--json: there is no folder nowhere"),
        (("--weights", "a.safetensors", "--config", "digits"), "leave one out"),
        (("--device", "abacus"), '--device: there is no "abacus"'),
        (("--n", 1), "--n"),
        (("--weights", "nowhere.safetensors"), "nowhere"),
    ],
)
def test_bad_options_are_told(words, message, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    with pytest.raises(CounterfactError, match=message):
        bench.main(options(*words))
