"""Files of labels that hold anything: labels, or a plain error."""

from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from causal_core.autoencoder.labels import read_labels
from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph

CELLS = st.one_of(
    st.text(max_size=6),
    st.floats().map(repr),
    st.sampled_from(("", "nan", "1", "2", "3.0", "cat", "dog", "0.png", "1.png", "angle", '"', "..", "-", "1e-320")),
)
OPEN = CausalGraph.from_edges([], concepts=parse_concepts("angle\nkind"))
TABLES = st.lists(st.lists(CELLS, min_size=4, max_size=4), max_size=6)


def written(rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["file", "angle", "kind", "do"], *rows])
    return text.getvalue().encode("utf-8", "replace")


def check(path, data):
    path.write_bytes(data)
    try:
        found = read_labels(path, OPEN, ["0.png", "1.png", "2.png"])
    except CounterfactError as error:
        assert len(str(error)) < 3000
        return
    known = found.places[~found.places.isnan()]
    assert found.places.shape == (3, found.coding.width) and float(known.abs().max()) <= 1 + 1e-6


@settings(max_examples=80, derandomize=True, deadline=None, database=None)
@given(st.one_of(TABLES.map(written), st.binary(max_size=60), st.binary(max_size=40).map(lambda b: written([]) + b)))
def test_any_bytes_are_labels_or_a_plain_error(tmp_path_factory, data):
    check(tmp_path_factory.getbasetemp() / "fuzzed.csv", data)


@settings(max_examples=50, derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=3, max_size=3))
def test_any_cells_of_pictures_that_exist_are_labels_or_a_plain_error(tmp_path_factory, cells):
    rows = [[f"{i}.png", *pair, ""] for i, pair in enumerate(cells)]
    check(tmp_path_factory.getbasetemp() / "fuzzed.csv", written(rows))
