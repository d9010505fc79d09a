"""Mechanisms asked from language models, whatever these answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_json import anything, text

from causal_core.discovery.mechanisms import gumbel_posterior
from causal_core.language.model import CHOICES, NOTHING, TEXT

from ..helpers.street import Table, plan, street


@given(st.lists(st.tuples(st.floats(1e-30, 1), st.floats(1e-30, 1)), min_size=1, max_size=8), st.data())
@settings(max_examples=300, derandomize=True, deadline=None)
def test_the_gumbel_posterior_is_a_distribution_and_stable(pairs, data):
    p, q = (np.array(row) / sum(row) for row in zip(*pairs))
    i = data.draw(st.integers(0, len(p) - 1))
    posterior = gumbel_posterior(p, q, i)
    assert posterior.sum() == pytest.approx(1) and (posterior >= 0).all()
    # Counterfactual stability: only values that gained on the factual one can take its place.
    lost = q / p <= (q[i] / p[i]) * (1 - 1e-9)
    assert posterior[lost] == pytest.approx(0)
    assert gumbel_posterior(p, p, i)[i] == pytest.approx(1)


@given(rng=st.randoms(use_true_random=True))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_answer(rng):
    """500 answers."""
    graph, words = street(), ["wet", "Flooded", "sad", "muddy", "50", "value", "x"]
    for _ in range(5):
        odd = anything(rng, words)
        answer = rng.choice([text(rng, 60), json.dumps(odd), json.dumps({"value": odd})])
        for item in plan(Table({"": answer}, rng.choice([TEXT, CHOICES, NOTHING])), graph).values():
            assert item.counterfactual == graph.concepts[item.name].match(item.counterfactual)


@given(
    st.lists(st.floats(allow_nan=True) | st.just(-math.inf), min_size=3, max_size=3),
    st.sampled_from([TEXT, CHOICES]),
)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_score(numbers, scores):
    class Odd(Table):
        def choice_logprobs(self, request, check=lambda: None):
            at = len(request.prompt.text) % 3
            return tuple((numbers * 2)[at : at + len(request.choices)])

    item = plan(Odd({}, scores))["street"]
    assert item.counterfactual in ("dry", "wet", "flooded")
    assert item.probability is None or 0 <= item.probability <= 1
