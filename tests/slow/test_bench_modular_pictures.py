"""The benchmark's questions with pictures: their graphs, what is read from pictures, and a run from end to end."""

import json

import numpy as np
import pytest

from causal_core import cli
from causal_core.bench import modular
from causal_core.bench.modular_pictures import VIEWS, pictured, rendered
from causal_core.bench.modular_problems import distance
from causal_core.identify import identify


@pytest.mark.parametrize("name", VIEWS)
def test_the_question_has_an_answer_that_seeing_does_not_give(name):
    p = pictured(name, 1000)
    assert identify(p.graph, p.query).identifiable
    assert distance(p.query, p.naive, p.truth) >= 0.1


def test_a_reader_finds_in_true_pictures_what_is_in_them():
    p = pictured("frontdoor_image", 1000)
    columns = p.observed(40, 3, {"x": "1"})
    pictures = rendered(p.view, [dict(zip(columns, row)) for row in zip(*columns.values())], 3)
    shares = np.zeros((3, 3))
    for digit, colour in zip(columns["digit"], columns["colour"]):
        shares[p.exact.domains["digit"].index(digit), p.exact.domains["colour"].index(colour)] += 1 / 40
    truth = p.exact.joint(["digit", "colour"], {"x": "1"})
    assert p.apart(pictures, {"x": "1"}) == pytest.approx(np.abs(shares - truth).sum() / 2, abs=0.03)
    # What cannot be there is wrong altogether.
    assert p.apart(np.zeros_like(pictures), {"x": "1"}) > 0.4


def test_pictures_are_part_of_the_data_only_where_the_graph_has_one():
    p = pictured("frontdoor_image", 1000)
    data = p.records(30, 5)
    at = data.coding.index("picture")
    assert data.coding.variables[at].side == 32
    ink = data.places[:, data.coding.places[at]].reshape(30, 3, -1).amax(2)
    red = data.codes[:, data.coding.index("colour")] == 0
    assert (ink[red].argmax(1) == 0).all() and len(ink[red]) > 0
    assert "picture" not in pictured("cottage_confounded", 1000).records(5, 5).coding.names


def test_what_cannot_answer_a_query_is_left_out():
    suited = {query: [m for m in (*modular.METHODS, *modular.READINGS) if modular.suited(query, m)]
              for query in modular.QUERIES}  # fmt: skip
    assert suited["frontdoor"] == list(modular.METHODS)
    assert suited["cottage_confounded"] == [*modular.METHODS, *modular.READINGS]
    assert suited["frontdoor_image"] == ["ours", "idgen", "conditioning", "read", "reader"]


def test_the_benchmark_runs_through_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(VIEWS, "frontdoor_image", VIEWS["frontdoor_image"].__class__(
        **{**vars(VIEWS["frontdoor_image"]), "steps": 1}))  # fmt: skip
    given = ["--rows", "60", "--samples", "6", "--pictures", "6", "--steps", "2", "--n", "1"]
    out = tmp_path / "m.json"
    command = ["bench", "modular", "--parts", "queries", "--queries", "frontdoor_image", *given, "--json", str(out)]
    assert cli.main(command) == 0
    metrics = json.loads(out.read_text())["metrics"]
    for method in ("ours", "idgen", "conditioning", "read", "reader"):
        assert 0 <= metrics[f"frontdoor_image.{method}.tvd"] <= 1
    assert "frontdoor_image.dcm.tvd" not in metrics
