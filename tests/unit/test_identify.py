"""Identification: against the textbook, and what is told of questions that cannot be answered."""

import itertools
import json
import re

import numpy as np
import pytest

from causal_core import cli
from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.exact import ExactSCM
from causal_core.expression import Fraction, Probability, Product, Sum, Symbol, evaluate, free, latex, text
from causal_core.identify import identify
from causal_core.query import Query, Term, parse_query
from causal_core.scm import SCM, Variable

from ..helpers.questions import BACK_DOOR, BITS, BOW, FRONT_DOOR, INSTRUMENT, MEDIATION, NAPKIN, VERMA, graph
from ..helpers.random_scm import random_graph, random_scm


@pytest.mark.parametrize(
    "model, query, expression",
    [
        (FRONT_DOOR, "P(y | do(x=1))", "sum[z] P(z | x=1) sum[x] P(x) P(y | x, z)"),
        (FRONT_DOOR, "P(y | do(x))", "sum[z] P(z | x) sum[x'] P(x') P(y | x', z)"),
        (FRONT_DOOR, "P(z | do(x=1))", "P(z | x=1)"),
        (FRONT_DOOR, "P(y | x=1)", "P(y | x=1)"),
        (FRONT_DOOR, "P(y_{x=1} | x=0)", "sum[z] P(y | x=0, z) P(z | x=1)"),
        (BACK_DOOR, "P(y | do(x=1))", "sum[z] P(z) P(y | z, x=1)"),
        (BACK_DOOR, "P(y | do(x=1), z=0)", "P(y | z=0, x=1)"),
        (BACK_DOOR, "P(y_{x=1} | x=0)", "(sum[z] P(z) P(x=0 | z) P(y | z, x=1)) / (sum[z] P(z) P(x=0 | z))"),
        (BACK_DOOR, "P(z | do(x=1))", "P(z)"),
        (BOW, "P(y_{x=1} | x=1)", "P(y | x=1)"),
        (NAPKIN, "P(y | do(x=1))", "(sum[w] P(w) P(x=1 | w, v) P(y | w, v, x=1)) / (sum[w] P(w) P(x=1 | w, v))"),
        (MEDIATION, "P(m_{x=1}, y_{x=1})", "P(m | x=1) P(y | x=1, m)"),
        (VERMA, "P(d | do(c=1))", "sum[b] P(b | a) P(d | a, b, c=1)"),
    ],
)
def test_textbook_expressions(model, query, expression):
    assert str(identify(model, query)) == expression


@pytest.mark.parametrize(
    "model, query, words, hedge",
    [
        (BOW, "P(y | do(x=1))", "x and y share a hidden cause .x <-> y. and x acts on y", (("x", "y"), ("y",))),
        (INSTRUMENT, "P(y | do(x=1))", "x and y share a hidden cause", (("x", "y"), ("y",))),
        (BOW, "P(y_{x=1} | x=0)", "in two worlds, where x=0 and where x=1", ((), ())),
        (NAPKIN, "P(y_{x=1} | x=0)", "which share hidden causes .w <-> x, w <-> y., in two worlds", ((), ())),
        (MEDIATION, "P(y_{x=1}=1, y_{x=0}=0)", "one case of m in two worlds, where x=0 and where x=1", ((), ())),
        (graph("x -> y"), "P(y_{x=1}=1, y_{x=0}=0)", "one case of y in two worlds, where x=0 and where x=1", ((), ())),
    ],
)
def test_what_forbids_an_answer_is_said(model, query, words, hedge):
    found = identify(model, query)
    assert not found.identifiable and found.expression is None and found.latex == ""
    assert found.hedge == hedge and re.search(words, found.reason), found.reason
    with pytest.raises(CounterfactError, match="cannot be answered"):
        found.evaluate(ExactSCM(random_scm(np.random.default_rng(0), model)))


def test_experiments_help_where_observations_do_not():
    found = identify(BOW, "P(y | do(x=1))", [["x"]])
    assert str(found) == "P(y | do(x=1))"
    truth = ExactSCM(random_scm(np.random.default_rng(4), BOW))
    np.testing.assert_allclose(found.evaluate(truth), truth.answer(found.query))
    # An experiment on the instrument's child alone says nothing about another bow further on.
    both = graph("x -> y -> z; x <-> y; y <-> z")
    assert not identify(both, "P(z | do(y=1))", [["x"]]).identifiable
    found = identify(both, "P(z | do(x=1))", [["x"]])
    truth = ExactSCM(random_scm(np.random.default_rng(5), both))
    np.testing.assert_allclose(found.evaluate(truth), truth.answer(found.query))
    with pytest.raises(CounterfactError, match="unknown concept 'w'"):
        identify(BOW, "P(y | do(x=1))", [["w"]])


def test_any_value_of_what_does_not_matter_gives_the_same():
    found = identify(NAPKIN, "P(y | do(x))")
    assert found.anything == (Symbol("v"),)
    truth = ExactSCM(random_scm(np.random.default_rng(6), NAPKIN))
    table = evaluate(found.expression, truth, (Symbol("v"), *found.query.symbols))
    np.testing.assert_allclose(table[0], table[1])
    np.testing.assert_allclose(table.sum(1), 1.0)


def test_a_case_that_never_occurs_is_told_and_one_that_does_not_matter_is_not():
    never = {("0",): (1.0, 0.0), ("1",): (0.5, 0.5)}
    row = {key: (0.3, 0.7) for key in itertools.product(BITS, BITS)}
    parts = (Variable("z", BITS, (), {(): (0.4, 0.6)}), Variable("x", BITS, ("z",), never))
    truth = ExactSCM(SCM((*parts, Variable("y", BITS, ("z", "x"), row))))
    with pytest.raises(CounterfactError, match="no case of a condition"):
        identify(BACK_DOOR, "P(y | do(x=1))").evaluate(truth)
    np.testing.assert_allclose(identify(BACK_DOOR, "P(y | do(x=0))").evaluate(truth), [0.3, 0.7])
    # Nobody needs P(y | z=1, x=1) where z is never 1.
    parts = (Variable("z", BITS, (), {(): (1.0, 0.0)}), Variable("x", BITS, ("z",), never | {("0",): (0.5, 0.5)}))
    truth = ExactSCM(SCM((*parts, Variable("y", BITS, ("z", "x"), row))))
    np.testing.assert_allclose(identify(BACK_DOOR, "P(y | do(x=1))").evaluate(truth), [0.3, 0.7])


CONCEPTS = parse_concepts("season: summer, winter\nground: grass, snow\nshadow length")


@pytest.mark.parametrize(
    "typed, query",
    [
        ("P(ground|do(season=winter))", "P(ground | do(season=winter))"),
        (" p ( Ground = SNOW | Season = summer ) ", "P(ground=snow | season=summer)"),
        ("P(shadow length, ground | do(season))", "P(shadow length, ground | do(season))"),
        ("P(ground_{season=winter} | season=summer, ground=grass)",
         "P(ground_{season=winter} | season=summer, ground=grass)"),
        ("P(ground_{season=winter}, shadow length_{season=winter})", "P(ground, shadow length | do(season=winter))"),
        ("P(ground | season')", "P(ground | season')"),
        ("P(ground_{season=season'} | season)", "P(ground_{season'} | season)"),
        ("P(ground | do(season=winter), do(shadow length=3))", "P(ground | do(season=winter, shadow length=3))"),
    ],
)  # fmt: skip
def test_questions_are_read_and_written(typed, query):
    found = parse_query(typed, CONCEPTS)
    assert str(found) == query
    assert parse_query(str(found), CONCEPTS) == found


@pytest.mark.parametrize(
    "typed, words, place",
    [
        ("ground", "begins with P", 0),
        ("P ground", "expected '[(]' after P", 2),
        ("P()", "expected a variable", 2),
        ("P(ground,)", "expected a variable", 9),
        ("P(ground | do(season=winter)", "expected '[)]' or ','", 28),
        ("P(ground | do(season=winter]))", "cannot|unknown|value", 21),
        ("P(graund)", "unknown concept 'graund'. Did you mean 'ground'", 2),
        ("P(ground=ice)", "ice", 9),
        ("P(ground=)", "expected a value of ground", 9),
        ("P(ground) + 1", "nothing may come after", 10),
        ("P(do(season=winter) | ground)", "belongs behind the bar", 2),
        ("P(ground | do(season=winter, season=summer))", "set to two values", 11),
        ("P(ground_{season=winter)", "expected ',' or '}'", 23),
        ("P(ground'=snow)", "stands for all values", 10),
    ],
)
def test_a_mistake_in_a_question_is_marked(typed, words, place):
    with pytest.raises(CounterfactError, match=words) as error:
        parse_query(typed, CONCEPTS)
    line, mark = str(error.value).split("\n")[-2:]
    assert line == "  " + " ".join(typed.split()) and mark == "  " + " " * place + "^", error.value


@pytest.mark.parametrize(
    "typed, words",
    [
        ("", "it is empty"),
        ("P(" + "ground, " * 1000 + "ground)", "more than 2000 characters"),
        ("P(season | do(season=winter))", "where season itself is set"),
        ("P(ground_{season=winter} | do(season=summer))", "set by do.. and once more"),
    ],
)
def test_questions_that_make_no_sense(typed, words):
    with pytest.raises(CounterfactError, match=words):
        parse_query(typed, CONCEPTS)


@pytest.mark.parametrize(
    "typed, words",
    [
        ("P(y=0, y=1)", "y=0 and y=1 in the same world"),
        ("P(y | y=1)", "twice in the same world"),
        ("P(y=1 | y=1)", "what its condition says already"),
        ("P(y_{z=1}=1 | y=0, x=0, z=1)", None),
    ],
)
def test_contradictions(typed, words):
    if words is None:  # the world of z=1 is the one that is seen, where y is 0
        with pytest.raises(CounterfactError, match="same causes"):
            identify(BACK_DOOR, typed)
        return
    with pytest.raises(CounterfactError, match=words):
        identify(BACK_DOOR, typed)


def test_a_query_that_was_not_read_from_text_is_checked_too():
    for query in (Query((Term("w", "1"),)), Query((Term("y", "1"),), (Term("x", "0", (("w", "1"),)),))):
        with pytest.raises(CounterfactError, match="unknown concept in the query: 'w'"):
            identify(BOW, query)


def test_latex():
    assert identify(FRONT_DOOR, "P(y | do(x))").latex == r"\sum_{z} P(z \mid x) \sum_{x'} P(x') P(y \mid x', z)"
    below = Probability((("x", "1"),), (), (("z", Symbol("z")),))
    expression = Fraction(Probability((("house_2", "pale red"),)), below)
    assert latex(expression) == r"\frac{P(\text{house\_2}{=}\text{pale red})}{P(x{=}1 \mid \mathrm{do}(z))}"


def test_bound_symbols_are_not_mistaken_for_free_ones():
    x = Symbol("x")
    inner = Sum((x,), Probability((("y", Symbol("y")),), (("x", x),)))
    assert free(Product((inner, Probability((("x", x),))))) == {x, Symbol("y")}
    assert text(Product((inner, inner))) == "[sum[x] P(y | x)] [sum[x] P(y | x)]"


def test_many_variables_take_little_time():
    rng = np.random.default_rng(7)
    model = random_graph(rng, 50, edge=0.08, pair=0.02)
    names = model.concepts.names
    assert identify(model, f"P({names[-1]} | do({names[20]}=1))").reason


def test_the_command_prints_a_verdict(tmp_path, capsys):
    path = tmp_path / "graph.json"
    path.write_text(FRONT_DOOR.to_json())
    assert cli.main(["identify", "P(y | do(x=1))", "--graph", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identifiable"] and found["expression"] == "sum[z] P(z | x=1) sum[x] P(x) P(y | x, z)"
    assert found["latex"].startswith(r"\sum_{z}") and found["reason"]
    assert cli.main(["identify", "P(y | do(x=1))", "--edges", "x -> y; x <-> y"]) == 0
    told = capsys.readouterr().out
    assert "not identifiable" in told and "x and y share a hidden cause" in told
    assert cli.main(["identify", "P(y | do(x=1))", "--edges", "x -> y; x <-> y", "--experiment", "x"]) == 0
    assert "P(y | do(x=1))" in capsys.readouterr().out
    assert cli.main(["identify", "P(y | do(x=1)", "--graph", str(path)]) == 2
    assert "at character 14" in capsys.readouterr().err
