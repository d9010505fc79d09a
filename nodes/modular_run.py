"""Fitting a modular model as ComfyUI runs it: progress on the page, and a checkpoint before a cancelled run ends."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import comfy.utils
import numpy as np
import torch

from ..causal_core.admg import ADMG
from ..causal_core.errors import CounterfactError
from ..causal_core.modular.fit import ADVERSARIAL, LIKELIHOOD, Effort, fit
from ..causal_core.modular.hgraph import Part, parts
from ..causal_core.modular.model import ModularModel, settled
from ..causal_core.modular.records import Records
from ..causal_core.training import Watch

RUN = "run.json"
UNITS = 100  # of the progress bar for each part
# How mistakes of the core begin, and how they do here, where inputs have names of their own.
BEGINNINGS = {"data: ": "labels: ", "query: ": "query: ", "run folder ": "name: run folder "}
MOST_LINES = 10
TOO_MANY_STATES = "too many to sum over"


class Canvas(Watch):
    """Shows how far a fit is in all of its parts, and ends it with ComfyUI's exception when that is cancelled.

    Called with a part in words, as :func:`causal_core.modular.fit.fit` words it, it goes on to that part.

    Attributes
    ----------
    begun : whether a step was made
    """

    def __init__(self, rounds: Sequence[int], steps: int) -> None:
        self.rounds, self.steps = rounds, steps
        self.bar = comfy.utils.ProgressBar(UNITS * len(rounds))
        self.part = self.round = -1
        self.rows = self.batch = 0
        self.begun = False

    def __call__(self, told: str) -> Canvas:
        part = int(told.partition(" of ")[0]) - 1
        self.round = self.round + 1 if part == self.part else 0
        self.part, self.rows = part, 0
        return self

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.begun = True
        # Of a run that is taken up the second step tells how many rows there are in each.
        self.batch, self.rows = images - self.rows, images
        done = self.part + (self.round + images / self.batch / self.steps) / self.rounds[self.part]
        self.show(int(UNITS * min(done, self.part + 1)))

    def show(self, done: int) -> None:
        if done > self.bar.current:
            self.bar.update_absolute(done)

    def stopped(self) -> bool:
        memory.throw_exception_if_processing_interrupted()
        return False


def fitted(
    graph, data: Records, folder: Path, weights: Path, method: str, states: int, steps: int, seed: int, source: str,
) -> tuple[ModularModel, str]:  # fmt: skip
    """Fit, or go on fitting, and write the weights.

    Parameters
    ----------
    graph, data : see :func:`causal_core.modular.fit.fit`
    folder : of the run's checkpoints
    weights : the file to write
    method, states, steps, seed : how to fit; 0 steps are as many as are usual
    source : of the data, in a word

    Returns
    -------
    the model, and what was fitted in words

    Raises
    ------
    CounterfactError
        For data that do not fit, for a run folder of other data or settings, and where something cannot be written.
    InterruptProcessingException
        If ComfyUI's run was cancelled; a checkpoint is written before.
    """
    usual = LIKELIHOOD if method == "likelihood" else ADVERSARIAL
    effort = replace(usual, steps=steps) if steps else usual
    order = planned(graph, method)
    canvas = Canvas([rounds(graph, part, effort) for part in order], effort.steps)
    identity = {
        "graph": sorted([*(f"{e.source} -> {e.target}" for e in graph.edges),
                         *(" <-> ".join(sorted(pair)) for pair in graph.confounded)]),
        "labels": digest(data), "method": method, "states": states, "steps": effort.steps, "seed": seed,
    }  # fmt: skip
    kinds = {v.name: "flow" for v in data.coding.variables if v.interval} if method == "adversarial" else {}
    try:
        with begun(folder, identity, canvas), placed():
            model = fit(graph, data, folder, method, effort, seed, canvas, states=states, kinds=kinds)
        canvas.show(UNITS * len(order))
        model.concepts = settled(graph.concepts, data.coding)
        model.provenance |= {"labels": source, "experiments": experiments(data)}
        model.save(weights)
    except OSError as error:
        raise CounterfactError(
            f"name: {error.filename or weights} cannot be written ({error.strerror}); make room and run it again, it "
            "goes on from the last checkpoint"
        ) from None
    return ModularModel.load(weights), told(order, data, method, source)


@contextmanager
def begun(folder: Path, identity: Mapping[str, Any], canvas: Canvas) -> Iterator[None]:
    """A run folder for these settings and no others; a mistake before the first step leaves none behind."""
    file = folder / RUN
    new = not file.exists()
    if new:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    else:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            odd = [name for name, value in identity.items() if before.get(name) != json.loads(json.dumps(value))]
        except (ValueError, AttributeError, RecursionError):
            odd = list(identity)
        if odd:
            raise CounterfactError(
                f"name: run folder {folder} is of a run with another {' and '.join(odd)}; choose another name, or "
                "delete that folder"
            )
    try:
        yield
    except CounterfactError:
        if new and not canvas.begun:
            file.unlink()
        raise


@contextmanager
def placed() -> Iterator[None]:
    """Name the input that a mistake is in, where the core has another name for it."""
    try:
        yield
    except CounterfactError as error:
        words = str(error)
        for core, name in BEGINNINGS.items():
            if words.startswith(core):
                raise CounterfactError(name + words.removeprefix(core)) from None
        if TOO_MANY_STATES in words:
            raise CounterfactError(f"states: {words}") from None
        raise


def planned(graph, method: str) -> list[Part]:
    """What is fitted together, in the order in which :func:`causal_core.modular.fit.fit` does it."""
    if method == "adversarial":
        return parts(graph)
    g = ADMG.of(graph)
    return [Part(g.named(mask), (), g.named(g.parents_of(mask))) for mask in g.components(g.everything)]


def rounds(graph, part: Part, effort: Effort) -> int:
    """How often a part is begun anew."""
    hidden = {name for pair in graph.confounded for name in pair}
    return effort.restarts if hidden.intersection(part.names) else 1


def digest(data: Records) -> str:
    """Another one whenever the rows, the values, the ranges or the pictures are others."""
    values = [(v.name, v.domain, v.interval) for v in data.coding.variables]
    told = hashlib.sha256(json.dumps(values).encode())
    for numbers in (data.places, data.free):
        told.update(numbers.contiguous().numpy())
    return told.hexdigest()


def experiments(data: Records) -> list[list[str]]:
    """The sets of concepts that were set together, to each combination of their values, in some rows."""
    found = []
    for done in np.unique(~data.free.numpy(), axis=0):
        index = np.flatnonzero(done)
        names = [data.coding.names[i] for i in index]
        if not names or not all(name in data.domains for name in names):
            continue
        codes = data.codes[(~data.free.numpy() == done).all(1)][:, index]
        seen = len(np.unique(codes[(codes >= 0).all(1)], axis=0))
        if seen == math.prod(len(data.domains[name]) for name in names):
            found.append(names)
    return found


def told(order: Sequence[Part], data: Records, method: str, source: str) -> str:
    """What was fitted in which order, from how many rows, and what the rows do not tell."""
    lines = [f"fitted from {len(data)} rows of {source}, in this order:"]
    for number, part in enumerate(order, 1):
        *some, last = part.names
        names = f"{', '.join(some)} and {last} together" if some else last
        given = f", given {', '.join(part.causes)}" if part.causes else ""
        if any(data.coding.variables[data.coding.index(name)].side for name in part.names):
            lines.append(f"{number}. {names}{given}: drawn by a generator, nothing to learn")
            continue
        kept = f", matched along with {', '.join(part.context)}" if part.context else ""
        lines.append(f"{number}. {names}{given}{kept}: {used(data, part)} rows")
    return "\n".join([*lines, *unseen(data)])


def used(data: Records, part: Part) -> int:
    """How many rows know all that a part sees, and leave some of it free."""
    coding = data.coding
    known = [data.places[:, coding.places[coding.index(n)]].isfinite().all(1)
             for n in (*part.names, *part.context, *part.causes)]  # fmt: skip
    free = data.free[:, [coding.index(name) for name in part.names]].any(1)
    return int((torch.stack(known).all(0) & free).sum())


def unseen(data: Records) -> list[str]:
    """Combinations of causes that no row has: what follows from them is a guess."""
    lines, coding = [], data.coding
    for at, (name, parents) in enumerate(zip(coding.names, coding.parents)):
        causes = [coding.names[p] for p in parents]
        if not causes or not all(one in data.domains for one in (name, *causes)):
            continue
        known = (data.codes[:, [at, *parents]] >= 0).all(1) & data.free[:, at].numpy()
        seen = len(np.unique(data.codes[known][:, list(parents)], axis=0))
        every = math.prod(len(data.domains[cause]) for cause in causes)
        if seen < every:
            lines.append(
                f"{every - seen} of {every} combinations of {', '.join(causes)} never occur: {name} is guessed there"
            )
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"and the same for {more} more"]
