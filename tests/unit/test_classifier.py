"""The diffusion classifier on errors with known answers."""

import pytest
import torch

from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.extraction.classifier import HIGHEST, LOWEST, classify, decide, denoising_errors, noise_levels

CONCEPTS = parse_concepts("season: summer, winter\ncar: none, red, blue = red\nnote")
TRUTH = {"winter season": 1.0, "blue car": 1.0}


def score(captions, groups):
    assert sum(groups) == len(captions)
    """Errors under three noises: each true phrase lowers them, whatever the noise."""
    noise = torch.tensor([[3.0], [1.0], [2.0]])
    right = torch.tensor([sum(phrase in TRUTH for phrase in caption.split(", ")) for caption in captions])
    return noise * (1.0 - 0.1 * right)


@pytest.mark.parametrize("passes", [1, 2])
def test_reads_the_values_that_denoise_best_and_leaves_open_concepts_alone(passes):
    read = classify(CONCEPTS, score, passes)
    assert read.values() == {"season": "winter", "car": "blue"}
    assert all(read[name].confidence > 0.9 for name in ("season", "car")) and read["note"].confidence is None


def test_captions_of_later_passes_name_what_was_read():
    seen = []

    def watching(captions, groups):
        seen.append(captions)
        return score(captions, groups)

    classify(CONCEPTS, watching, 2)
    assert seen[0] == ["summer season", "winter season", "none car", "red car", "blue car"]
    assert seen[1] == [
        "summer season, blue car", "winter season, blue car",
        "winter season, none car", "winter season, red car", "winter season, blue car",
    ]  # fmt: skip


def test_confidence_grows_with_the_evidence():
    close = torch.tensor([[1.00, 1.01], [1.02, 1.00], [1.00, 1.03]])
    clear = torch.tensor([[1.0, 1.2], [1.0, 1.3], [1.0, 1.25]])
    assert decide(close)[0] == decide(clear)[0] == 0
    assert 0.5 <= decide(close)[1] < decide(clear)[1] <= 1.0


def test_a_concept_without_values_to_choose_from_is_named():
    with pytest.raises(CounterfactError, match="values to choose from"):
        classify(parse_concepts("season\ncar"), score)


def test_errors_are_paired_deterministic_and_of_the_right_caption():
    x0 = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoise(x, sigma, rows, maps=None):
        return torch.stack([x0 + 0.1 * row for row in rows])

    errors = denoising_errors(denoise, x0, [3], [0.5, 1.0], seed=1)
    assert torch.allclose(errors, torch.tensor([[0.0, 0.01, 0.04]] * 2), atol=1e-6)
    noises = []

    def watching(x, sigma, rows, maps=None):
        noises.append((x - x0) / sigma)
        return torch.stack([x] * len(rows))

    for seed in (1, 1, 2):
        denoising_errors(watching, x0, [2], [0.5, 1.0], seed)
    assert torch.equal(noises[0], noises[2]) and not torch.equal(noises[0], noises[4])
    assert not torch.equal(noises[0], noises[1])


def test_errors_count_where_the_captions_disagree():
    """A caption that is right where it matters wins, however wrong all of them are elsewhere."""
    x0 = torch.zeros(1, 1, 2, 2)

    def denoise(x, sigma, rows, maps=None):
        estimates = torch.full((2, 1, 1, 2, 2), 5.0)
        estimates[:, 0, 0, 0, 0] = torch.tensor([0.0, 1.0])
        return estimates

    assert torch.allclose(denoising_errors(denoise, x0, [2], [1.0], seed=0), torch.tensor([[0.0, 1.0]]))


def test_noise_levels_lie_within_their_range():
    levels = noise_levels(5)
    assert len(levels) == 5 and levels == sorted(levels)
    assert levels[0] == LOWEST and levels[-1] == pytest.approx(HIGHEST)
