"""Captions with token spans, and the regions of concepts on pictures where they are known."""

import logging

import numpy as np
import pytest
import torch

from causal_core.concepts import parse_concepts
from causal_core.demo.model import DemoModel
from causal_core.demo.tokenizer import WordTokenizer, words
from causal_core.errors import CounterfactError
from causal_core.extraction.captions import caption_spans
from causal_core.extraction.picture import read_picture
from causal_core.extraction.regions import (
    LEVELS,
    MOST_OTHERS,
    Alternatives,
    concept_regions,
    otsu,
    shown,
)
from causal_core.worlds import get_world

CONCEPTS = parse_concepts("car: none, red, blue = red\nseason: summer, winter\nangle: 0 .. 90 = 80\nmood = calm")
WORLD = get_world("cottage")


@pytest.fixture(scope="module")
def model(tiny):
    return DemoModel.load(tiny)


@pytest.mark.parametrize("values", [None, {"car": "blue", "season": "winter"}])
def test_spans_hold_the_words_of_each_phrase(model, values):
    concepts = WORLD.concepts(WORLD.sample(3).values)
    text, spans = caption_spans(model.tokenizer.encode, concepts, values)
    ids = model.tokenizer.encode(text)
    assert list(spans) == list(concepts.names)
    for concept in concepts:
        phrase = concept.phrase((values or {}).get(concept.name))
        start, end = spans[concept.name]
        assert ids[start:end] == [model.tokenizer.ids[word] for word in words(phrase)]


def test_concepts_without_a_value_are_in_no_caption_and_unread_phrases_have_no_span(caplog):
    tokenizer = WordTokenizer(["red", "car", "calm"], max_length=9)
    with caplog.at_level(logging.WARNING, "counterfact"):
        sad = CONCEPTS.replace("angle", value=None).replace("mood", value="sad")
        text, spans = caption_spans(tokenizer.encode, sad)
    assert text == "red car, sad mood" and spans == {"car": (1, 3)}
    assert 'phrase "sad mood" has no token' in caplog.text


def test_alternatives_change_one_concept_at_a_time():
    found = Alternatives.of(CONCEPTS)
    assert found.captions == (
        "red car, 80.0 angle, calm mood",
        "none car, 80.0 angle, calm mood", "blue car, 80.0 angle, calm mood",
        "red car, 0.0 angle, calm mood", "red car, 80.0 angle",
    )  # fmt: skip
    assert found.rows == {"car": (1, 2), "angle": (3,), "mood": (4,)}, "the season has no value"
    assert Alternatives.of(CONCEPTS, ["mood"]).captions == ("red car, 80.0 angle, calm mood", "red car, 80.0 angle")
    many = parse_concepts("shade: " + ", ".join(f"s{i}" for i in range(200)) + " = s7")
    assert len(set(Alternatives.of(many).captions)) == 1 + MOST_OTHERS
    assert not Alternatives.of(CONCEPTS, ["season"]).rows


def pictures(shape=(64, 48)):
    """What captions of the car would look like: each colour of it is another in one block."""
    found = 0.02 * torch.randn(5, 3, *shape, generator=torch.Generator().manual_seed(0))
    found[1:3, :, 8:24, 8:32] += torch.tensor([0.5, -0.8])[:, None, None, None]
    found[3:5, :, 40:, :] += 0.4
    return found


def test_a_region_is_where_other_values_look_otherwise():
    truth = torch.zeros(64, 48, dtype=torch.bool)
    truth[8:24, 8:32] = True
    regions = concept_regions(pictures(), Alternatives.of(CONCEPTS), {})
    assert set(regions) == {"car", "angle", "mood"}
    for region in regions.values():
        assert region.shape == (64, 48) and region.min() >= 0 and region.max() <= 1
    found = regions["car"] >= 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.95
    assert (regions["mood"] >= 0.5)[40:].all() and not (regions["mood"] >= 0.5)[:40].any()


def test_attention_elsewhere_lowers_a_region_and_cannot_empty_it():
    aside = torch.zeros(16, 12)
    aside[12:] = 1.0
    plain = concept_regions(pictures(), Alternatives.of(CONCEPTS), {})["mood"]
    size = pictures()
    size[4, :, :20] += 0.2
    wide = concept_regions(size, Alternatives.of(CONCEPTS), {})["mood"]
    narrowed = concept_regions(size, Alternatives.of(CONCEPTS), {"mood": aside})["mood"]
    assert narrowed[:20].sum() < wide[:20].sum() and (narrowed >= 0.5)[50:].all()
    away = concept_regions(pictures(), Alternatives.of(CONCEPTS), {"mood": aside.flip(0)})["mood"]
    assert (away >= 0.5).sum() > 0.9 * (plain >= 0.5).sum()


def test_the_threshold_divides_two_groups():
    image = torch.cat([torch.full((900,), 0.1), torch.full((100,), 0.7)]).view(40, 25)
    assert 0.1 < otsu(image) < 0.7
    assert 0.0 <= otsu(torch.zeros(4, 4)) <= 1.0


def test_looking_denoises_all_captions_at_every_level_with_one_noise():
    x0, calls = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1)), []

    def denoise(x, sigma, rows, maps=None):
        calls.append((x, sigma, list(rows)))
        return torch.stack([x0 + row for row in rows])

    alternatives, steps = Alternatives.of(CONCEPTS), []
    seen = shown(denoise, x0, alternatives, {}, seed=3, progress=steps.append)
    assert [(sigma, rows) for _, sigma, rows in calls] == [(sigma, [0, 1, 2, 3, 4]) for sigma in LEVELS]
    assert torch.allclose(seen.estimates, x0 + torch.arange(5.0)[:, None, None, None]) and seen.attention == {}
    assert len(steps) == len(LEVELS) and torch.equal(steps[0], x0)
    again = shown(denoise, x0, alternatives, {}, seed=3, flow=True)
    assert torch.allclose(seen.estimates, again.estimates) and calls[-1][1] < 1 < calls[0][1]


@pytest.mark.parametrize("picture", [
    np.zeros((60, 64, 3), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)),
    np.zeros((0, 64, 3), np.uint8),
])  # fmt: skip
def test_pictures_that_do_not_fit_are_named(model, picture):
    with pytest.raises(CounterfactError, match="image: .*multiples of 16"):
        read_picture(model, picture, CONCEPTS)


def test_a_cancelled_reading_ends_at_once(model):
    class Cancelled(Exception):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        read_picture(model, WORLD.render(WORLD.sample(1)), WORLD.concepts(), check=cancel)
