"""Answers of a fitted model: cases drawn with the same noise in every world that a question is about.

What is identifiable comes out right however the hidden causes were fitted; what is not is refused (Rahman and Kocaoglu
2024, theorem 1). Conditions are met by drawing until enough cases meet them, which is abduction without a formula.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import CounterfactError
from ..expression import Symbol, Value
from ..graph import CausalGraph
from ..identify import identify
from ..query import Query, Term, parse_query
from .model import ModularModel, Noise, Values

BATCH, MOST_TRIES = 20_000, 200


@dataclass(frozen=True)
class Cases:
    """Cases that meet the conditions of a question.

    Attributes
    ----------
    worlds : for each set of what is done, by name and value, the values [N, places] of all variables
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
        if not coding.variables[coding.index(name)].domain:
            raise CounterfactError(f"query: {name} is a number, and no case meets one exactly; give it a few values")
    kept: list[Noise] = []
    found = tried = 0
    while found < count:
        check()
        if tried >= MOST_TRIES * max(count, BATCH) and not found:
            what = ", ".join(map(str, query.given))
            raise CounterfactError(f"query: {what} never happens in the fitted model; leave it out, or take more data")
        if tried >= MOST_TRIES * max(count, BATCH):
            break
        noise = model.noise(BATCH, rng)
        meets = torch.ones(BATCH, dtype=torch.bool)
        seen = {do: model.propagate(noise, places[do]) for do in dict.fromkeys(do for do, _, _ in conditions)}
        for do, name, wish in conditions:
            variable = coding.variables[coding.index(name)]
            meets &= seen[do][name].argmax(1) == variable.domain.index(variable.value(variable.vector(wish)))
        kept.append(noise.rows(meets))
        tried += BATCH
        found += int(meets.sum())
    noise = Noise(
        [torch.cat(parts)[:count] for parts in zip(*(n.hidden for n in kept))],
        {name: torch.cat([n.own[name] for n in kept])[:count] for name in kept[0].own},
    )
    return Cases({do: model.propagate(noise, places[do]) for do in wanted}, noise, found / tried)


def answer(
    model: ModularModel, query: Query, count: int = 20_000, seed: int = 0, check: Callable[[], object] = lambda: None
) -> np.ndarray:
    """The distribution that a question asks for, by counting cases.

    Returns
    -------
    array with one axis for each of ``query.symbols``, in their order
    """
    symbols, outcomes = query.symbols, query.outcomes
    domains = {v.name: v.domain for v in model.coding.variables}
    loose = [symbol for symbol in symbols if symbol not in outcomes]
    found = np.zeros([len(domains[symbol.variable]) for symbol in symbols])
    if not found.size:
        raise CounterfactError(f"query: {query} has numbers in it, which have no table; draw cases instead")
    for values in itertools.product(*(domains[symbol.variable] for symbol in loose)):
        settled = dict(zip(loose, values))
        cases = draw(model, query, count, seed, settled, check)
        table = counted(cases, query.of, outcomes, settled, domains)
        at = tuple(slice(None) if s in outcomes else domains[s.variable].index(settled[s]) for s in symbols)
        found[at] = table
    return found


def counted(
    cases: Cases, of: Sequence[Term], outcomes: Sequence[Symbol], settled: Mapping[Symbol, str],
    domains: Mapping[str, Sequence[str]],
) -> np.ndarray:  # fmt: skip
    """Shares of the cases by the values of outcome symbols, an axis each."""
    count = len(next(iter(cases.noise.own.values())))
    codes: dict[Symbol, np.ndarray] = {}
    holds = np.ones(count, bool)
    for term in of:
        world = cases.worlds[tuple((name, settled.get(x, x)) for name, x in term.do)]
        code = world[term.variable].argmax(1).numpy()
        if not isinstance(term.value, Symbol):
            holds &= code == list(domains[term.variable]).index(term.value)
        elif term.value in codes:
            holds &= code == codes[term.value]
        else:
            codes[term.value] = code
    shape = [len(domains[symbol.variable]) for symbol in outcomes]
    if not shape:
        return np.array(holds.mean())
    flat = np.ravel_multi_index([codes[symbol][holds] for symbol in outcomes], shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape) / count


def ask(model: ModularModel, graph: CausalGraph, query: Query | str, count: int = 20_000, seed: int = 0) -> np.ndarray:
    """:func:`answer` of a question that has one.

    Raises
    ------
    CounterfactError
        If the graph says that data cannot tell.
    """
    query = parse_query(query, graph.concepts) if isinstance(query, str) else query
    return answer(model, identified(graph, query), count, seed)
