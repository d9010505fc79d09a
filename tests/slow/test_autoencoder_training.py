"""The causal autoencoder in whole training runs: it learns, stops where it is told to and goes on where it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from causal_core.autoencoder.model import CausalAutoencoder
from causal_core.autoencoder.train import Trainer, train
from causal_core.errors import CounterfactError
from causal_core.training import CHECKPOINT, PREVIOUS, Watch

from ..helpers.squares import CODING, TINY, Squares, Stops


def test_training_lowers_the_loss():
    trainer = Trainer(replace(TINY, learning_rate=3e-3), Squares(), seed=0)
    first = [trainer.losses() for _ in range(5)]
    for _ in range(60):
        trainer.update(trainer.losses()["loss"], 200)
    last = [trainer.losses() for _ in range(5)]
    for name in ("diffusion", "alignment"):
        assert sum(t[name].item() for t in last) < 0.8 * sum(t[name].item() for t in first)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    weights = train(TINY, Squares(), tmp_path, "cpu", watch=lambda _: Stops(1))
    assert CausalAutoencoder.load(weights).provenance["images"] == 4
    watch = Stops(99)
    train(TINY, Squares(), tmp_path, "cpu", watch=lambda _: watch)
    assert watch.seen == [8, 12, 16]
    assert CausalAutoencoder.load(weights).provenance["images"] == 16
    with pytest.raises(CounterfactError, match="another config"):
        train(replace(TINY, residual=4), Squares(), tmp_path, "cpu", watch=lambda _: Stops(1))
    # A longer plan is no other run.
    train(replace(TINY, images=20), Squares(), tmp_path, "cpu", watch=lambda _: watch)
    assert watch.seen[-1] == 20


@pytest.mark.parametrize("where", ["stopped", "progress", "samples"])
def test_a_watch_that_raises_ends_the_run_after_a_checkpoint(tmp_path, monkeypatch, where):
    def cancelled(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Stops, where, cancelled)
    run, weights = tmp_path / "run", tmp_path / "there.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(TINY, Squares(), run, "cpu", watch=lambda _: Stops(99), sample_seconds=-1, weights=weights)
    assert not weights.exists()
    monkeypatch.undo()
    watch = Stops(99)
    train(TINY, Squares(), run, "cpu", watch=lambda _: watch, weights=weights)
    assert watch.seen == ([4, 8, 12, 16] if where == "stopped" else [8, 12, 16])
    assert CausalAutoencoder.load(weights).provenance["images"] == 16 and not (run / "tiny.safetensors").exists()


def test_training_goes_on_where_steps_cannot_be_recorded(caplog):
    plain, asked = Trainer(TINY, Squares(), seed=3), Trainer(TINY, Squares(), seed=3)
    asked.records = True  # there is no GPU to record on
    for _ in range(6):
        plain.advance(6)
        asked.advance(6)
    assert caplog.text.count("cannot be recorded") == 1
    assert (asked.step, asked.images) == (6, 24)
    assert all(torch.equal(a, b) for a, b in zip(plain.average.parameters(), asked.average.parameters()))


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_training_may_begin_with_trained_weights(tmp_path):
    torch.manual_seed(5)
    start = CausalAutoencoder(TINY, CODING)
    start.provenance = {"images": 7}
    config = replace(TINY, images=TINY.batch, learning_rate=1e-9)
    path = train(config, Squares(), tmp_path, seed=1, watch=lambda run: Watch(), start=start)
    found = CausalAutoencoder.load(path)
    assert found.provenance["start"] == {"images": 7} and found.provenance["images"] == 7 + TINY.batch
    for name, value in start.state_dict().items():
        assert torch.allclose(found.state_dict()[name], value, atol=2e-3), name


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, stopped = Trainer(TINY, Squares(), seed=3), Trainer(TINY, Squares(), seed=3)
    for _ in range(4):
        whole.update(whole.losses()["loss"], 10)
    for _ in range(2):
        stopped.update(stopped.losses()["loss"], 10)
    stopped.save(tmp_path)
    resumed = Trainer(TINY, Squares(), seed=99)
    assert resumed.resume(tmp_path) and resumed.images == 8
    for _ in range(2):
        resumed.update(resumed.losses()["loss"], 10)
    assert _same(whole.model, resumed.model) and _same(whole.average, resumed.average)


@pytest.mark.parametrize("killed", ["before the renames", "between them", "while writing"])
def test_a_kill_at_any_moment_leaves_a_checkpoint(tmp_path, monkeypatch, killed):
    trainer = Trainer(TINY, Squares())
    trainer.save(tmp_path)
    trainer.update(trainer.losses()["loss"], 10)
    trainer.save(tmp_path)
    if killed == "while writing":
        (tmp_path / f"next-{CHECKPOINT}").write_bytes((tmp_path / CHECKPOINT).read_bytes()[:999])
    elif killed == "between them":
        (tmp_path / CHECKPOINT).replace(tmp_path / PREVIOUS)
        (tmp_path / f"next-{CHECKPOINT}").write_bytes((tmp_path / PREVIOUS).read_bytes())
    again = Trainer(TINY, Squares())
    assert again.resume(tmp_path) and again.step == 1


def test_a_kill_between_the_renames_costs_nothing(tmp_path):
    trainer = Trainer(TINY, Squares())
    trainer.save(tmp_path)
    trainer.update(trainer.losses()["loss"], 10)
    trainer.save(tmp_path)
    (tmp_path / CHECKPOINT).replace(tmp_path / f"next-{CHECKPOINT}")
    (tmp_path / f"next-{CHECKPOINT}.7.part").write_bytes(b"half")
    again = Trainer(TINY, Squares())
    assert again.resume(tmp_path) and again.step == 1
    again.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}
