"""Identification of many random questions: against another implementation, and against enumeration of all noise."""

import causaleffect
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.exact import ExactSCM
from causal_core.identify import identify
from causal_core.query import parse_query

from ..helpers.questions import counterfactual, question
from ..helpers.random_scm import random_graph, random_scm


def test_verdicts_are_those_of_another_implementation():
    rng, identifiable = np.random.default_rng(1), 0
    for _ in range(2000):
        model = random_graph(rng, int(rng.integers(3, 7)))
        query = question(rng, model.concepts.names)
        edges = [f"{e.source}->{e.target}" for e in model.edges] + [f"{a}<->{b}" for a, b in model.confounded]
        # So that variables without an edge are in its graph as well.
        theirs = causaleffect.createGraph([*edges, *(f"{name}->sink" for name in model.concepts.names)])
        outcomes, conditions, do = ({e.variable for e in query.of}, {e.variable for e in query.given},
                                    {name for name, _ in query.of[0].do})  # fmt: skip
        verdict = causaleffect.ID(outcomes, do, theirs, cond=conditions).identifiable
        assert identify(model, query).identifiable == verdict, (query, model.edges, model.confounded)
        identifiable += verdict
    assert 1000 < identifiable < 1900


def test_expressions_equal_what_enumeration_finds():
    rng, checked = np.random.default_rng(2), 0
    while checked < 150:
        model = random_graph(rng, int(rng.integers(3, 6)), pair=0.25)
        query = question(rng, model.concepts.names)
        found = identify(model, query)
        if found.identifiable:
            truth = ExactSCM(random_scm(rng, model))
            np.testing.assert_allclose(found.evaluate(truth), truth.answer(query), atol=1e-9, err_msg=str(found))
            checked += 1


def test_counterfactual_expressions_equal_what_enumeration_finds():
    rng, checked, refused = np.random.default_rng(3), 0, 0
    while checked < 250:
        model = random_graph(rng, int(rng.integers(3, 5)), 0.6, 0.25)
        try:
            found = identify(model, counterfactual(rng, model.concepts.names))
        except CounterfactError as error:
            assert "leave one out" in str(error) or "says already" in str(error)
            continue
        refused += not found.identifiable
        if found.identifiable:
            truth = ExactSCM(random_scm(rng, model))
            np.testing.assert_allclose(found.evaluate(truth), truth.answer(found.query), atol=1e-9, err_msg=str(found))
            checked += 1
    assert refused > 20


CONCEPTS = parse_concepts("season: summer, winter\nground: grass, snow\nshadow length")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="P(ground|do=season,winter)_{}' \n\x00", max_size=60))
def test_any_text_is_a_question_or_a_mistake(typed):
    try:
        parse_query(typed, CONCEPTS)
    except CounterfactError as error:
        assert str(error).startswith("query: ")
