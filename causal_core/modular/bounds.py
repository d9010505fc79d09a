"""Bounds on what data cannot tell: the least and the largest answer of all models that fit the graph and the data.

Every variable answers its causes by one of finitely many response functions. How often the functions of a c-component
occur together is all that is unknown of it (Balke and Pearl 1997, *Bounds on Treatment Effects from Studies with
Imperfect Compliance*; Zhang, Tian and Bareinboim 2022, *Partial Counterfactual Identification from Observational and
Experimental Data*). Data tell its c-factor, which is linear in the unknown (Tian 2002); a question of any layer is
linear in the unknown of each c-component, so that with one unknown the bounds are linear programmes. With several at
once, linear programmes give limits that nothing exceeds, and a model that reaches them is looked for by alternation.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np

from ..admg import ADMG, members
from ..errors import CounterfactError
from ..expression import Distribution, Symbol
from ..graph import CausalGraph
from ..identify import Node, averaged, c_factor, reductions, relevant, within
from ..query import Query, Term, as_query

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

MOST_FUNCTIONS = 200_000
MOST_ENTRIES = 100_000_000  # response functions times cells of the c-factors
MOST_TERMS = 200_000
MOST_PRODUCTS = 10_000  # of response functions of several c-components, in one linear programme
MOST_ROUNDS = 50

PRECISION = 1e-9  # of a linear programme
CLOSE = 1e-6  # bounds that differ by less are one
NEVER = 1e-12

Steps = list[tuple[int, int]]
# Response functions in which some variables have some values at some values of their causes: (variable, causes, value).
Event = frozenset[tuple[int, tuple[int, ...], int]]
# Events of which no two occur together.
Events = frozenset[Event]
# A polynomial: how often a product of the probabilities of events, one for each c-component, occurs in it.
Terms = Mapping[tuple[Events, ...], int]


@dataclass(frozen=True)
class Bounds:
    """The answer of :func:`bounds`.

    Attributes
    ----------
    query : what was asked
    low, high : arrays in 0..1 with one axis for each of ``query.symbols``, in their order. The true answer is between
        them if the probabilities and the graph are right
    sharp : whether every number of ``low`` and ``high`` is known to be the answer of some model that fits. If not,
        narrower bounds may hold: an unknown c-component has variables without a hidden cause in common, is too large,
        or several are unknown at once and no model was found to reach them
    slack : by how much the c-factors had to be changed, all changes added up, until some model fits; above 0 if the
        graph forbids what the data show, or there are few of them
    """

    query: Query
    low: np.ndarray
    high: np.ndarray
    sharp: bool
    slack: float


def bounds(
    graph: CausalGraph, source: Distribution, query: Query | str, restarts: int = 5, seed: int = 0,
    check: Callable[[], object] = lambda: None,
) -> Bounds:  # fmt: skip
    """The least and the largest answer that graph and data allow; confounders of a clique count as one hidden cause.

    Parameters
    ----------
    graph : causes and latent confounders
    source : the probabilities that data tell; only those in which nothing is set are asked for
    query : a query of any layer, or its text
    restarts, seed : where several c-components are unknown, from how many random models to look for one that reaches
        the bounds, which shows that they are sharp
    check : called before each linear programme; may raise to end it

    Raises
    ------
    CounterfactError
        If the query cannot be read, its condition can never happen, a variable has no list of values, there are too
        many response functions, or scipy is missing.

    Examples
    --------
    >>> from causal_core.exact import ExactSCM
    >>> from causal_core.scm import SCM, Variable
    >>> x = Variable("x", ("0", "1"), (), {(): (0.4, 0.6)})
    >>> y = Variable("y", ("0", "1"), ("x",), {("0",): (0.9, 0.1), ("1",): (0.5, 0.5)})
    >>> bow = CausalGraph.from_edges([("x", "y")], [("x", "y")])
    >>> found = bounds(bow, ExactSCM(SCM((x, y))), "P(y | do(x=1))")
    >>> found.low.round(6).tolist(), found.high.round(6).tolist(), found.sharp
    ([0.3, 0.3], [0.7, 0.7], True)
    """
    query = as_query(query, graph.concepts)
    asked = _Asked(ADMG.of(graph), source, restarts, seed, check)
    domains = {symbol: asked.domain(symbol.variable) for symbol in query.symbols}
    low = np.empty([len(domain) for domain in domains.values()])
    high, sharp = np.empty_like(low), True
    for at in np.ndindex(*low.shape):
        values = {symbol: domain[i] for (symbol, domain), i in zip(domains.items(), at)}
        low[at], high[at], sure = asked.limits(query, values)
        sharp = sharp and sure
    return Bounds(query, low, high, sharp, sum(part.slack for part in asked.parts.values()))


class _Asked:
    """One question: the graph, the data, and what is known of the c-components met so far, by their variables."""

    def __init__(
        self, g: ADMG, source: Distribution, restarts: int, seed: int, check: Callable[[], object]
    ) -> None:  # fmt: skip
        self.g, self.source, self.restarts, self.check = g, source, restarts, check
        self.rng = np.random.default_rng(seed)
        self.parts: dict[int, _Component] = {}

    def domain(self, name: str) -> Sequence[str]:
        """The values of a variable."""
        return _domain(self.source, name)

    def number(self, name: str, value: str) -> int:
        """Which of its values a variable has."""
        domain = self.domain(name)
        if value not in domain:
            raise CounterfactError(f"query: {name} is never {value!r} in the data; take one of {', '.join(domain)}")
        return list(domain).index(value)

    def components(self, nodes: Mapping[Node, None]) -> list[_Component]:
        """The c-components of the variables that nodes are about."""
        masks = self.g.components(sum(1 << v for v in {v for v, _ in nodes}))
        for mask in masks:
            if mask not in self.parts:
                self.parts[mask] = _Component(self.g, self.source, mask, self.check)
        return [self.parts[mask] for mask in masks]

    def limits(self, query: Query, values: Mapping[Symbol, str]) -> tuple[float, float, bool]:
        """The bounds for some values of the symbols, and whether they are sharp."""
        conditions = self.settled(query.given, values)
        outcomes = self.settled(query.of, values)
        if conditions is None:
            raise self.never(query)
        if outcomes is None or any(conditions.get(node, value) != value for node, value in outcomes.items()):
            return 0.0, 0.0, True
        outcomes = {node: value for node, value in outcomes.items() if node not in conditions}
        if not outcomes:
            return 1.0, 1.0, True
        top, bottom = relevant(self.g, outcomes, conditions)
        parts = self.components(top)
        yes = self.terms(parts, top, {**conditions, **outcomes})
        scale: float | None = 1.0
        if bottom:
            below = self.components(bottom)
            scale = _constant(below, self.terms(below, bottom, conditions))
        no: Counter[tuple[Events, ...]] = Counter()
        if scale is None:
            ranges = (range(len(self.domain(self.g.names[v]))) for v, _ in outcomes)
            for other in itertools.product(*ranges):
                if other != tuple(outcomes.values()):
                    no += self.terms(parts, top, {**conditions, **dict(zip(outcomes, other))})
        elif scale < NEVER:
            raise self.never(query)
        found = _Ratio(parts, yes, no, scale).limits(self.restarts, self.rng)
        if found is None:
            raise self.never(query)
        return found

    @staticmethod
    def never(query: Query) -> CounterfactError:
        what = ", ".join(map(str, query.given))
        return CounterfactError(
            f"query: the condition {what} never happens in the data, or cannot; leave it out, take more data, or allow "
            "smoothing"
        )

    def settled(self, terms: Sequence[Term], values: Mapping[Symbol, str]) -> dict[Node, int] | None:
        """The numbers of the values of nodes; None if one has two."""
        found: dict[Node, int] = {}
        for term in terms:
            do = [(self.g.names.index(name), values.get(value, value)) for name, value in term.do]
            node = within(self.g, self.g.names.index(term.variable), tuple(sorted(do)))
            value = self.number(term.variable, values.get(term.value, term.value))
            if found.setdefault(node, value) != value:
                return None
        return found

    def terms(
        self, parts: Sequence[_Component], nodes: Mapping[Node, None], known: Mapping[Node, int]
    ) -> Counter[tuple[Events, ...]]:
        """The probability of what is known of nodes that are closed under causes, summed over the others."""
        g = self.g
        home = {v: i for i, part in enumerate(parts) for v in members(part.mask)}
        causes = {node: self.causes(node) for node in sorted(nodes)}
        outward = {cause for (v, _), found in causes.items() for cause in found
                   if not isinstance(cause, int) and home.get(cause[0]) != home[v]}  # fmt: skip
        sizes = {node: range(len(self.domain(g.names[node[0]]))) for node in causes if node not in known}
        # What only its own c-component sees is summed within it; the sum over the rest is one of products.
        shared = [node for node in sizes if node in outward]
        inner = [[node for node in sizes if node not in outward and home[node[0]] == i] for i in range(len(parts))]
        own = [{node: causes[node] for node in causes if home[node[0]] == i} for i in range(len(parts))]
        count = math.prod(len(sizes[node]) for node in shared)
        count *= sum(math.prod(len(sizes[node]) for node in nodes) for nodes in inner)
        if count > MOST_TERMS:
            raise CounterfactError(
                f"query: its answer is a sum of {count} terms, and more than {MOST_TERMS} would take too long; ask "
                "about fewer variables, or give variables between them fewer values"
            )
        found: Counter[tuple[Events, ...]] = Counter()
        for chosen in itertools.product(*(sizes[node] for node in shared)):
            value = {**known, **dict(zip(shared, chosen))}
            events = tuple(
                frozenset(
                    event
                    for rest in itertools.product(*(sizes[node] for node in loose))
                    if (event := _event(nodes, {**value, **dict(zip(loose, rest))})) is not None
                )
                for nodes, loose in zip(own, inner)
            )
            if all(events):
                found[events] += 1
        return found

    def causes(self, node: Node) -> list[Node | int]:
        """The causes of a node; the number of its value for one that is set."""
        v, world = node
        fixed, names = dict(world), self.g.names
        return [
            self.number(names[p], fixed[p]) if p in fixed else within(self.g, p, world)
            for p in members(self.g.parents[v])
        ]


def _domain(source: Distribution, name: str) -> Sequence[str]:
    if not source.domains.get(name):
        raise CounterfactError(f"data: {name} has no list of values, which bounds need; give it a few values")
    return source.domains[name]


def _event(causes: Mapping[Node, Sequence[Node | int]], value: Mapping[Node, int]) -> Event | None:
    """The response functions by which nodes have their values; None if one would answer the same causes twice."""
    found: dict[tuple[int, tuple[int, ...]], int] = {}
    for node, before in causes.items():
        row = tuple(cause if isinstance(cause, int) else value[cause] for cause in before)
        if found.setdefault((node[0], row), value[node]) != value[node]:
            return None
    return frozenset((v, row, x) for (v, row), x in found.items())


def _cells(g: ADMG, source: Distribution, steps: Steps) -> dict[Event, float]:
    """The c-factor that some steps lead to, by its events; without those of which data tell nothing."""
    part = steps[-1][1]
    order = [*members(part), *members(g.parents_of(part))]
    for v in (*members(steps[0][0]), *members(g.parents_of(steps[0][0]))):
        _domain(source, g.names[v])
    count = math.prod(len(source.domains[g.names[v]]) for v in order)
    if count > MOST_TERMS:
        raise CounterfactError(
            f"query: it needs a table over {', '.join(g.names[v] for v in order)} of {count} cells, and more than "
            f"{MOST_TERMS} would take too long; give these variables fewer values, or ask another question"
        )
    table = averaged(c_factor(g, 0, steps), source, [Symbol(g.names[v]) for v in order])
    found = {}
    for at in np.ndindex(*table.shape):
        value = dict(zip(order, at))
        event = frozenset((v, tuple(value[p] for p in members(g.parents[v])), value[v]) for v in members(part))
        if not math.isnan(table[at]):
            found[event] = float(table[at])
    return found


def _constant(parts: Sequence[_Component], terms: Terms) -> float | None:
    """The value of a polynomial that data tell; None if they do not."""
    total = 0.0
    for events, count in terms.items():
        factors = [part.known(one) for part, one in zip(parts, events)]
        if None in factors:
            return None
        total += count * math.prod(factors)
    return total


class _Component:
    """What data tell of a c-component of the question.

    Attributes
    ----------
    mask : its variables
    told : the c-factor of as few variables as hold these
    """

    def __init__(self, g: ADMG, source: Distribution, mask: int, check: Callable[[], object]) -> None:
        self.g, self.source, self.mask, self.check = g, source, mask, check
        self.steps = reductions(g, mask)
        self.told = _cells(g, source, self.steps)
        self._intervals: dict[Events, tuple[float, float]] = {}

    def known(self, events: Events) -> float | None:
        """The probability of events if the c-factor tells it."""
        found = [self.told.get(event) for event in events]
        return None if None in found else math.fsum(found)

    def interval(self, events: Events) -> tuple[float, float]:
        """The least and the largest probability of events."""
        known = self.known(events)
        if known is not None:
            return known, known
        if events not in self._intervals:
            holds, ones = self.functions.indicator(events), np.ones(self.functions.count)
            low, high = (self.functions.optimum(holds, ones, sign)[0] for sign in (-1, 1))
            self._intervals[events] = low, high
        return self._intervals[events]

    @property
    def slack(self) -> float:
        """By how much the data contradict what was needed of the graph."""
        return self.functions.slack if "functions" in self.__dict__ else 0.0

    @cached_property
    def functions(self) -> _Functions:
        """The unknown, over as many variables of the graph's c-component as there is room for.

        Raises
        ------
        CounterfactError
            If there are too many response functions.
        """
        g, sizes = self.g, {}
        for steps, later, exact in self._spaces():
            variables = list(members(steps[-1][1]))
            for v in (*variables, *members(g.parents_of(steps[-1][1]))):
                sizes[v] = len(_domain(self.source, g.names[v]))
            rows = {v: math.prod(sizes[p] for p in members(g.parents[v])) for v in variables}
            digits = sum(rows[v] * math.log10(sizes[v]) for v in variables)
            if digits < 9 and (count := math.prod(sizes[v] ** rows[v] for v in variables)) <= MOST_FUNCTIONS:
                cells = _cells(g, self.source, steps)
                for one in later:
                    cells |= _cells(g, self.source, one)
                if count * len(cells) <= MOST_ENTRIES:
                    return _Functions(g, variables, sizes, cells, exact, self.check)
        raise CounterfactError(
            f"query: there are about 10^{digits:.0f} ways in which {', '.join(g.names[v] for v in variables)} can "
            f"answer causes, and more than {MOST_FUNCTIONS} are too many for bounds; give these variables or their "
            "causes fewer values, take away causes, or ask another question"
        )

    def _spaces(self) -> Iterator[tuple[Steps, list[Steps], bool]]:
        """Sets of variables whose response functions would do, the most telling first.

        Yields
        ------
        steps : to the c-factor of the set
        later : steps to the c-factors that the set holds and that are found by leaving variables out
        exact : whether every distribution of the response functions that fits the c-factor belongs to a model
        """
        g, everything = self.g, self.steps[0][0]
        clique = all(not everything & ~(g.siblings[v] | 1 << v) for v in members(everything))
        for k, (whole, closed) in enumerate(self.steps):
            later = [
                [*self.steps[:j], (self.steps[j][0],) * 2]
                for j in range(k + 1, len(self.steps))
                if self.steps[j][0] != self.steps[j - 1][1]
            ]
            kept, exact = whole, clique and k == 0
            while True:
                loose = [v for v in members(kept & ~closed) if not any(g.parents[w] >> v & 1 for w in members(kept))]
                # A variable whose causes are all that the others depend on fits in with whatever these do.
                idle = [v for v in loose if not g.parents_of(kept & ~(1 << v)) & ~g.parents[v]]
                if not idle:
                    yield [*self.steps[:k], (whole, kept)], later, exact
                    exact = False
                if not loose:
                    break
                kept &= ~(1 << (idle or loose)[-1])


class _Functions:
    """The joint distribution of the response functions of some variables, as far as their c-factors tell it.

    Attributes
    ----------
    exact : whether every distribution that fits belongs to a model
    slack : by how much the c-factors have to be changed, all changes added up, until one fits
    """

    def __init__(
        self, g: ADMG, variables: Sequence[int], sizes: Mapping[int, int], cells: Mapping[Event, float],
        exact: bool, check: Callable[[], object],
    ) -> None:  # fmt: skip
        self.exact, self.check = exact, check
        self._shapes = {v: tuple(sizes[p] for p in members(g.parents[v])) for v in variables}
        # [functions, rows of causes] for each variable
        self._tables = {}
        for v in variables:
            rows = math.prod(self._shapes[v])
            powers = sizes[v] ** np.arange(rows)
            self._tables[v] = np.arange(sizes[v] ** rows)[:, None] // powers % sizes[v]
        self._told = np.array(list(cells.values()))
        holds = np.array([self._holds(event) for event in cells])
        # Functions that are in the same cells differ only in what is asked.
        packed = np.ascontiguousarray(np.packbits(holds, axis=0).T)
        packed = packed.view([("", f"V{packed.shape[1]}")])[:, 0]
        _, first, self._kind = np.unique(packed, return_index=True, return_inverse=True)
        self._cells = holds[:, first].astype(float)
        self.slack = self._fit()

    @property
    def count(self) -> int:
        """How many joint response functions there are."""
        return len(self._kind)

    def some(self, rng: np.random.Generator) -> np.ndarray:
        """A random distribution that fits."""
        kinds = rng.random(self._cells.shape[1])
        _, q = self.optimum(kinds[self._kind], np.ones(self.count), 1)
        shares = np.bincount(self._kind, q)
        mixed = rng.permutation(self.count)
        _, first = np.unique(self._kind[mixed], return_index=True)
        found = np.zeros(self.count)
        found[mixed[first]] = shares
        return found

    def _holds(self, event: Event) -> np.ndarray:
        """Which functions an event is made of, bool [functions]."""
        masks = {v: np.ones(len(table), bool) for v, table in self._tables.items()}
        for v, row, x in event:
            masks[v] &= self._tables[v][:, np.ravel_multi_index(row, self._shapes[v]) if row else 0] == x
        return reduce(np.logical_and.outer, masks.values()).ravel()

    def indicator(self, events: Events) -> np.ndarray:
        """1 for the functions that some events are made of and 0 for the others, [functions]."""
        return reduce(np.logical_or, map(self._holds, events)).astype(float)

    def condensed(self, events: Iterable[Events]) -> tuple[np.ndarray, np.ndarray]:
        """What distributions that fit are, if all that matters besides is some events.

        Returns
        -------
        chosen : numbers of functions, of those that are alike one each
        equations : [any number, chosen]; their product with the shares of these is 0
        """
        from scipy.linalg import qr

        alike = self._kind
        for one in events:
            _, chosen, alike = np.unique(2 * alike + (self.indicator(one) > 0), return_index=True, return_inverse=True)
        equations = self._cells[:, self._kind[chosen]] - self._told[:, None]
        _, triangle, rows = qr(equations.T, mode="economic", pivoting=True)
        return chosen, equations[rows[: int((abs(triangle.diagonal()) > CLOSE).sum())]]

    def _fit(self) -> float:
        """Find the smallest change of the c-factors that leaves a distribution, and make it if it is only rounding."""
        m, n = self._cells.shape
        ones = np.ones((1, n))
        change = np.eye(m)
        found = _solved(
            np.concatenate([np.zeros(n), np.ones(2 * m)]),
            np.block([[self._cells, change, -change], [ones, np.zeros((1, 2 * m))]]), [*self._told, 1.0], self.check,
        )  # fmt: skip
        self._change = change[:, :0]
        if found.fun < CLOSE:
            # The equations, redundant as they are, then hold to the last digit, and what never happens has exactly 0.
            share = np.where(found.x[:n] < NEVER, 0.0, found.x[:n])
            self._told = self._cells @ (share / share.sum())
            return 0.0
        self._change = np.block([change, -change])
        return float(found.fun)

    def optimum(self, above: np.ndarray, below: np.ndarray, sign: int) -> tuple[float, np.ndarray] | None:
        """The largest (sign 1) or smallest (-1) of ``above @ q / below @ q`` over the distributions that fit.

        A linear programme in q / (below @ q), after Charnes and Cooper (1962).

        Parameters
        ----------
        above, below : at least 0, [functions]

        Returns
        -------
        the ratio and its distribution q; None if the denominator is always 0
        """
        order = np.lexsort((below, above, self._kind))
        first = np.ones(self.count, bool)
        first[1:] = np.any([x[order][1:] != x[order][:-1] for x in (self._kind, above, below)], axis=0)
        kept = order[first]
        (m, n), slack = (len(self._told), len(kept)), self._change.shape[1]
        equal = np.block([
            [self._cells[:, self._kind[kept]], self._change, -self._told[:, None]],
            [np.ones((1, n)), np.zeros((1, slack)), -np.ones((1, 1))],
            [below[None, kept], np.zeros((1, slack + 1))],
        ])  # fmt: skip
        limit = np.concatenate([np.zeros(n), np.ones(slack), [-self.slack - 10 * PRECISION]])[None] if slack else None
        cost = np.concatenate([-sign * above[kept], np.zeros(slack + 1)])
        found = _solved(cost, equal, [0.0] * (m + 1) + [1.0], self.check, limit)
        if found is None:
            return None
        q = np.zeros(len(above))
        q[kept] = found.x[:n] / found.x[-1]
        return -sign * float(found.fun), q


def _solved(
    cost: np.ndarray, equal: np.ndarray, to: Sequence[float], check: Callable[[], object],
    limit: np.ndarray | None = None,
) -> OptimizeResult | None:  # fmt: skip
    """The solution of a linear programme in numbers of at least 0, as scipy gives it; None if nothing fits.

    Parameters
    ----------
    cost : what is made smallest
    equal, to : equations
    limit : of what is at most 0, one row; None for nothing
    """
    try:
        from scipy.optimize import linprog
    except ImportError:
        raise CounterfactError("bounds need scipy, which is missing; install it: pip install scipy") from None
    check()
    options = {"primal_feasibility_tolerance": PRECISION, "dual_feasibility_tolerance": PRECISION}
    top = None if limit is None else [0.0]
    found = linprog(cost, limit, top, equal, to, method="highs", options=options)
    if found.status == 2:
        return None
    if found.status:
        raise CounterfactError(f"query: its linear programme has no solution ({found.message}); take more data")
    return found


class _Ratio:
    """What is asked, as polynomials in the unknown of c-components: ``yes / scale``, or ``yes / (yes + no)``.

    Parameters
    ----------
    parts : the c-components
    yes, no : probability of the condition with the outcome, and without it
    scale : probability of the condition if it is known, and 1 for none
    """

    def __init__(self, parts: Sequence[_Component], yes: Terms, no: Terms, scale: float | None) -> None:
        self.parts, self.yes, self.no, self.scale = parts, yes, no, scale
        met = [{events[i] for terms in (yes, no) for events in terms} for i in range(len(parts))]
        #: events of the c-components that are not known
        self.loose = {
            i: found for i, found in enumerate(met) if any(parts[i].known(events) is None for events in found)
        }

    def limits(self, restarts: int, rng: np.random.Generator) -> tuple[float, float, bool] | None:
        """The bounds, and whether they are sharp; None if the condition can never happen."""
        if not self.loose:
            yes, no = (_constant(self.parts, terms) for terms in (self.yes, self.no))
            below = yes + no if self.scale is None else self.scale
            return (yes / below, yes / below, True) if below >= NEVER else None
        least: dict[int, dict[Events, float]] = {i: {} for i in self.loose}
        most: dict[int, dict[Events, float]] = {i: {} for i in self.loose}
        if len(self.loose) > 1:
            for i, events in self.loose.items():
                for one in events:
                    least[i][one], most[i][one] = self.parts[i].interval(one)
        sharp, ends = all(self.parts[i].functions.exact for i in self.loose), []
        for sign, yes, no in ((-1, least, most), (1, most, least)):
            # Where one c-component is best while all others are at the ends of their intervals, no model is beyond it.
            found = {i: best for i in self.loose if (best := self.best(i, sign, yes, no)) is not None}
            if len(found) < len(self.loose):
                # The condition does not happen even where the outcome (sign 1), or its contrary, is most probable.
                ends.append(None)
                continue
            # From here on, the larger is the better for a model to reach, whichever end it is.
            end = min(sign * value for value, _ in found.values())
            if len(self.loose) > 1:
                reached = self.reached(sign, {i: q for i, (_, q) in found.items()})
                if end - reached > CLOSE:
                    end = min(end, self.relaxed(sign))
                for _ in range(restarts):
                    if end - reached > CLOSE:
                        start = {i: self.parts[i].functions.some(rng) for i in self.loose}
                        reached = max(reached, self.reached(sign, start))
                sharp = sharp and end - reached <= CLOSE
            ends.append(min(max(sign * end, 0.0), 1.0))
        low, high = ends
        if low is None or high is None:
            return None if low == high else (1.0, 1.0, True) if low is None else (0.0, 0.0, True)
        return min(low, high), max(low, high), sharp or high - low < CLOSE

    def best(
        self, main: int, sign: int, yes: Mapping[int, Mapping[Events, float]],
        no: Mapping[int, Mapping[Events, float]],
    ) -> tuple[float, np.ndarray] | None:  # fmt: skip
        """The largest (sign 1) or smallest (-1) ratio, and its distribution, by the unknown of one c-component.

        Parameters
        ----------
        main : number of the c-component
        yes, no : probabilities of the events of the others in the polynomials of these names
        """
        functions = self.parts[main].functions
        above = self.coefficients(main, self.yes, yes)
        if self.scale is None:
            return functions.optimum(above, above + self.coefficients(main, self.no, no), sign)
        found, q = functions.optimum(above, np.ones(len(above)), sign)
        return found / self.scale, q

    def coefficients(self, main: int, terms: Terms, values: Mapping[int, Mapping[Events, float]]) -> np.ndarray:
        """A polynomial as one that is linear in the unknown of a c-component, [functions]."""
        weights: Counter[Events] = Counter()
        for events, count in terms.items():
            rest = (values[i][one] if i in self.loose else self.parts[i].known(one)
                    for i, one in enumerate(events) if i != main)  # fmt: skip
            weights[events[main]] += count * math.prod(rest)
        functions = self.parts[main].functions
        return sum((weight * functions.indicator(one) for one, weight in weights.items()), np.zeros(functions.count))

    def reached(self, sign: int, start: Mapping[int, np.ndarray]) -> float:
        """``sign`` times the ratio of a model that is made better one c-component at a time, until none helps.

        Parameters
        ----------
        sign : 1 for a large ratio, -1 for a small one
        start : distributions of the c-components that are not known
        """
        value: dict[int, dict[Events, float]] = {}

        def take(i: int, q: np.ndarray) -> None:
            value[i] = {one: float(self.parts[i].functions.indicator(one) @ q) for one in self.loose[i]}

        for i, q in start.items():
            take(i, q)
        last = -math.inf
        for _ in range(MOST_ROUNDS):
            before = last
            for i in self.loose:
                best = self.best(i, sign, value, value)
                if best is not None:  # otherwise the others never let the condition happen
                    last = sign * best[0]
                    take(i, best[1])
            if last < before + PRECISION:
                break
        return last

    def relaxed(self, sign: int) -> float:
        """What ``sign`` times the ratio cannot exceed, by products of the unknowns; infinite if these are too many.

        The products are linear; of what makes them products it is only asked that the unknown of each c-component fits
        whatever the functions of the others are (Sherali and Alameddine 1992, *A New Reformulation-Linearization
        Technique for Bilinear Programming Problems*).
        """
        from scipy.sparse import csr_array, eye_array, kron, vstack

        functions = {i: self.parts[i].functions for i in self.loose}
        if any(one.slack for one in functions.values()):
            return math.inf
        chosen, equations = {}, {}
        for i, events in self.loose.items():
            chosen[i], equations[i] = functions[i].condensed(events)
        if math.prod(map(len, chosen.values())) > MOST_PRODUCTS:
            return math.inf
        rows = [
            reduce(kron, [csr_array(equations[i]) if i == main else eye_array(len(chosen[i])) for i in chosen])
            for main in chosen
        ]

        def coefficients(terms: Terms) -> np.ndarray:
            total = np.zeros(math.prod(map(len, chosen.values())))
            for events, count in terms.items():
                known = math.prod(self.parts[i].known(one) for i, one in enumerate(events) if i not in self.loose)
                each = [functions[i].indicator(events[i])[chosen[i]] for i in chosen]
                total += count * known * reduce(np.multiply.outer, each).ravel()
            return total

        above = coefficients(self.yes)
        below = np.full(len(above), self.scale) if self.scale is not None else above + coefficients(self.no)
        equal = vstack([*rows, csr_array(below[None])])
        found = _solved(-sign * above, equal, [0.0] * (equal.shape[0] - 1) + [1.0], self.parts[0].check)
        return math.inf if found is None else -float(found.fun)
