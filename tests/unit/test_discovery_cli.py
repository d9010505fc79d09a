"""`counterfact discover`: files in, table and files out, and mistakes that end in exit code 2."""

from __future__ import annotations

import json

import pytest

from causal_core import cli
from causal_core.concepts import parse_concepts
from causal_core.discovery import Oracle
from causal_core.discovery.cli import read_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.language import backends

TRUTH = CausalGraph.from_edges([("rain", "wet street"), ("wet street", "accidents")])


@pytest.fixture
def oracle(monkeypatch, tmp_path):
    """Every backend is the oracle; answers are kept in a folder of the test's own."""
    model = Oracle(TRUTH)
    model.asked = 0
    batch = model.batch

    def counted(requests, *rest):
        model.asked += len(requests)
        return batch(requests, *rest)

    model.batch = counted
    monkeypatch.setattr(backends, "open_model", lambda name, **options: model)
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path / "cache"))
    return model


@pytest.fixture
def write(tmp_path):
    def writer(content, name="concepts.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return writer


def test_names_to_a_graph_that_the_nodes_read(oracle, write, tmp_path, capsys):
    file = write(["rain", "wet street", {"name": "accidents", "description": "of cars"}])
    out, report = tmp_path / "out" / "graph.json", tmp_path / "report.json"
    words = ["discover", "--concepts", file, "--backend", "any", "--json", str(out), "--report", str(report)]
    assert cli.main(words) == 0
    graph = CausalGraph.from_json(out.read_text("utf-8"))
    assert [(e.source, e.target) for e in graph.edges] == [("rain", "wet street"), ("wet street", "accidents")]
    data = json.loads(report.read_text("utf-8"))
    assert data["calls"] == 12 and len(data["pairs"]) == 3 and data["strategy"] == "pairwise"
    printed = capsys.readouterr().out
    assert "| rain -> wet street | 0.82 | A change of rain changes wet street. (4 of 4 answers) |" in printed
    assert "12 questions" in printed


def test_the_same_call_twice_asks_nothing(oracle, write):
    words = ["discover", "--concepts", write(["rain", "wet street", "accidents"]), "--backend", "any"]
    assert cli.main(words) == 0 and oracle.asked == 12
    assert cli.main(words) == 0 and oracle.asked == 12
    assert cli.main([*words, "--no-cache"]) == 0 and oracle.asked == 24


def test_a_document_constraints_and_a_strategy(oracle, write, tmp_path, capsys):
    concepts = parse_concepts("rain: none, heavy\nwet street\naccidents")
    known = write("not wet street -> accidents\nfirst: rain  # from above", "known.txt")
    out = tmp_path / "graph.json"
    words = ["discover", "--concepts", write(concepts.to_json()), "--backend", "any", "--strategy", "breadth_first"]
    assert cli.main([*words, "--constraints", known, "--json", str(out)]) == 0
    graph = CausalGraph.from_json(out.read_text("utf-8"))
    assert graph.concepts == concepts and [e.target for e in graph.edges] == ["wet street"]


def test_pairs_are_judged_one_by_one(oracle, write, tmp_path, capsys):
    out = tmp_path / "pairs.json"
    file = write([["wet street", "rain"], ["wet street", "accidents"]])
    assert cli.main(["discover", "--concepts", file, "--backend", "any", "--json", str(out)]) == 0
    first, second = json.loads(out.read_text("utf-8"))["pairs"]
    assert (first["a"], first["b"]) == ("wet street", "rain") and first["backward"] > 0.8
    assert second["forward"] > 0.8 and second["forward"] + second["backward"] + second["none"] == pytest.approx(1.0)
    assert "| rain -> wet street | 0.90 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "document, message",
    [
        ("[]", "concept list is empty"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "holds 3"),
        ("{}", "kind"),
        ('["rain", "Rain"]', "listed twice"),
        ('["rain", 3]', "must be text"),
        ('["rain", ["a", "b"]]', "must be text"),
        ('["<b>rain</b>"]', "may only have letters"),
        ('["ra\\u0000in"]', "control characters"),
        ('[{"name": "rain", "colour": "grey"}]', "unknown field"),
        ('[{"description": "rain"}]', "lacks the field 'name'"),
        ('[["rain"]]', "pair 1 must be two names"),
        ('[["rain", 1]]', "pair 1 must be two names"),
        ('[["rain", "mud", "flood"]]', "pair 1 must be two names"),
    ],
)
def test_what_is_no_list_of_concepts(document, message):
    with pytest.raises(CounterfactError, match=message):
        read_concepts(document)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--concepts", "missing.json"], "--concepts: cannot read missing.json"),
        (["--constraints", "missing.txt"], "--constraints: cannot read missing.txt"),
        (["--backend", "none"], "asks nobody"),
        (["--json", "/dev/null/graph.json"], "cannot write"),
    ],
)
def test_mistakes_end_in_exit_code_2(words, message, oracle, write, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = write(["rain", "wet street"])
    assert cli.main(["discover", "--concepts", file, "--backend", "any", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_unreadable_model_ends_in_exit_code_2(oracle, write, capsys):
    oracle.garbled = 1.0
    assert cli.main(["discover", "--concepts", write(["rain", "wet street"]), "--backend", "any"]) == 2
    assert "none of the 4 answers" in capsys.readouterr().err


def test_descriptions_reach_the_model(oracle, write, monkeypatch):
    seen = []
    complete = oracle.complete
    oracle.complete = lambda request, *rest: seen.append(request.prompt.system) or complete(request, *rest)
    file = write([{"name": "rain", "description": "from the sky"}, "wet street"])
    assert cli.main(["discover", "--concepts", file, "--backend", "any"]) == 0
    assert seen and all('"rain": from the sky' in system for system in seen)
