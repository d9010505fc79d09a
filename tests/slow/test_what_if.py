"""Thousands of questions in words of any kind: an intervention on what there is, or an error."""

from __future__ import annotations

import json
import random
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from random_json import NUMBERS, anything, text

from causal_core.concepts import Concept, Concepts
from causal_core.discovery.what_if import what_if
from causal_core.errors import CounterfactError
from causal_core.language.model import NOTHING, TEXT

from ..helpers.what_if import Fake, summer

VALUES = ["no", "none", "on", "the", "red", "light rain", "1", "and", "=", "in the", "-", "."]
WORDS = (
    "what if it were not no without winter snowed rained the red house blue car and, = ; none lamp on off 5 -3.5 "
    "instead of n't umbrella were is shadows long \u2603 {} % \\ abc xyz".split(" ")
)


def random_sentence(rng: random.Random) -> str:
    return text(rng, 60) if rng.random() < 0.4 else " ".join(rng.choices(WORDS, k=rng.randrange(13)))


def random_concepts(rng: random.Random) -> Concepts:
    """One to four concepts; names, values and phrases are common words, or of any characters."""

    def word() -> str:
        return rng.choice(VALUES) if rng.random() < 0.6 else text(rng, 8)

    made = {}
    for _ in range(rng.randint(1, 4)):
        name = "".join(rng.choices("abc xyz-_\u00e91", k=rng.randint(1, 12)))
        domain = tuple(word() for _ in range(rng.randrange(5)))
        phrases = {value: (word(),) for value in domain if rng.random() < 0.5}
        interval = (0, 9) if not domain and rng.random() < 0.2 else None
        value = "5" if interval else rng.choice([None, *(domain or (word(),))])
        with suppress(CounterfactError):
            concept = Concept(name, domain, value, phrases, None, interval)
            made[concept.name.casefold()] = concept
    return Concepts(tuple(made.values()) or (Concept("a", ("b", "c")),))


def valid(sentence, concepts, model=None) -> None:
    try:
        found = what_if(sentence, concepts, model)
    except CounterfactError:
        return
    assert found.do and concepts.settle(found.do) == dict(found.do)


def fuzzed(test):
    """1000 cases, five for each generator that is drawn."""
    test = given(rng=st.randoms(use_true_random=True))(test)
    return settings(max_examples=200, derandomize=True, deadline=None)(test)


@fuzzed
def test_any_sentence(rng):
    concepts = summer()
    for _ in range(5):
        valid(random_sentence(rng), concepts)


@fuzzed
def test_any_concepts(rng):
    for _ in range(5):
        valid(random_sentence(rng), random_concepts(rng))


@fuzzed
def test_any_model(rng):
    for _ in range(5):
        answer = text(rng, 40) if rng.random() < 0.3 else json.dumps(anything(rng, [*VALUES, "abc", "xyz"]))
        number = rng.choice([*NUMBERS, rng.uniform(-9, 9)])
        score = lambda prompt, choice, number=number: number * (len(prompt + choice) % 3)  # noqa: E731
        model = Fake(answer, rng.choice([TEXT, NOTHING]), score)
        valid(random_sentence(rng), random_concepts(rng), model)
