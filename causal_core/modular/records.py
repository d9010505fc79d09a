"""Rows of labels that a modular model learns from: observations, and cases in which variables were set.

A row says of every variable its value, where it is known, and whether it was free: a variable that was set says nothing
about its own mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..autoencoder.coding import Coding
from ..autoencoder.labels import read_rows
from ..errors import CounterfactError, finite
from ..graph import CausalGraph


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
    def of(cls, coding: Coding, values: Mapping[str, Sequence[str]], done: Sequence[str] = ()) -> Records:
        """Rows from columns of values; ``done`` names the variables that were set."""
        columns = []
        for v in coding.variables:
            known = {value: v.vector(value) for value in set(values[v.name])}
            columns.append(torch.tensor([known[value] for value in values[v.name]]))
        places = torch.cat(columns, 1)
        free = torch.ones(len(places), len(coding.variables), dtype=torch.bool)
        free[:, [coding.index(name) for name in done]] = False
        return cls(coding, places, free)

    @classmethod
    def read(cls, path: str | Path, graph: CausalGraph, smoothing: float = 0.0) -> Records:
        """Rows of a CSV file with a column for every concept, and perhaps one `do` that names what was set in a row.

        Raises
        ------
        CounterfactError
            If the file cannot be read, a column is missing, or a cell is not what its column wants; names the line.
        """
        found = read_rows(Path(path), graph)
        return cls(found.coding, found.places, found.free, finite(smoothing, "smoothing", 0.0, 1e6))

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
                raise CounterfactError(f"data: {name} is a number, and a table counts values; give it a few values")
        shape = [len(self.domains[name]) for name in names]
        rows = self.codes[self.rows(names, do)][:, [self.coding.index(name) for name in names]]
        if not len(rows) and not self.smoothing:
            what = ", ".join(f"{name}={value}" for name, value in do.items())
            raise CounterfactError(f"data: there is no row in which {what or 'nothing'} was set and all else was free")
        counts = np.bincount(np.ravel_multi_index(list(rows.T), shape), minlength=int(np.prod(shape)))
        table = counts.reshape(shape) + self.smoothing
        return table / table.sum()
