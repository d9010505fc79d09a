"""What a causal question is answered with, for people: tables in Markdown, charts, and some of the cases.

Probabilities are shown as bars from 0, bounds as spans from the one to the other, and numbers as histograms: an answer
and bounds on one never look the same. Colours and strokes as in pictures of the graph (:mod:`..draw`).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..brush import Brush, measure
from ..concepts import Concepts, caption
from ..draw import BLUE, HEAD, INK, MARGIN, MAX_PIXELS, MUTED, PAPER, RULE, SLATE, SUPERSAMPLING, VERMILLION
from ..errors import CounterfactError, finite
from ..expression import Symbol
from ..layout import Box
from ..query import Query, Term
from .model import Noise
from .sample import Cases, counted, draw

if TYPE_CHECKING:
    from PIL import Image

    from .bounds import Bounds
    from .images import ConditionalSampler
    from .model import ModularModel

MOST_CELLS = 100_000
MOST_ROWS, MOST_BARS, MOST_PANELS = 200, 40, 12
SAME = 1e-4  # bounds closer together are shown as one number
DECILES = tuple(range(10, 100, 10))
OUTERMOST = 0.001  # share of the cases at either end that a histogram may leave out
BINS = 40

CHART_WIDTH, ROW, PANEL, AXIS, NOTE, GAP = 1024.0, 30.0, 34.0, 30.0, 22.0, 18.0
NAMES, TALL = (60.0, 300.0), 150.0
SPAN = "#E9F3FA"
# The end of the axis, and the steps to it.
SCALES = ((0.1, 5), (0.2, 4), (0.5, 5), (1.0, 4))

World = Mapping[str, "str | float"]


class Row(NamedTuple):
    """A cell of an answer: the values of what is set and of what is asked for, in words, and its place in the array."""

    settled: tuple[str, ...]
    asked: tuple[str, ...]
    at: tuple[int, ...]


@dataclass(frozen=True)
class Spread:
    """Numbers [cases] that an outcome takes where the settings have some values."""

    settled: tuple[str, ...]
    asked: str
    values: np.ndarray


@dataclass(frozen=True)
class Sampled:
    """What cases say to a question.

    Attributes
    ----------
    query : the question
    domains : values of the variables; those of numbers and pictures are empty
    parts : the questions that have a table: the query itself; or each outcome by itself, if some of them are numbers
        or pictures
    shares, errors : of each part the probabilities and their standard errors, an axis for each of its symbols
    spreads : what the numbers are
    count : how many cases were wanted for each value of the settings
    cases, drawn : how many met the conditions, and out of how many, in all settings together
    fewest : how many there were at least in a setting
    first : some cases: for each, what is set and the values of all labels, in every world of the question
    noise : of each of these cases
    pictures : the outcomes that are pictures
    """

    query: Query
    domains: Mapping[str, tuple[str, ...]]
    parts: tuple[Query, ...]
    shares: tuple[np.ndarray, ...]
    errors: tuple[np.ndarray, ...]
    spreads: tuple[Spread, ...]
    count: int
    cases: int
    drawn: int
    fewest: int
    first: tuple[tuple[tuple[Mapping[str, str], World], ...], ...]
    noise: tuple[Noise, ...] = ()
    pictures: tuple[str, ...] = ()


def sampled(
    model: ModularModel, query: Query, count: int = 2000, kept: int = 0, seed: int = 0,
    check: Callable[[], object] = lambda: None, progress: Callable[[int, int], object] = lambda done, total: None,
) -> Sampled:  # fmt: skip
    """Draw cases of a question that has an answer.

    Parameters
    ----------
    model, query : fitted, and what is asked. Where no generator is plugged in for a picture, cases are kept without the
        labels that depend on it
    count, seed : cases for each value of the settings, all with the same noise
    kept : how many cases to keep, of each value of the settings in turn
    check : called now and then; may raise to end it
    progress : told how many of the settings are done

    Raises
    ------
    CounterfactError
        If a setting is a number without a value or a picture, numbers are asked for together with a value, or there are
        too many combinations.
    """
    domains = {v.name: v.domain for v in model.coding.variables}
    parts = _parts(query, domains, model.pictures)
    cells = math.prod(len(domains[symbol.variable]) or 1 for symbol in query.symbols)
    if cells > MOST_CELLS:
        raise CounterfactError(
            f"query: it asks for {cells} combinations of values, more than {MOST_CELLS}; give some concepts a value, "
            "or ask for fewer"
        )
    numbers = [term for term in query.of if not domains[term.variable] and term.variable not in model.pictures]
    shares = [np.zeros([len(domains[symbol.variable]) for symbol in part.symbols]) for part in parts]
    errors = [np.zeros_like(share) for share in shares]
    spreads: list[Spread] = []
    met, tried, first = [], 0, []
    settings = query.settings
    every = list(itertools.product(*(domains[symbol.variable] for symbol in settings)))
    for number, values in enumerate(every):
        settled = dict(zip(settings, values))
        cases = draw(model, query, count, seed, settled, check)
        found = len(next(iter(cases.noise.own.values())))
        met.append(found)
        tried += round(found / cases.accepted)
        for part, share, error in zip(parts, shares, errors):
            codes = [_seen(cases, term, settled).argmax(1).numpy() for term in part.of]
            at = tuple(domains[s.variable].index(settled[s]) if s in settled else slice(None) for s in part.symbols)
            share[at] = counted(part, codes, settled, domains)
            # Never less than that of one case: what was not met once may still happen.
            p = share[at].clip(1 / (found + 1), 1 - 1 / (found + 1))
            error[at] = np.sqrt(p * (1 - p) / found)
        for term in numbers:
            variable = model.coding.variables[model.coding.index(term.variable)]
            z = _seen(cases, term, settled)[:, 0].numpy()
            name = heads(query)[query.of.index(term)]
            spreads.append(Spread(values, name, sum(variable.interval) / 2 + z * variable.half))
        # An outcome that something is set to has this value in some of the cases only.
        holds = np.ones(found, bool)
        for term in (term for term in query.of if term.value in settled):
            code = domains[term.variable].index(settled[term.value])
            holds &= _seen(cases, term, settled).argmax(1).numpy() == code
        chosen = np.flatnonzero(holds)[: max(0, -(-(kept - number) // len(every)))]
        noise = cases.noise.rows(torch.from_numpy(chosen))
        worlds = [(dict(do), _values(model, noise, do)) for do in cases.worlds] if len(chosen) else []
        first.append([
            (tuple((do, values[i]) for do, values in worlds), noise.rows(slice(i, i + 1))) for i in range(len(chosen))
        ])
        progress(number + 1, len(every))
    turns = [case for turn in itertools.zip_longest(*first) for case in turn if case is not None]
    return Sampled(
        query, domains, parts, tuple(shares), tuple(errors), tuple(spreads), count, sum(met), tried, min(met),
        tuple(case for case, _ in turns), tuple(noise for _, noise in turns),
        tuple(dict.fromkeys(term.variable for term in query.of if term.variable in model.pictures)),
    )  # fmt: skip


def _parts(query: Query, domains: Mapping[str, Sequence[str]], pictures: Sequence[str]) -> tuple[Query, ...]:
    """The questions whose answers have a table: this one, or its outcomes one by one if some have no values to list."""
    for name in (name for term in (*query.of, *query.given) for name, _ in term.do):
        if name in pictures:
            raise CounterfactError(f"query: {name} is a picture, which cannot be set; set what causes it")
    for symbol in query.settings:
        if not domains[symbol.variable]:
            raise CounterfactError(
                f"query: {symbol} is a number, and there is no end of numbers to set it to; give it a value, such as "
                f"{symbol.variable}=..."
            )
    unlisted = [term for term in query.of if not domains[term.variable]]
    if not unlisted:
        return (query,)
    what = {term.variable: "a picture" if term.variable in pictures else "a number" for term in unlisted}
    for term in unlisted:
        if not isinstance(term.value, Symbol):
            raise CounterfactError(
                f"query: {term.variable} is {what[term.variable]}, and no case has exactly this one; leave its value "
                "out"
            )
    one = unlisted[0].variable
    for i, term in enumerate(query.of):
        if not isinstance(term.value, Symbol) or term.value in query.settings:
            raise CounterfactError(
                f"query: {one} is {what[one]}, and cannot be asked for together with the value of {term.variable}; put "
                "that behind the bar, or leave it out"
            )
        if term.value in [other.value for other in query.of[:i]]:
            raise CounterfactError(
                f"query: {term.value} is asked for twice, which means the same value both times; two numbers are "
                f"hardly ever the same, nor are two pictures: write {term.value}' for one of them"
            )
    return tuple(Query((term,), query.given) for term in query.of if domains[term.variable])


def _world(term: Term, settled: Mapping[Symbol, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, settled.get(value, value)) for name, value in term.do)


def _seen(cases: Cases, term: Term, settled: Mapping[Symbol, str]):
    """Places [cases, ...] of a term's variable in its world."""
    return cases.worlds[_world(term, settled)][term.variable]


def _places(model: ModularModel, do: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Places of what is set."""
    return {name: torch.tensor(model.coding.variables[model.coding.index(name)].vector(x)) for name, x in do.items()}


def _values(model: ModularModel, noise: Noise, do: Sequence[tuple[str, str]]) -> list[World]:
    """Values of the labels of some cases where some are set, as people read them.

    Labels that depend on a picture for which the model has no generator are left out.
    """
    undrawn = {name for name in model.pictures if model.mechanism(name).generator is None}
    done = dict(do)
    told = [name for name in model.coding.names if not undrawn.intersection(model.needed([name], done))]
    found = model.propagate(noise, _places(model, done), told)
    columns = {}
    for concept in (concept for concept in model.concepts if concept.name in found):
        variable = model.coding.variables[model.coding.index(concept.name)]
        values = [variable.value(row) for row in found[concept.name].tolist()]
        columns[concept.name] = values if variable.domain else [float(f"{float(value):.5g}") for value in values]
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def inside(concepts: Concepts, values: World) -> dict[str, str]:
    """Values as texts; numbers are moved into their ranges, since mechanisms go a little beyond what they learnt from.

    >>> from causal_core.concepts import parse_concepts
    >>> inside(parse_concepts("light: 0 .. 10\\nroad: dry, wet"), {"light": 10.3, "road": "wet"})
    {'light': '10.0', 'road': 'wet'}
    """
    ranges = {name: concepts[name].interval for name in values}
    return {
        name: repr(min(max(float(value), ranges[name][0]), ranges[name][1])) if ranges[name] else value
        for name, value in values.items()
    }


def captions(found: Sampled, concepts: Concepts) -> list[str]:
    """Canonical captions of the cases that were kept, in the world of the first outcome."""
    return [caption(concepts, inside(concepts, case[0][1])) for case in found.first]


def pictures(
    model: ModularModel, found: Sampled, generator: ConditionalSampler, check: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Pictures of the cases that were kept: case by case, and of each case world by world.

    A case has the same seed in every world, and so the same picture where nothing that the picture shows is changed.

    Parameters
    ----------
    model : with a generator plugged in for each of its pictures, the first of which is shown
    found : cases of this model, at least one
    generator : told the labels of each case, if the model has no picture
    check : called before each batch of these; may raise to end it

    Returns
    -------
    uint8 [cases * worlds, H, W, 3]
    """
    if not model.pictures:
        told = [inside(model.concepts, values) for case in found.first for _, values in case]
        seeds = [_seed(noise) for case, noise in zip(found.first, found.noise) for _ in case]
        return generator.sample(told, seeds, check)
    name = model.pictures[0]
    every = [(tuple(do.items()), noise) for case, noise in zip(found.first, found.noise) for do, _ in case]
    drawn: dict[int, np.ndarray] = {}
    for do in dict.fromkeys(do for do, _ in every):
        at = [i for i, (other, _) in enumerate(every) if other == do]
        noise = _together([every[i][1] for i in at])
        values = model.propagate(noise, _places(model, dict(do)), model.causes(name))
        drawn |= zip(at, model.drawn(name, noise, values))
    return np.stack([drawn[i] for i in range(len(every))])


def _seed(noise: Noise) -> int:
    """A seed for a case, of 63 bits, from all of its noise: the same case has the same one in every world."""
    told = hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*noise.hidden, *noise.own.values())))
    return int.from_bytes(told.digest()[:8], "big") >> 1


def _together(noises: Sequence[Noise]) -> Noise:
    hidden = [torch.cat(parts) for parts in zip(*(noise.hidden for noise in noises))]
    return Noise(hidden, {name: torch.cat([noise.own[name] for noise in noises]) for name in noises[0].own})


def rows(query: Query, domains: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """The cells of an answer, what is set first.

    >>> from causal_core.concepts import parse_concepts
    >>> from causal_core.query import parse_query
    >>> query = parse_query("P(y=b | do(x))", parse_concepts("x: 0, 1\\ny: a, b"))
    >>> [row for row in rows(query, {"x": ("0", "1"), "y": ("a", "b")})]
    [Row(settled=('0',), asked=('b',), at=(0,)), Row(settled=('1',), asked=('b',), at=(1,))]
    """
    outer = _outer(query)
    order = [*outer, *(symbol for symbol in query.symbols if symbol not in outer)]
    for chosen in itertools.product(*(domains[symbol.variable] for symbol in order)):
        value = dict(zip(order, chosen))
        at = tuple(list(domains[symbol.variable]).index(value[symbol]) for symbol in query.symbols)
        asked = tuple(value.get(term.value, term.value) for term in query.of)
        yield Row(tuple(value[symbol] for symbol in outer), asked, at)


def _outer(query: Query) -> list[Symbol]:
    """The settings that are no outcomes."""
    asked = {term.value for term in query.of}
    return [symbol for symbol in query.settings if symbol not in asked]


def heads(query: Query) -> list[str]:
    """What to call the outcomes of a question: their worlds too if there are several."""
    several = len({term.do for term in query.of}) > 1
    mark = [term.value.mark if isinstance(term.value, Symbol) else 0 for term in query.of]
    return [
        str(Term(term.variable, Symbol(term.variable, primes), term.do if several else ()))
        for term, primes in zip(query.of, mark)
    ]


# Tables


def sample_table(found: Sampled) -> str:
    """An answer in Markdown: the probability of each value, and what numbers are like; notes below."""
    blocks = [f"{found.query}, from {found.cases} cases"]
    if found.spreads:
        blocks.append(_markdown(_spread_lines(found)))
    for part, share, error in zip(found.parts, found.shares, found.errors):
        lines, rest = [], ""
        shown, left_out = _likeliest(rows(part, found.domains), share, MOST_ROWS)
        for row in shown:
            lines.append([*row.settled, *row.asked, f"{share[row.at]:.4f}", f"{error[row.at]:.4f}"])
        if left_out:
            rest = f"\n\nand {left_out} more, each of them no likelier than these"
        head = [*map(str, _outer(part)), *heads(part), "probability", "standard error"]
        blocks.append(_markdown([head, *lines]) + rest)
    return "\n\n".join(filter(None, [*blocks, _listed(sample_notes(found))]))


def sample_notes(found: Sampled) -> list[str]:
    """What to know about an answer, a line each."""
    notes = []
    if found.query.given:
        share, given = f"{100 * found.cases / found.drawn:.3g} %", ", ".join(map(str, found.query.given))
        notes.append(f"{share} of all cases drawn met {given}; the others are left out")
    if found.fewest < found.count:
        notes.append(f"only {found.fewest} such cases were found, not {found.count}: what is given is rare")
    if found.parts:
        notes.append(
            f"a standard error is that of counting {found.fewest} cases; how well the model was fitted is not in it"
        )
    if found.pictures:
        notes.append(f"{', '.join(found.pictures)} is a picture, and has no table: look at some of the cases")
    if (found.spreads or found.pictures) and len(found.query.of) > 1:
        what = " and ".join(["numbers"] * bool(found.spreads) + ["pictures"] * bool(found.pictures))
        notes.append(f"{what} are among the outcomes, so that each outcome is shown by itself")
    return notes


def _spread_lines(found: Sampled) -> list[list[str]]:
    head = [*map(str, _outer(found.query)), "outcome", "mean", "standard deviation", *(f"{d} %" for d in DECILES)]
    lines = [head]
    for spread in found.spreads:
        numbers = [spread.values.mean(), spread.values.std(), *np.percentile(spread.values, DECILES)]
        lines.append([*spread.settled, spread.asked, *(f"{number:.4g}" for number in numbers)])
    return lines


def bounds_table(found: Bounds, domains: Mapping[str, Sequence[str]], cases: int) -> str:
    """Bounds in Markdown: between which numbers each probability lies; notes below."""
    shown, left_out = _likeliest(rows(found.query, domains), found.high, MOST_ROWS)
    lines = [[*map(str, _outer(found.query)), *heads(found.query), "at least", "at most"]]
    for row in shown:
        lines.append([*row.settled, *row.asked, f"{found.low[row.at]:.4f}", f"{found.high[row.at]:.4f}"])
    rest = f"\n\nand {left_out} more, each of them at most as likely as these can be" if left_out else ""
    title = f"Bounds on {found.query}, from {cases} rows"
    return "\n\n".join([title, _markdown(lines) + rest, _listed(bounds_notes(found))])


def bounds_notes(found: Bounds) -> list[str]:
    """What to know about bounds, a line each."""
    if (found.high - found.low < SAME).all():
        notes = ["both ends are the same: the data do tell the answer"]
    else:
        notes = ["bounds, no answer: the truth is anywhere from one end to the other, and the data do not tell where"]
        notes.append(
            "sharp: at each end there is a model that fits graph and data"
            if found.sharp
            else "not known to be sharp: narrower bounds may hold too"
        )
    if found.slack > 0:
        notes.append(
            f"graph and data contradict each other a little: shares of the data were changed by {found.slack:.3g} in "
            "all until a model fitted"
        )
    notes.append("they hold if the graph is right and the rows are many: what few rows leave open is not in them")
    return notes


def _likeliest(cells: Iterator[Row], share: np.ndarray, most: int) -> tuple[list[Row], int]:
    """The likeliest cells, in their order, and how many are left out."""
    cells = list(cells)
    chosen = sorted(sorted(range(len(cells)), key=lambda i: -share[cells[i].at])[:most])
    return [cells[i] for i in chosen], len(cells) - len(chosen)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in ruled)


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


# Charts


class Bar(NamedTuple):
    """From where to where a bar goes, and its standard error if it is an answer."""

    name: str
    low: float
    high: float
    error: float | None = None


class Bars(NamedTuple):
    """Bars under a heading; ``firm`` is whether bounds are sharp."""

    head: str
    bars: Sequence[Bar]
    firm: bool = True


class Histogram(NamedTuple):
    """Shares of cases [bins] between edges [bins + 1], with their mean and the middle 80 % of them."""

    head: str
    edges: np.ndarray
    shares: np.ndarray
    mean: float
    middle: tuple[float, float]


def sample_chart(found: Sampled, width: int = 1024) -> Image.Image:
    """Draw an answer: a bar for each value, with two standard errors to either side, and numbers as histograms.

    ``width`` is in pixels, 256 to 2048; the height follows.
    """
    panels: list[Bars | Histogram] = list(_histograms(found))
    notes = []
    for part, share, error in zip(found.parts, found.shares, found.errors):
        cells, left_out = _likeliest(rows(part, found.domains), share, MOST_BARS)
        bars = [Bar(_named(part, row), 0.0, float(share[row.at]), float(error[row.at])) for row in cells]
        panels += _grouped(part, cells, bars, True, named=bool(found.spreads or found.pictures))
        notes += [f"and {left_out} more, no likelier than these"] if left_out else []
    if found.parts:
        notes.insert(0, "thin lines: two standard errors of counting, to either side")
    if found.spreads:
        notes.append(f"histograms leave out {100 * OUTERMOST:g} % of the cases at either end")
    if len(found.spreads) > MOST_PANELS:
        notes.append(f"and {len(found.spreads) - MOST_PANELS} more histograms")
    return _chart(str(found.query), f"answer from {found.cases} cases", panels, notes, width)


def bounds_chart(found: Bounds, domains: Mapping[str, Sequence[str]], width: int = 1024) -> Image.Image:
    """Draw bounds: a span for each value, dashed where they may be wider than need be."""
    cells, left_out = _likeliest(rows(found.query, domains), found.high, MOST_BARS)
    bars = [Bar(_named(found.query, row), float(found.low[row.at]), float(found.high[row.at])) for row in cells]
    notes = bounds_notes(found) + ([f"and {left_out} more, at most as likely as these can be"] if left_out else [])
    same = (found.high - found.low < SAME).all()
    told = "both ends are the same" if same else "sharp" if found.sharp else "not known to be sharp"
    return _chart(str(found.query), f"bounds, {told}", _grouped(found.query, cells, bars, found.sharp), notes, width)


def _named(query: Query, row: Row) -> str:
    if len(row.asked) == 1 and isinstance(query.of[0].value, Symbol):
        return row.asked[0]
    return ", ".join(f"{head} = {value}" for head, value in zip(heads(query), row.asked))


def _grouped(query: Query, cells: Sequence[Row], bars: Sequence[Bar], firm: bool, named: bool = False) -> list[Bars]:
    """Bars of the same settings together."""
    found: list[Bars] = []
    name = heads(query)[0] if named else ""
    for settled, group in itertools.groupby(zip(cells, bars), key=lambda pair: pair[0].settled):
        found.append(Bars(_headed(query, settled, name), [bar for _, bar in group], firm))
    return found


def _headed(query: Query, settled: Sequence[str], name: str) -> str:
    told = ", ".join(f"{symbol} = {value}" for symbol, value in zip(_outer(query), settled))
    return ": ".join(filter(None, (told, name)))


def _histograms(found: Sampled) -> Iterator[Histogram]:
    """The first few spreads; those of one outcome have the same edges."""
    edges = {}
    for name in dict.fromkeys(spread.asked for spread in found.spreads):
        every = np.concatenate([spread.values for spread in found.spreads if spread.asked == name])
        low, high = np.quantile(every, (OUTERMOST, 1 - OUTERMOST))
        half = max((high - low) / 2, 1e-9 * max(1.0, abs(low)))
        edges[name] = np.linspace((low + high) / 2 - half, (low + high) / 2 + half, BINS + 1)
    for spread in found.spreads[:MOST_PANELS]:
        counts, _ = np.histogram(spread.values, edges[spread.asked])
        low, high = np.percentile(spread.values, (10, 90))
        yield Histogram(
            _headed(found.query, spread.settled, spread.asked), edges[spread.asked], counts / len(spread.values),
            float(spread.values.mean()), (float(low), float(high)),
        )  # fmt: skip


def _chart(title: str, told: str, panels: Sequence[Bars | Histogram], notes: Sequence[str], width: int) -> Image.Image:
    from PIL import Image, ImageDraw

    width = round(finite(width, "the width of the chart", 256, 2048))
    every = [bar for panel in panels if isinstance(panel, Bars) for bar in panel.bars]
    room = CHART_WIDTH - 2 * MARGIN
    most = max((bar.high + 2 * (bar.error or 0.0) for bar in every), default=1.0)
    scale = next((scale for scale in SCALES if scale[0] >= min(most, 1.0)), SCALES[-1])
    names = min(max((measure(bar.name, 14) + 14 for bar in every), default=0.0), NAMES[1])
    names = max(names, NAMES[0])
    ends = names + 10.0, room - (70.0 if any(bar.error is not None for bar in every) else 150.0)
    tallest = max((panel.shares.max() for panel in panels if isinstance(panel, Histogram)), default=1.0)
    painters, y = [], HEAD + 6
    for i, panel in enumerate(panels):
        if isinstance(panel, Bars):
            last = i + 1 == len(panels) or not isinstance(panels[i + 1], Bars)
            high = (PANEL if panel.head else 0.0) + ROW * len(panel.bars) + (AXIS if last else 6.0)
            painters.append((y, lambda brush, p=panel, last=last: _bars(brush, p, scale, ends, room, last)))
        else:
            high = PANEL + TALL + AXIS
            painters.append((y, lambda brush, p=panel: _histogram(brush, p, tallest, room)))
        y += high + GAP
    below = y + 4
    height = ceil(width / CHART_WIDTH * (below + NOTE * len(notes) + MARGIN / 2))
    finer = SUPERSAMPLING if width * height <= MAX_PIXELS else SUPERSAMPLING - 1
    image = Image.new("RGB", (width * finer, height * finer), PAPER)
    page = Brush(ImageDraw.Draw(image), width / CHART_WIDTH * finer)
    page.text((MARGIN, 44), title, 23, INK, room, bold=True)
    page.text((MARGIN, 66), told, 13.5, MUTED, room)
    for top, paint in painters:
        paint(page.moved(MARGIN, top))
    page.line([(MARGIN, below - 14), (MARGIN + room, below - 14)], RULE, 1.0)
    for number, note in enumerate(notes):
        page.text((MARGIN, below + 8 + NOTE * number), note, 13, MUTED, room)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _bars(
    brush: Brush, panel: Bars, scale: tuple[float, int], ends: tuple[float, float], room: float, axis: bool
) -> None:
    (top, steps), (left, right) = scale, ends
    wide, start = right - left, 0.0
    if panel.head:
        brush.text((0, 20), panel.head, 15, INK, room, bold=True)
        start = PANEL
    end = start + ROW * len(panel.bars)
    for step in range(steps + 1):
        x = left + wide * step / steps
        brush.line([(x, start), (x, end)], SLATE if step == 0 else RULE, 1.0)
        if axis:
            brush.text((x, end + 19), f"{top * step / steps:g}", 12.5, MUTED, 60, anchor="ms")

    def at(share: float) -> float:
        return left + wide * min(max(share, 0.0), top) / top

    for number, bar in enumerate(panel.bars):
        y = start + ROW * (number + 0.5)
        brush.text((left - 10, y + 5), bar.name, 14, INK, left - 10, anchor="rs")
        if bar.error is not None:
            _share(brush, at, bar, y)
            words = f"{bar.high:.3f}"
        else:
            _span(brush, at, bar, y, panel.firm)
            same = bar.high - bar.low < SAME
            words = f"{bar.high:.3f}" if same else f"{bar.low:.3f} to {bar.high:.3f}"
        brush.text((room, y + 5), words, 14, INK, room - right - 8, anchor="rs")


def _share(brush: Brush, at: Callable[[float], float], bar: Bar, y: float) -> None:
    """A bar from 0, with a whisker."""
    x0, x1 = at(0.0), at(bar.high)
    if x1 - x0 > 0.5:
        brush.box(Box((x0 + x1) / 2, y, x1 - x0, 16), 2.0, BLUE)
    low, high = at(bar.high - 2 * bar.error), at(bar.high + 2 * bar.error)
    for colour, more in ((PAPER, 1.2), (INK, 0.0)):
        for start, end in (((low - more, y), (high + more, y)), *(((x, y - 4), (x, y + 4)) for x in (low, high))):
            brush.line([start, end], colour, 1.4 + 2 * more)


def _span(brush: Brush, at: Callable[[float], float], bar: Bar, y: float, firm: bool) -> None:
    """A pale span with strong ends; dashed if narrower bounds may hold."""
    x0, x1 = at(bar.low), at(bar.high)
    if x1 - x0 > 2:
        brush.box(Box((x0 + x1) / 2, y, x1 - x0, 16), 0.0, SPAN)
        for side in (-8.0, 8.0):
            brush.line([(x0, y + side), (x1, y + side)], BLUE, 1.4, None if firm else (6.0, 4.5))
    for x in (x0, x1):
        brush.line([(x, y - 10), (x, y + 10)], BLUE, 3.0)


def _histogram(brush: Brush, panel: Histogram, tallest: float, room: float) -> None:
    mean, (low, high) = panel.mean, panel.middle
    told = f"mean {mean:.4g}, the middle 80 % from {low:.4g} to {high:.4g}"
    taken = brush.text((room, 20), told, 13, MUTED, room / 2, anchor="rs")
    brush.text((0, 20), panel.head, 15, INK, room - taken - 16, bold=True)
    base = PANEL + TALL
    first, last = panel.edges[0], panel.edges[-1]

    def at(value: float) -> float:
        return room * (value - first) / (last - first)

    for tick in _ticks(first, last):
        brush.line([(at(tick), PANEL), (at(tick), base)], RULE, 1.0)
        brush.text((at(tick), base + 19), f"{tick:g}", 12.5, MUTED, 80, anchor="ms")
    for left, right, share in zip(panel.edges, panel.edges[1:], panel.shares):
        tall = (TALL - 8) * share / tallest
        if tall > 0.3:
            brush.box(Box(at((left + right) / 2), base - tall / 2, at(right) - at(left) - 1.2, tall), 0.0, BLUE)
    brush.line([(0, base), (room, base)], SLATE, 1.0)
    if first <= mean <= last:
        brush.line([(at(mean), PANEL), (at(mean), base)], VERMILLION, 2.0, (6.0, 4.0))


def _ticks(first: float, last: float) -> list[float]:
    """Round numbers from the one to the other, at most ten.

    >>> _ticks(0.0, 10.0), _ticks(-0.3, 0.45)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4])
    """
    rough = (last - first) / 9
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    numbers = range(ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1)
    return [round(k * step, 12) + 0.0 for k in numbers]
