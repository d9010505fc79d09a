"""Samplers wired for one question, in the manner of ID-GEN (Rahman, Jordan and Kocaoglu 2024).

Each c-factor of the answer becomes a chain of conditional samplers, learnt one by one. Where Tian's algorithm divides
by a sum, ID-GEN does not: the samplers learnt so far make a table of what would be seen if the rest were set at random,
and the next ones learn from that. No hidden cause is modelled, and nothing is shared between questions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..admg import ADMG
from ..autoencoder.coding import Coding
from ..errors import CounterfactError
from ..expression import Symbol, Value
from ..graph import CausalGraph
from ..identify import Factor, identify, observed
from ..query import Query, Term, as_query
from .fit import LIKELIHOOD, Effort, fitted
from .images import ConditionalSampler
from .model import ModularModel
from .records import Records
from .sample import counted, tabulated

MOST_TRIES = 200
# Marks of outcomes, which nobody types.
OUTCOME = 1000


@dataclass(frozen=True)
class Step:
    """A conditional sampler: what it draws, given what, learnt from which table (0 is the data)."""

    name: str
    given: tuple[str, ...]
    table: int

    def __str__(self) -> str:
        after = f" | {', '.join(self.given)}" if self.given else ""
        return f"learn P({self.name}{after}) from " + (f"made table {self.table}" if self.table else "the data")


def plan(graph: CausalGraph, factor: Factor) -> list[list[Step]]:
    """The samplers of a c-factor: those learnt from the data, then from each made table; the last ones draw it.

    Examples
    --------
    >>> napkin = CausalGraph.from_edges([("w", "v"), ("v", "x"), ("x", "y")], [("w", "x"), ("w", "y")])
    >>> for steps in plan(napkin, identify(napkin, "P(y | do(x=1))").factors[0]):
    ...     print("; ".join(map(str, steps)))
    learn P(w) from the data; learn P(x | w, v) from the data; learn P(y | w, v, x) from the data
    learn P(y | v, x) from made table 1
    """
    g = ADMG.of(graph)
    done = g.mask(factor.done)
    whole, closed = factor.steps[0]
    found = []
    for name in whole:
        probability = observed(g, g.names.index(name), done)
        found.append(Step(name, tuple(n for n, _ in (*probability.given, *probability.do)), 0))
    levels = [found]
    outside = [n for n in g.names if n not in whole and any(n in step.given for step in found)]
    for table, ((_, closed), (inner, _)) in enumerate(itertools.pairwise(factor.steps), 1):
        order = [n for n in g.names if n in closed or n in outside]
        levels.append([
            Step(name, tuple(n for n in order if n in outside or order.index(n) < order.index(name)), table)
            for name in inner
        ])  # fmt: skip
    return levels


class Sampler:
    """Cases of one question.

    Parameters
    ----------
    graph, query : which must be identifiable
    data : what to learn from
    effort, seed : of each conditional sampler
    generators : pretrained ones of the graph's pictures, by name; they are used as they are

    Raises
    ------
    CounterfactError
        If the query cannot be answered, or the data lack what a sampler needs.
    """

    def __init__(
        self, graph: CausalGraph, query: Query | str, data: Records, effort: Effort = LIKELIHOOD, seed: int = 0,
        generators: Mapping[str, ConditionalSampler] | None = None,
    ) -> None:  # fmt: skip
        self.query = as_query(query, graph.concepts)
        # Whatever the outcomes come out as is drawn; what was asked for is counted.
        of = (Term(t.variable, Symbol(t.variable, OUTCOME + i), t.do) for i, t in enumerate(self.query.of))
        self.asked = Query(tuple(of), self.query.given)
        found = identify(graph, self.asked)
        if not found.identifiable:
            raise CounterfactError(f"query: {self.query} cannot be answered from data: {found.reason}")
        self.factors, self.coding, self.generators = found.factors, data.coding, generators or {}
        rng = torch.Generator().manual_seed(seed)
        self.chains = [self.learnt(plan(graph, factor), factor, data, effort, rng) for factor in self.factors]

    def learnt(
        self, levels: Sequence[Sequence[Step]], factor: Factor, data: Records, effort: Effort, rng: torch.Generator
    ) -> list[tuple[Step, ModularModel]]:
        """The last samplers of a plan, learnt after all before them."""
        free = torch.tensor([name not in factor.done for name in data.coding.names])
        rows = (data.free == free).all(1)
        table = Records(data.coding, data.places[rows], torch.ones_like(data.free[rows]))
        if not len(table):
            raise CounterfactError(f"data: there is no row in which {', '.join(factor.done) or 'nothing'} was set")
        chain: list[tuple[Step, ModularModel]] = []
        for steps in levels:
            if chain:
                table = self.made(chain, table, rng)
            chain = [(step, self.conditional(step, table, effort)) for step in steps]
        return chain

    def conditional(self, step: Step, table: Records, effort: Effort) -> ModularModel:
        """A sampler of one variable given others, as a model of these alone."""
        variables = [self.coding.variables[self.coding.index(name)] for name in (*step.given, step.name)]
        count = len(step.given)
        coding = Coding(tuple(variables), (*(() for _ in step.given), tuple(range(count))))
        if step.name in self.generators:
            return ModularModel(coding).plugged({step.name: self.generators[step.name]})
        columns = [table.places[:, self.coding.places[self.coding.index(v.name)]] for v in variables]
        rows = Records(coding, torch.cat(columns, 1), torch.ones(len(table), count + 1, dtype=torch.bool))
        return fitted(ModularModel(coding), [step.name], rows, effort)

    def made(self, chain: Sequence[tuple[Step, ModularModel]], table: Records, rng: torch.Generator) -> Records:
        """As many rows as a table has, drawn by a chain under random values of all that it does not draw itself."""
        count = len(table)
        values = {}
        for v, where in zip(self.coding.variables, self.coding.places):
            if v.domain:
                values[v.name] = torch.eye(v.width)[torch.randint(v.width, (count,), generator=rng)]
            else:
                values[v.name] = table.places[torch.randint(count, (count,), generator=rng)][:, where]
        for step, model in chain:
            values[step.name] = drawn_by(model, step, values, count, rng)
        places = torch.cat([values[name] for name in self.coding.names], 1)
        return Records(self.coding, places, torch.ones(count, len(self.coding.names), dtype=torch.bool))

    def draw(
        self, count: int, seed: int = 0, settled: Mapping[Symbol, str] | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> dict[Value, np.ndarray]:  # fmt: skip
        """Numbers of the values [count] of every symbol that the question sums over or asks for.

        Parameters
        ----------
        count, seed : how many cases, and of what noise
        settled : values of the symbols in conditions and interventions
        check : called before each batch; may raise to end it
        """
        rng = torch.Generator().manual_seed(seed)
        parts: list[dict[Value, torch.Tensor]] = []
        found = tried = 0
        while found < count:
            check()
            if tried > MOST_TRIES * count and not found:
                raise CounterfactError("query: its conditions never happen in what was learnt; leave them out")
            if tried > MOST_TRIES * count:
                break
            values, meets = self.batch(count, settled or {}, rng)
            # Of labels alone: pictures have served their turn.
            parts.append({symbol: code[meets] for symbol, code in values.items() if code.ndim == 1})
            tried += count
            found += int(meets.sum())
        return {symbol: torch.cat([part[symbol] for part in parts])[:count].numpy() for symbol in parts[0]}

    def batch(
        self, count: int, settled: Mapping[Symbol, str], rng: torch.Generator
    ) -> tuple[dict[Value, torch.Tensor], torch.Tensor]:
        """Codes of the symbols in some cases, of pictures their places; and which cases have all else as it must be."""
        codes: dict[Value, torch.Tensor] = {}
        meets = torch.ones(count, dtype=torch.bool)
        order = [(self.coding.index(step.name), k, at) for k, chain in enumerate(self.chains)
                 for at, (step, _) in enumerate(chain)]  # fmt: skip
        local: list[dict[str, torch.Tensor]] = [{} for _ in self.chains]
        for _, k, at in sorted(order):
            factor, (step, model) = self.factors[k], self.chains[k][at]
            for name in step.given:
                if name in local[k]:
                    continue
                # What the factor does not depend on may have any value.
                local[k][name] = self.places(name, factor.values.get(name), settled, codes, count, rng)
            drawn = drawn_by(model, step, local[k], count, rng)
            local[k][step.name] = drawn
            value = factor.values.get(step.name) if step.name in factor.names else None
            if value is None:
                continue
            value = settled.get(value, value)
            if isinstance(value, Symbol) and value not in codes:
                codes[value] = drawn if step.name in self.generators else drawn.argmax(1)
            else:
                wanted = codes[value] if value in codes else self.code(step.name, value)
                meets &= drawn.argmax(1) == wanted
                local[k][step.name] = self.places(step.name, value, settled, codes, count, rng)
        return codes, meets

    def code(self, name: str, value: str) -> int:
        return self.coding.variables[self.coding.index(name)].domain.index(value)

    def places(
        self, name: str, value: Value | None, settled: Mapping[Symbol, str], codes: Mapping[Value, torch.Tensor],
        count: int, rng: torch.Generator,
    ) -> torch.Tensor:  # fmt: skip
        """Places [count, places] of a variable: of a symbol that was drawn, a constant, or anything."""
        variable = self.coding.variables[self.coding.index(name)]
        width, value = variable.width, settled.get(value, value)
        if variable.side:
            return codes[value] if value in codes else torch.zeros(count, width)
        if value is None:
            code = torch.randint(width, (count,), generator=rng)
        elif value in codes:
            code = codes[value]
        elif isinstance(value, Symbol):
            raise CounterfactError(f"query: {value} needs a value, such as {value.variable}=...")
        else:
            code = torch.full((count,), self.code(name, value))
        return torch.eye(width)[code]

    def answer(self, count: int = 20_000, seed: int = 0) -> np.ndarray:
        """The distribution that is asked for, by counting cases: one axis for each of ``query.symbols``."""
        domains = {v.name: v.domain for v in self.coding.variables}

        def table(settled: Mapping[Symbol, str]) -> np.ndarray:
            codes = self.draw(count, seed, settled)
            return counted(self.query, [codes[term.value] for term in self.asked.of], settled, domains)

        return tabulated(self.query, domains, table)


def drawn_by(
    model: ModularModel, step: Step, values: Mapping[str, torch.Tensor], count: int, rng: torch.Generator
) -> torch.Tensor:
    """Values [count, places] of a conditional sampler."""
    noise = torch.rand(count, 2, generator=rng)
    with torch.no_grad():
        return model.mechanism(step.name).draw(model.seen(step.name, values, noise), noise[:, :0], noise)
