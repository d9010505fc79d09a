"""Pairs judged by log-probabilities, with scripted models whose letters are biased, know something, or nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from causal_core.concepts import Concept, Concepts
from causal_core.discovery import Constraints, discover
from causal_core.discovery.interview import NothingReadable
from causal_core.discovery.questions import BACKWARD, CONFOUNDERS, FORWARD, LETTER_CHOICES, NONE
from causal_core.discovery.scored import SENTENCES, centred, from_sentences, logistic
from causal_core.graph import CausalGraph
from causal_core.language.model import CHOICES, TEXT

NAMES = ("car", "foliage", "house", "pond", "season", "smoke", "temperature", "umbrella")
EDGES = {("season", "foliage"), ("season", "temperature"), ("temperature", "pond"), ("temperature", "smoke")}
CONCEPTS = Concepts(tuple(map(Concept, NAMES)))


class Scorer:
    """Prefers the letter A, and by `knows` the right option; short names, and by `hears` true sentences."""

    name = "scorer"

    def __init__(self, scores, knows=0.0, hears=0.0, links=EDGES):
        self.scores, self.knows, self.hears, self.links = scores, knows, hears, links
        self.chats = self.texts = 0

    def batch(self, requests, progress=lambda done, total: None, check=lambda: None):
        answers = [self.chat(request) if request.prompt.chat else self.text(request) for request in requests]
        progress(len(answers), len(answers))
        return answers

    def chat(self, request):
        self.chats += 1
        if request.choices == ("Yes", "No"):
            return (-0.7, -0.7)
        for choice in LETTER_CHOICES:
            if names := choice.question.match(request.prompt.text):
                link = names["first"][0], names["second"][0]
                truth = FORWARD if link in self.links else BACKWARD if link[::-1] in self.links else NONE
                return tuple(
                    bias + self.knows * (meaning == truth) for bias, meaning in zip((-0.5, -1.5, -2.5), choice.options)
                )
        raise AssertionError(request.prompt.text)

    def text(self, request):
        self.texts += 1
        start, end = next((s, e) for s, e in SENTENCES if _fits(s, e, request))
        effect = request.prompt.text.removeprefix(start.split("{")[0])
        before, after = end.split("{cause}")
        causes = [choice.removeprefix(before).removesuffix(after) for choice in request.choices]
        return tuple(-0.2 * len(cause) + self.hears * ((cause, effect) in self.links) for cause in causes)


def _fits(start, end, request):
    return request.prompt.text.startswith(start.split("{")[0]) and request.choices[0].startswith(end.split("{")[0])


def links(found):
    return {(edge.source, edge.target) for edge in found.graph.edges}


@pytest.mark.parametrize("scores", [TEXT, CHOICES])
def test_letters_of_a_model_that_knows(scores):
    model = Scorer(scores, knows=6.0)
    found = discover(CONCEPTS, model)
    assert links(found) == EDGES and model.texts == 0
    assert all(edge.confidence > 0.9 for edge in found.graph.edges)
    assert all(posterior[NONE] > 0.9 for pair, posterior in found.posteriors.items() if pair[0] == "car")
    reason = next(edge.reason for edge in found.graph.edges if edge.target == "foliage")
    assert reason == "the most probable answer to 4 of 4 questions, both orders, about 'season' and 'foliage'"


def test_a_preference_for_a_letter_cancels():
    found = discover(CONCEPTS, Scorer(CHOICES))
    for forward, backward, none in found.posteriors.values():
        assert forward == pytest.approx(backward) and none > 0.5


def test_sentences_where_letters_tell_nothing():
    model = Scorer(TEXT, hears=4.0)
    found = discover(CONCEPTS, model)
    assert model.texts == len(SENTENCES) * len(NAMES) and 0 < model.chats <= 6 * 4
    assert found.calls == model.texts + model.chats
    assert links(found) >= EDGES and len(links(found)) <= len(NAMES)
    surest = sorted(found.graph.edges, key=lambda edge: -edge.confidence)[: len(EDGES)]
    assert {(edge.source, edge.target) for edge in surest} == EDGES
    assert all("in 3 of 3 phrasings" in edge.reason for edge in surest)
    expected = sum(1 - posterior[NONE] for posterior in found.posteriors.values())
    assert expected == pytest.approx(len(NAMES), abs=1e-6)


def test_sentences_that_tell_nothing_but_length_make_no_edge_sure():
    found = discover(CONCEPTS, Scorer(TEXT))
    assert all(edge.confidence < 0.6 for edge in found.graph.edges)


def test_sentences_under_constraints_and_of_pairs():
    known = Constraints(forbidden=(("season", "foliage"), ("foliage", "season")))
    assert ("season", "foliage") not in links(discover(CONCEPTS, Scorer(TEXT, hears=4.0), constraints=known))
    pairs = [("foliage", "season"), ("temperature", "pond")]
    found = discover(CONCEPTS, Scorer(TEXT, hears=9.0), pairs=pairs)
    assert [p[FORWARD] > p[BACKWARD] for p in found.posteriors.values()] == [False, True]


def test_one_pair_is_judged_by_its_direction():
    concepts = Concepts(tuple(map(Concept, ("season", "foliage"))))
    found = discover(concepts, Scorer(TEXT, hears=9.0))
    assert links(found) == {("season", "foliage")}


def test_choices_that_were_not_considered_and_broken_answers():
    class Odd(Scorer):
        def chat(self, request):
            answer = super().chat(request)
            if self.chats % 3 == 0:
                return (math.nan,) * 3
            return tuple(x if x == max(answer) else -math.inf for x in answer)

    found = discover(CONCEPTS, Odd(CHOICES, knows=6.0))
    assert found.unreadable == found.calls // 3 and links(found) == EDGES

    class Broken(Scorer):
        def chat(self, request):
            return (-math.inf,) * len(request.choices)

        text = chat

    for scores in (TEXT, CHOICES):
        with pytest.raises(NothingReadable):
            discover(CONCEPTS, Broken(scores))


def test_confounders_by_score_must_stand_out():
    class Suspicious(Scorer):
        def chat(self, request):
            if request.choices != ("Yes", "No"):
                return super().chat(request)
            names = next(filter(None, (template.match(request.prompt.text) for template in CONFOUNDERS)))
            odds = {frozenset({"car", "house"}): 2.0, frozenset({"foliage", "pond"}): 0.7}
            return odds.get(frozenset(names["first"] + names["second"]), 0.4), 0.0

    found = discover(CONCEPTS, Suspicious(CHOICES, knows=6.0), confounders=True)
    assert found.graph.confounded == (("car", "house"),)
    assert discover(CONCEPTS, Scorer(CHOICES, knows=6.0), confounders=True).graph.confounded == ()


def test_centring_takes_out_every_row_and_column_effect():
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(size=(2, 6))
    additive = rows[:, None] + columns[None, :]
    np.fill_diagonal(additive, np.nan)
    assert np.nanmax(np.abs(centred(additive))) < 1e-6
    alone = np.full((4, 4), np.nan)
    alone[0, 1], alone[2, 3] = 5.0, -5.0
    assert np.nanmax(np.abs(centred(alone))) < 1e-6, "a single score in its row and column tells nothing"
    assert np.isnan(centred(np.full((2, 2), np.nan))).all()


def test_logistic_is_exact_at_both_ends():
    assert logistic(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, 0.5, 1.0]


def test_beliefs_sum_to_one_whatever_the_scores():
    rng = np.random.default_rng(1)

    class Of:
        concepts = CausalGraph.from_edges([("a", "b"), ("b", "c")]).concepts

    pairs = [(0, 1), (0, 2), (1, 2)]
    for _ in range(50):
        found = [rng.normal(0, 10 ** rng.uniform(-6, 4), (3, 3)) for _ in range(3)]
        found[0][rng.random((3, 3)) < 0.5] = np.nan
        beliefs = from_sentences(found, Of, pairs)
        for posterior in beliefs.posteriors.values():
            assert sum(posterior) == pytest.approx(1.0) and min(posterior) >= 0.0
        assert beliefs.boldness >= 0.0
