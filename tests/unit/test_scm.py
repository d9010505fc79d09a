"""Tabular mechanisms: sampling, abduction, action, prediction."""

import itertools
from collections import Counter

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.scm import SCM, Variable
from causal_core.worlds.cottage_scm import COTTAGE

RAIN = Variable("rain", ("no", "yes"), (), {(): (0.7, 0.3)})
ROAD = Variable("road", ("dry", "wet"), ("rain",), {("no",): (0.8, 0.2), ("yes",): (0.1, 0.9)})
SLIP = Variable("slip", ("no", "yes"), ("road",), {("dry",): (1.0, 0.0), ("wet",): (0.4, 0.6)})
CHAIN = SCM((RAIN, ROAD, SLIP))


def test_known_noise_reproduces_the_factual_values_and_the_exact_counterfactual():
    for seed in range(30):
        drawn = COTTAGE.sample(np.random.default_rng(seed))
        assert COTTAGE.evaluate(drawn.noise) == drawn.values
        exact = COTTAGE.counterfactual(drawn.values, {"season": "winter"}, drawn.noise)
        assert {k: v.value for k, v in exact.items()} == {
            k: v for k, v in COTTAGE.evaluate(drawn.noise, {"season": "winter"}).items() if k in exact
        }
        assert all(v.probability == 1.0 for v in exact.values())


def test_nothing_changes_under_the_null_intervention_or_by_setting_what_is_there():
    for seed in range(20):
        drawn = COTTAGE.sample(np.random.default_rng(seed))
        observed = {name: drawn.values[name] for name in COTTAGE.observed}
        for do in ({}, {"season": observed["season"]}):
            after = COTTAGE.counterfactual(observed, do)
            assert {k: v.value for k, v in after.items()} == observed
            assert min(v.probability for v in after.values()) == pytest.approx(1.0)


def test_only_descendants_of_the_intervened_variable_may_change():
    downstream = {"windows", "lamp", "shadow"}
    for seed in range(20):
        drawn = COTTAGE.sample(np.random.default_rng(seed))
        observed = {name: drawn.values[name] for name in COTTAGE.observed}
        for noise in (None, drawn.noise):
            after = COTTAGE.counterfactual(observed, {"time": "night"}, noise)
            changed = {name for name in observed if after[name].value != observed[name]}
            assert changed - {"time"} <= downstream


def test_abduction_agrees_with_brute_force_over_the_noise():
    """The closed form must match rejection sampling: keep draws that show the facts, apply do() to their noise."""
    rng = np.random.default_rng(0)
    facts = {"rain": "no", "road": "dry", "slip": "no"}
    seen = Counter()
    while sum(seen.values()) < 20_000:
        drawn = CHAIN.sample(rng)
        if drawn.values == facts:
            seen[tuple(CHAIN.evaluate(drawn.noise, {"rain": "yes"})[k] for k in ("road", "slip"))] += 1
    total = sum(seen.values())
    answer = CHAIN.counterfactual(facts, {"rain": "yes"})
    marginal = sum(n for (road, _), n in seen.items() if road == answer["road"].value) / total
    assert (answer["road"].value, answer["slip"].value) == seen.most_common(1)[0][0]
    assert answer["road"].probability == pytest.approx(marginal, abs=0.02)


def test_hidden_variables_are_summed_over_with_their_posterior():
    front = Variable("front", ("calm", "storm"), (), {(): (0.5, 0.5)}, hidden=True)
    sky = Variable("sky", ("clear", "grey"), ("front",), {("calm",): (0.9, 0.1), ("storm",): (0.1, 0.9)})
    season = Variable("season", ("summer", "winter"), (), {(): (0.5, 0.5)})
    rain = Variable(
        "rain", ("no", "yes"), ("season", "front"),
        {(s, f): (1.0, 0.0) if s == "summer" or f == "calm" else (0.0, 1.0) for s, f in
         itertools.product(("summer", "winter"), ("calm", "storm"))},
    )  # fmt: skip
    model = SCM((front, sky, season, rain))
    grey = model.counterfactual({"sky": "grey", "season": "summer", "rain": "no"}, {"season": "winter"})
    clear = model.counterfactual({"sky": "clear", "season": "summer", "rain": "no"}, {"season": "winter"})
    assert grey["rain"] == ("yes", pytest.approx(0.9))
    assert clear["rain"] == ("no", pytest.approx(0.9))


def test_json_data_round_trip():
    assert SCM.from_dict(COTTAGE.to_dict()) == COTTAGE


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ((RAIN, RAIN), "same name"),
        ((Variable("a", ("x",), ("b",), {("x",): (1.0,)}), Variable("b", ("x",), ("a",), {("x",): (1.0,)})), "a, b"),
        ((Variable("a", ("x", "y"), (), {(): (0.5, 0.6)}),), "sum to 1"),
        ((Variable("a", ("x", "y"), (), {(): (1.5, -0.5)}),), "sum to 1"),
        ((Variable("a", ("x", "y"), (), {(): (float("nan"), 0.5)}),), "finite"),
        ((Variable("a", ("x", "x"), (), {(): (0.5, 0.5)}),), "distinct"),
        ((RAIN, Variable("road", ("dry",), ("rain",), {("no",): (1.0,)})), "one row for each"),
    ],
)
def test_impossible_mechanisms_are_refused_in_plain_words(variables, words):
    with pytest.raises(CounterfactError, match=words):
        SCM(variables)


def test_impossible_facts_are_named():
    with pytest.raises(CounterfactError, match="probability 0"):
        CHAIN.counterfactual({"rain": "no", "road": "dry", "slip": "yes"}, {"rain": "yes"})


@pytest.mark.parametrize("data", [None, [], {}, {"variables": 3}, {"variables": [{"name": "a"}]}])
def test_other_data_is_refused(data):
    with pytest.raises(CounterfactError):
        SCM.from_dict(data)
