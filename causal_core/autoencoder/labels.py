"""Labels of a folder of pictures: a CSV file, read against the causal graph of its columns.

The first line names the columns. The first column names the pictures by their paths below the folder; a column with the
name of a concept holds its labels, an empty cell (or nan, NA, null) where the label is not known. A column `do` may
name the concepts that were set by an intervention when the picture was made, divided by semicolons or spaces. Other
columns are not read. Columns are divided by commas, or by semicolons or tabs if the first line has no comma; numbers
have a decimal point.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import torch

from ..concepts import Concept, Concepts
from ..errors import CounterfactError, folded, shorten, text, unknown
from ..graph import CausalGraph
from .coding import Coding

log = logging.getLogger("counterfact")

MAX_BYTES = 256_000_000
MAX_VALUES, FEW = 50, 12
# Beyond it, or closer together than that, normalised labels would not be numbers any more.
MAX_NUMBER, MIN_SPREAD = 1e30, 1e-12
UNKNOWN = ("nan", "na", "n/a", "null")  # how other programs write an unknown label
DO = "do"


class Labels(NamedTuple):
    """Labels of pictures.

    Attributes
    ----------
    coding : variables of the graph, with the domains and intervals that the labels gave them
    places : [pictures, width] latent vectors, NaN where a label is not known
    free : bool [pictures, variables], False where the variable was set by an intervention
    """

    coding: Coding
    places: torch.Tensor
    free: torch.Tensor


class Cell(NamedTuple):
    """A cell that is not empty: the picture's number, the line of the file, and what is written there."""

    picture: int
    line: int
    words: str


class Row(NamedTuple):
    line: int
    cells: list[str]


def read_labels(path: Path | None, graph: CausalGraph, files: Sequence[str], few: int = 0) -> Labels:
    """Labels of pictures in the order of their names.

    Parameters
    ----------
    path : CSV file; without one no picture has labels
    graph : its concepts are the variables. One with neither domain nor interval takes its interval from the numbers in
        its column, or its domain from the texts (2 to 50 different ones)
    files : paths of the pictures below their folder, with forward slashes
    few : a column of numbers with no more different ones has values, not an interval

    Raises
    ------
    CounterfactError
        If the file cannot be read, a variable has no column or no two different labels, a cell is not what its column
        wants, or a picture has two rows. Rows of pictures that do not exist are only counted, named and left out.
    """
    if path is None:
        for concept in graph.concepts:
            if not concept.domain and concept.interval is None:
                raise CounterfactError(
                    f"graph: {concept.name!r} has neither values nor an interval, and there are no labels to take them "
                    "from: add them to the graph or give a CSV file of labels"
                )
        log.warning("no labels: no variable can be aligned with what its name says")
        return _labels(graph, {}, len(files), {})
    header, rows = _table(path)
    columns, do = _columns(header, graph.concepts, path)
    placed = _placed(rows, files, path)
    log.info("labels %s: %d of %d pictures have a row", path.name, len(placed), len(files))
    return _read(path, graph, header, columns, do, placed, len(files), few)


def read_rows(path: Path, graph: CausalGraph) -> Labels:
    """Labels of cases without pictures: every column that bears the name of a concept is read, the first one as well.

    A column of numbers that has no more than 12 different ones, such as 0 and 1, has values, not an interval.

    Raises
    ------
    CounterfactError
        As :func:`read_labels`.
    """
    header, rows = _table(path)
    columns, do = _columns(header, graph.concepts, path, 0)
    return _read(path, graph, header, columns, do, dict(enumerate(rows)), len(rows), FEW)


def _read(
    path: Path, graph: CausalGraph, header: Sequence[str], columns: Mapping[str, int], do: int | None,
    placed: Mapping[int, Row], count: int, few: int = 0,
) -> Labels:  # fmt: skip
    """Labels of ``count`` cases, of which those ``placed`` have a row; up to ``few`` different numbers are values."""
    settled, values = [], {}
    for concept in graph.concepts:
        at = columns[concept.name]
        where = f"labels {path.name}, column {header[at]!r}"
        cells = [Cell(i, row.line, row.cells[at]) for i, row in placed.items() if row.cells[at]]
        concept, values[concept.name] = _settle(concept, cells, where, few)
        settled.append(concept)
    graph = CausalGraph(Concepts(tuple(settled)), graph.edges)
    done = {}
    if do is not None:
        for i, row in placed.items():
            where = f"labels {path.name}, column {header[do]!r}, line {row.line}"
            done[i] = _intervened(row.cells[do], graph.concepts, where)
    return _labels(graph, values, count, done)


def _labels(
    graph: CausalGraph, values: Mapping[str, Mapping[int, str]], count: int, done: Mapping[int, frozenset[str]]
) -> Labels:
    coding = Coding.of(graph)
    places = torch.full((count, coding.width), math.nan)
    for variable, where in zip(coding.variables, coding.places):
        labels = values.get(variable.name, {})
        known = {value: torch.tensor(variable.vector(value)) for value in variable.domain}
        for i, value in labels.items():
            places[i, where] = known[value] if known else variable.vector(value)[0]
    free = torch.ones(count, len(coding.variables), dtype=torch.bool)
    for i, names in done.items():
        for name in names:
            free[i, coding.index(name)] = False
    return Labels(coding, places, free)


def _table(path: Path) -> tuple[list[str], list[Row]]:
    """Names of the columns, and the other lines that are not empty, each with as many cells."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CounterfactError(f"labels {path.name} has over {MAX_BYTES // 10**6} MB: leave rows or columns out")
        data = path.read_bytes()
    except OSError as error:
        raise CounterfactError(f"labels: cannot read {path} ({error.strerror}); give the path of a CSV file") from None
    try:
        words = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CounterfactError(f"labels {path.name}, line {line} is not UTF-8 text: save it as CSV UTF-8") from None
    first = next((line for line in io.StringIO(words, newline=None) if line.strip()), "")
    delimiter = "," if "," in first else ";" if ";" in first else "\t"
    reader = csv.reader(io.StringIO(words, newline=""), delimiter=delimiter, strict=True)
    table = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                table.append(Row(reader.line_num, cells))
    except csv.Error as error:
        raise CounterfactError(
            f"labels {path.name}, line {reader.line_num} is no line of a CSV file ({error}): check its quotation marks"
        ) from None
    if len(table) < 2:
        raise CounterfactError(f"labels {path.name} needs a first line with the names of columns, and a row a picture")
    header, *rows = table
    width = len(header.cells)
    for line, cells in rows:
        if any(cells[width:]):
            raise CounterfactError(
                f"labels {path.name}, line {line} has {len(cells)} cells, but there are {width} columns: quote cells "
                "that have the delimiter in them"
            )
    return header.cells, [Row(line, (cells + [""] * width)[:width]) for line, cells in rows]


def _columns(
    header: Sequence[str], concepts: Concepts, path: Path, first: int = 1
) -> tuple[dict[str, int], int | None]:
    """Place of the column of every concept from the ``first`` on, and of `do` if no concept is called so."""
    places: dict[str, int] = {}
    ignored = []
    for at, name in enumerate(header[first:], first):
        known = concepts[name].name if name in concepts else DO if folded(name) == DO else None
        if known is None:
            ignored += [name] if name else []
        elif known in places:
            raise CounterfactError(f"labels {path.name} has two columns {name!r}: remove one")
        else:
            places[known] = at
    missing = [name for name in concepts.names if name not in places]
    if missing:
        raise CounterfactError(
            f"labels {path.name} has no column for {_listed(missing)} of the graph, only {_listed(header, 20)}: add "
            "the column (empty cells where a label is not known), or remove the concept from the graph"
        )
    if ignored:
        log.info("labels %s: not in the graph, so not read: %s", path.name, _listed(ignored))
    return places, places.pop(DO, None) if DO not in concepts else None


def _placed(rows: Sequence[Row], files: Sequence[str], path: Path) -> dict[int, Row]:
    """The row of each picture that has one."""
    numbers = {unicodedata.normalize("NFC", name): i for i, name in enumerate(files)}
    lines: dict[str, int] = {}
    placed, absent = {}, []
    for row in rows:
        where = f"labels {path.name}, line {row.line}"
        name = _relative(row.cells[0], where)
        if name in lines:
            raise CounterfactError(f"{where} has labels of {name!r}, and so has line {lines[name]}: remove one")
        lines[name] = row.line
        if name in numbers:
            placed[numbers[name]] = row
        else:
            absent.append(name)
    if not placed:
        raise CounterfactError(
            f"labels {path.name}: its first column must name pictures of the folder, such as {shorten(files[0])}; it "
            f"has {_listed(absent)}"
        )
    if absent:
        log.warning(
            "labels %s: %d of %d rows name no picture of the folder and are left out: %s",
            path.name, len(absent), len(rows), _listed(absent),
        )  # fmt: skip
    return placed


def _relative(cell: str, where: str) -> str:
    name = PurePosixPath(unicodedata.normalize("NFC", cell).replace("\\", "/"))
    if not name.parts:
        raise CounterfactError(f"{where} names no picture: write its file name into the first column")
    if name.is_absolute() or PureWindowsPath(cell).is_absolute() or ".." in name.parts:
        raise CounterfactError(f"{where}: {shorten(cell)} leads out of the folder of images: write a path below it")
    return str(name)


def _settle(concept: Concept, cells: Sequence[Cell], where: str, few: int) -> tuple[Concept, dict[int, str]]:
    """The concept with its domain or interval, and the labels by picture."""
    known = [cell for cell in cells if folded(cell.words) not in UNKNOWN or _spelled(cell.words, concept.domain)]
    # With a decimal comma too: else a column of such numbers would be read as texts.
    numbers = [_number(cell.words.replace(",", ".")) for cell in known]
    numeric = concept.interval is not None
    if not numeric and not concept.domain:
        # A stray word among numbers is a mistake, and so is a stray number among words.
        numeric = sum(number is not None for number in numbers) > len(known) / 2 and len(set(numbers)) > few
    settle = _numeric if numeric else _textual
    return settle(concept, known, where)


def _constant(where: str, values: Iterable[object]) -> CounterfactError:
    only = next((f"all are {value}" for value in values), "there is none")
    return CounterfactError(
        f"{where} needs at least two different labels, but {only}: add labels, or remove the concept from the graph"
    )


def _number(words: str) -> float | None:
    try:
        number = float(words)
    except ValueError:
        return None
    return number if abs(number) <= MAX_NUMBER and "_" not in words else None


def _numeric(concept: Concept, cells: Sequence[Cell], where: str) -> tuple[Concept, dict[int, str]]:
    low, high = concept.interval or (-math.inf, math.inf)
    numbers: dict[int, float] = {}
    for cell in cells:
        there, number = f"{where}, line {cell.line}", _number(cell.words)
        if number is None:
            hint = " with a decimal point" if "," in cell.words else ""
            raise CounterfactError(
                f"{there}: {shorten(cell.words)} is no number; write a number{hint}, or leave the cell empty if it is "
                "not known"
            )
        if not low <= number <= high:
            raise CounterfactError(
                f"{there}: {number:g} is outside {low:g}..{high:g}, the interval in the graph; correct the cell or "
                "widen the interval"
            )
        numbers[cell.picture] = number
    found = min(numbers.values(), default=0.0), max(numbers.values(), default=0.0)
    if found[1] - found[0] <= MIN_SPREAD * max(*map(abs, found), MIN_SPREAD):
        raise _constant(where, (f"{number:g}" for number in numbers.values()))
    if concept.interval is None:
        log.info("%s: numbers from %g to %g", where, *found)
    return Concept(concept.name, interval=concept.interval or found), {i: repr(n) for i, n in numbers.items()}


def _textual(concept: Concept, cells: Sequence[Cell], where: str) -> tuple[Concept, dict[int, str]]:
    found: dict[str, str] = {}
    values = {}
    for cell in cells:
        there = f"{where}, line {cell.line}"
        if concept.domain:
            value = _spelled(cell.words, concept.domain)
            if value is None:
                error = unknown(f"value in {there}:", cell.words, concept.domain, "values")
                raise CounterfactError(f"{error}; correct the cell or add the value to the graph")
        else:
            value = text(cell.words, there)
        values[cell.picture] = found.setdefault(folded(value), value)
        if len(found) > MAX_VALUES and not concept.domain:
            raise CounterfactError(
                f"{there} has one more different text than the {MAX_VALUES} that a concept can have: use fewer, or "
                "numbers"
            )
    if len(found) < 2:
        raise _constant(where, map(shorten, found.values()))
    ordered = sorted(found.values(), key=lambda value: (_number(value) or 0.0, value))
    if not concept.domain:
        log.info("%s: values %s", where, _listed(ordered, MAX_VALUES))
    return Concept(concept.name, concept.domain or tuple(ordered)), values


@lru_cache(10_000)
def _spelled(words: str, domain: tuple[str, ...]) -> str | None:
    """The value of a domain that is meant; `3.0` is `3`, since programs that keep labels as numbers write it so."""
    number = _number(words)
    meant = {folded(words)} | ({str(int(number))} if number is not None and number.is_integer() else set())
    return next((value for value in domain if folded(value) in meant), None)


def _intervened(cell: str, concepts: Concepts, where: str) -> frozenset[str]:
    """Names in a cell, divided by semicolons, or by spaces where the words between semicolons are no name."""
    names: list[str] = []
    for part in cell.split(";"):
        names += [part] if part in concepts else part.split()
    for name in names:
        if name not in concepts:
            raise unknown(f"concept in {where}:", name, concepts.names, "concepts")
    return frozenset(concepts[name].name for name in names)


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(shorten(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
