"""A resumable training run: optimizer, averaged weights, checkpoints, and the loop around them.

AdamW with warm-up, cosine decay to the planned number of steps and an exponential average of the weights. A run folder
holds two checkpoints, a log and sample pictures; the same command started again goes on exactly where the last
checkpoint was, also after a crash or with a longer plan.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import CounterfactError
from .weights import read_tensors, write_tensors

log = logging.getLogger("counterfact")

CHECKPOINT, PREVIOUS, LOG, LOCK = "checkpoint.safetensors", "previous.safetensors", "log.jsonl", "run.lock"
SCHEMA_VERSION = 1
FINAL_SHARE = 0.02
LOG_SECONDS = 10.0

Losses = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """How weights are updated.

    Attributes
    ----------
    kind : names checkpoints of this sort of run, such as "counterfact.demo-training"
    identity : JSON values that must be the same when a checkpoint is taken up: sizes, data
    batch : pictures a step
    learning_rate, warm_up : peak rate, and steps until it is reached
    ema : decay of the averaged weights, 0 to 1
    weight_decay : of AdamW
    """

    kind: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 32
    learning_rate: float = 8e-4
    warm_up: int = 500
    ema: float = 0.999
    weight_decay: float = 0.01

    def rate(self, step: int, steps: int) -> float:
        """Learning rate at a step of `steps`: a function of both alone, so that a longer plan can take over."""
        done = min(step / max(steps, 1), 1.0)
        decay = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * min((step + 1) / self.warm_up, 1.0) * decay


class Training(ABC):
    """The state of a run: model, average, optimizer, random generators and counters.

    Parameters
    ----------
    model : to be trained, on its device
    plan : how
    seed : of the random choices; ``choices`` is for data, ``noise`` for tensors on the model's device
    """

    def __init__(self, model: nn.Module, plan: Plan, seed: int = 0) -> None:
        self.model, self.plan = model, plan
        self.device = next(model.parameters()).device
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.parameters = dict(model.named_parameters())
        # Tensors, so that a step recorded on a GPU finds what they are when it is played.
        self.share = torch.zeros((), device=self.device)
        groups = [
            {
                "params": [p for name, p in self.parameters.items() if self.pace(name) == pace],
                "pace": pace,
                "lr": torch.zeros((), device=self.device),
            }
            for pace in dict.fromkeys(map(self.pace, self.parameters))
        ]
        self.optimizer = torch.optim.AdamW(
            groups, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True,
            capturable=self.device.type == "cuda",
        )  # fmt: skip
        self.choices = np.random.default_rng(seed)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.step = self.images = 0

    def pace(self, name: str) -> float:
        """Factor on the learning rate of a parameter."""
        return 1.0

    @abstractmethod
    def losses(self) -> Losses:
        """The loss terms of the next batch, scalars, of which "loss" is minimised."""

    def advance(self, steps: int) -> Losses:
        """One step of a plan of `steps` with the next batch; its loss terms."""
        terms = self.losses()
        self.update(terms["loss"], steps)
        return terms

    def update(self, loss: torch.Tensor, steps: int) -> None:
        """One step of a plan of `steps` down the gradient of a loss."""
        self.prepare(steps)
        self.descend(loss)
        self.count()

    def prepare(self, steps: int) -> None:
        """Set the learning rate and the average's share of the next step."""
        rate = self.plan.rate(self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["pace"] * rate)
        self.share.fill_(1 - min(self.plan.ema, (1 + self.step) / (10 + self.step)))

    def descend(self, loss: torch.Tensor) -> None:
        """Move weights and average."""
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        average = list(self.average.parameters())
        difference = torch._foreach_sub([p.detach() for p in self.parameters.values()], average)
        torch._foreach_mul_(difference, self.share)
        torch._foreach_add_(average, difference)

    def count(self) -> None:
        """Note that a step is done."""
        self.step += 1
        self.images += self.plan.batch

    def save(self, folder: Path) -> None:
        """Write a checkpoint and keep the one before it.

        Raises
        ------
        CounterfactError
            If it cannot be written, for instance because the disk is full; the checkpoints that are there stay.
        """
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["noise"] = self.noise.get_state()
        document = {
            "kind": self.plan.kind, "schema_version": SCHEMA_VERSION, "identity": dict(self.plan.identity),
            "step": self.step, "images": self.images, "choices": self.choices.bit_generator.state,
        }  # fmt: skip
        newest, fresh = folder / CHECKPOINT, folder / f"next-{CHECKPOINT}"
        try:
            write_tensors(fresh, tensors, document)
            # A crash between the renames leaves the fresh one under its first name, where resume() looks too.
            if newest.exists():
                os.replace(newest, folder / PREVIOUS)
            os.replace(fresh, newest)
        except OSError as error:
            raise CounterfactError(
                f"run folder {folder}: the checkpoint of step {self.step} cannot be written ({error.strerror}); make "
                "room and start the same command again, it goes on from the checkpoint before"
            ) from None

    def resume(self, folder: Path) -> bool:
        """Take up the newest readable checkpoint; false if the folder has none.

        Raises
        ------
        CounterfactError
            If there are checkpoints but none can be read, or they belong to another run.
        """
        errors = []
        for part in folder.glob(f"*{CHECKPOINT}.*.part"):  # of a run that was killed while it wrote
            part.unlink(missing_ok=True)
        for path in (folder / f"next-{CHECKPOINT}", folder / CHECKPOINT, folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                self._restore(*read_tensors(path, self.plan.kind, SCHEMA_VERSION))
                return True
            except CounterfactError as error:
                log.warning("%s", error)
                errors.append(str(error))
        if errors:
            raise CounterfactError(f"run folder {folder}: no usable checkpoint; choose an empty folder. {errors[0]}")
        return False

    def _restore(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        made_with = document.get("identity")
        if made_with != json.loads(json.dumps(dict(self.plan.identity))):
            odd = [k for k, v in self.plan.identity.items() if not isinstance(made_with, dict) or made_with.get(k) != v]
            raise CounterfactError(f"the checkpoint was made with another {' and '.join(odd) or 'plan'}")

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.model.load_state_dict(part("model."))
            self.average.load_state_dict(part("average."))
            for name, parameter in self.parameters.items() if document["step"] else ():
                self.optimizer.state[parameter] = {
                    key: tensors[f"optimizer.{key}.{name}"].to(self.device) for key in ("step", "exp_avg", "exp_avg_sq")
                }
            if tensors["noise"].shape == self.noise.get_state().shape:
                self.noise.set_state(tensors["noise"])
            else:  # the run was begun on another kind of device
                self.noise.manual_seed(document["step"])
            self.choices.bit_generator.state = document["choices"]
            self.step, self.images = document["step"], document["images"]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise CounterfactError(f"the checkpoint does not fit the model: {error}") from None


class Watch:
    """What is told of a run while it goes on, and how it is stopped; this one tells nothing and never stops.

    An exception that it raises ends the run too, after a checkpoint.
    """

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        """After every step: pictures seen, and the losses' means since they were last known (empty in between)."""

    def samples(self) -> None:
        """Now and then, and at the end: time to draw samples of the averaged weights."""

    def stopped(self) -> bool:
        """Whether to save and stop after this step."""
        return False


def run(
    training: Training,
    folder: Path | None,
    images: int,
    watch: Watch,
    save_seconds: float = 180,
    sample_seconds: float = 600,
) -> bool:
    """Train until `images` pictures have been seen or the watch says stop; save in the end.

    Parameters
    ----------
    training : state, resumed if it is to go on
    folder : run folder; None in a process that trains along and leaves writing to another
    watch : is told, and may stop the run
    save_seconds, sample_seconds : time between checkpoints and between samples

    Returns
    -------
    bool
        Whether all pictures have been seen.

    Raises
    ------
    CounterfactError
        If the loss is no longer finite, and the last checkpoint is from before; if the log cannot be written; if
        another process trains in the folder.
    """
    with nullcontext() if folder is None else alone(folder):
        return _run(training, folder, images, watch, save_seconds, sample_seconds)


def _run(
    training: Training, folder: Path | None, images: int, watch: Watch, save_seconds: float, sample_seconds: float
) -> bool:
    """:func:`run`, in a folder that no other process writes to."""
    steps = math.ceil(images / training.plan.batch)
    saved = sampled = logged = time.monotonic()
    recent: list[Losses] = []
    while training.step < steps:
        with _kept(training, folder, recent):
            if watch.stopped():
                break
        terms = training.advance(steps)
        recent.append({name: term.detach() for name, term in terms.items()})
        means: dict[str, float] = {}
        now = time.monotonic()
        if now - logged > LOG_SECONDS or training.step == steps:
            means = {name: torch.stack([r[name] for r in recent]).mean().item() for name in recent[0]}
            recent.clear()
            entry = {"step": training.step, "images": training.images, **{k: round(v, 5) for k, v in means.items()}}
            if folder is not None:
                _note(folder, entry)
            # Before a checkpoint, so that none is ever written of a model that has diverged.
            if not math.isfinite(means["loss"]):
                raise _diverged(training)
            logged = now
            if folder is not None and now - saved > save_seconds:
                training.save(folder)
                saved = now
        with _kept(training, folder, recent):
            watch.progress(training.images, means)
            if now - sampled > sample_seconds:
                watch.samples()
                sampled = now
    if not _sound(recent):
        raise _diverged(training)
    if folder is not None:
        training.save(folder)
    if training.step >= steps:
        watch.samples()
        return True
    return False


def _sound(recent: list[Losses]) -> bool:
    """Whether the losses since the last look at them are finite, and so the model."""
    return all(math.isfinite(terms["loss"].item()) for terms in recent)


def _diverged(training: Training) -> CounterfactError:
    return CounterfactError(f"training diverged at step {training.step}: use another seed, or a lower learning rate")


def _note(folder: Path, entry: Mapping[str, Any]) -> None:
    """Add a line to the log."""
    try:
        with open(folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise CounterfactError(
            f"run folder {folder}: the log cannot be written ({error.strerror}); make room and start the same command "
            "again, it goes on from the last checkpoint"
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder, which a process that dies gives back.

    Raises
    ------
    CounterfactError
        If another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            yield
    except Timeout:
        raise CounterfactError(
            f"run folder {folder}: another process trains in it; wait for that one, or choose another folder"
        ) from None


@contextmanager
def _kept(training: Training, folder: Path | None, recent: list[Losses]) -> Iterator[None]:
    """Write a checkpoint before an exception leaves, unless the model has diverged."""
    try:
        yield
    except BaseException:
        if folder is not None and _sound(recent):
            training.save(folder)
        raise


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets, so that a step can end and be saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save_grid(images: np.ndarray, path: Path, columns: int = 4) -> None:
    """Write pictures uint8 [N, H, W, 3] side by side as one PNG."""
    from PIL import Image

    rows = [np.concatenate(list(images[i : i + columns]), axis=1) for i in range(0, len(images), columns)]
    Image.fromarray(np.concatenate(rows)).save(path)
