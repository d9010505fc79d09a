"""Answers of a fitted model: cases drawn with the same noise in every world that a question is about.

What is identifiable comes out right however the hidden causes were fitted; what is not is refused (Rahman and Kocaoglu
2024, theorem 1). Conditions are met by drawing until enough cases meet them, which is abduction without a formula.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import CounterfactError
from ..expression import Symbol, Value
from ..graph import CausalGraph
from ..identify import identify
from ..query import Query, Term, as_query
from .model import CHUNK, ModularModel, Noise, Values

BATCH, MOST_TRIES = 20_000, 200


@dataclass(frozen=True)
class Cases:
    """Cases that meet the conditions of a question.

    Attributes
    ----------
    worlds : for each set of what is done, by name and value, the values [N, places] of all labels; of a
        model with pictures only of those that are asked for or given there, and of what these depend on
    noise : exogenous noise of the cases
    accepted : share of the cases drawn that met the conditions
    """

    worlds: dict[tuple[tuple[str, str], ...], Values]
    noise: Noise
    accepted: float


def identified(graph: CausalGraph, query: Query | str) -> Query:
    """The query, once it is known to have an answer.

    Raises
    ------
    CounterfactError
        If data cannot answer it; says why.
    """
    found = identify(graph, query)
    if not found.identifiable:
        raise CounterfactError(
            f"query: {found.query} cannot be answered from data: {found.reason}. Ask for bounds instead, measure the "
            "hidden cause, or ask another question"
        )
    return found.query


def draw(
    model: ModularModel, query: Query, count: int, seed: int = 0, settled: Mapping[Symbol, str] | None = None,
    check: Callable[[], object] = lambda: None,
) -> Cases:  # fmt: skip
    """Cases in every world of a question, of which each meets its conditions.

    Parameters
    ----------
    model, query : fitted, and what is asked; not checked for an answer here
    count, seed : how many cases, and of what noise
    settled : values of symbols in conditions and interventions
    check : called before each batch; may raise to end it

    Raises
    ------
    CounterfactError
        If a symbol is not settled, or the conditions are never met.
    """
    settled = settled or {}

    def value(x: Value) -> str:
        if isinstance(x, Symbol) and x not in settled:
            raise CounterfactError(f"query: {x} needs a value, such as {x.variable}=...")
        return settled.get(x, x)

    def world(term: Term) -> tuple[tuple[str, str], ...]:
        return tuple((name, value(x)) for name, x in term.do)

    coding = model.coding
    rng = torch.Generator().manual_seed(seed)
    terms = [*query.of, *query.given]
    wanted = dict.fromkeys(map(world, terms))
    places = {do: {n: torch.tensor(coding.variables[coding.index(n)].vector(v)) for n, v in do} for do in wanted}
    conditions = [(world(term), term.variable, value(term.value)) for term in query.given]
    for _, name, _ in conditions:
        if name in model.pictures:
            raise CounterfactError(f"query: {name} is a picture, which cannot be given; give labels")
        if not coding.variables[coding.index(name)].domain:
            raise CounterfactError(f"query: {name} is a number, and no case meets one exactly; give it a few values")
    given = {do: [name for one, name, _ in conditions if one == do] for do, _, _ in conditions}
    # Where a condition is behind a picture, every try costs one.
    seeing = any(set(model.pictures) & set(model.needed(names, dict(do))) for do, names in given.items())
    step = CHUNK if seeing else BATCH
    kept: list[Noise] = []
    found = tried = 0
    for noise in _noise(model, rng, step):
        if found >= count:
            break
        check()
        if tried >= MOST_TRIES * max(count, step) and not found:
            what = ", ".join(map(str, query.given))
            raise CounterfactError(f"query: {what} never happens in the fitted model; leave it out, or take more data")
        if tried >= MOST_TRIES * max(count, step):
            break
        meets = torch.ones(len(next(iter(noise.own.values()))), dtype=torch.bool)
        seen = {do: model.propagate(noise, places[do], names) for do, names in given.items()}
        for do, name, wish in conditions:
            variable = coding.variables[coding.index(name)]
            meets &= seen[do][name].argmax(1) == variable.domain.index(variable.value(variable.vector(wish)))
        kept.append(noise.rows(meets))
        tried += len(meets)
        found += int(meets.sum())
    noise = Noise(
        [torch.cat(parts)[:count] for parts in zip(*(n.hidden for n in kept))],
        {name: torch.cat([n.own[name] for n in kept])[:count] for name in kept[0].own},
    )
    # Whatever is behind a picture costs a picture of each case.
    asked = {do: [term.variable for term in terms if world(term) == do] if model.pictures else None for do in wanted}
    return Cases({do: model.propagate(noise, places[do], asked[do]) for do in wanted}, noise, found / tried)


def _noise(model: ModularModel, rng: torch.Generator, step: int) -> Iterator[Noise]:
    """Noise of cases without end, ``step`` at a time: the same cases whatever the step."""
    while True:
        whole = model.noise(BATCH, rng)
        yield from (whole.rows(slice(at, at + step)) for at in range(0, BATCH, step))


def answer(
    model: ModularModel, query: Query, count: int = 20_000, seed: int = 0, check: Callable[[], object] = lambda: None
) -> np.ndarray:
    """The distribution that a question asks for, by counting cases.

    Returns
    -------
    array with one axis for each of ``query.symbols``, in their order
    """
    domains = {v.name: v.domain for v in model.coding.variables}

    def table(settled: Mapping[Symbol, str]) -> np.ndarray:
        cases = draw(model, query, count, seed, settled, check)
        codes = []
        for term in query.of:
            world = cases.worlds[tuple((name, settled.get(x, x)) for name, x in term.do)]
            codes.append(world[term.variable].argmax(1).numpy())
        return counted(query, codes, settled, domains)

    return tabulated(query, domains, table)


def tabulated(
    query: Query, domains: Mapping[str, Sequence[str]], table: Callable[[Mapping[Symbol, str]], np.ndarray]
) -> np.ndarray:
    """The answers of a question for all values of its settings, as one array with an axis for each of its symbols.

    Parameters
    ----------
    query, domains : what is asked, and the values of its variables
    table : the answer for some values of the settings, an axis for each outcome
    """
    symbols, settings = query.symbols, query.settings
    for symbol in symbols:
        if not domains[symbol.variable]:
            raise CounterfactError(f"query: {symbol} has no list of values, and so no table; draw cases instead")
    found = np.zeros([len(domains[symbol.variable]) for symbol in symbols])
    for values in itertools.product(*(domains[symbol.variable] for symbol in settings)):
        settled = dict(zip(settings, values))
        at = (domains[s.variable].index(settled[s]) if s in settled else slice(None) for s in symbols)
        found[tuple(at)] = table(settled)
    return found


def counted(
    query: Query, codes: Sequence[np.ndarray], settled: Mapping[Symbol, str], domains: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Shares of some cases by the values of a question's outcomes, an axis each.

    Parameters
    ----------
    codes : for each term that is asked for the numbers of its values [cases]
    settled : values of the settings; a term that has such a value counts only where it is met
    """
    holds = np.ones(len(codes[0]), bool)
    known: dict[Value, np.ndarray] = {}
    for term, code in zip(query.of, codes):
        value = settled.get(term.value, term.value)
        if isinstance(value, Symbol):
            holds &= code == known.setdefault(value, code)
        else:
            holds &= code == domains[term.variable].index(value)
    shape = [len(domains[symbol.variable]) for symbol in query.outcomes]
    if not shape:
        return np.array(holds.mean())
    flat = np.ravel_multi_index([known[symbol][holds] for symbol in query.outcomes], shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape) / len(holds)


def ask(model: ModularModel, graph: CausalGraph, query: Query | str, count: int = 20_000, seed: int = 0) -> np.ndarray:
    """:func:`answer` of a question that has one.

    Raises
    ------
    CounterfactError
        If the graph says that data cannot tell.
    """
    query = as_query(query, graph.concepts)
    return answer(model, identified(graph, query), count, seed)
