"""Where in a picture each concept is: what changes when another value takes the place of its own.

The picture is noised, and denoised with its own caption and with captions that name another value of one concept; the
size of the difference, averaged over the other values, is where the concept is (DiffEdit, Couairon et al., ICLR 2023,
section 3.2). Estimates are averaged over noise levels and decoded to pixels before they are compared, where there is a
decoder, so that small things keep their shape. Cross-attention to the concept's own phrase narrows the region, which
is cut off where a threshold divides its sizes best (Otsu 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..attention.capture import AttentionMaps
from ..attention.spans import Span
from ..concepts import Concept, Concepts, caption
from ..guidance.csg import Rows
from ..guidance.regions import magnitude, normalised, region
from ..guidance.steps import noised
from .classifier import level

# For latents of unit variance, as in the classifier.
LEVELS = (7.0, 2.2)
MOST_OTHERS = 4
ATTENTION_WEIGHT = 0.25


@dataclass(frozen=True)
class Alternatives:
    """The captions to compare.

    Attributes
    ----------
    captions : the first one names the values that the picture has
    rows : for each concept the captions in which it alone is another
    """

    captions: tuple[str, ...]
    rows: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, concepts: Concepts, wanted: Sequence[str] | None = None) -> Alternatives:
        """Of the wanted concepts that have a value; all if not given.

        >>> from causal_core.concepts import parse_concepts
        >>> Alternatives.of(parse_concepts("car: none, red = red\\nmood = calm")).captions
        ('red car, calm mood', 'none car, calm mood', 'red car')
        """
        captions, rows = [caption(concepts)], {}
        for concept in concepts:
            if concept.value is None or (wanted is not None and concept.name not in wanted):
                continue
            first = len(captions)
            captions += [caption(concepts, {concept.name: value}) for value in others(concept)]
            if len(captions) == first:
                captions.append(caption(concepts.replace(concept.name, value=None)))
            rows[concept.name] = tuple(range(first, len(captions)))
        return cls(tuple(captions), rows)


def others(concept: Concept) -> list[str]:
    """Values that a concept might have instead of its own: a few of its list, or the farther end of its interval."""
    if concept.interval is not None:
        low, high = concept.interval
        return [repr(high if float(concept.value) - low < high - float(concept.value) else low)]
    values = [value for value in concept.domain if value != concept.value]
    step = max(1.0, len(values) / MOST_OTHERS)
    return [values[int(i * step)] for i in range(min(MOST_OTHERS, len(values)))]


@dataclass(frozen=True)
class Shown:
    """What a model shows of the alternatives.

    Attributes
    ----------
    estimates : denoised with each caption, mean over the noise levels, float32 [captions, C, h, w]
    attention : mean attention to the phrase of each watched concept, [h, w]
    """

    estimates: torch.Tensor
    attention: Mapping[str, torch.Tensor]


def shown(
    denoise: Rows,
    x0: torch.Tensor,
    alternatives: Alternatives,
    watched: Mapping[str, Span | Sequence[Span]],
    seed: int,
    flow: bool = False,
    progress: Callable[[torch.Tensor], None] = lambda denoised: None,
) -> Shown:
    """Denoise a picture with all captions.

    Parameters
    ----------
    denoise : denoiser over the captions of the alternatives
    x0 : latent of the picture, [1, C, h, w]
    watched : token spans of the concepts' phrases in the first caption; empty where there is no attention
    seed : of the noise
    flow : whether the model predicts a flow
    progress : called after each level with the estimate of the first caption
    """
    generator = torch.Generator("cpu").manual_seed(seed % 2**63)
    maps = AttentionMaps({0: watched}, tuple(x0.shape[-2:]))
    rows, total = range(len(alternatives.captions)), []
    for sigma in LEVELS:
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0)
        own = level(sigma, flow)
        found = denoise(noised(x0, noise, own, flow), own, rows, maps)
        total.append(found[:, 0].float())
        progress(found[0])
    attention = {name: maps.mean(name) for name in watched}
    return Shown(torch.stack(total).mean(0), {name: image for name, image in attention.items() if image is not None})


def concept_regions(
    pictures: torch.Tensor, alternatives: Alternatives, attention: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The region of each concept, float32 [H, W], 0 to 1.

    Parameters
    ----------
    pictures : the estimates of all captions, decoded to [captions, 3, H, W]; or latents [captions, C, h, w], for
        regions that are as coarse as these
    attention : to the concepts, [h, w] each, as in :class:`Shown`
    """
    regions = {}
    for name, rows in alternatives.rows.items():
        sizes = [normalised(magnitude(pictures[row : row + 1] - pictures[:1])) for row in rows]
        size, looked_at = torch.stack(sizes).mean(0).cpu(), attention.get(name)
        if looked_at is not None:
            looked_at = F.interpolate(looked_at[None, None], size=tuple(size.shape), mode="bilinear")[0, 0]
        regions[name] = region(size, looked_at, otsu(normalised(size)), ATTENTION_WEIGHT)
    return regions


def otsu(image: torch.Tensor, bins: int = 64) -> float:
    """The threshold that divides values from 0 to 1 into two groups with the largest variance between them.

    >>> round(otsu(torch.tensor([0.0, 0.1, 0.1, 0.7, 0.8])), 1)
    0.4
    """
    shares = torch.histc(image.float(), bins, 0.0, 1.0) / image.numel()
    middles = (torch.arange(bins) + 0.5) / bins
    below = shares.cumsum(0)[:-1]
    mass = (shares * middles).cumsum(0)
    between = (mass[-1] * below - mass[:-1]).pow(2) / (below * (1.0 - below)).clamp_min(1e-9)
    # Empty bins between the groups are all as good: the middle one.
    best = (between >= between.max() * (1.0 - 1e-6)).nonzero()
    return float(middles[best].mean()) + 0.5 / bins
