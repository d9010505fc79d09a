"""The benchmark of modular models: its problems, its table and JSON, and the command that fits a table."""

import json

import numpy as np
import pytest

from causal_core import cli
from causal_core.bench.modular_problems import GAP, QUESTIONS, REFUSED, distance, problem
from causal_core.identify import identify


@pytest.mark.parametrize("name", [*QUESTIONS, *REFUSED])
def test_seeing_is_not_doing_in_any_problem(name):
    question = {**QUESTIONS, **REFUSED}[name]
    p = problem(question, 1)
    assert distance(p.query, p.naive, p.truth) >= GAP
    found = identify(p.graph, p.query)
    assert found.identifiable == (name in QUESTIONS)
    if found.identifiable:
        np.testing.assert_allclose(found.evaluate(p.exact), p.truth, atol=1e-9)


def test_another_seed_is_another_problem():
    one, same, other = (problem(QUESTIONS["frontdoor"], seed).truth for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_the_distance_is_the_largest_over_what_is_set():
    p = problem(QUESTIONS["frontdoor"], 1)
    wrong = p.truth.copy()
    wrong[:, 1] = wrong[::-1, 1]
    assert distance(p.query, wrong, p.truth) == pytest.approx(abs(wrong[0, 1] - wrong[1, 1]))
    assert distance(p.query, p.truth, p.truth) == 0


def test_the_command_measures(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--n", "1", "--rows", "2000", "--samples", "2000", "--steps", "20", "--json", str(path)]
    assert (
        cli.main(["bench", "modular", "--queries", "frontdoor", "--parts", "queries", "bounds", *options])
        == 0
    )
    document = json.loads(path.read_text())
    metrics = document["metrics"]
    assert (document["bench"], document["version"]) == ("modular", 1)
    for query in ("frontdoor",):
        for method in ("ours", "dcm", "idgen", "joint", "formula", "conditioning"):
            assert 0 <= metrics[f"{query}.{method}.tvd"] <= 1 and metrics[f"{query}.{method}.seconds"] >= 0
        assert metrics[f"{query}.idgen.tvd"] < 0.08 < metrics[f"{query}.conditioning.tvd"]
    for name in REFUSED:
        assert metrics[f"bounds.{name}.inside"] == 1 and 0 < metrics[f"bounds.{name}.width"] < 1
    assert "| frontdoor | " in capsys.readouterr().out


def test_a_table_is_fitted_and_asked(tmp_path, capsys):
    p = problem(QUESTIONS["backdoor"], 1)
    codes = p.records(4000, 1).codes
    lines = ["z,x,y", *(",".join(map(str, row)) for row in codes)]
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(lines))
    options = ["--labels", str(table), "--edges", "z -> x; z -> y; x -> y", "--run", str(tmp_path / "run")]
    assert cli.main(["train", "modular", *options, "--ask", "P(y=1 | do(x=1))", "--samples", "20000"]) == 0
    told = capsys.readouterr().out
    assert (tmp_path / "run" / "modular.safetensors").exists()
    assert float(told.split("probability: ")[1]) == pytest.approx(p.truth[1, 1], abs=0.05)
    options[3] = "z -> x; z -> y; x -> y; x <-> y"
    assert cli.main(["train", "modular", *options, "--ask", "P(y | do(x=1))"]) == 2
    assert "x and y share a hidden cause" in capsys.readouterr().err
