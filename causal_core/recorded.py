"""Training on a GPU by steps that are recorded once, as a CUDA graph, and then played.

A step of a small network is thousands of kernels, each shorter than Python takes to launch it. A graph launches all of
them at once, and needs no compiler. Batches are copied to where the recorded step reads them; noise, learning rate and
step number are tensors, so that every step has its own.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from typing import Any

import torch
from torch import nn

from .training import Losses, Plan, Training

log = logging.getLogger("counterfact")

# Steps before the recording, in which libraries choose kernels and the optimizer makes its state.
FIRST_STEPS = 3
# Two recordings at once would see each other's memory.
_recording = threading.Lock()


class RecordedTraining(Training):
    """A training whose steps can be recorded on a GPU; else, or where that fails, they run one by one.

    Attributes
    ----------
    records : whether to record; false until it is set, since it has not been measured on a GPU yet
    """

    def __init__(self, model: nn.Module, plan: Plan, seed: int = 0) -> None:
        super().__init__(model, plan, seed)
        self.records = False
        self._first, self._graph = FIRST_STEPS, None

    @abstractmethod
    def draw(self) -> tuple[torch.Tensor, ...]:
        """The next batch, a named tuple of tensors on the device; the same shapes each time."""

    @abstractmethod
    def terms(self, batch: Any, step: torch.Tensor) -> Losses:
        """Loss terms of what :meth:`draw` gives, at a step, a scalar; on a GPU without waiting for it."""

    def losses(self) -> Losses:
        return self.terms(self.draw(), torch.tensor(float(self.step)))

    def advance(self, steps: int) -> Losses:
        if not self.records or self._first:
            self._first = max(self._first - 1, 0)
            return super().advance(steps)
        batch = self.draw()
        self.prepare(steps)
        if self._graph is None and not self._record(batch):
            terms = self.terms(batch, torch.tensor(float(self.step)))
            self.descend(terms["loss"])
            self.count()
            return terms
        for place, value in zip(self._inputs, batch):
            place.copy_(value)
        self._step.fill_(self.step)
        self._graph.replay()
        self.count()
        return {name: term.clone() for name, term in self._terms.items()}

    def _record(self, batch: Any) -> bool:
        """Record a step; false, and never again, if the GPU or a library cannot."""
        self._inputs = type(batch)(*(tensor.clone() for tensor in batch))
        self._step = torch.zeros((), device=self.device)
        try:
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(self.device)
            graph.register_generator_state(self.noise)
            with _recording, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                terms = self.terms(self._inputs, self._step)
                self.descend(terms["loss"])
                self._terms = {name: term.detach() for name, term in terms.items()}
        except (RuntimeError, AttributeError) as error:  # or this torch has no such graphs
            log.warning("steps cannot be recorded on this GPU, training goes on slower (%s)", error)
            self.records = False
            return False
        self._graph = graph
        return True
