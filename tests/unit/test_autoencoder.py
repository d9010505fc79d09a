"""The causal autoencoder: coding, mechanisms, exact inversion, objective, files and resumable training."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save as serialize

from causal_core.autoencoder import diffusion
from causal_core.autoencoder.coding import Coding, Variable
from causal_core.autoencoder.config import PAPER, PRESETS, AutoencoderConfig, get_config
from causal_core.autoencoder.data import WorldSource
from causal_core.autoencoder.mechanisms import Mechanisms
from causal_core.autoencoder.model import CausalAutoencoder
from causal_core.autoencoder.networks import Context, Decoder
from causal_core.autoencoder.objective import (
    Batch,
    alignment,
    diffusion_loss,
    independence,
    known,
    mechanism_loss,
    objective,
)  # fmt: skip
from causal_core.autoencoder.train import KIND, Trainer, add_arguments, main, train
from causal_core.autoencoder.traversal import sheet, sweep, traverse
from causal_core.errors import CounterfactError
from causal_core.training import CHECKPOINT, LOCK, LOG, Watch
from causal_core.training import run as fit
from causal_core.weights import METADATA_KEY, read_tensors, write_tensors

from ..helpers.squares import CODING, GRAPH, TINY, Squares, Stops


def _model(seed: int = 0) -> CausalAutoencoder:
    torch.manual_seed(seed)
    return CausalAutoencoder(TINY, CODING).eval().requires_grad_(False)


def _pictures(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(Squares(count).images).movedim(-1, 1).float() / 127.5 - 1


# Coding


def test_variables_stand_causes_first_and_values_survive():
    assert CODING.names.index("sun") < CODING.names.index("shade") < CODING.names.index("mood")
    assert CODING.width == 1 + 1 + 3 + 2
    values = {"sun": "2.5", "shade": "-2.0", "mood": "high", "wind": "no"}
    vector = CODING.vector(values)
    assert vector[CODING.places[CODING.index("sun")]].tolist() == [-0.5]
    assert CODING.values(vector) == values
    assert Coding.from_dict(json.loads(json.dumps(CODING.to_dict()))) == CODING
    assert CODING.descendants(CODING.index("sun")) == (CODING.index("shade"), CODING.index("mood"))
    assert known(CODING, CODING.vector({"mood": "low"})[None])[0].tolist() == [n == "mood" for n in CODING.names]


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("sun", "11", "outside 0..10"),
        ("sun", "warm", "no number; write one from 0 to 10"),
        ("sun", "nan", "no number"),
        ("mood", "angry", "Known values: low, fair, high"),
        ("snu", "1", "Did you mean 'sun'"),
    ],
)
def test_impossible_values_are_refused(name, value, match):
    with pytest.raises(CounterfactError, match=match):
        CODING.variables[CODING.index(name)].vector(value)


def test_clamping_moves_a_value_inside():
    assert Variable("sun", interval=(0.0, 10.0)).vector("11", clamp=True) == [1.0]


@pytest.mark.parametrize("domain, interval", [((), None), (("only",), None), (("a", "b"), (0.0, 1.0))])
def test_a_variable_needs_values_or_an_interval(domain, interval):
    with pytest.raises(CounterfactError, match="needs either"):
        Variable("x", domain, interval)


NUMBER = {"name": "a", "domain": [], "interval": [0, 1], "parents": []}


@pytest.mark.parametrize(
    "data",
    [None, [], [{}], [{**NUMBER, "parents": ["b"]}], [NUMBER, NUMBER], [{**NUMBER, "interval": [0, math.inf]}],
     [{**NUMBER, "domain": ["x", "x"], "interval": None}]],
)  # fmt: skip
def test_damaged_variables_are_refused(data):
    with pytest.raises(CounterfactError):
        Coding.from_dict(data)


# Mechanisms


def _mechanisms() -> Mechanisms:
    torch.manual_seed(1)
    return Mechanisms(CODING).requires_grad_(False)


def test_abduction_is_exact_and_prediction_its_inverse():
    mechanisms, z = _mechanisms(), torch.randn(5, CODING.width)
    assert torch.allclose(mechanisms.predict(mechanisms.abduct(z)), z, atol=1e-6)


def test_an_intervention_in_the_middle_recomputes_its_descendants_alone():
    mechanisms = _mechanisms()
    z = torch.stack([CODING.vector({"sun": "3", "shade": "0.5", "mood": "low", "wind": "yes"})] * 2)
    shade, mood = CODING.index("shade"), CODING.index("mood")
    new = mechanisms.counterfactual(z, {shade: torch.tensor([[0.9], [0.9]])})
    for name in ("sun", "wind"):
        assert torch.equal(new[:, CODING.places[CODING.index(name)]], z[:, CODING.places[CODING.index(name)]])
    assert new[:, CODING.places[shade]].tolist() == [[0.9]] * 2 or torch.allclose(
        new[:, CODING.places[shade]], torch.tensor(0.9)
    )
    # By hand: f(new parents) + u, then the largest.
    u = z[:, CODING.places[mood]] - mechanisms.expected(mood, z)
    wanted = (mechanisms.expected(mood, new) + u).argmax(1)
    assert torch.equal(new[:, CODING.places[mood]].argmax(1), wanted)
    assert new[:, CODING.places[mood]].sum(1).tolist() == [1.0, 1.0]


def test_setting_what_is_already_so_changes_nothing():
    mechanisms, z = _mechanisms(), torch.randn(3, CODING.width)
    shade = CODING.index("shade")
    assert torch.equal(mechanisms.counterfactual(z, {shade: z[:, CODING.places[shade]]}), z)


def test_continuous_descendants_keep_their_noise():
    chain = Coding(tuple(Variable(n, interval=(-1.0, 1.0)) for n in "abc"), ((), (0,), (1,)))
    torch.manual_seed(0)
    mechanisms, z = Mechanisms(chain).requires_grad_(False), torch.randn(4, 3)
    new = mechanisms.counterfactual(z, {0: torch.full((4, 1), 0.3)})
    assert torch.allclose(mechanisms.abduct(new)[:, 1:], mechanisms.abduct(z)[:, 1:], atol=1e-6)
    assert torch.allclose(new, mechanisms.predict(mechanisms.abduct(z), {0: torch.full((4, 1), 0.3)}), atol=1e-6)


# Diffusion


def test_levels_rise_between_the_ends_and_timesteps_fit_them():
    for schedule in ("cosine", "linear"):
        rising = diffusion.levels(20, schedule)
        assert len(rising) == 21 and bool((rising.diff() > 0).all())
        assert rising[0].item() == pytest.approx(diffusion.SIGMA_MIN, rel=0.02)
        assert rising[-1].item() == pytest.approx(diffusion.SIGMA_MAX, rel=0.02)
        table = diffusion.sigmas(schedule)
        places = torch.tensor([5, 500, 990])
        assert torch.allclose(diffusion.timestep(table[places], schedule), places.float(), atol=0.01)
    with pytest.raises(CounterfactError, match="noise schedule"):
        diffusion.sigmas("sine")


def test_decoding_is_exact_for_a_point_and_encoding_its_inverse():
    target = torch.tensor([0.3, -0.7]).reshape(1, 2, 1, 1)

    def denoise(x, sigma):
        return target.expand_as(x)

    rising = diffusion.levels(7)
    start = target + 0.5 * torch.ones(1, 2, 1, 1)
    noise = diffusion.encode(denoise, start, rising, rounds=200)
    # All of the ODE's lines through a point are straight: x = target + sigma * noise.
    assert torch.allclose(noise - target, (0.5 * rising[-1] / rising[0]).expand(1, 2, 1, 1), rtol=1e-2)
    assert torch.allclose(diffusion.decode(denoise, noise, rising), start, atol=1e-4)


def test_more_rounds_make_the_inversion_exact():
    model, x = _model(), _pictures()
    context = model.decoder.context(*model.read(x))
    rising = diffusion.levels(6)

    def error(rounds: int) -> float:
        denoise = lambda y, sigma: model.decoder.denoised(y, sigma, context)  # noqa: E731
        return float((diffusion.decode(denoise, diffusion.encode(denoise, x, rising, rounds), rising) - x).abs().max())

    assert error(12) < 1e-3 < error(1)


# Model


def test_doing_nothing_returns_the_picture_and_is_deterministic():
    model, x = _model(), _pictures()
    latent = model.encode(x, 4, rounds=10)
    assert torch.allclose(model.decode(latent), x, atol=1e-3)
    same = model.encode(x, 4, rounds=10)
    assert torch.equal(latent.noise, same.noise) and torch.equal(latent.z, same.z)
    alone = model.encode(x[1:], 4, rounds=10)
    assert torch.allclose(alone.noise, latent.noise[1:], atol=1e-4)


def test_noise_is_released_where_the_picture_changes_and_around():
    noise, before = torch.ones(1, 3, 42, 42), torch.zeros(1, 3, 42, 42)
    after = before.clone()
    after[:, 1, 10, 10] = 0.5
    found = diffusion.released(noise, before, after, 0.25)
    assert (found[:, :, 8:13, 8:13] == 0.25).all(), "as far around as a side's share"
    assert found.sum() == noise.sum() - 3 * 25 * 0.75
    assert torch.equal(diffusion.released(noise, before, before + 0.05, 0.25), noise)


def test_noise_goes_only_with_an_intervention_that_changes_something(monkeypatch):
    monkeypatch.setattr(diffusion, "CHANGED", 0.0)
    model = _model()
    latent = model.encode(_pictures(), 2)
    where = CODING.places[CODING.index("sun")]
    same = model.held(latent, {CODING.index("sun"): latent.z[:, where]}, kept=0.0)
    assert torch.equal(same.noise, latent.noise)
    gone = model.intervened(latent, {"sun": "9"}, kept=0.0)
    assert (gone.noise == 0).any() and not (latent.noise == 0).any()
    half, all_of_it = (model.decode(latent, gone, strength) for strength in (0.5, 1.0))
    assert torch.equal(all_of_it, model.decode(gone)) and not torch.equal(half, all_of_it)
    new = model.intervened(latent, {"sun": "9"})
    assert torch.equal(new.noise, latent.noise), "the config keeps all"
    with pytest.raises(CounterfactError, match="kept"):
        model.intervened(latent, {"sun": "9"}, kept=1.5)


def test_strength_goes_from_nothing_to_the_intervention():
    model, x = _model(), _pictures()
    latent = model.encode(x, 4)
    new = model.intervened(latent, {"sun": "9", "mood": "high"})
    assert torch.equal(model.decode(latent, new, 0.0), model.decode(latent))
    assert torch.allclose(model.decode(latent, new, 1.0), model.decode(latent, new, 1.0 + 1e-7), atol=1e-4)
    assert not torch.equal(model.decode(latent, new), model.decode(latent))
    assert torch.equal(model.counterfactual(x, {"sun": "9", "mood": "high"}, 4), model.decode(latent, new))
    with pytest.raises(CounterfactError, match="strength"):
        model.decode(latent, new, math.nan)


def test_pictures_that_do_not_fit_are_refused():
    model = _model()
    with pytest.raises(CounterfactError, match="16 x 16 pixels and 3 channels, not 8 x 16 and 3"):
        model.encode(torch.zeros(1, 3, 16, 8))
    with pytest.raises(CounterfactError, match="steps"):
        model.encode(_pictures(), 0)


def test_weights_survive_and_damaged_ones_are_refused(tmp_path):
    model, path = _model(), tmp_path / "a.safetensors"
    model.save(path, torch.float32)
    again = CausalAutoencoder.load(path)
    assert again.coding == CODING and again.config == TINY
    x = _pictures()
    assert torch.equal(again.encode(x, 2).noise, model.encode(x, 2).noise)
    whole = path.read_bytes()
    for damaged in (whole[:-7], whole[:200], b"", whole.replace(b'"residual\\": 3', b'"residual\\": 4')):
        path.write_bytes(damaged)
        assert damaged != whole
        with pytest.raises(CounterfactError):
            CausalAutoencoder.load(path)
    model.encoder.head.bias[0] = math.nan
    model.save(path)
    with pytest.raises(CounterfactError, match="not finite"):
        CausalAutoencoder.load(path)


def test_a_header_that_lies_about_sizes_is_refused_before_memory_is_taken(tmp_path):
    path, model = tmp_path / "huge.safetensors", _model()
    # 2 TB, and the tensors do not fit them.
    model.config = replace(TINY, size=512, encoder_widths=(4096,), encoder_hidden=2048)
    model.save(path)
    with pytest.raises(CounterfactError, match=r"no usable autoencoder \(.* its config wants"):
        CausalAutoencoder.load(path)


def test_a_number_of_thousands_of_digits_is_a_damaged_header(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(serialize({"x": torch.zeros(1)}, {METADATA_KEY: '{"kind": ' + "1" * 6000 + "}"}))
    with pytest.raises(CounterfactError, match="damaged or no safetensors file"):
        CausalAutoencoder.load(path)


def test_traversal_sweeps_one_variable():
    model, x = _model(), _pictures()
    assert sweep(CODING.variables[CODING.index("mood")], 9) == ["low", "fair", "high"]
    assert sweep(CODING.variables[CODING.index("sun")], 3, low=2.0) == ["2.0", "6.0", "10.0"]
    frames = traverse(model, x, "sun", ["0", "10"], steps=2)
    assert frames.shape == (2, 2, 3, 16, 16) and not torch.equal(frames[0], frames[1])
    page = sheet(model, x[:1], count=2, steps=2)
    assert page.shape == (1, 5 * 18, 3 * 18, 3) and 0 <= float(page.min()) <= float(page.max()) <= 1


# Config


@pytest.mark.parametrize("name", PRESETS)
def test_configs_survive_json(name):
    config = get_config(name)
    assert AutoencoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 18}, {"widths": (30,)}, {"widths": ()}, {"prediction": "x"}, {"schedule": 3}, {"ema": 1.5},
        {"alignment": math.nan}, {"batch": 0}, {"residual": -1}, {"wide": 3}, {"encoder_widths": (9,)},
        {"attention_levels": 7}, {"widths": (32, 48), "attention_levels": 0}, {"size": True}, {"weighting": "x"},
        {"shift": 0.0}, {"shift": 3.5}, {"terms": "products"}, {"ramp": -1}, {"name": "../x"}, {"world": 5},
        {"prediction": "epsilon"}, {"layers": 17}, {"encoder_widths": (8,) * 13},
    ],
)  # fmt: skip
def test_impossible_configs_are_refused(changes):
    with pytest.raises(CounterfactError):
        AutoencoderConfig.from_dict({**TINY.to_dict(), **changes})
    with pytest.raises(CounterfactError, match="unknown autoencoder config"):
        get_config("pendelum")


# Objective


def _batch(labelled: bool = True) -> Batch:
    source = Squares(labelled=labelled)
    images, labels, free = source.batch(range(8))
    return Batch(torch.from_numpy(images).movedim(-1, 1).float() / 127.5 - 1, labels, free)


def test_alignment_is_nothing_at_the_labels_and_without_them():
    labels = _batch().labels
    logits = torch.where(labels > 0.5, 30.0, 0.0)
    readings = torch.cat([(logits if v.domain else labels)[:, p] for v, p in zip(CODING.variables, CODING.places)], 1)
    assert float(alignment(CODING, readings, labels)) == pytest.approx(0.0, abs=1e-6)
    assert float(alignment(CODING, readings + 0.5, labels)) > 0.1
    assert float(alignment(CODING, readings + 0.5, torch.full_like(labels, math.nan))) == 0.0


def test_intervened_variables_say_nothing_of_their_mechanisms():
    model, batch = _model(), _batch()
    before = mechanism_loss(model, batch.labels, batch.free)
    spoiled, free = batch.labels.clone(), batch.free.clone()
    where = CODING.places[CODING.index("mood")]
    spoiled[0, where] = torch.tensor([1.0, 0.0, 0.0])
    free[0, CODING.index("mood")] = False
    assert not torch.equal(before, mechanism_loss(model, spoiled, batch.free))
    without = mechanism_loss(model, spoiled, free)
    rest = mechanism_loss(model, batch.labels, free)
    assert torch.allclose(without, rest)


def test_a_residual_that_tells_of_a_variable_is_told_apart():
    torch.manual_seed(0)
    z = torch.randn(4000, 2)
    assert float(independence(torch.randn(4000, 3), z)) == pytest.approx(0.0, abs=2e-3)
    assert float(independence(z @ torch.randn(2, 3), z)) > 0.2


def test_sums_are_divergences_of_gaussians():
    model, batch = _model(), _batch()
    places = [where for v, where in zip(CODING.variables, CODING.places) if not v.domain]
    logits = torch.where(batch.labels > 0.5, 30.0, 0.0)
    readings = torch.cat(
        [(logits if v.domain else batch.labels + 0.2)[:, p] for v, p in zip(CODING.variables, CODING.places)], 1
    )
    assert float(alignment(CODING, readings, batch.labels, sums=True)) == pytest.approx(len(places) * 0.2**2 / 2)
    free = torch.zeros_like(batch.free)
    free[:, CODING.index("shade")] = True
    u = model.mechanisms.abduct(batch.labels)[:, CODING.places[CODING.index("shade")]]
    assert float(mechanism_loss(model, batch.labels, free, sums=True)) == pytest.approx(float(u.square().mean()) / 2)


def test_the_papers_weight_rises_with_the_steps():
    torch.manual_seed(0)
    model = CausalAutoencoder(replace(TINY, **PAPER), CODING)
    for step, weight in ((0, 0.0), (25_000, 0.5), (80_000, 1.0)):
        terms = objective(model, _batch(), torch.Generator().manual_seed(0), step)
        rest = terms["alignment"] + terms["mechanism"] + terms["prior"]
        assert terms["loss"].item() == pytest.approx((terms["diffusion"] + weight * rest).item(), rel=1e-5)


def test_a_shift_trains_on_more_noise():
    seen = []

    class Seen(Decoder):
        def forward(self, x, sigma, context):
            seen.append(sigma)
            return x

    for shift in (1.0, 3.0):
        config = replace(TINY, shift=shift)
        model = SimpleNamespace(config=config, decoder=Seen(config, CODING))
        diffusion_loss(model, _pictures(64), Context(torch.zeros(64, 1)), torch.Generator().manual_seed(0))
    plain, shifted = seen
    top = diffusion.sigmas()[-1]
    assert torch.allclose(shifted, (3 * plain).clamp_max(top)) and (shifted <= top).all()


def test_what_is_diffused_is_what_the_drawing_lacks():
    model, x = _model(), _pictures()
    context = model.decoder.context(*model.read(x))
    rest = model.decoder.rest(x, context)
    assert torch.allclose(rest, TINY.gain * (x - context.drawing))
    assert torch.allclose(model.decoder.picture(rest, context), x, atol=1e-5)
    plain = Context(context.vector)
    assert model.decoder.rest(x, plain) is x and model.decoder.picture(x, plain) is x


def test_only_its_own_loss_trains_the_drawing():
    model = CausalAutoencoder(TINY, CODING)
    terms = objective(model, _batch(True), torch.Generator().manual_seed(0))
    drawn = list(model.decoder.drawing.parameters())
    found = torch.autograd.grad(terms["diffusion"], drawn, retain_graph=True, allow_unused=True)
    assert all(g is None or not g.any() for g in found)
    assert all(g.any() for g in torch.autograd.grad(terms["drawing"], drawn))


def test_an_intervention_changes_the_picture_with_the_drawing():
    model, x = _model(), _pictures()
    # A decoder that knows nothing of what is left.
    model.decoder.unet.conv_out.weight.zero_()
    model.decoder.unet.conv_out.bias.zero_()
    model.decoder.drawing[-2].weight.mul_(0.2)  # or it would leave -1..1
    latent = model.encode(x, 2, rounds=1)
    latent = replace(latent, noise=1e-3 * torch.randn_like(latent.noise))
    new = model.intervened(latent, {"sun": "9"})
    before, after = (model.decoder.context(one.z, one.residual).drawing for one in (latent, new))
    assert not torch.allclose(before, after, atol=1e-3)
    factual = model.decode(latent)
    for strength in (0.5, 1.0):
        made = model.decode(latent, new, strength)
        assert torch.allclose(made, factual + strength * (after - before), atol=1e-4)


@pytest.mark.parametrize("changes", [{}, PAPER])
def test_every_part_is_trained_also_without_labels(changes):
    torch.manual_seed(0)
    deep = replace(TINY, patch=2, widths=(32, 32), attention_levels=1)
    model = CausalAutoencoder(replace(deep, **changes), CODING)
    for labelled in (True, False):
        model.zero_grad()
        terms = objective(model, _batch(labelled), torch.Generator().manual_seed(0), step=1000)
        terms["loss"].backward()
        assert math.isfinite(terms["loss"].item())
        assert (terms["alignment"].item() > 0) == labelled
        parts = (model.encoder.body, model.encoder.head, model.decoder.unet, model.decoder.condition)
        for part in (*parts, *([model.decoder.drawing] if model.config.drawing else [])):
            assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in part.parameters())


# Training runs


def test_weights_that_do_not_fit_are_no_start():
    with pytest.raises(CounterfactError, match="start: those weights are of other sizes"):
        Trainer(TINY, Squares(), start=CausalAutoencoder(replace(TINY, residual=5), CODING))
    other = Coding(CODING.variables[:1], ((),))
    with pytest.raises(CounterfactError, match="start: those weights are of .* only go on with the same"):
        Trainer(TINY, Squares(), start=CausalAutoencoder(TINY, other))


def test_a_run_goes_on_with_another_kind_of_device(tmp_path):
    Trainer(TINY, Squares()).save(tmp_path)
    tensors, document = read_tensors(tmp_path / CHECKPOINT, KIND, 1)
    # As much as a GPU's generator has.
    write_tensors(tmp_path / CHECKPOINT, tensors | {"noise": torch.zeros(16, dtype=torch.uint8)}, document)
    assert Trainer(TINY, Squares()).resume(tmp_path)


def test_a_model_that_has_diverged_is_never_kept(tmp_path, monkeypatch):
    class Diverging(Trainer):
        def terms(self, batch, step):
            return {"loss": super().terms(batch, step)["loss"] * math.nan}

    with pytest.raises(CounterfactError, match="diverged at step 1"):
        fit(Diverging(TINY, Squares()), tmp_path, 16, Stops(1))

    def cancelled(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stops, "progress", cancelled)
    with pytest.raises(KeyboardInterrupt):
        fit(Diverging(TINY, Squares()), tmp_path, 16, Stops(1))
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / LOG).mkdir()
    with pytest.raises(CounterfactError, match="the log cannot be written .*goes on from the last checkpoint"):
        train(replace(TINY, images=4), Squares(), tmp_path, "cpu", watch=lambda _: Watch())


def test_a_full_disk_is_told_and_costs_no_checkpoint(tmp_path, monkeypatch):
    trainer = Trainer(TINY, Squares())
    trainer.save(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("causal_core.training.write_tensors", full)
    with pytest.raises(CounterfactError, match="No space left on device.*goes on from the checkpoint before"):
        trainer.save(tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_pictures_of_another_size_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(CounterfactError, match="16 pixels and 3 channels, the config wants 32 and 3"):
        Trainer(replace(TINY, size=32), Squares())
    empty = Squares()
    empty.images = empty.images[:0]
    with pytest.raises(CounterfactError, match="no picture"):
        train(TINY, empty, tmp_path, "cpu")


def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CounterfactError, match='device: there is no "gpu"; use cpu'):
        train(TINY, Squares(), tmp_path, "gpu")


@pytest.mark.parametrize(
    ("words", "config", "message"),
    [
        (("--seed", "-1"), {}, "--seed must be a number from 0"),
        (("--seen", "0"), {}, "--seen must be a number from 1"),
        (("--pictures", "0"), {}, "--pictures must be a number from 1"),
        (("--labels", "a.csv"), {}, "--labels and --graph belong to --images"),
        ((), {}, "of no world: add --images DIR"),
        ((), {"world": "pendulum", "name": "../elsewhere"}, "config: name .* may only have letters"),
        (("--images", "pictures", "--graph", "graph.json", "--run", "graph.json"), {}, "--run: graph.json cannot be"),
    ],
)
def test_mistakes_on_the_command_line_are_told(tmp_path, monkeypatch, words, config, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(Squares().images[0]).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "graph.json").write_text(GRAPH.to_json())
    (tmp_path / "tiny.json").write_text(json.dumps({**TINY.to_dict(), **config}), "utf-8-sig")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(CounterfactError, match=message):
        main(parser.parse_args(["--config", "tiny.json", *words]))
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "graph.json", "tiny.json"}


def test_scenes_of_a_noisy_world_may_leave_the_interval(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    source = WorldSource("pendulum-noise", 16, 60, labelled=0.5)
    source.scenes.render(5)
    source.refresh()
    images, labels, free = source.batch(range(60))
    assert images.shape == (60, 16, 16, 3) and 25 <= int(labels[:, 0].isnan().sum()) <= 35
    assert float(labels.nan_to_num().abs().max()) <= 1
    # Every fourth scene has all variables set.
    assert [bool(row.any()) for row in free] == [i % 4 != 1 for i in range(60)]
    assert WorldSource("digits", 16, 4).channels == 1
