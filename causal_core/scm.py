"""Tabular structural causal models and their three steps: abduction, action, prediction.

Every variable takes the value ``v = F^-1(u | parents)``, the inverse of its conditional distribution at its own
exogenous noise ``u`` in [0, 1). With the values of a domain in a fixed order this is the monotone discrete mechanism,
so a counterfactual is well defined: keep ``u``, change the parents (Pearl, Causality, 2nd edition, section 7.1.1;
monotone noise as in Tian and Pearl 2000). Latent confounders are variables marked ``hidden``.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import CounterfactError, finite

if TYPE_CHECKING:
    import numpy as np

Row = tuple[float, ...]
MAX_ROWS = 100_000
NEGLIGIBLE = 1e-9


class Sample(NamedTuple):
    """Values and exogenous noise of all variables, hidden ones included."""

    values: dict[str, str]
    noise: dict[str, float]


class Prediction(NamedTuple):
    """A counterfactual value and its posterior probability (0 to 1; exactly 1 when the noise is known)."""

    value: str
    probability: float


@dataclass(frozen=True)
class Variable:
    """One discrete variable and its mechanism.

    Parameters
    ----------
    name : str
    domain : tuple of str
        Values in the order in which the noise runs through them.
    parents : tuple of str
    table : mapping from a tuple of parent values to probabilities over ``domain`` (each row sums to 1)
    hidden : bool
        True for a latent confounder: it is never observed and never drawn.
    """

    name: str
    domain: tuple[str, ...]
    parents: tuple[str, ...] = ()
    table: Mapping[tuple[str, ...], Row] = field(default_factory=dict)
    hidden: bool = False

    def interval(self, given: Sequence[str], value: str) -> tuple[float, float]:
        """The noise interval ``[low, high)`` that yields ``value`` under the parent values ``given``."""
        row = self.table[tuple(given)]
        k = self.domain.index(value)
        return sum(row[:k]), 1.0 if k == len(row) - 1 else sum(row[: k + 1])

    def at(self, given: Sequence[str], u: float) -> str:
        """The value at noise ``u`` in [0, 1): the inverse conditional distribution."""
        edges = list(itertools.accumulate(self.table[tuple(given)]))[:-1]
        return self.domain[bisect.bisect_right(edges, u)]


@dataclass(frozen=True)
class SCM:
    """A tabular structural causal model; ``variables`` may come in any order that is acyclic.

    Raises
    ------
    CounterfactError
        An unknown parent, a cycle, a missing row, or probabilities that are negative or do not sum to 1.

    Examples
    --------
    >>> rain = Variable("rain", ("no", "yes"), (), {(): (0.7, 0.3)})
    >>> road = Variable("road", ("dry", "wet"), ("rain",), {("no",): (0.9, 0.1), ("yes",): (0.0, 1.0)})
    >>> model = SCM((rain, road))
    >>> model.counterfactual({"rain": "no", "road": "dry"}, {"rain": "yes"})["road"]
    Prediction(value='wet', probability=1.0)
    >>> model.counterfactual({"rain": "no", "road": "wet"}, {"rain": "yes"}, {"rain": 0.1, "road": 0.95})["road"].value
    'wet'
    """

    variables: tuple[Variable, ...]

    def __post_init__(self) -> None:
        known = {v.name: v for v in self.variables}
        if len(known) != len(self.variables):
            raise CounterfactError("scm: two variables have the same name; rename one of them")
        placed: set[str] = set()
        order: list[Variable] = []
        waiting = list(self.variables)
        while waiting:
            ready = [v for v in waiting if set(v.parents) <= placed]
            if not ready:
                raise CounterfactError(
                    "scm: no order puts causes first among "
                    + ", ".join(v.name for v in waiting)
                    + " (unknown parent or cycle); correct their parents"
                )
            order += ready
            placed |= {v.name for v in ready}
            waiting = [v for v in waiting if v.name not in placed]
        for v in order:
            _check_table(v, known)
        object.__setattr__(self, "variables", tuple(order))
        object.__setattr__(self, "_by_name", known)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the variables that are not hidden, causes first."""
        return tuple(v.name for v in self.variables if not v.hidden)

    def __getitem__(self, name: str) -> Variable:
        return self._by_name[name]  # type: ignore[attr-defined]

    def evaluate(self, noise: Mapping[str, float], do: Mapping[str, str] | None = None) -> dict[str, str]:
        """Values of all variables at the given noise, with the variables of ``do`` fixed (action and prediction)."""
        values: dict[str, str] = {}
        for v in self.variables:
            given = [values[p] for p in v.parents]
            values[v.name] = (do or {}).get(v.name) or v.at(given, noise[v.name])
        return values

    def sample(self, rng: np.random.Generator, do: Mapping[str, str] | None = None) -> Sample:
        """Draw noise, then values; ``do`` fixes variables as an intervention."""
        noise = {v.name: float(rng.random()) for v in self.variables}
        return Sample(self.evaluate(noise, do), noise)

    def counterfactual(
        self,
        values: Mapping[str, str],
        do: Mapping[str, str],
        noise: Mapping[str, float] | None = None,
    ) -> dict[str, Prediction]:
        """Values that the observed variables would have had under ``do``, given that ``values`` were seen.

        Parameters
        ----------
        values : factual values of every observed variable
        do : intervened values
        noise : exogenous noise of every variable, if it is known; then the answer is exact

        Returns
        -------
        dict of Prediction
            The most probable joint assignment; each probability is the marginal posterior of that value.

        Raises
        ------
        CounterfactError
            The factual values have probability zero under the model, so there is no noise that explains them.
        """
        if noise is not None:
            exact = self.evaluate(noise, do)
            return {name: Prediction(exact[name], 1.0) for name in self.observed}
        joint = self._posterior(values, do)
        best = max(joint, key=lambda worlds: (joint[worlds], worlds))
        return {
            name: Prediction(best[i], min(1.0, sum(p for world, p in joint.items() if world[i] == best[i])))
            for i, name in enumerate(self.observed)
        }

    def _posterior(self, values: Mapping[str, str], do: Mapping[str, str]) -> dict[tuple[str, ...], float]:
        """Joint posterior over counterfactual observed values, summed over the hidden variables."""
        hidden = [v.name for v in self.variables if v.hidden]
        joint: dict[tuple[str, ...], float] = {}
        for combination in itertools.product(*(self[h].domain for h in hidden)):
            factual = {**values, **dict(zip(hidden, combination))}
            weight = 1.0
            for v in self.variables:
                low, high = v.interval([factual[p] for p in v.parents], factual[v.name])
                weight *= high - low
            if weight <= 0.0:
                continue
            for world, p in self._predict(factual, do).items():
                joint[world] = joint.get(world, 0.0) + weight * p
        total = sum(joint.values())
        if total <= 0.0:
            raise CounterfactError(
                "graph: its mechanisms give probability 0 to the factual values ("
                + ", ".join(f"{k} = {values[k]}" for k in self.observed)
                + "); correct the values or the mechanisms"
            )
        return {world: p / total for world, p in joint.items()}

    def _predict(self, factual: Mapping[str, str], do: Mapping[str, str]) -> dict[tuple[str, ...], float]:
        """Distribution over counterfactual observed values when the factual values, hidden ones too, are given.

        Abduction leaves the noise of a variable uniform on the interval of its factual value; prediction weighs each
        new value by the share of that interval that falls on it. Variables are independent given their parents' worlds.
        """
        worlds: list[tuple[dict[str, str], float]] = [({}, 1.0)]
        for v in self.variables:
            low, high = v.interval([factual[p] for p in v.parents], factual[v.name])
            grown: list[tuple[dict[str, str], float]] = []
            for world, weight in worlds:
                if v.name in do:
                    grown.append(({**world, v.name: do[v.name]}, weight))
                    continue
                given = [world[p] for p in v.parents]
                if all(world[p] == factual[p] for p in v.parents):
                    grown.append(({**world, v.name: factual[v.name]}, weight))
                    continue
                for value in v.domain:
                    a, b = v.interval(given, value)
                    share = (min(b, high) - max(a, low)) / (high - low)
                    if weight * share > NEGLIGIBLE:
                        grown.append(({**world, v.name: value}, weight * share))
            worlds = grown
        joint: dict[tuple[str, ...], float] = {}
        for world, weight in worlds:
            key = tuple(world[name] for name in self.observed)
            joint[key] = joint.get(key, 0.0) + weight
        return joint

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "variables": [
                {
                    "name": v.name,
                    "domain": list(v.domain),
                    "parents": list(v.parents),
                    "hidden": v.hidden,
                    "table": [[list(given), list(row)] for given, row in sorted(v.table.items())],
                }
                for v in self.variables
            ]
        }

    @classmethod
    def from_dict(cls, data: Any) -> SCM:
        """The inverse of :meth:`to_dict`; raises CounterfactError for anything that is not such data."""
        try:
            return cls(
                tuple(
                    Variable(
                        str(v["name"]),
                        tuple(map(str, v["domain"])),
                        tuple(map(str, v["parents"])),
                        {tuple(map(str, given)): tuple(float(p) for p in row) for given, row in v["table"]},
                        v.get("hidden", False) is True,
                    )
                    for v in data["variables"]
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, CounterfactError):
                raise
            raise CounterfactError(f"scm: not a table of mechanisms ({error}); save the graph again") from None


def _check_table(v: Variable, known: Mapping[str, Variable]) -> None:
    if not v.domain or len(set(v.domain)) != len(v.domain):
        raise CounterfactError(f"scm: {v.name} needs distinct values")
    size = 1
    for p in v.parents:
        size *= len(known[p].domain)
    if size > MAX_ROWS:
        raise CounterfactError(f"scm: {v.name} has {size} parent combinations, more than {MAX_ROWS}; remove a parent")
    wanted = set(itertools.product(*(known[p].domain for p in v.parents)))
    if set(v.table) != wanted:
        raise CounterfactError(f"scm: {v.name} needs exactly one row for each combination of " + ", ".join(v.parents))
    for given, row in v.table.items():
        for p in row:
            finite(p, f"scm: probability of {v.name}")
        if len(row) != len(v.domain) or min(row) < 0.0 or abs(sum(row) - 1.0) > 1e-6:
            raise CounterfactError(
                f"scm: {v.name} given ({', '.join(given)}) needs {len(v.domain)} probabilities that sum to 1"
            )
