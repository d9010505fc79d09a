"""The training of the bundled model: it goes on where it was, shares its folder with nobody, and has a command."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from causal_core.demo import train
from causal_core.demo.model import DemoModel
from causal_core.errors import CounterfactError
from causal_core.training import CHECKPOINT, PREVIOUS, Watch, run

from ..helpers.stub_world import TINY, StubWorld, scenes, trainer_of  # noqa: F401


def test_two_processes_do_not_share_a_run_folder(data, tmp_path):
    code = "import sys, pathlib\nfrom causal_core.training import alone\n"
    code += "with alone(pathlib.Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    trainer = trainer_of(data)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline().strip() == b"mine"
        with pytest.raises(CounterfactError, match="another process trains in it"):
            run(trainer, tmp_path, 8, Watch())
        assert trainer.step == 0
        other.kill()
        other.wait()
    assert run(trainer, tmp_path, 8, Watch()) and trainer.images == 8


def test_the_command_trains_and_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "get_world", lambda name: StubWorld())
    monkeypatch.setattr(train, "get_config", lambda name: TINY)
    options = {"device": "cpu", "batch": 4, "scenes": 50, "render": False}
    weights = train.train("tiny", tmp_path / "run", 8, **options)
    assert DemoModel.load(weights).provenance["images"] == 8
    train.train("tiny", tmp_path / "run", 16, **options)
    assert DemoModel.load(weights).provenance["images"] == 16
    assert (tmp_path / "run" / "sample-00000016.png").exists()
    with pytest.raises(CounterfactError, match="batch"):
        train.train("tiny", tmp_path / "run", 8, batch=0)


def test_resumed_training_equals_uninterrupted_training(data, tmp_path):
    whole = trainer_of(data)
    for _ in range(4):
        whole.update(whole.losses()["loss"], 100)
    stopped = trainer_of(data)
    for _ in range(2):
        stopped.update(stopped.losses()["loss"], 100)
    stopped.save(tmp_path)
    resumed = train.Trainer(TINY, data, batch=4, seed=9)
    assert resumed.resume(tmp_path) and resumed.images == 8
    for _ in range(2):
        resumed.update(resumed.losses()["loss"], 100)
    for name in ("model", "average"):
        want, got = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        assert all(torch.equal(want[key], got[key]) for key in want)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(data, tmp_path):
    trainer = trainer_of(data)
    assert not trainer.resume(tmp_path)
    for _ in range(2):
        trainer.update(trainer.losses()["loss"], 100)
        trainer.save(tmp_path)
    newest = tmp_path / CHECKPOINT
    newest.write_bytes(newest.read_bytes()[:1000])
    assert trainer.resume(tmp_path) and trainer.step == 1
    newest.unlink()
    assert trainer.resume(tmp_path) and trainer.step == 1
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(CounterfactError, match="empty folder"):
        trainer.resume(tmp_path)
