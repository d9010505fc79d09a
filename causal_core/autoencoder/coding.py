"""How the variables of a causal graph become the latent vector of the autoencoder, and back.

A continuous variable is one number, its label scaled so that the interval becomes -1..1; a discrete one is a vector
on the simplex, one place a value. Latents are aligned with labels by construction: z *is* the label, up to what the
encoder misreads (label-informed prior of CausalDiffAE, Komanduri et al. 2024, in the limit of a narrow prior).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..concepts import Concept, Concepts
from ..errors import CounterfactError, shorten, unknown
from ..graph import CausalGraph

LEAST = 1e-12
MOST_SIDE = 256


@dataclass(frozen=True)
class Variable:
    """One variable of the latent vector.

    Attributes
    ----------
    name : the concept's name
    domain : values of a discrete variable, in the order of its places; empty for a continuous one
    interval : lowest and highest label of a continuous variable
    side : of a picture, in pixels, for a variable that is one and has no label: only modular models have such
    """

    name: str
    domain: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    side: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.side, bool) or not isinstance(self.side, int) or not 0 <= self.side <= MOST_SIDE:
            raise CounterfactError(f"the side of {self.name!r} must be a whole number from 0 to {MOST_SIDE}")
        if bool(self.domain) + (self.interval is not None) + bool(self.side) != 1 or len(self.domain) == 1:
            raise CounterfactError(
                f"variable {self.name!r} needs either two or more values, or an interval of numbers such as 0..1"
            )
        if self.interval and not self.half > LEAST:
            raise CounterfactError(f"the interval of {self.name!r} is too narrow: give it limits further apart")

    @property
    def width(self) -> int:
        """Places in the latent vector."""
        return 3 * self.side**2 or len(self.domain) or 1

    @property
    def half(self) -> float:
        """Half the interval: what one unit of z is in the units of the label."""
        low, high = self.interval
        return (high - low) / 2

    @cached_property
    def _concept(self) -> Concept:
        return Concept(self.name, self.domain)

    def vector(self, value: str, clamp: bool = False) -> list[float]:
        """Places of a value.

        Raises
        ------
        CounterfactError
            If the value is not in the domain, no number, or outside the interval (unless ``clamp`` moves it inside).
        """
        if self.domain:
            matched = self._concept.match(value)
            return [float(v == matched) for v in self.domain]
        if self.side:
            raise CounterfactError(f"{self.name} is a picture and has no value to type; take what causes it")
        low, high = self.interval
        number = _number(value)
        if not math.isfinite(number):
            raise CounterfactError(f"{self.name}: {shorten(value)} is no number; write one from {low:g} to {high:g}")
        if not low <= number <= high:
            if not clamp:
                raise CounterfactError(
                    f"{self.name} = {number:g} is outside {low:g}..{high:g}, the range that the autoencoder was "
                    "trained on; choose a value inside, or allow clamping"
                )
            number = min(max(number, low), high)
        return [(number - (low + high) / 2) / self.half]

    def value(self, places: Sequence[float]) -> str:
        """The value that places stand for: the largest, or the number in the label's units."""
        if self.domain:
            return self.domain[max(range(len(self.domain)), key=lambda k: places[k])]
        return repr(sum(self.interval) / 2 + places[0] * self.half)


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class Coding:
    """The variables of a graph in topological order, and where each stands in the latent vector.

    Attributes
    ----------
    variables : causes first
    parents : for each variable the indices of its parents

    Examples
    --------
    >>> from causal_core.concepts import Concepts
    >>> graph = CausalGraph.from_edges([("angle", "shadow")], concepts=Concepts((
    ...     Concept("angle", interval=(0, 10)), Concept("shadow", ("short", "long")))))
    >>> coding = Coding.of(graph)
    >>> coding.vector({"angle": "5", "shadow": "long"}).tolist()
    [0.0, 0.0, 1.0]
    >>> coding.values(coding.vector({"angle": "10", "shadow": "short"}))
    {'angle': '10.0', 'shadow': 'short'}
    """

    variables: tuple[Variable, ...]
    parents: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.variables:
            raise CounterfactError("the graph has no concept: an autoencoder needs at least one variable")
        if any(p >= i for i, ps in enumerate(self.parents) for p in ps) or len(self.parents) != len(self.variables):
            raise CounterfactError("variables of an autoencoder must come causes first")

    @classmethod
    def of(cls, graph: CausalGraph, sides: Mapping[str, int] | None = None) -> Coding:
        """The coding of a graph whose concepts have domains or intervals, or are pictures with a side in pixels."""
        order, sides = graph.topological_order(), sides or {}
        variables = tuple(
            Variable(c.name, c.domain, c.interval, sides.get(c.name, 0)) for c in map(graph.concepts.__getitem__, order)
        )
        return cls(variables, tuple(tuple(order.index(p) for p in graph.parents(name)) for name in order))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(v.name for v in self.variables)

    @cached_property
    def places(self) -> tuple[slice, ...]:
        """Where each variable stands in the latent vector."""
        ends = [0]
        for v in self.variables:
            ends.append(ends[-1] + v.width)
        return tuple(slice(a, b) for a, b in zip(ends, ends[1:]))

    @property
    def width(self) -> int:
        """Length of the latent vector."""
        return self.places[-1].stop

    def by_place(self, values: torch.Tensor) -> torch.Tensor:
        """What is given for every variable [B, variables] for each of its places [B, width]."""
        return torch.cat([values[:, i : i + 1].expand(-1, v.width) for i, v in enumerate(self.variables)], 1)

    def index(self, name: str) -> int:
        """Number of the variable of that name; raises CounterfactError that lists the known ones."""
        if name not in self.names:
            raise unknown("variable of the autoencoder", name, self.names, "variables")
        return self.names.index(name)

    def descendants(self, index: int) -> tuple[int, ...]:
        """Numbers of the variables that depend on one, causes first."""
        reached = {index}
        for i, ps in enumerate(self.parents):
            if reached.intersection(ps):
                reached.add(i)
        return tuple(sorted(reached - {index}))

    def vector(self, values: Mapping[str, str | None], clamp: bool = False) -> torch.Tensor:
        """Latent vector [width] of labels; NaN where a label is missing or None.

        ``clamp`` moves numbers into their intervals, which is an error without.
        """
        places: list[float] = []
        for v in self.variables:
            value = values.get(v.name)
            places += [math.nan] * v.width if value is None else v.vector(value, clamp)
        return torch.tensor(places)

    def values(self, z: torch.Tensor) -> dict[str, str]:
        """Readable value of every variable of a latent vector [width]."""
        return {v.name: v.value(z[where].tolist()) for v, where in zip(self.variables, self.places)}

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain JSON data."""
        return [
            {
                "name": v.name,
                "domain": list(v.domain),
                "interval": list(v.interval) if v.interval else None,
                "parents": [self.names[p] for p in ps],
                **({"side": v.side} if v.side else {}),
            }
            for v, ps in zip(self.variables, self.parents)
        ]

    @classmethod
    def from_dict(cls, data: Any) -> Coding:
        """The inverse of :meth:`to_dict`; raises CounterfactError for anything else."""
        try:
            concepts = Concepts(
                tuple(
                    Concept(str(item["name"]), tuple(map(str, item["domain"])), interval=item["interval"])
                    for item in data
                )
            )
            variables = tuple(Variable(c.name, c.domain, c.interval, i.get("side", 0)) for c, i in zip(concepts, data))
            return cls(variables, tuple(tuple(concepts.names.index(p) for p in item["parents"]) for item in data))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CounterfactError):
                raise
            raise CounterfactError(f"the list of variables is damaged ({error}); export the weights again") from None
