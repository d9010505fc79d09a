"""Expressions of probabilities: what identification answers with, printable, and evaluable on tables.

An expression is a tree of four kinds of node. A symbol stands for a value of a variable; primes tell apart several
values of one variable, as in ``sum[x'] P(x') P(y | x', z)``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from .errors import CounterfactError

MOST_CELLS = 50_000_000


class Symbol(NamedTuple):
    """Any value of a variable; ``mark`` counts its primes."""

    variable: str
    mark: int = 0

    def __str__(self) -> str:
        return self.variable + "'" * self.mark


Value = Symbol | str
Event = tuple[str, Value]


@dataclass(frozen=True)
class Probability:
    """P(of | given, do(do)); each of the three is a tuple of pairs of a variable and its value."""

    of: tuple[Event, ...]
    given: tuple[Event, ...] = ()
    do: tuple[Event, ...] = ()

    @property
    def events(self) -> tuple[Event, ...]:
        """All three together."""
        return self.of + self.given + self.do


@dataclass(frozen=True)
class Product:
    """The product of all factors; 1 if there is none."""

    factors: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Sum:
    """The sum over all values of symbols."""

    over: tuple[Symbol, ...]
    body: Expression


@dataclass(frozen=True)
class Fraction:
    """One expression over another."""

    top: Expression
    bottom: Expression


Expression = Probability | Product | Sum | Fraction
ONE = Product()


def free(expression: Expression) -> frozenset[Symbol]:
    """The symbols that no sum binds.

    >>> x, y = Symbol("x"), Symbol("y")
    >>> sorted(free(Sum((x,), Probability((("y", y),), (("x", x),)))))
    [Symbol(variable='y', mark=0)]
    """
    if isinstance(expression, Probability):
        return frozenset(value for _, value in expression.events if isinstance(value, Symbol))
    if isinstance(expression, Product):
        return frozenset().union(*map(free, expression.factors))
    if isinstance(expression, Sum):
        return free(expression.body) - set(expression.over)
    return free(expression.top) | free(expression.bottom)


def substitute(
    expression: Expression, values: Mapping[Symbol, Value], fresh: Callable[[Symbol], Symbol] = lambda symbol: symbol
) -> Expression:
    """Put values in the place of free symbols.

    Parameters
    ----------
    expression : in which
    values : for which symbols
    fresh : gives a new name to a symbol that a sum binds; the same one if no value could be mistaken for it
    """
    if isinstance(expression, Probability):
        of, given, do = (
            tuple((name, values.get(value, value)) for name, value in events)
            for events in (expression.of, expression.given, expression.do)
        )
        return Probability(of, given, do)
    if isinstance(expression, Product):
        return Product(tuple(substitute(factor, values, fresh) for factor in expression.factors))
    if isinstance(expression, Sum):
        renamed = {symbol: fresh(symbol) for symbol in expression.over}
        return Sum(tuple(renamed.values()), substitute(expression.body, {**values, **renamed}, fresh))
    return Fraction(substitute(expression.top, values, fresh), substitute(expression.bottom, values, fresh))


def product(factors: Iterable[Expression]) -> Expression:
    """A product without products in it."""
    flat: list[Expression] = []
    for factor in factors:
        flat += factor.factors if isinstance(factor, Product) else [factor]
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def total(over: Iterable[Symbol], body: Expression) -> Expression:
    """A sum, without the factors that sum to 1 and without what does not depend on it.

    >>> x, y = Symbol("x"), Symbol("y")
    >>> total((x, y), Product((Probability((("x", x),)), Probability((("y", y),), (("x", x),)))))
    Product(factors=())
    """
    over = list(dict.fromkeys(over))
    factors = [(f, free(f)) for f in (body.factors if isinstance(body, Product) else (body,))]

    def sums_to_one(symbol: Symbol) -> tuple[Expression, frozenset[Symbol]] | None:
        """The one factor with the symbol in it, if that is a probability of the symbol alone."""
        having = [pair for pair in factors if symbol in pair[1]]
        if len(having) != 1 or not isinstance(having[0][0], Probability):
            return None
        (_, value), *more = having[0][0].of
        return having[0] if value == symbol and not more else None

    while (done := next((pair for pair in ((s, sums_to_one(s)) for s in over) if pair[1]), None)) is not None:
        over.remove(done[0])
        factors.remove(done[1])
    bound = set(over)
    outside = [f for f, symbols in factors if not symbols & bound]
    inside = [f for f, symbols in factors if symbols & bound]
    return product([*outside, Sum(tuple(over), product(inside))] if over else outside)


def ratio(top: Expression, bottom: Expression) -> Expression:
    """A fraction, without the factors that are above and below."""
    above = list(top.factors) if isinstance(top, Product) else [top]
    below = list(bottom.factors) if isinstance(bottom, Product) else [bottom]
    for factor in list(below):
        if factor in above:
            above.remove(factor)
            below.remove(factor)
    return Fraction(product(above), product(below)) if below else product(above)


def tidy(expression: Expression, taken: frozenset[Symbol] | None = None) -> Expression:
    """The same expression with as few primes as make every symbol one thing in all that it occurs in.

    ``taken`` are symbols that mean something else already; without it the free ones.
    """
    taken = free(expression) if taken is None else taken
    if isinstance(expression, Probability):
        return expression
    if isinstance(expression, Product):
        return Product(tuple(tidy(factor, taken) for factor in expression.factors))
    if isinstance(expression, Fraction):
        return Fraction(tidy(expression.top, taken), tidy(expression.bottom, taken))
    renamed: dict[Symbol, Value] = {}
    for symbol in expression.over:
        mark = 0
        while Symbol(symbol.variable, mark) in taken:
            mark += 1
        renamed[symbol] = Symbol(symbol.variable, mark)
        taken |= {renamed[symbol]}
    # Inner sums first get out of the way: none binds a symbol that is free in it.
    counter = iter(range(1 + max((s.mark for s in _all(expression)), default=0), 10**9))
    body = substitute(expression.body, renamed, lambda symbol: Symbol(symbol.variable, next(counter)))
    return Sum(tuple(renamed.values()), tidy(body, taken))


def _all(expression: Expression) -> set[Symbol]:
    if isinstance(expression, Sum):
        return set(expression.over) | _all(expression.body)
    if isinstance(expression, Product):
        return set().union(*map(_all, expression.factors))
    if isinstance(expression, Fraction):
        return _all(expression.top) | _all(expression.bottom)
    return set(free(expression))


def text(expression: Expression) -> str:
    """The expression in one line.

    >>> x, y, z = Symbol("x"), Symbol("y"), Symbol("z")
    >>> inner = Sum((x,), Product((Probability((("x", x),)), Probability((("y", y),), (("x", x), ("z", z))))))
    >>> print(text(Sum((z,), Product((Probability((("z", z),), (("x", "1"),)), inner)))))
    sum[z] P(z | x=1) sum[x] P(x) P(y | x, z)
    """
    return _write(
        expression, lambda symbols: f"sum[{', '.join(map(str, symbols))}]", _plain, "({}) / ({})", " | ", "do"
    )


def latex(expression: Expression) -> str:
    r"""The expression for TeX's mathematics.

    >>> print(latex(Probability((("shadow length", Symbol("shadow length")),), (("x", "1"),))))
    P(\text{shadow length} \mid x{=}1)
    """

    def head(symbols: Sequence[Symbol]) -> str:
        return rf"\sum_{{{', '.join(_tex(s.variable) + chr(39) * s.mark for s in symbols)}}}"

    return _write(expression, head, _tex_event, r"\frac{{{}}}{{{}}}", r" \mid ", r"\mathrm{do}")


def _plain(event: Event) -> str:
    name, value = event
    if value == Symbol(name):
        return name
    return f"{name}={value}" if isinstance(value, str) or value.variable != name else str(value)


def _tex(name: str) -> str:
    return name if len(name) == 1 and name.isascii() else rf"\text{{{name.replace('_', chr(92) + '_')}}}"


def _tex_event(event: Event) -> str:
    name, value = event
    if isinstance(value, Symbol):
        return _tex(name) + "'" * value.mark
    return f"{_tex(name)}{{=}}{value if value.isascii() and value.isalnum() and value.isdigit() else _tex(value)}"


def _write(
    expression: Expression,
    head: Callable[[Sequence[Symbol]], str],
    event: Callable[[Event], str],
    over: str,
    bar: str,
    do: str,
) -> str:
    def write(e: Expression) -> str:
        if isinstance(e, Probability):
            after = [event(one) for one in e.given]
            if e.do:
                after = [f"{do}({', '.join(map(event, e.do))})", *after]
            return f"P({', '.join(map(event, e.of))}{bar + ', '.join(after) if after else ''})"
        if isinstance(e, Product):
            # What comes after a sum would seem to belong to it.
            ordered = sorted(e.factors, key=lambda factor: isinstance(factor, Sum))
            sums = sum(isinstance(factor, Sum) for factor in ordered)
            parts = [f"[{write(f)}]" if isinstance(f, Sum) and sums > 1 else write(f) for f in ordered]
            return " ".join(parts) or "1"
        if isinstance(e, Sum):
            return f"{head(e.over)} {write(e.body)}"
        return over.format(write(e.top), write(e.bottom))

    return write(expression)


class Distribution(Protocol):
    """Where probabilities come from: a table, or rows of data."""

    domains: Mapping[str, Sequence[str]]

    def joint(self, names: Sequence[str], do: Mapping[str, str]) -> np.ndarray:
        """P(names | do), one axis a variable in the order of the names, which sums to 1."""


class Table(NamedTuple):
    """Numbers by the values of symbols: one axis of the array for each."""

    axes: tuple[Symbol, ...]
    array: np.ndarray


def evaluate(expression: Expression, source: Distribution, axes: Sequence[Symbol] = ()) -> np.ndarray:
    """The value of an expression for all values of its free symbols.

    Parameters
    ----------
    expression : what to compute
    source : the probabilities
    axes : order of the free symbols in the answer; symbols that it does not depend on become axes all the same

    Returns
    -------
    array with an axis for each of ``axes``; NaN where a condition that is needed has probability 0

    Raises
    ------
    CounterfactError
        If an intermediate table would be too large.
    """
    found = _evaluate(expression, source)
    missing = [symbol for symbol in found.axes if symbol not in axes]
    if missing:
        raise ValueError(f"the expression depends on {', '.join(map(str, missing))}")
    shape = tuple(len(source.domains[symbol.variable]) for symbol in axes)
    return np.broadcast_to(_aligned(found, axes), shape).copy()


def _aligned(table: Table, axes: Sequence[Symbol]) -> np.ndarray:
    """The array with its axes in the order of ``axes``, of length 1 where it has none."""
    order = [table.axes.index(symbol) for symbol in axes if symbol in table.axes]
    array = table.array.transpose(order)
    return array.reshape([array.shape[order.index(table.axes.index(s))] if s in table.axes else 1 for s in axes])


def _evaluate(expression: Expression, source: Distribution) -> Table:
    if isinstance(expression, Probability):
        return _probability(expression, source)
    if isinstance(expression, Product):
        return _multiplied([_evaluate(factor, source) for factor in expression.factors])
    if isinstance(expression, Sum):
        body = expression.body
        factors = [_evaluate(f, source) for f in (body.factors if isinstance(body, Product) else (body,))]
        for symbol in expression.over:
            size = len(source.domains[symbol.variable])
            touched = _multiplied([f for f in factors if symbol in f.axes])
            factors = [f for f in factors if symbol not in f.axes]
            if symbol in touched.axes:
                at = touched.axes.index(symbol)
                rest = touched.axes[:at] + touched.axes[at + 1 :]
                factors.append(Table(rest, touched.array.sum(at)))
            else:
                factors.append(Table((), np.array(float(size))))
        return _multiplied(factors)
    top, bottom = _evaluate(expression.top, source), _evaluate(expression.bottom, source)
    axes = tuple(dict.fromkeys(top.axes + bottom.axes))
    return Table(axes, _divided(_aligned(top, axes), _aligned(bottom, axes)))


def _multiplied(tables: Sequence[Table]) -> Table:
    """The product; 0 wherever a factor is, also where another is not known."""
    axes = tuple(dict.fromkeys(symbol for table in tables for symbol in table.axes))
    arrays = [_aligned(table, axes) for table in tables]
    shape = np.broadcast_shapes((1,) * len(axes), *(array.shape for array in arrays))
    if np.prod([float(n) for n in shape]) > MOST_CELLS:
        raise CounterfactError(
            f"the query needs a table over {', '.join(map(str, axes))}, which is too large: ask about fewer variables"
        )
    result, zero = np.ones(shape), np.zeros(shape, bool)
    for array in arrays:
        result = result * array
        zero = zero | (array == 0)
    return Table(axes, np.where(zero, 0.0, result))


def _divided(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _probability(expression: Probability, source: Distribution) -> Table:
    """A table of P(of | given, do), with the constants filled in."""
    events = expression.of + expression.given
    names = [name for name, _ in events]
    known = {name: value for name, value in expression.do if isinstance(value, str)}
    loose = [(name, value) for name, value in expression.do if isinstance(value, Symbol)]
    layers = [
        source.joint(names, {**known, **dict(zip((name for name, _ in loose), values))})
        for values in itertools.product(*(source.domains[name] for name, _ in loose))
    ]
    shape = tuple(len(source.domains[name]) for name, _ in loose)
    whole = np.stack(layers).reshape(shape + layers[0].shape)
    axes: list[Symbol] = [value for _, value in loose]
    inside = len(axes)
    if expression.given:
        last = tuple(range(inside, inside + len(expression.of)))
        whole = _divided(whole, whole.sum(last, keepdims=True))
    index: list[int | slice] = [slice(None)] * inside
    for name, value in events:
        if isinstance(value, Symbol):
            axes.append(value)
            index.append(slice(None))
        else:
            index.append(source.domains[name].index(value))
    return Table(tuple(axes), whole[tuple(index)])
