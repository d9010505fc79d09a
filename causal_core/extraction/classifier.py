"""Reading concepts with the diffusion model itself: the value whose phrase helps most to denoise the picture.

Diffusion classifier (Li et al., ICCV 2023, equation 6), with the same noise for every value, so that the differences
between errors say more than the errors. A concept is read twice: first with captions that name nothing else, then with
captions that name what has been read of the other concepts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..concepts import Concepts, caption
from ..errors import CounterfactError
from ..guidance.csg import Rows

# For latents of unit variance. Below, the picture shows all there is, so that words add nothing to it; above, nothing
# of the picture is left.
LOWEST, HIGHEST = 1.5, 15.0

Score = Callable[[list[str], list[int]], torch.Tensor]


def noise_levels(count: int) -> list[float]:
    """Noise levels at which captions are compared, evenly spaced on a logarithmic scale."""
    return [LOWEST * (HIGHEST / LOWEST) ** (i / max(1, count - 1)) for i in range(count)]


def denoising_errors(
    denoise: Rows,
    x0: torch.Tensor,
    groups: Sequence[int],
    sigmas: Sequence[float],
    seed: int,
    progress: Callable[[torch.Tensor], None] = lambda denoised: None,
) -> torch.Tensor:
    """Weighted mean squared errors of the denoised estimates, float32 [len(sigmas), captions].

    Parameters
    ----------
    denoise : denoiser over the captions
    x0 : latent of the picture, [1, C, h, w]
    groups : how many captions each concept has; they follow one another
    sigmas : noise levels; each gets noise of its own, the same for all captions
    progress : called after each level with the estimate of the first caption
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    errors = []
    for sigma in sigmas:
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0)
        found = denoise(x0 + sigma * noise, sigma, range(sum(groups)))
        for estimates in found.float().split(list(groups)):
            places = estimates.var(0, keepdim=True, unbiased=False).mean(2, keepdim=True)
            squares = (estimates - x0).pow(2).mean(2, keepdim=True)
            errors.append((places * squares).sum((1, 2, 3, 4)) / places.sum().clamp_min(1e-12))
        progress(found[0])
    return torch.cat(errors).view(len(sigmas), -1).cpu()


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
    score : function from captions, and how many of them each concept has, to their errors under N noises,
        [N, len(captions)]
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
    asked = [concept for concept in concepts if len(concept.domain) > 1]
    if not asked:
        raise CounterfactError(
            "concepts: none has values to choose from; list them, such as 'season: spring, summer, autumn, winter'"
        )
    groups = [len(concept.domain) for concept in asked]
    known = concepts
    for concept in asked:
        known = known.replace(concept.name, value=None, confidence=None)
    for _ in range(passes):
        captions = [caption(known, {concept.name: value}) for concept in asked for value in concept.domain]
        for concept, errors in zip(asked, score(captions, groups).split(groups, dim=1)):
            best, confidence = decide(errors)
            known = known.replace(concept.name, value=concept.domain[best], confidence=confidence)
    return known
