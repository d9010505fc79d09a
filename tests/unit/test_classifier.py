"""The diffusion classifier on a model whose errors are known."""

from math import inf, nan
from statistics import NormalDist
from zlib import crc32

import pytest
import torch

from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.extraction.classifier import (
    LEVELS,
    Settings,
    behind,
    error_shares,
    level,
    noise_levels,
    read,
    residuals,
)

CONCEPTS = parse_concepts("season: summer, winter\ncar: none, red, blue\nhouse: white, red, blue, green\nnote")
TRUTH = {"season": "winter", "car": "blue", "house": "red"}
WHOLE = Settings(error=0.0)


class Model:
    """Draws each concept in a quarter of the picture: what its phrase says, or, without a phrase, an average.

    Parameters
    ----------
    truth : what the picture shows
    noise : how far estimates are off by chance, the same for all captions
    misled : where it draws the car wrong unless the caption names the season right
    """

    def __init__(self, truth=TRUTH, noise=0.1, misled=False):
        self.truth, self.noise, self.misled, self.calls = truth, noise, misled, []

    def __call__(self, captions, sigma, number):
        self.calls.append((tuple(captions), sigma, number))
        chance = self.noise * torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(number))
        shown = self.estimate(", ".join(self.phrases()))
        return torch.stack([self.estimate(text) - shown for text in captions]) + chance

    def phrases(self):
        return [CONCEPTS[name].phrase(value) for name, value in self.truth.items()]

    def estimate(self, text):
        picture = torch.zeros(2, 8, 8)
        for number, name in enumerate(TRUTH):
            said = [value for value in CONCEPTS[name].domain if CONCEPTS[name].phrase(value) in text.split(", ")]
            rows = slice(2 * number, 2 * number + 2)
            shown = said[0] if said else None
            if name == "car" and self.misled and "winter season" not in text:
                shown = {"none": "red", "red": "blue", "blue": "none"}.get(shown)
            colour = torch.Generator().manual_seed(crc32(f"{name} {shown}".encode()))
            picture[:, rows] = torch.randn(2, 1, 1, generator=colour) if shown else 0.0
        return picture

    @property
    def evaluations(self):
        return sum(len(captions) for captions, *_ in self.calls)


@pytest.mark.parametrize("settings", [Settings(), WHOLE, Settings(passes=0, first=6), Settings(levels=1)])
def test_reads_the_values_that_denoise_best_and_leaves_open_concepts_alone(settings):
    read_values = read(CONCEPTS, Model(), settings).concepts
    assert read_values.values() == TRUTH
    assert all(read_values[name].confidence > 0.7 for name in TRUTH) and read_values["note"].confidence is None


def test_what_is_given_stays_and_is_named_in_every_caption():
    """Also where it is wrong: the user's word counts."""
    model, given = Model(), CONCEPTS.replace("house", value="green").replace("note", value="calm")
    found = read(given, model)
    assert found.concepts.values() == {**TRUTH, "house": "green", "note": "calm"}
    assert found.concepts["house"].confidence is None and set(found.evaluations) == {"season", "car"}
    assert all("green house, calm note" in text for captions, *_ in model.calls for text in captions)


def test_the_first_look_names_one_concept_and_later_passes_all_that_was_read():
    model = Model()
    read(CONCEPTS, model)
    first, *later = [captions for captions, *_ in model.calls]
    assert first == (
        "summer season", "winter season", "none car", "red car", "blue car",
        "white house", "red house", "blue house", "green house",
    )  # fmt: skip
    assert all("winter season" in text or "summer season, blue car, red house" == text for text in later[0])
    assert len(later[0]) == 1 + 1 + 2 + 3, "the caption with all values that were read is the same for all concepts"


def test_evaluations_are_counted_exactly_and_shared_captions_in_parts():
    for settings in (Settings(), WHOLE, Settings(passes=0)):
        model = Model()
        found = read(CONCEPTS, model, settings)
        assert sum(found.evaluations.values()) == pytest.approx(model.evaluations)
    alone = read(CONCEPTS, Model(), Settings(passes=0, first=2))
    assert alone.evaluations == {"season": 4, "car": 6, "house": 8}


def test_values_that_are_clearly_behind_cost_no_further_evaluations():
    early, whole = Model(), Model()
    assert read(CONCEPTS, early).concepts.values() == read(CONCEPTS, whole, WHOLE).concepts.values()
    assert early.evaluations < 0.7 * whole.evaluations
    # A first look with 9 values, and 6 levels with 1 + 1 + 2 + 3 captions, after which nothing has changed.
    assert whole.evaluations == 9 + 6 * 7


def test_passes_go_on_until_the_captions_beside_a_concept_are_right():
    """The car can be read only once the season is known, and is wrong after the first look."""
    model = Model(misled=True)
    assert read(CONCEPTS, model, Settings(passes=0)).concepts["car"].value != "blue"
    assert read(CONCEPTS, model).concepts.values() == TRUTH


def test_reading_ends_when_nothing_changes():
    sure = Model(noise=0.0)
    read(CONCEPTS, sure, Settings(error=0.0, levels=2, passes=9))
    assert [number for *_, number in sure.calls] == [0, 1, 2], "nothing had changed after the first pass"
    assert [sigma for _, sigma, _ in sure.calls] == [LEVELS[0], *LEVELS[:2]]
    single = Model()
    read(parse_concepts("car: none, red, blue"), single, Settings(error=0.0, levels=2))
    assert len(single.calls) == 2, "one concept alone needs neither a first look nor a second pass"


def test_words_that_the_text_encoder_does_not_tell_apart_give_a_guess():
    found = read(CONCEPTS, lambda captions, sigma, number: torch.ones(len(captions), 1, 4, 4)).concepts
    assert [found[name].confidence for name in TRUTH] == pytest.approx([1 / 2, 1 / 3, 1 / 4])


@pytest.mark.parametrize("broken", [nan, inf])
def test_numbers_that_are_not_finite_name_the_model(broken):
    with pytest.raises(CounterfactError, match="model: .*not finite"):
        read(CONCEPTS, lambda captions, sigma, number: torch.full((len(captions), 1, 4, 4), broken))


def test_a_concept_without_values_to_choose_from_is_named():
    with pytest.raises(CounterfactError, match="values to choose from"):
        read(parse_concepts("season\ncar"), Model())
    typed = parse_concepts("season = winter\ncar = red")
    assert read(typed, Model()).concepts == typed, "there is nothing to read"


def test_the_test_errs_as_often_as_it_says():
    """Two values that are equally good: each is called clearly behind in about 5 of 100 pictures."""
    shares = 1.0 + torch.randn(4000, 2, 64, generator=torch.Generator().manual_seed(0))
    limit = NormalDist().inv_cdf(0.95)
    first = sum(best == 0 and float(away[1]) > limit for best, away in map(behind, shares)) / len(shares)
    second = sum(best == 1 and float(away[0]) > limit for best, away in map(behind, shares)) / len(shares)
    assert 0.04 < first < 0.06 and 0.04 < second < 0.06


def test_errors_count_where_the_values_disagree():
    """A value that is right where it matters wins, however wrong all of them are elsewhere."""
    wrong = torch.full((2, 1, 8, 8), 5.0)
    wrong[:, 0, 0, 0] = torch.tensor([0.1, 1.0])
    shares = error_shares(wrong)
    assert shares.shape == (2, 64) and shares[:, 1:].abs().max() == 0 and shares[0, 0] < shares[1, 0]
    assert shares.sum(1).mean() == pytest.approx(1.0)
    assert error_shares(torch.zeros(3, 4, 40, 24)).shape == (3, 64), "neighbours in large latents are averaged"


def test_all_captions_get_the_same_noise_and_each_number_another():
    x0, seen = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)), []

    def denoise(x, sigma, rows, maps=None):
        seen.append((x, sigma))
        return torch.stack([x0 + 0.1 * row for row in rows])

    wrong = residuals(denoise, x0, range(3), 2.0, seed=1, number=0)
    assert torch.allclose(wrong, torch.tensor([0.0, 0.1, 0.2])[:, None, None, None].expand(3, 2, 4, 4), atol=1e-6)
    for seed, number in ((1, 0), (1, 1), (2, 0)):
        residuals(denoise, x0, [0], 2.0, seed, number)
    noises = [(x - x0) / sigma for x, sigma in seen]
    assert torch.equal(noises[0], noises[1])
    assert all(not torch.allclose(noises[0], other, atol=0.1) for other in noises[2:])
    residuals(denoise, x0, [0], 2.0, 1, 0, flow=True)
    x, sigma = seen[-1]
    assert sigma == level(2.0, True) == pytest.approx(2 / 3)
    assert torch.allclose(x, x0 / 3 + noises[0] * 2 / 3, atol=1e-5), "a flow model mixes picture and noise"


def test_more_levels_than_there_are_begin_again():
    assert noise_levels(2) == list(LEVELS[:2]) and noise_levels(2 * len(LEVELS)) == [*LEVELS, *LEVELS]
