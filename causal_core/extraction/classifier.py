"""Reading concepts with the diffusion model itself: the value whose phrase helps most to denoise the picture.

Diffusion classifier (Li et al., ICCV 2023, equation 6), with the same noise for every value, so that the differences
between errors say more than the errors. A concept is read twice: first with captions that name nothing else, then with
captions that name what has been read of the other concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..concepts import Concept, Concepts, caption
from ..errors import CounterfactError
from ..guidance.csg import Rows

# Latents of unit variance: below, texture decides; above, nothing but the mean colour is left.
LOWEST, HIGHEST = 0.4, 4.0

Score = Callable[[list[str]], torch.Tensor]


def noise_levels(count: int) -> list[float]:
    """Noise levels at which captions are compared, evenly spaced on a logarithmic scale."""
    ratio = HIGHEST / LOWEST
    return [LOWEST * ratio ** ((i + 0.5) / count) for i in range(count)]


def denoising_errors(
    denoise: Rows,
    x0: torch.Tensor,
    captions: int,
    sigmas: Sequence[float],
    seed: int,
    progress: Callable[[torch.Tensor], None] = lambda denoised: None,
) -> torch.Tensor:
    """Mean squared errors of the denoised estimates, float32 [len(sigmas), captions].

    Parameters
    ----------
    denoise : denoiser over that many captions
    x0 : latent of the picture, [1, C, h, w]
    sigmas : noise levels; each gets noise of its own, the same for all captions
    progress : called after each level with the estimate of the first caption
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    errors = []
    for sigma in sigmas:
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0)
        found = denoise(x0 + sigma * noise, sigma, range(captions))
        errors.append((found - x0).float().pow(2).mean((1, 2, 3, 4)).cpu())
        progress(found[0])
    return torch.stack(errors)


def decide(errors: torch.Tensor) -> tuple[int, float]:
    """The value with the smallest error, and how sure that is.

    Parameters
    ----------
    errors : [N, V], of V values under N noises

    Returns
    -------
    (index, confidence)
        The confidence, 0 to 1, is a softmax over how many standard errors each value lies behind the best.

    Examples
    --------
    >>> decide(torch.tensor([[1.0, 1.2], [0.5, 0.7], [0.8, 0.9]]))[0]
    0
    """
    # Errors grow with the noise: as shares of their mean every level has the same say.
    shares = errors / errors.mean(1, keepdim=True).clamp_min(1e-12)
    best = int(shares.mean(0).argmin())
    behind = shares - shares[:, best : best + 1]
    spread = behind.std(0, unbiased=True) if len(errors) > 1 else behind.mean(0)
    away = behind.mean(0) / (spread / len(errors) ** 0.5).clamp_min(1e-6)
    return best, float(torch.softmax(-away, 0)[best])


def classify(concepts: Concepts, score: Score, passes: int = 2) -> Concepts:
    """Read the value of every concept that has a list of values.

    Parameters
    ----------
    concepts : their values, if any, count only for concepts without a list of values
    score : function from captions to their errors under the same noises, [N, len(captions)]
    passes : 1 reads each concept by itself, every further pass uses what has been read of the others

    Returns
    -------
    Concepts
        With values and confidences.

    Raises
    ------
    CounterfactError
        If no concept has a list of two values or more.
    """
    choices = [(concept, value) for concept in concepts for value in concept.domain if len(concept.domain) > 1]
    if not choices:
        raise CounterfactError(
            "no concept has values to choose from: list them, such as 'season: spring, summer, autumn, winter'"
        )
    known = Concepts(tuple(c if len(c.domain) < 2 else replace(c, value=None, confidence=None) for c in concepts))
    for _ in range(passes):
        errors = score([caption(known, {concept.name: value}) for concept, value in choices])
        read: dict[str, Concept] = {}
        for concept in concepts:
            columns = [i for i, (chosen, _) in enumerate(choices) if chosen is concept]
            if columns:
                best, confidence = decide(errors[:, columns])
                read[concept.name] = replace(concept, value=concept.domain[best], confidence=confidence)
        known = Concepts(tuple(read.get(c.name, c) for c in known))
    return known
