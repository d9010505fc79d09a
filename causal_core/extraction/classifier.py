"""Reading concepts with the diffusion model itself: the value whose phrase helps most to denoise the picture.

Diffusion classifier (Li et al., ICCV 2023, equation 6) with the same noise for all values of a concept, and with early
stopping: after each noise level a one-sided test over the places of the picture drops the values that are clearly
behind. Captions with a wrong word or two mislead, so the concepts are read jointly: a first look with captions that
name nothing else, then passes in which each caption names what has been read of all other concepts, until no value
changes any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F

from ..concepts import Concept, Concepts, caption
from ..errors import CounterfactError
from ..guidance.csg import Rows
from ..guidance.steps import noised

# For latents of unit variance. Broad colours tell things apart at high levels, thin things such as rain at low ones, so
# that high and low levels take turns, the most telling of each first, as measured with the bundled model.
LEVELS = (4.8, 1.2, 7.0, 2.2, 10.0, 3.2)
# Places a side over which errors are averaged before they are tested: neighbours err together.
PLACES = 8

#: From captions, a noise level and the number of a noise to what denoising leaves wrong, [len(captions), C, h, w]. The
#: level is sigma in x = x0 + sigma * noise; the same number has the same noise.
Residuals = Callable[[Sequence[str], float, int], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """How thorough a reading is.

    Attributes
    ----------
    levels : noise levels of one pass at most, 1 and up
    passes : joint passes at most, 0 and up; without any, each concept is read by itself
    error : 0 to below 0.5, error rate of each test: how often some value that is as good as the best one counts as
        clearly behind (Bonferroni's correction for several values); with 0 all values are compared at all levels
    first : noise levels of the first look
    """

    levels: int = 6
    passes: int = 4
    error: float = 0.005
    first: int = 1

    @property
    def rounds(self) -> int:
        """How often captions are compared at most."""
        return self.first + self.passes * self.levels


DEFAULTS = Settings()


@dataclass(frozen=True)
class Reading:
    """What has been read.

    Attributes
    ----------
    concepts : with values and confidences
    evaluations : of the model for each concept that was read; a caption that serves several is shared out equally, so
        that the sum is the number of all evaluations
    """

    concepts: Concepts
    evaluations: Mapping[str, float]


def noise_levels(count: int) -> list[float]:
    """So many noise levels, the most telling first; more than six look at the same levels again with other noise.

    >>> noise_levels(8)
    [4.8, 1.2, 7.0, 2.2, 10.0, 3.2, 4.8, 1.2]
    """
    return [LEVELS[i % len(LEVELS)] for i in range(count)]


def level(sigma: float, flow: bool) -> float:
    """The noise level of a flow model that has the same ratio of signal to noise, or sigma itself.

    >>> level(4.0, False), level(4.0, True)
    (4.0, 0.8)
    """
    return sigma / (1.0 + sigma) if flow else sigma


def residuals(
    denoise: Rows, x0: torch.Tensor, rows: Sequence[int], sigma: float, seed: int, number: int, flow: bool = False
) -> torch.Tensor:
    """What denoising with each caption leaves wrong of a picture, float32 [len(rows), C, h, w] on the CPU.

    Parameters
    ----------
    denoise : denoiser over the captions
    x0 : latent of the picture, [1, C, h, w]
    rows : captions
    sigma : noise level, see :func:`level`
    seed, number : of the noise
    flow : whether the model predicts a flow
    """
    generator = torch.Generator("cpu").manual_seed((seed + 1_000_003 * number) % 2**63)
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float32).to(x0)
    own = level(sigma, flow)
    return (denoise(noised(x0, noise, own, flow), own, rows)[:, 0] - x0[0]).float().cpu()


def error_shares(wrong: torch.Tensor) -> torch.Tensor:
    """How far each value's estimate is off, place by place: float32 [V, N], sums of 1 on average.

    Places count by how much the estimates of the values differ there: elsewhere, errors say nothing about the concept.

    Parameters
    ----------
    wrong : residuals of V values, [V, C, h, w]
    """
    differ = wrong.var(0, unbiased=False).mean(0)
    shares = differ * wrong.pow(2).mean(1)
    height, width = shares.shape[-2:]
    grid = min(PLACES, height), min(PLACES, width)
    places = F.adaptive_avg_pool2d(shares[None], grid)[0].flatten(1)
    return places / places.sum(1).mean().clamp_min(1e-30)


def behind(shares: torch.Tensor) -> tuple[int, torch.Tensor]:
    """The value with the smallest error, and by how many standard errors each value lies behind it.

    Differences at different places and under different noises are taken as independent and, where values are equally
    good, as symmetric around 0; then their sum over the root of the sum of their squares is about standard normal.

    Parameters
    ----------
    shares : [V, N], of V values at N places

    Examples
    --------
    >>> behind(torch.tensor([[0.3, 0.2, 0.3], [0.1, 0.2, 0.2]]))
    (1, tensor([1.3416, 0.0000]))
    """
    best = int(shares.sum(1).argmin())
    differences = shares - shares[best]
    return best, differences.sum(1) / differences.pow(2).sum(1).sqrt().clamp_min(1e-12)


class _Race:
    """The values of one concept, compared until one is left.

    Parameters
    ----------
    error : see :class:`Settings`
    earlier : errors of all values, [V, N] each, that count as well

    Attributes
    ----------
    measured : errors of all values at the levels at which none had been dropped
    """

    def __init__(self, concept: Concept, error: float, earlier: Sequence[torch.Tensor] = ()) -> None:
        self.concept, self.alive = concept, list(range(len(concept.domain)))
        rivals = len(concept.domain) - 1
        self.limit = NormalDist().inv_cdf(1.0 - error / rivals) if error > 0.0 else float("inf")
        self.measured: list[torch.Tensor] = []
        self.shares = torch.cat([torch.zeros(len(self.alive), 0), *earlier], 1)
        # For each value the chance that it is as good as the best.
        self.doubts = [0.0] * len(self.alive)
        self.best = 0

    @property
    def open(self) -> bool:
        return len(self.alive) > 1

    @property
    def values(self) -> list[str]:
        """Those that are left."""
        return [self.concept.domain[i] for i in self.alive]

    @property
    def confidence(self) -> float:
        """1 less the chances of all others, and no less than a guess has."""
        doubt = sum(self.doubts) - self.doubts[self.best]
        return max(1.0 - doubt, 1.0 / len(self.doubts))

    def add(self, wrong: torch.Tensor) -> None:
        """Residuals [len(alive), C, h, w] of another noise."""
        found = error_shares(wrong)
        if len(self.alive) == len(self.doubts):
            self.measured.append(found)
        self.shares = torch.cat([self.shares, found], 1)
        number, away = behind(self.shares)
        self.best = self.alive[number]
        for i, z in zip(self.alive, away.tolist()):
            self.doubts[i] = NormalDist().cdf(-z)
        kept = [n for n, z in enumerate(away.tolist()) if n == number or z < self.limit]
        self.alive, self.shares = [self.alive[n] for n in kept], self.shares[kept]


def read(concepts: Concepts, compare: Residuals, settings: Settings = DEFAULTS) -> Reading:
    """Read the value of every concept that has a list of values and no value yet.

    Parameters
    ----------
    concepts : values that are given stay, and are named in all captions
    compare : the model's residuals, such as :func:`residuals`

    Raises
    ------
    CounterfactError
        If concepts lack a value and none of them has a list of two values or more.
    """
    asked = [concept for concept in concepts if concept.value is None and len(concept.domain) > 1]
    if not asked and any(concept.value is None for concept in concepts):
        raise CounterfactError(
            "concepts: none has values to choose from; list them, such as 'season: spring, summer, autumn, winter'"
        )
    panel = _Panel(concepts, compare, dict.fromkeys((concept.name for concept in asked), 0.0))
    known = concepts
    # A concept that is alone needs no first look to say what the others are.
    if len(asked) > 1 or not settings.passes:
        known = panel.race([_Race(concept, 0.0) for concept in asked], known, settings.first, joint=False)
    runners, whole = asked, {}
    for _ in range(settings.passes):
        before = known.values()
        races = [_Race(concept, settings.error, whole.get(concept.name, ())) for concept in runners]
        known = panel.race(races, known, settings.levels, joint=True)
        # What all values were compared by counts once more: few words beside it have changed since.
        whole = {one.concept.name: one.measured for one in races}
        changed = {name for name, value in known.values().items() if before.get(name) != value}
        runners = [concept for concept in asked if changed - {concept.name}]
    return Reading(known, panel.spent)


@dataclass
class _Panel:
    """The model at work: how often it was asked, and for which concept."""

    given: Concepts
    compare: Residuals
    spent: dict[str, float]
    number: int = 0

    def race(self, races: Sequence[_Race], known: Concepts, count: int, joint: bool) -> Concepts:
        """Compare values at `count` levels; in captions that name all that is known, or what was given alone."""
        for sigma in noise_levels(count):
            running = [one for one in races if one.open]
            if not running:
                break
            context = known if joint else self.given
            words = [[caption(context, {one.concept.name: value}) for value in one.values] for one in running]
            users = Counter(text for texts in words for text in dict.fromkeys(texts))
            found = self.compare(list(users), sigma, self.number)
            self.number += 1
            if not torch.isfinite(found).all():
                raise CounterfactError("model: its estimates are not finite numbers; run it in fp32 or bf16")
            wrong = dict(zip(users, found))
            for one, texts in zip(running, words):
                self.spent[one.concept.name] += sum(1.0 / users[text] for text in dict.fromkeys(texts))
                one.add(torch.stack([wrong[text] for text in texts]))
                value = one.concept.domain[one.best]
                known = known.replace(one.concept.name, value=value, confidence=one.confidence)
        return known
