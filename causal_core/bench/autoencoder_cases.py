"""The questions of ``counterfact bench autoencoder``: pictures, an intervention on each variable, and the true answer.

Pictures are scenes of a world that nobody trained on, or a stranger's, whose counterfactuals nobody knows.
Interventions on the pendulum are drawn from the ranges of CausalDiffAE's evaluation, whose units of error are kept too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..autoencoder.coding import Coding, Variable
from ..autoencoder.data import Source
from ..worlds import Scene, World

# Range of interventions, and what counts as an error of 1, as CausalDiffAE's evaluation has them.
PROTOCOL = {
    "pendulum": {
        "angle": (-40.0, 44.0, 42.0),
        "light": (60.0, 148.0, 44.0),
        "shadow length": (3.0, 9.0, 4.5),
        "shadow position": (3.0, 15.0, 8.0),
    }
}
SEED_STRIDE = 1_000_000

# Places [N, width] that somebody reads in pictures [N, C, H, W].
Read = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Cases:
    """Pictures and what is asked of each.

    Attributes
    ----------
    images : [N, C, H, W] in -1..1
    labels : [N, width], true places
    do : for each variable the places [N, its width] that an intervention gives it
    truth : [variables, N, C, H, W], the true counterfactual pictures; None if nobody knows them
    answers : [variables, N, width], their true places; without truth those that are sure, NaN elsewhere
    """

    images: torch.Tensor
    labels: torch.Tensor
    do: tuple[torch.Tensor, ...]
    truth: torch.Tensor | None
    answers: torch.Tensor


def scales(coding: Coding, world: str) -> list[float]:
    """What counts as an error of 1, in units of each variable's label: of the protocol, else half the interval."""
    known = PROTOCOL.get(world.split("-")[0], {})
    return [known[v.name][2] if v.name in known else 1.0 if v.domain else v.half for v in coding.variables]


def draw(variable: Variable, now: str | None, world: str, rng: np.random.Generator) -> str:
    """A random value: uniform in the protocol's range, as far as the variable has it; of a domain, not ``now``."""
    if variable.domain:
        return str(rng.choice([value for value in variable.domain if value != now]))
    low, high = PROTOCOL.get(world.split("-")[0], {}).get(variable.name, variable.interval)[:2]
    return repr(float(rng.uniform(max(low, variable.interval[0]), min(high, variable.interval[1]))))


def places(coding: Coding, values: Mapping[str, str]) -> torch.Tensor:
    """Places [width] of true values, which may lie outside the interval."""
    found: list[float] = []
    for variable in coding.variables:
        if variable.domain:
            found += variable.vector(values[variable.name])
        else:
            found.append((float(values[variable.name]) - sum(variable.interval) / 2) / variable.half)
    return torch.tensor(found)


def as_images(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """[N, C, H, W] in -1..1 of uint8 pictures [H, W, C]."""
    return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float() / 127.5 - 1


def channels(world: World) -> int:
    """1 if a world's pictures are grey, else 3."""
    return 1 if getattr(world, "grey", False) else 3


def render(world: World, scene: Scene, size: int) -> np.ndarray:
    """A scene's picture, uint8 [size, size, channels]."""
    return world.render(scene, size)[..., : channels(world)]


def world_cases(world: World, coding: Coding, size: int, numbers: Sequence[int]) -> Cases:
    """Cases of a world, one a scene number; the same for the same arguments."""
    images, labels, do, truth, answers = [], [], [], [], []
    for number in numbers:
        rng = np.random.default_rng([number, 5503])
        scene = world.sample(number)
        values = {v.name: draw(v, scene.values[v.name], world.name, rng) for v in coding.variables}
        others = [world.counterfactual(scene, {name: value}) for name, value in values.items()]
        images.append(render(world, scene, size))
        labels.append(places(coding, scene.values))
        do.append(coding.vector(values))
        truth.append(as_images([render(world, other, size) for other in others]))
        answers.append(torch.stack([places(coding, other.values) for other in others]))
    held = torch.stack(do)
    return Cases(
        as_images(images),
        torch.stack(labels),
        tuple(held[:, where] for where in coding.places),
        torch.stack(truth, 1),
        torch.stack(answers, 1),
    )


def folder_cases(source: Source, indices: Sequence[int], seed: int, read: Read) -> Cases:
    """Cases of somebody's pictures: sure is only what an intervention sets, and what does not depend on it.

    What has no label is as it is read in the picture.
    """
    coding = source.coding
    pictures, labels, _ = source.batch(indices)
    images = as_images(list(pictures))
    labels = torch.where(labels.isnan(), decided(coding, read(images)), labels)
    do, answers = [], []
    for index, now in zip(indices, labels):
        rng = np.random.default_rng([int(index), seed, 5503])
        known = {v.name: v.value(now[where].tolist()) for v, where in zip(coding.variables, coding.places)}
        values = coding.vector({v.name: draw(v, known[v.name], "", rng) for v in coding.variables})
        do.append(values)
        sure = now.repeat(len(coding.variables), 1)
        for i, where in enumerate(coding.places):
            sure[i, where] = values[where]
            for j in coding.descendants(i):
                sure[i, coding.places[j]] = torch.nan
        answers.append(sure)
    held = torch.stack(do)
    return Cases(images, labels, tuple(held[:, where] for where in coding.places), None, torch.stack(answers, 1))


def decided(coding: Coding, read: torch.Tensor) -> torch.Tensor:
    """Readings [N, width] with one value of each discrete variable in place of probabilities."""
    parts = []
    for variable, where in zip(coding.variables, coding.places):
        part = read[:, where]
        parts.append(F.one_hot(part.argmax(1), variable.width).to(part) if variable.domain else part)
    return torch.cat(parts, 1)
