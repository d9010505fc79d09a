"""Concepts from thousands of answers of a model that can see: nothing but concepts gets in."""

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from random_json import anything

from causal_core.concepts import Concepts, parse_concepts
from causal_core.errors import CounterfactError
from causal_core.extraction.vision import MOST_CONCEPTS, MOST_VALUES, read_concepts, read_values

WORDS = ["car", "Car", "<b>car", "red", "RED", "angle", "45", "\x00", "\u202e", "\ud800", "9" * 400, "x y" * 27]
FIELDS = ("name", "values", "value", "phrase", "phrases", "confidence")
READ = parse_concepts("car: none, red, blue\nangle: 0 .. 90\nmood")


def random_answer(rng):
    def item():
        if rng.random() < 0.25:
            return anything(rng, WORDS, 1)
        right = {"name": rng.choice(READ.names), "value": rng.choice(["red", "Blue", 45, "calm"])}
        odd = {field: anything(rng, WORDS, 1) for field in FIELDS if rng.random() < 0.4}
        return rng.choice([right | odd, odd | right, odd])

    items = [item() for _ in range(rng.randrange(5))]
    return rng.choice([items, {"concepts": items}, anything(rng, WORDS)])


@settings(max_examples=600, derandomize=True, deadline=None)
@given(st.randoms(use_true_random=True))
def test_any_answer_is_read_or_a_clear_error(rng):
    """3000 answers, each for both readers."""
    for _ in range(5):
        check_readers(random_answer(rng))


def check_readers(data):
    for read, check in ((read_concepts, check_concepts), (partial(read_values, wanted=READ), check_values)):
        try:
            found = read(data)
        except CounterfactError:
            continue
        check(found)


def check_concepts(found):
    assert 1 <= len(found) <= MOST_CONCEPTS
    for concept in found:
        assert 1 <= len(concept.domain) <= MOST_VALUES and not concept.name.startswith("<")
        assert all(word.isprintable() for word in (concept.name, *concept.domain))
        assert concept.confidence is None or concept.value is not None
    assert Concepts.from_json(found.to_json()) == found


def check_values(found):
    assert found
    for name, (value, confidence) in found.items():
        assert READ[name].match(value) == value
        assert confidence is None or 0 <= confidence <= 1
