"""Mechanisms of labels: the distribution of one variable given its causes and what is hidden.

Each gives the probability of a value, and draws one from two uniform numbers, its exogenous noise: the same noise under
other causes is the same case in another world. Causes come as places of a latent vector, hidden causes as one-hot.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..autoencoder.coding import Variable
from ..errors import CounterfactError
from .sight import Sight, looked

if TYPE_CHECKING:
    from .images import ConditionalSampler

MOST_ROWS = 4096
COMPONENTS, BINS, HALVINGS = 8, 48, 40
LEAST = 1e-6


@dataclass(frozen=True)
class Shape:
    """What a mechanism sees and makes.

    Attributes
    ----------
    causes : places of each cause that is a label; 1 for a number, else how many values it has
    hidden : states of each hidden cause
    values : how many values it makes; 1 for a number in -1..1
    pictures : sides of the causes that are pictures, in pixels; they come after the others
    """

    causes: tuple[int, ...]
    hidden: tuple[int, ...]
    values: int
    pictures: tuple[int, ...] = ()

    @property
    def rows(self) -> float:
        """Of a table; infinite if a cause is a number or a picture."""
        if 1 in self.causes or self.pictures:
            return math.inf
        return float(math.prod(self.causes) * math.prod(self.hidden))

    @property
    def sight(self) -> Sight:
        """A network in front of a mechanism of this shape."""
        return Sight(sum(self.causes), self.pictures)


class Mechanism(nn.Module, ABC):
    """One variable given its causes."""

    @abstractmethod
    def log_prob(self, value: torch.Tensor, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probability, or density, of values.

        Parameters
        ----------
        value : [N, places]
        causes : [N, places of all causes]
        hidden : [H, states of all hidden causes]; every row is seen under all H

        Returns
        -------
        [N, H]
        """

    @abstractmethod
    def draw(self, causes: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Values [N, places] for causes [N, ...], hidden causes [N, ...] and noise [N, 2] in 0..1."""


class Values(Mechanism):
    """A mechanism that makes values of a list, from scores."""

    @abstractmethod
    def scores_of(self, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [N, values] of rows of what is seen of causes, and of hidden causes, that belong together."""

    def sight(self, causes: torch.Tensor) -> torch.Tensor:
        """What is seen of causes [N, ...]."""
        return causes

    def logits(self, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [N, values] of rows of causes and hidden causes that belong together."""
        return self.scores_of(self.sight(causes), hidden)

    def every(self, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [N, H, values] of every row of causes under every hidden state."""
        n, h = len(causes), len(hidden)
        scores = self.scores_of(self.sight(causes).repeat_interleave(h, 0), hidden.repeat(n, 1))
        return scores.reshape(n, h, -1)

    def log_prob(self, value: torch.Tensor, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return (self.every(causes, hidden).log_softmax(-1) * value[:, None]).sum(-1)

    def draw(self, causes: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        limits = self.logits(causes, hidden).softmax(-1).cumsum(-1)[:, :-1]
        chosen = (noise[:, :1] >= limits).sum(-1)
        return F.one_hot(chosen, limits.shape[-1] + 1).to(causes.dtype)


class Table(Values):
    """A row of scores for each combination of values of the causes."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.sizes = (*shape.causes, *shape.hidden)
        self.scores = nn.Parameter(torch.randn(int(shape.rows), shape.values))

    def row(self, places: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """Number of the combination, from one-hot places [N, sum of sizes]."""
        found = torch.zeros(len(places), dtype=torch.long, device=places.device)
        for size, part in zip(sizes, places.split(list(sizes), 1) if sizes else ()):
            found = found * size + part.argmax(1)
        return found

    def scores_of(self, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self.scores[self.row(torch.cat([seen, hidden], 1), self.sizes)]


def layers(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    """A network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(max(inputs, 1), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
    )


def joined(seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """What a network is told; a nought where there is neither cause nor hidden cause."""
    both = torch.cat([seen, hidden], 1)
    return both if both.shape[1] else both.new_zeros(len(both), 1)


class Network(Values):
    """Scores from a small network: where a table would be too large, or a cause is a number or a picture."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.eyes = shape.sight
        self.network = layers(self.eyes.width + sum(shape.hidden), shape.values)

    def sight(self, causes: torch.Tensor) -> torch.Tensor:
        return self.eyes(causes)

    def scores_of(self, seen: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return self.network(joined(seen, hidden))


class Numbers(Mechanism):
    """A mechanism that makes a number in -1..1, from the outputs of a network."""

    outputs: int

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.eyes = shape.sight
        self.network = layers(self.eyes.width + sum(shape.hidden), self.outputs)

    @abstractmethod
    def density(self, out: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Log-density [...] of numbers [...] under outputs [..., outputs]."""

    @abstractmethod
    def quantile(self, out: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """The number [N] below which a share u [N] lies, under outputs [N, outputs]."""

    def log_prob(self, value: torch.Tensor, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        n, h = len(causes), len(hidden)
        out = self.network(joined(self.eyes(causes).repeat_interleave(h, 0), hidden.repeat(n, 1)))
        return self.density(out, value[:, 0].repeat_interleave(h)).reshape(n, h)

    def draw(self, causes: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self.quantile(self.network(joined(self.eyes(causes), hidden)), noise[:, 0])[:, None]


class Mixture(Numbers):
    """A mixture density network (Bishop 1994): a few normal distributions, drawn from by inverting the whole."""

    outputs = 3 * COMPONENTS

    def parts(self, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-weights, means and log-deviations [..., components]."""
        weight, mean, spread = out.chunk(3, -1)
        start = torch.linspace(-1, 1, COMPONENTS, device=out.device)
        return weight.log_softmax(-1), mean + start, (spread - 1.0).clamp(-7.0, 2.0)

    def density(self, out: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        weight, mean, spread = self.parts(out)
        z = (value[..., None] - mean) / spread.exp()
        return (weight - z**2 / 2 - spread - math.log(2 * math.pi) / 2).logsumexp(-1)

    def quantile(self, out: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        weight, mean, spread = self.parts(out)
        low = (mean - 9 * spread.exp()).amin(-1)
        high = (mean + 9 * spread.exp()).amax(-1)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = (weight.exp() * torch.special.ndtr((middle[:, None] - mean) / spread.exp())).sum(-1) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class Flow(Numbers):
    """A piecewise-linear flow (Müller et al. 2019, *Neural Importance Sampling*): shares of equal bins of -1..1."""

    outputs = BINS

    def density(self, out: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        at = ((value.clamp(-1, 1) + 1) / 2 * BINS).long().clamp(0, BINS - 1)
        return out.log_softmax(-1).gather(-1, at[..., None])[..., 0] + math.log(BINS / 2)

    def quantile(self, out: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        share = out.softmax(-1)
        ends = share.cumsum(-1)
        at = (u[:, None] >= ends[:, :-1]).sum(-1, keepdim=True)
        inside = (u[:, None] - (ends - share).gather(-1, at)) / share.gather(-1, at).clamp_min(LEAST)
        return ((at + inside.clamp(0, 1)) / BINS * 2 - 1)[:, 0]


class Picture(Mechanism):
    """A picture given its causes, by a pretrained generator that stays as it is.

    Parameters
    ----------
    name, side : of the picture, the side in pixels in which mechanisms behind it see it
    causes : its causes, which are labels
    generator : told their values; without one nothing can be drawn
    check : called before each batch of pictures; may raise to end it
    """

    def __init__(
        self, name: str, side: int, causes: Sequence[Variable], generator: ConditionalSampler | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.name, self.side, self.causes = name, side, tuple(causes)
        self.generator, self.check = generator, check

    def log_prob(self, value: torch.Tensor, causes: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Noughts: what is not learnt makes no model likelier than another."""
        return value.new_zeros(len(value), len(hidden))

    def draw(self, causes: torch.Tensor, hidden: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """See :meth:`Mechanism.draw`; pixels in -1..1."""
        if not len(causes):
            return causes.new_zeros(0, 3 * self.side**2)
        return looked(self.pictures(causes, noise), self.side).to(causes)

    def pictures(self, causes: torch.Tensor, noise: torch.Tensor) -> np.ndarray:
        """The generator's pictures, uint8 [N, H, W, 3]; the same noise is the same seed.

        Raises
        ------
        CounterfactError
            If there is no generator.
        """
        if self.generator is None:
            raise CounterfactError(f"{self.name} is a picture, and nothing here can draw it; give a generator for it")
        ends = list(itertools.accumulate((v.width for v in self.causes), initial=0))
        values = [
            {v.name: v.value(row[start:end]) for v, start, end in zip(self.causes, ends, ends[1:])}
            for row in causes.tolist()
        ]
        # Uniform numbers of single precision have 24 bits.
        seeds = (noise.double() * 2**24).long() @ torch.tensor([2**24, 1])
        return self.generator.sample(values, seeds.tolist(), self.check)


KINDS: dict[str, Callable[[Shape], Mechanism]] = {"table": Table, "network": Network, "mixture": Mixture, "flow": Flow}
OF_VALUES, OF_NUMBERS = ("table", "network"), ("mixture", "flow")


def usual(shape: Shape) -> str:
    """The kind of mechanism for a shape: a table unless it would be too large or cannot be."""
    if shape.values == 1:
        return "mixture"
    return "table" if shape.rows <= MOST_ROWS else "network"
