"""An example to learn from: what somebody wrote down of cottages, with a hidden storm behind time and weather.

Lamps burn in the dark, and a little more under clouds. Storms bring both clouds and late hours, and nobody wrote down
the storms: so under clouds far more lamps are seen to burn than clouds light.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ...graph import CausalGraph, Edge
from ...scm import SCM, Variable
from ...worlds.cottage_scm import LAMP

TABLE = Path(__file__).parent / "confounded_cottage.csv"
ROWS, SEED = 3000, 0

STORMY_COTTAGE = SCM((
    Variable("front", ("calm", "stormy"), (), {(): (0.65, 0.35)}, hidden=True),
    Variable(
        "time", ("day", "dusk", "night"), ("front",), {("calm",): (0.80, 0.12, 0.08), ("stormy",): (0.15, 0.25, 0.60)}
    ),
    Variable("weather", ("clear", "cloudy"), ("front",), {("calm",): (0.85, 0.15), ("stormy",): (0.15, 0.85)}),
    LAMP,
))  # fmt: skip


def graph() -> CausalGraph:
    """What causes what in the table; values come from its columns."""
    return CausalGraph.from_edges([Edge("time", "lamp"), Edge("weather", "lamp")], [("time", "weather")])


def write(path: Path = TABLE) -> None:
    """Write the table again."""
    rng = np.random.default_rng(SEED)
    with open(path, "w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(STORMY_COTTAGE.observed)
        for _ in range(ROWS):
            values = STORMY_COTTAGE.sample(rng).values
            out.writerow(values[name] for name in STORMY_COTTAGE.observed)
