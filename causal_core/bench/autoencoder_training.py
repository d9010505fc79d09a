"""How the benchmark trains what it compares: the reader and every method, on one source, by the shared resumable loop.

All get the optimizer of ours and the same number of pictures, so that the methods differ in nothing but their method.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..autoencoder.data import Source, as_batch
from ..autoencoder.objective import Batch
from ..recorded import RecordedTraining
from ..training import Plan, Watch, run, stop_signals


class Learner(Protocol):
    """A network that knows its own loss."""

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Loss terms, scalars, of which "loss" is minimised; progress, a scalar, goes from 0 to 1 in the training."""


Network = TypeVar("Network", bound=nn.Module)


class Part:
    """Some pictures of a source, as a source of its own.

    Parameters
    ----------
    source : whole
    indices : of the pictures that belong to the part
    name : of the part, for the key
    """

    def __init__(self, source: Source, indices: Sequence[int], name: str) -> None:
        self.source, self.indices = source, np.asarray(indices)
        self.coding, self.size, self.channels = source.coding, source.size, source.channels
        self.key = f"{source.key}-{name}"

    def __len__(self) -> int:
        return len(self.indices)

    def refresh(self) -> int:
        """The part stays what it is."""
        return len(self)

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """See :class:`causal_core.autoencoder.data.Source`."""
        return self.source.batch(self.indices[np.asarray(indices)])


class LearnerTraining(RecordedTraining):
    """A run of any learner.

    Parameters
    ----------
    learner : on its device
    plan, seed : how, and of the random choices
    source : what to learn from
    images : pictures to see in all
    """

    def __init__(self, learner: nn.Module, plan: Plan, source: Source, images: int, seed: int) -> None:
        super().__init__(learner, plan, seed)
        self.source, self.steps = source, math.ceil(images / plan.batch)

    def draw(self) -> Batch:
        return as_batch(self.source, self.choices.integers(len(self.source), size=self.plan.batch), self.device)

    def terms(self, batch: Batch, step: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return self.model.losses(batch, self.noise, step / self.steps)

    def averaged(self) -> nn.Module:
        """The averaged network in evaluation mode, with the running statistics of the last one."""
        network = copy.deepcopy(self.average)
        for kept, newest in zip(network.buffers(), self.model.buffers()):
            kept.copy_(newest)
        return network.eval().requires_grad_(False)


class Bar(Watch):
    """A progress bar; takes in scenes that have been rendered meanwhile."""

    def __init__(self, source: Source, bar: tqdm, stop: threading.Event) -> None:
        self.source, self.bar, self.stop = source, bar, stop

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.bar.update(images - self.bar.n)
        if losses:
            self.source.refresh()
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})

    def stopped(self) -> bool:
        return self.stop.is_set()


def fit(
    learner: Network, source: Source, images: int, folder: Path, identity: Mapping[str, Any], name: str, seed: int = 0,
    batch: int = 32, **rates: Any,
) -> tuple[Network, dict[str, Any]]:  # fmt: skip
    """Train a learner, or go on where a run in the folder stopped.

    Parameters
    ----------
    learner, source : on its device, and what it learns from
    images : pictures to see in all
    folder : of the checkpoints
    identity : JSON values that must not change while the run goes on
    name : of the learner, for the progress bar
    seed, batch, rates : of the random choices, pictures a step, and what else :class:`causal_core.training.Plan` takes

    Returns
    -------
    The averaged network, and its provenance as JSON values.

    Raises
    ------
    KeyboardInterrupt
        If the run was told to stop; the checkpoint is written.
    CounterfactError
        If the folder holds a checkpoint of another run, or training diverges.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan("counterfact.bench-training", {**identity, "data": source.key, "seed": seed}, batch, **rates)
    training = LearnerTraining(learner, plan, source, images, seed)
    training.resume(folder)
    with stop_signals() as stop, tqdm(
        total=images, initial=min(training.images, images), unit="img", unit_scale=True, desc=name
    ) as bar:  # fmt: skip
        done = run(training, folder, images, Bar(source, bar, stop))
    if not done:
        raise KeyboardInterrupt
    return training.averaged(), {"images": training.images, "data": source.key, "pictures": len(source), "seed": seed}
