"""True answers of a known tabular SCM, by going through every state of its noise.

The exogenous noise of a variable is a number in [0, 1), of which only the interval between two thresholds matters; so
there are finitely many states of all noise, and each of them says what every variable is in every world. No sampling,
no graph criterion: the judge of identification and of samplers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .errors import CounterfactError
from .expression import Value
from .query import Query, Term
from .scm import SCM

MOST_STATES = 20_000_000


class ExactSCM:
    """All states of a tabular SCM, with the probability of each.

    Parameters
    ----------
    scm : mechanisms, hidden variables included

    Attributes
    ----------
    domains : values of every variable
    weights : probability of each state

    Raises
    ------
    CounterfactError
        If there are too many states.

    Examples
    --------
    >>> from causal_core.scm import Variable
    >>> rain = Variable("rain", ("no", "yes"), (), {(): (0.7, 0.3)})
    >>> road = Variable("road", ("dry", "wet"), ("rain",), {("no",): (0.9, 0.1), ("yes",): (0.0, 1.0)})
    >>> ExactSCM(SCM((rain, road))).joint(["road"], {}).round(2).tolist()
    [0.63, 0.37]
    """

    def __init__(self, scm: SCM) -> None:
        self.scm = scm
        self.domains = {v.name: v.domain for v in scm.variables}
        cells = {v.name: _cells(v.table.values()) for v in scm.variables}
        count = float(np.prod([float(len(edges) - 1) for edges in cells.values()]))
        if count > MOST_STATES:
            raise CounterfactError(f"the mechanisms have {count:.0f} states of noise, too many to go through")
        numbers = np.indices([len(edges) - 1 for edges in cells.values()]).reshape(len(cells), -1)
        self.weights = np.ones(int(count))
        self._noise: dict[str, np.ndarray] = {}
        self._worlds: dict[tuple[tuple[str, str], ...], dict[str, np.ndarray]] = {}
        for number, (name, edges) in zip(numbers, cells.items()):
            self.weights *= np.diff(edges)[number]
            self._noise[name] = ((edges[1:] + edges[:-1]) / 2)[number]

    def values(self, do: Mapping[str, str]) -> dict[str, np.ndarray]:
        """The number of the value of every variable in every state, with some variables set.

        Parameters
        ----------
        do : a value for each variable that is set
        """
        found: dict[str, np.ndarray] = {}
        for v in self.scm.variables:
            if v.name in do:
                found[v.name] = np.full(len(self.weights), v.domain.index(do[v.name]))
                continue
            row = np.zeros(len(self.weights), np.int64)
            rows = [()]
            for p in v.parents:
                row = row * len(self.domains[p]) + found[p]
                rows = [(*given, value) for given in rows for value in self.domains[p]]
            limits = np.cumsum([v.table[given] for given in rows], axis=1)[:, :-1]
            noise, found[v.name] = self._noise[v.name], np.zeros_like(row)
            for limit in limits.T:
                found[v.name] += noise >= limit[row]
        return found

    def joint(self, names: Sequence[str], do: Mapping[str, str]) -> np.ndarray:
        """P(names | do), an axis for each name."""
        world, sizes = self._world(tuple(sorted(do.items()))), [len(self.domains[name]) for name in names]
        flat = np.ravel_multi_index([world[name] for name in names], sizes)
        return np.bincount(flat, self.weights, int(np.prod(sizes))).reshape(sizes)

    def answer(self, query: Query) -> np.ndarray:
        """The probability that a query asks for, of any layer.

        Returns
        -------
        array with one axis for each of ``query.symbols``; NaN where the condition has probability 0
        """
        symbols = query.symbols
        shape = [len(self.domains[symbol.variable]) for symbol in symbols]
        found = np.empty(shape)
        for at in np.ndindex(*shape):
            values = {symbol: self.domains[symbol.variable][i] for symbol, i in zip(symbols, at)}
            given = self._where(query.given, values)
            below = self.weights[given].sum()
            above = self.weights[given & self._where(query.of, values)].sum()
            found[at] = above / below if below > 0 else np.nan
        return found

    def _where(self, terms: Sequence[Term], values: Mapping[Value, str]) -> np.ndarray:
        """In which states all terms hold, with these values of the symbols."""
        holds = np.ones(len(self.weights), bool)
        for term in terms:
            world = self._world(tuple((name, values.get(value, value)) for name, value in term.do))
            wanted = self.domains[term.variable].index(values.get(term.value, term.value))
            holds &= world[term.variable] == wanted
        return holds

    def _world(self, do: tuple[tuple[str, str], ...]) -> dict[str, np.ndarray]:
        if do not in self._worlds:
            self._worlds[do] = self.values(dict(do))
        return self._worlds[do]


def _cells(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """The thresholds of all rows of a table, from 0 to 1."""
    limits = np.concatenate([[0.0, 1.0], *(np.cumsum(row)[:-1] for row in rows)])
    return np.unique(limits.clip(0.0, 1.0).round(12))
