"""Bounds of many random questions, against enumeration of all noise of random models."""

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.exact import ExactSCM
from causal_core.identify import identify
from causal_core.modular.bounds import bounds
from causal_core.query import parse_query

from ..helpers.questions import BACK_DOOR, FRONT_DOOR, NAPKIN, counterfactual, graph, question
from ..helpers.random_scm import random_graph, random_scm

OPEN = graph("v0 -> v1 -> v2; v0 -> v2")
CHAIN = OPEN.with_confounder("v0", "v1")


def test_the_truth_is_between_random_bounds():
    rng, wide, sharp = np.random.default_rng(1), 0, 0
    while wide < 40:
        model = random_graph(rng, 3 + (wide % 7 == 0), 0.6, 0.3)
        query = (counterfactual if wide % 3 else question)(rng, model.concepts.names)
        try:
            if identify(model, query).identifiable:
                continue
        except CounterfactError:
            continue
        truth = ExactSCM(random_scm(rng, model))
        answer = truth.answer(query)
        if np.isnan(answer).any():
            continue
        found = bounds(model, truth, query)
        said = f"{query} {model.edges} {model.confounded}"
        assert found.low.shape == found.high.shape == answer.shape and found.slack == 0.0
        assert (found.low >= 0).all() and (found.high <= 1).all(), said
        assert (found.low <= answer + 1e-7).all() and (answer <= found.high + 1e-7).all(), said
        wide += bool((found.high - found.low > 1e-6).any())
        sharp += found.sharp
    assert 15 < sharp < 36


def test_an_identifiable_question_has_one_answer():
    rng, checked = np.random.default_rng(2), 0
    known = [(FRONT_DOOR, "P(y | do(x))"), (NAPKIN, "P(y | do(x=1))"), (FRONT_DOOR, "P(y_{x=1} | x=0)"),
             (BACK_DOOR, "P(y_{x=1} | x=0)")]  # fmt: skip
    while checked < 45:
        if known:
            model, query = known.pop()
            query = parse_query(query, model.concepts)
        else:
            model = random_graph(rng, int(rng.integers(3, 6)), 0.5, 0.25)
            query = (counterfactual if checked % 2 else question)(rng, model.concepts.names)
        try:
            if not identify(model, query).identifiable:
                continue
        except CounterfactError:
            continue
        truth = ExactSCM(random_scm(rng, model))
        found, answer = bounds(model, truth, query), truth.answer(query)
        np.testing.assert_allclose(found.low, answer, atol=1e-7, err_msg=str(query))
        np.testing.assert_allclose(found.high, answer, atol=1e-7, err_msg=str(query))
        assert found.sharp
        checked += 1


@pytest.mark.parametrize(
    "model, typed, seed",
    [
        # One has to be narrowed before a model reaches it, and one is reached from a random start.
        (OPEN, "P(v2_{v1=1}=0, v2=1 | v1=0, v1_{v0=1}=0)", 899539),
        (CHAIN, "P(v2_{v1=0}=0, v2_{v0=0}=0 | v1_{v2=0}=1)", 440244),
    ],
)
def test_bounds_are_called_sharp_once_a_model_reaches_them(model, typed, seed, monkeypatch):
    truth = ExactSCM(random_scm(np.random.default_rng(seed), model))
    found = [bounds(model, truth, typed, restarts) for restarts in (20, 0)]
    assert found[0].sharp
    assert 0.01 < found[0].low or found[0].high < 0.99
    monkeypatch.setattr("causal_core.modular.bounds.MOST_PRODUCTS", 0)
    found.append(bounds(model, truth, typed, 20))
    answer = truth.answer(found[0].query)
    for one in found:
        assert one.low - 1e-7 <= answer <= one.high + 1e-7
        # What no model reaches is not called sharp.
        same = np.allclose([one.low, one.high], [found[0].low, found[0].high], atol=1e-5)
        assert same or not one.sharp
    assert model is CHAIN or not same
