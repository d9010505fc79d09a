"""Rows of labels that a modular model learns from: observations, and cases in which variables were set.

A row says of every variable its value, where it is known, and whether it was free: a variable that was set says nothing
about its own mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..autoencoder.coding import Coding
from ..autoencoder.folder import FolderSource
from ..autoencoder.labels import FEW, read_rows
from ..concepts import Concept, Concepts
from ..errors import CounterfactError, finite
from ..graph import CausalGraph
from .sight import SIDE, looked

PICTURE, BATCH = "picture", 64


@dataclass(frozen=True)
class Records:
    """Rows of labels.

    Attributes
    ----------
    coding : variables, causes first
    places : [rows, coding.width] values, NaN where they are not known
    free : bool [rows, variables], False where the variable was set
    smoothing : cases that are added to every cell of a table that is counted; 0 for none
    """

    coding: Coding
    places: torch.Tensor
    free: torch.Tensor
    smoothing: float = 0.0

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def of(cls, coding: Coding, values: Mapping[str, Sequence[str] | np.ndarray], done: Sequence[str] = ()) -> Records:
        """Rows from columns of values, or of pictures uint8 [H, W, 3]; ``done`` names the variables that were set."""
        columns = []
        for v in coding.variables:
            if v.side:
                columns.append(looked(values[v.name], v.side))
                continue
            known = {value: v.vector(value) for value in set(values[v.name])}
            columns.append(torch.tensor([known[value] for value in values[v.name]]))
        places = torch.cat(columns, 1)
        free = torch.ones(len(places), len(coding.variables), dtype=torch.bool)
        free[:, [coding.index(name) for name in done]] = False
        return cls(coding, places, free)

    @classmethod
    def read(
        cls, path: str | Path, graph: CausalGraph, smoothing: float = 0.0, images: str | Path | None = None,
        picture: str = PICTURE, side: int = SIDE, check: Callable[[], object] = lambda: None,
    ) -> Records:  # fmt: skip
        """Rows of a CSV file with a column for every concept, and perhaps one `do` that names what was set in a row.

        Parameters
        ----------
        path, graph : the file, and what causes what among its columns
        smoothing : see :class:`Records`
        images : folder of pictures, which the first column names by their paths below it; rows without one are left out
        picture : the concept that is the picture, if the graph has it; it has no column
        side : in pixels, of the picture as the mechanisms behind it see it
        check : called before each picture is opened; may raise to end it

        Raises
        ------
        CounterfactError
            If the file cannot be read, a column is missing, or a cell is not what its column wants; names the line.
        """
        smoothing = finite(smoothing, "smoothing", 0.0, 1e6)
        if images is None:
            found = read_rows(Path(path), graph)
            return cls(found.coding, found.places, found.free, smoothing)
        name = graph.concepts[picture].name if picture in graph.concepts else None
        source = FolderSource(images, path, _without(graph, name), side, channels=3, check=check, few=FEW)
        coding = Coding.of(_settled(graph, source.coding), {} if name is None else {name: side})
        batches = []
        for start in range(0, len(source), BATCH):
            check()
            pictures, labels, free = source.batch(range(start, min(start + BATCH, len(source))))
            batches.append(_completed(coding, source.coding, pictures, labels, free))
        places, free = (torch.cat(parts) for parts in zip(*batches))
        return cls(coding, places, free, smoothing)

    def __add__(self, other: Records) -> Records:
        if self.coding != other.coding:
            raise CounterfactError("data: the two tables have other variables, values or causes; make them the same")
        return Records(
            self.coding, torch.cat([self.places, other.places]), torch.cat([self.free, other.free]), self.smoothing
        )

    @cached_property
    def domains(self) -> dict[str, tuple[str, ...]]:
        """Values of the variables that have a list of them."""
        return {v.name: v.domain for v in self.coding.variables if v.domain}

    @cached_property
    def codes(self) -> np.ndarray:
        """Numbers of the values, [rows, variables]; -1 where one is not known, or is no value of a list."""
        columns = []
        for v, where in zip(self.coding.variables, self.coding.places):
            known = torch.isfinite(self.places[:, where]).all(1) & bool(v.domain)
            columns.append(torch.where(known, self.places[:, where].nan_to_num().argmax(1), -1))
        return torch.stack(columns, 1).numpy()

    def rows(self, names: Sequence[str], do: Mapping[str, str]) -> np.ndarray:
        """Which rows know all these variables, and set those of ``do``, to these values, and no others."""
        index = [self.coding.index(name) for name in (*names, *do)]
        wanted = np.ones(len(self.coding.variables), bool)
        wanted[[self.coding.index(name) for name in do]] = False
        chosen = (self.codes[:, index] >= 0).all(1) & (self.free.numpy() == wanted).all(1)
        for name, value in do.items():
            chosen &= self.codes[:, self.coding.index(name)] == self.domains[name].index(value)
        return chosen

    def joint(self, names: Sequence[str], do: Mapping[str, str]) -> np.ndarray:
        """P(names | do) as the rows have it; an axis a name.

        Raises
        ------
        CounterfactError
            If a variable has no list of values, or there is no row of that kind.
        """
        for name in (*names, *do):
            if name not in self.domains:
                raise CounterfactError(
                    f"data: {name} is a number or a picture, and a table counts values; give it a few values"
                )
        shape = [len(self.domains[name]) for name in names]
        rows = self.codes[self.rows(names, do)][:, [self.coding.index(name) for name in names]]
        if not len(rows) and not self.smoothing:
            what = ", ".join(f"{name}={value}" for name, value in do.items())
            raise CounterfactError(f"data: there is no row in which {what or 'nothing'} was set and all else was free")
        counts = np.bincount(np.ravel_multi_index(list(rows.T), shape), minlength=int(np.prod(shape)))
        table = counts.reshape(shape) + self.smoothing
        return table / table.sum()


def _without(graph: CausalGraph, name: str | None) -> CausalGraph:
    """The labels of a graph, without hidden causes: what a folder of pictures is read against."""
    concepts = Concepts(tuple(concept for concept in graph.concepts if concept.name != name))
    return CausalGraph(concepts, tuple(edge for edge in graph.edges if name not in (edge.source, edge.target)))


def _settled(graph: CausalGraph, coding: Coding) -> CausalGraph:
    """The graph with the values and intervals of a coding of its labels; a picture has neither."""
    known = {v.name: v for v in coding.variables}
    concepts = tuple(
        replace(c, domain=known[c.name].domain, interval=known[c.name].interval) if c.name in known else Concept(c.name)
        for c in graph.concepts
    )
    return CausalGraph(Concepts(concepts), graph.edges)


def _completed(
    coding: Coding, labelled: Coding, pictures: np.ndarray, labels: torch.Tensor, free: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places and freedom of rows in the order of a coding, from those of its labels and the pictures."""
    places, freedom = [], []
    for v in coding.variables:
        at = None if v.side else labelled.index(v.name)
        places.append(looked(pictures, v.side) if at is None else labels[:, labelled.places[at]])
        freedom.append(torch.ones(len(labels), dtype=torch.bool) if at is None else free[:, at])
    return torch.cat(places, 1), torch.stack(freedom, 1)
