"""Identification: whether data can answer a causal question although causes are hidden, and by which expression.

One algorithm for interventions, conditions and counterfactuals (Correa, Lee and Bareinboim 2021, *Nested Counterfactual
Identification from Arbitrary Surrogate Experiments*): the ancestors of what is asked, each in its own world, fall into
c-components; each of these is either one c-factor of the graph or asks for two worlds at once. A c-factor is computed
from the data by Tian's algorithm (Tian 2002), or a hedge forbids it (Shpitser and Pearl 2006). For questions in one
world this is ID, with conditions IDC; both are complete.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .admg import ADMG, members
from .errors import CounterfactError
from .expression import (
    Distribution,
    Expression,
    Probability,
    Symbol,
    Value,
    evaluate,
    free,
    latex,
    product,
    ratio,
    substitute,
    text,
    tidy,
    total,
)
from .graph import CausalGraph
from .query import Query, as_query

World = tuple[tuple[int, Value], ...]
Node = tuple[int, World]


@dataclass(frozen=True)
class Factor:
    """A c-factor of an answer: the distribution of some variables when all others are set.

    Attributes
    ----------
    names : its variables, causes first
    done : what is set in the data that it is computed from
    steps : how: pairs of a c-component, and of the ancestors of ``names`` within it; see :func:`c_factor`
    values : of its variables and of their causes, values or symbols
    """

    names: tuple[str, ...]
    done: tuple[str, ...]
    steps: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Estimand:
    """The answer of :func:`identify`.

    Attributes
    ----------
    query : what was asked
    expression : that equals it, in probabilities that data tell; None if there is none
    anything : free symbols of the expression that are not the query's; whatever their values, the answer is the same
    reason : the verdict in words
    hedge : if not identifiable, the variables that hang together by hidden causes, and those among them whose
        c-factor cannot be told apart; both empty if the question is about two worlds at once
    factors : the c-factors whose product is the probability of outcomes and conditions together; conditions that
        screen off all that is before them may be missing
    """

    query: Query
    expression: Expression | None
    anything: tuple[Symbol, ...] = ()
    reason: str = ""
    hedge: tuple[tuple[str, ...], tuple[str, ...]] = field(default=((), ()))
    factors: tuple[Factor, ...] = ()

    @property
    def identifiable(self) -> bool:
        """Whether data can answer the question."""
        return self.expression is not None

    def __str__(self) -> str:
        return "not identifiable" if self.expression is None else text(self.expression)

    @property
    def latex(self) -> str:
        """The expression for TeX; empty if there is none."""
        return "" if self.expression is None else latex(self.expression)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "query": str(self.query), "identifiable": self.identifiable,
            "expression": "" if self.expression is None else text(self.expression), "latex": self.latex,
            "any": [str(symbol) for symbol in self.anything], "reason": self.reason,
            "hedge": [list(part) for part in self.hedge],
        }  # fmt: skip

    def evaluate(self, source: Distribution) -> np.ndarray:
        """The answer, as numbers.

        Parameters
        ----------
        source : the probabilities that data tell

        Returns
        -------
        array with one axis for each of ``query.symbols``, in their order

        Raises
        ------
        CounterfactError
            If the question is not identifiable, or a condition that is needed never occurs in the data.
        """
        if self.expression is None:
            raise CounterfactError(f"query: {self.query} cannot be answered: {self.reason}")
        found = averaged(self.expression, source, self.query.symbols)
        if np.isnan(found).any():
            raise CounterfactError(
                f"query: the data have no case of a condition that {text(self.expression)} needs; leave it out, take "
                "more data, or allow smoothing"
            )
        return found


class _Forbidden(Exception):
    """Why there is no answer: in words, and the hedge."""

    def __init__(self, reason: str, hedge: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())) -> None:
        super().__init__(reason)
        self.reason, self.hedge = reason, hedge


def identify(graph: CausalGraph, query: Query | str, experiments: Iterable[Iterable[str]] = ()) -> Estimand:
    """Express a query in what data tell.

    Parameters
    ----------
    graph : causes and latent confounders
    query : a query, or its text
    experiments : sets of variables; of each there are data in which these were set. Observations are always there

    Returns
    -------
    Estimand
        The expression, or why there is none: then two models agree on all data and differ in the answer.

    Raises
    ------
    CounterfactError
        If the query cannot be read, names what the graph does not know, or contradicts itself.

    Examples
    --------
    >>> front_door = CausalGraph.from_edges([("x", "z"), ("z", "y")], [("x", "y")])
    >>> print(identify(front_door, "P(y | do(x=1))"))
    sum[z] P(z | x=1) sum[x] P(x) P(y | x, z)
    >>> bow = CausalGraph.from_edges([("x", "y")], [("x", "y")])
    >>> print(identify(bow, "P(y | do(x=1))").reason)
    x and y share a hidden cause (x <-> y) and x acts on y: what x does cannot be told from what the hidden cause does
    """
    query = as_query(query, graph.concepts)
    g = ADMG.of(graph)
    number = {name: i for i, name in enumerate(g.names)}
    sets = sorted({g.mask(graph.concepts[name].name for name in names) for names in experiments} - {0})
    asked = _Asked(g, sets)
    of, given = ([(number[t.variable], _world(t.do, number), t.value) for t in ts] for ts in (query.of, query.given))
    try:
        expression = asked.conditional(of, given, query)
    except _Forbidden as forbidden:
        return Estimand(query, None, reason=forbidden.reason, hedge=forbidden.hedge)
    anything = tuple(sorted(free(expression) - set(query.symbols)))
    return Estimand(query, expression, anything, asked.reason(), factors=tuple(asked.factors))


def averaged(expression: Expression, source: Distribution, axes: Sequence[Symbol]) -> np.ndarray:
    """The value of an expression that depends on some symbols only, although it may have others.

    Whatever the values of these, it is the same; what is known of them is averaged, by how often they occur.

    Returns
    -------
    array with an axis for each of ``axes``; NaN where data do not tell it
    """
    anything = sorted(free(expression) - set(axes))
    found = evaluate(expression, source, (*axes, *anything))
    if not anything:
        return found
    weights = np.ones(())
    for symbol in anything:
        weights = np.multiply.outer(weights, source.joint([symbol.variable], {}))
    weights = np.where(np.isnan(found), 0.0, weights)
    rest = tuple(range(len(axes), found.ndim))
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(found) * weights).sum(rest) / weights.sum(rest)


def within(g: ADMG, v: int, world: World) -> Node:
    """A variable with only that of its world that matters to it."""
    kept = g.ancestors(1 << v, cut=_mask(world))
    return v, tuple(event for event in world if kept >> event[0] & 1)


def above(g: ADMG, node: Node, mute: int = 0) -> dict[int, Node]:
    """A node and its ancestors in its world, by variable, without the paths that leave a muted variable."""
    v, world = node
    found = g.ancestors(1 << v, mute=_mask(world) | mute)
    return {w: within(g, w, world) for w in members(found)}


def relevant(
    g: ADMG, outcomes: Collection[Node], conditions: Collection[Node]
) -> tuple[dict[Node, None], dict[Node, None]]:
    """On which nodes P(outcomes | conditions) depends, by the ancestral components of both.

    Returns
    -------
    top, bottom : P(top nodes) over P(bottom nodes), each summed over what is neither outcome nor condition, is the
        answer; conditions that are in neither screen off what is before them. No bottom if nothing is to be divided by
    """

    def grown(start: Node) -> dict[Node, None]:
        """A node and its ancestors as far as the conditions."""
        whole = above(g, start)
        mute = sum(1 << v for v, node in whole.items() if node in conditions and node != start)
        return dict.fromkeys(above(g, start, mute).values())

    parts: list[tuple[int, dict[Node, None], set[Node]]] = []
    for start in (*outcomes, *conditions):
        nodes, starts = grown(start), {start}
        mask = sum(1 << v for v, _ in nodes)
        apart = []
        for other in parts:
            if mask & other[0] or any(g.siblings[v] & other[0] for v in members(mask)):
                mask, starts, nodes = mask | other[0], starts | other[2], {**nodes, **other[1]}
            else:
                apart.append(other)
        parts = [*apart, (mask, nodes, starts)]
    kept = [part for part in parts if not part[2].isdisjoint(outcomes)]
    top = {node: None for part in kept for node in part[1]}
    below = [start for part in kept for start in part[2] if start in conditions]
    return top, {node: None for start in below for node in grown(start)}


def reductions(g: ADMG, part: int, done: int = 0) -> list[tuple[int, int]]:
    """How Q of a c-component is reduced to that of as few variables as hold ``part`` (Tian 2002).

    Returns
    -------
    pairs of a c-component, and of those of its variables that are ancestors of ``part`` within it; each component is
    found among the ancestors before. The last ancestors are ``part`` itself if data in which ``done`` is set tell its
    Q, and otherwise all of their component
    """
    first = (part & -part).bit_length() - 1
    steps = [(whole := g.component(first, g.everything & ~done), g.ancestors(part, within=whole))]
    while steps[-1][1] not in (part, steps[-1][0]):
        steps.append((whole := g.component(first, steps[-1][1]), g.ancestors(part, within=whole)))
    return steps


def _world(do: Iterable[tuple[str, Value]], number: Mapping[str, int]) -> World:
    return tuple(sorted(((number[name], value) for name, value in do), key=lambda event: event[0]))


class _Asked:
    """One run of the algorithm: the graph, the data there are, and the symbols that are in use."""

    def __init__(self, g: ADMG, experiments: Sequence[int]) -> None:
        self.g, self.experiments = g, experiments
        self.marks: dict[str, int] = {}
        self.used = 0
        self.factors: list[Factor] = []

    def fresh(self, symbol: Symbol) -> Symbol:
        """A symbol of the same variable that is not in use."""
        mark = self.marks[symbol.variable] = self.marks.get(symbol.variable, -1) + 1
        return Symbol(symbol.variable, mark)

    def conditional(
        self, of: list[tuple[int, World, Value]], given: list[tuple[int, World, Value]], query: Query
    ) -> Expression:
        """P(of | given), by the ancestral components of its terms."""
        for symbol in query.symbols:
            self.marks[symbol.variable] = max(self.marks.get(symbol.variable, -1), symbol.mark)
        conditions = self.valued(given, {}, query)
        outcomes = self.valued(of, conditions, query)
        nodes, below = relevant(self.g, outcomes, conditions)
        known = {**conditions, **outcomes}
        top, factors = self.joint(nodes, known), self.factors
        if all(not world for _, world in known):
            names = self.g.names
            return Probability(*(tuple((names[v], x) for (v, _), x in sorted(part.items(), key=_first))
                                 for part in (outcomes, conditions)))  # fmt: skip
        if not below:
            return tidy(top)
        bottom = self.joint(below, conditions)
        self.factors = factors
        return tidy(ratio(top, bottom))

    def valued(
        self, terms: list[tuple[int, World, Value]], before: Mapping[Node, Value], query: Query
    ) -> dict[Node, Value]:
        """The values of nodes; what is certain by ``before`` is left out."""
        found: dict[Node, Value] = {}
        for v, world, value in terms:
            node = within(self.g, v, world)
            known = found.get(node, before.get(node, value))
            if known != value:
                name = self.g.names[v]
                if isinstance(known, Symbol) or isinstance(value, Symbol):
                    raise CounterfactError(
                        f"query: {query} asks for {name} twice in the same world, as {known} and as {value}; give both "
                        "a value, or leave one out"
                    )
                raise CounterfactError(
                    f"query: {query} asks for {name}={known} and {name}={value} in the same world, which cannot be; "
                    "leave one out"
                )
            if node not in before:
                found[node] = value
        if terms and not found and before:
            raise CounterfactError(f"query: {query} asks for what its condition says already")
        return found

    def joint(self, nodes: Mapping[Node, None], known: Mapping[Node, Value]) -> Expression:
        """The probability of what is known of nodes that are closed under causes, summed over the others.

        Raises
        ------
        _Forbidden
            If some of it cannot be told from data.
        """
        g = self.g
        value: dict[Node, Value] = {}
        for node in sorted(nodes, key=lambda node: node[0]):
            value[node] = known[node] if node in known else self.fresh(Symbol(g.names[node[0]], 0))
        loose = {x for node, x in value.items() if node not in known}

        def causes(node: Node) -> dict[int, Value]:
            v, world = node
            fixed = dict(world)
            found = {}
            for p in members(g.parents[v]):
                cause = within(g, p, world) if p not in fixed else None
                found[p] = fixed[p] if cause is None else value[cause] if cause in value else known[cause]
            return found

        # The same causes have the same effect: a sum over both runs over one.
        merged = True
        while merged:
            merged = False
            events = {node: (node[0], causes(node)) for node in value}
            for a, b in itertools.combinations(value, 2):
                if events[a] != events[b] or value[a] == value[b]:
                    continue
                old, new = (value[a], value[b]) if value[a] in loose else (value[b], value[a])
                if old not in loose:
                    raise CounterfactError(
                        f"query: {g.names[a[0]]} has the same causes twice, and so cannot be {old} and {new}; leave "
                        "one out, or give both a value"
                    )
                loose.discard(old)
                value = {node: new if x == old else x for node, x in value.items()}
                merged = True
                break
        everything = 0
        for v, _ in value:
            everything |= 1 << v
        factors, self.factors = [], []
        for part in g.components(everything):
            assigned: dict[int, Value] = {}
            for node, x in value.items():
                if part >> node[0] & 1:
                    for v, y in (*causes(node).items(), (node[0], x)):
                        if assigned.setdefault(v, y) != y:
                            raise self.two_worlds(part, v, assigned[v], y)
            self.used |= part
            done, steps = self.reduction(part)
            expression = c_factor(g, done, steps)
            names = g.named(part), g.named(done), tuple((g.named(whole), g.named(closed)) for whole, closed in steps)
            self.factors.append(Factor(*names, {g.names[v]: x for v, x in assigned.items()}))
            values = {Symbol(g.names[v]): x for v, x in assigned.items()}
            values |= {symbol: self.fresh(symbol) for symbol in free(expression) if symbol not in values}
            factors.append(substitute(expression, values, self.fresh))
        return total([x for x in value.values() if x in loose], product(factors))

    def two_worlds(self, part: int, v: int, first: Value, second: Value) -> _Forbidden:
        names = self.g.named(part)
        name, links = self.g.names[v], self.g.links(part)
        apart = f", where {name}={first} and where {name}={second}"
        if isinstance(first, Symbol) or isinstance(second, Symbol):
            apart = f" that differ in {name}"
        share = f", which share hidden causes ({_shown(links)})," if links else ""
        return _Forbidden(
            f"the question is about one case of {_and(names)}{share} in two worlds{apart}: "
            "no data show two worlds of one case"
        )

    def reduction(self, part: int) -> tuple[int, list[tuple[int, int]]]:
        """How Q[part], the distribution of a c-component when everything else is set, follows from data (Tian 2002).

        Returns
        -------
        done : what is set in the data that tell it
        steps : pairs of a c-component and of those of its variables that are ancestors of ``part`` within it; each
            component is found among the ancestors before

        Raises
        ------
        _Forbidden
            If a hedge stands in the way in all the data there are.
        """
        g = self.g
        reason: _Forbidden | None = None
        for done in (0, *self.experiments):
            if done & part:
                continue
            steps = reductions(g, part, done)
            if steps[-1][1] == part:
                return done, steps
            reason = reason or self.hedge(part, steps[-1][0])
        raise reason

    def hedge(self, part: int, whole: int) -> _Forbidden:
        g = self.g
        acting, acted = g.named(whole & ~part), g.named(part)
        links = g.links(whole)
        share = "share a hidden cause" if len(links) == 1 else "hang together by hidden causes"
        does = f"{_and(acting)} {'acts' if len(acting) == 1 else 'act'} on {_and(acted)}"
        this = f"what {acting[0]} does" if len(acting) == 1 else "what they do"
        that = "what the hidden cause does" if len(links) == 1 else "what the hidden causes do"
        return _Forbidden(
            f"{_and(g.named(whole))} {share} ({_shown(links)}) and {does}: {this} cannot be told from {that}",
            (g.named(whole), acted),
        )

    def reason(self) -> str:
        """Why there is an answer."""
        done = list(dict.fromkeys(name for factor in self.factors for name in factor.done))
        if done:
            were = "was" if len(done) == 1 else "were"
            return f"cases in which {_and(done)} {were} set tell what observations do not"
        links = list(dict.fromkeys(link for v in members(self.used) for link in self.g.links(self.g.component(v))))
        if not links:
            return "no hidden cause links the variables that matter"
        return f"the hidden causes ({_shown(links)}) do not stand in the way"


def _first(item: tuple[Node, Value]) -> int:
    return item[0][0]


def _mask(world: World) -> int:
    return sum(1 << v for v, _ in world)


def _and(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _shown(links: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{a} <-> {b}" for a, b in links)


def c_factor(g: ADMG, done: int, steps: Sequence[tuple[int, int]]) -> Expression:
    """Q of the last of some steps, as :func:`reductions` finds them, in symbols without primes."""
    whole, _ = steps[0]
    factors: dict[int, Expression] = {v: observed(g, v, done) for v in members(whole)}

    def marginal(kept: int) -> Expression:
        return total([Symbol(name) for name in g.named(whole & ~kept)], product(factors.values()))

    for (_, closed), (inner, _) in itertools.pairwise(steps):
        found = {}
        for v in members(inner):
            before = closed & ((1 << v) - 1)
            found[v] = ratio(marginal(before | 1 << v), marginal(before))
        whole, factors = inner, found
    return marginal(steps[-1][1])


def observed(g: ADMG, v: int, done: int) -> Probability:
    """P(v | what comes before it, do(done)), with only that of it which matters."""
    rest = g.everything & ~done
    part = g.component(v, rest & ((2 << v) - 1))
    given = (part | g.parents_of(part)) & rest & ~(1 << v)
    of, before, do = (tuple((name, Symbol(name)) for name in g.named(mask)) for mask in (1 << v, given, done))
    return Probability(of, before, do)
