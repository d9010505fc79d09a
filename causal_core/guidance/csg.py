"""Causal Semantic Guidance: abduction, action and prediction on one picture.

The picture's noise is abducted (:mod:`.inversion`), the place of each affected concept is found on its own trajectory
(:mod:`.regions`), and the counterfactual is sampled with the guided estimate D* (:mod:`.directions`) on the same noise:

    x_{i+1} = W (mean(x_i, D*) + r_i) + (1 - W) x^source_{i+1}

with W the union of the regions, r_i the corrections of the trajectory and x^source its latents (blended latent
diffusion, Avrahami et al. 2023, with the inverted source). Where W is 0 the picture is returned exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..attention.capture import AttentionMaps
from ..attention.spans import Span
from ..errors import CounterfactError
from ..plan import CounterfactualPlan
from .captions import Edit, edits
from .directions import Guide, How
from .inversion import Trajectory, invert
from .regions import blurred, magnitude, misses, protection, region
from .steps import step_mean

Progress = Callable[[int, torch.Tensor], None]

FUSED_THRESHOLD = 0.5


class Rows(Protocol):
    """A denoiser for several captions at once."""

    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        """Denoised estimates [len(rows), B, C, h, w] for captions ``rows``; adds attention to ``maps`` if given."""


class Counted:
    """A denoiser that counts its evaluations: one a row of a call."""

    def __init__(self, denoise: Rows) -> None:
        self.denoise, self.spent = denoise, 0

    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        """See :class:`Rows`."""
        self.spent += len(rows)
        return self.denoise(x, sigma, rows, maps)


@dataclass(frozen=True)
class Settings:
    """What an artist may turn.

    Attributes
    ----------
    strength : 0 and up; 1 follows the counterfactual caption, more exaggerates it, 0 returns the source
    fused : one direction for all concepts, two evaluations a step however many there are
    threshold : above 0 to 1, of the largest change, half as much in fused mode; lower gives wider regions
    attention_weight : 0 to 1, how much attention maps narrow the regions
    protect : 0 to 1, how far regions keep away from where only invariant concepts are attended to
    probes : noise levels at which regions are looked for, 1 to number of steps
    grow : latent pixels by which regions are widened
    feather : blur of the regions' borders in latent pixels
    preserve : keep everything outside the regions from the source
    eta : share of fresh noise a step, 0 to 1
    how : how the directions act
    """

    strength: float = 1.25
    fused: bool = False
    threshold: float = 0.1
    attention_weight: float = 0.25
    protect: float = 0.0
    probes: int = 8
    grow: int = 0
    feather: float = 0.0
    preserve: bool = True
    eta: float = 1.0
    how: How = How()


DEFAULTS = Settings()


@dataclass(frozen=True)
class Result:
    """What sampling gives.

    Attributes
    ----------
    latent : [B, C, h, w]
    regions : region of each affected concept, [h, w], 0 to 1
    evaluations : of the denoiser in all, a row of a call each
    rows_per_step : mean number of them in a sampling step
    trajectory : the abducted noise, for another edit of the same picture
    """

    latent: torch.Tensor
    regions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    evaluations: int = 0
    rows_per_step: float = 0.0
    trajectory: Trajectory | None = None


def probe_steps(steps: int, probes: int) -> list[int]:
    """The steps, of so many, whose noise levels show best where a concept is: evenly in the noisier half.

    >>> probe_steps(30, 4)
    [2, 6, 10, 14]
    """
    count = max(1, min(probes, steps))
    return sorted({min(int(steps * (0.05 + 0.55 * (j + 0.25) / count)), steps - 1) for j in range(count)})


def probe_latents(trajectory: Trajectory, probes: int) -> list[tuple[float, torch.Tensor]]:
    """Noise levels of a picture's own trajectory at which to look for concepts, and its latents there."""
    steps = probe_steps(len(trajectory.sigmas) - 1, probes)
    return [(trajectory.sigmas[i], trajectory.latents[i]) for i in steps]


@dataclass(frozen=True)
class Seen:
    """What a model shows of the concepts in a picture.

    Attributes
    ----------
    sizes : magnitude of each affected concept's direction, [h, w]
    attention : mean attention to each concept's words, [h, w]; invariant concepts too, those that were watched
    """

    sizes: Mapping[str, torch.Tensor]
    attention: Mapping[str, torch.Tensor]


def look(
    denoise: Rows,
    probes: Sequence[tuple[float, torch.Tensor]],
    changes: Sequence[Edit],
    watched: Mapping[int, Mapping[str, Span]],
    progress: Progress = lambda step, denoised: None,
) -> Seen:
    """Look for the concepts in a picture at several noise levels.

    The directions are averaged over the levels before their size is taken, so that what noise stirs up cancels.

    Parameters
    ----------
    probes : noise levels and the picture's latent [B, C, h, w] at each, such as :func:`probe_latents`
    watched : for each caption the token spans of the concepts to watch there; empty where there is no attention
    progress : called with a running number and the denoised latent at each level
    """
    maps = AttentionMaps(watched, tuple(probes[0][1].shape[-2:]))
    total: dict[tuple[int, int], torch.Tensor | float] = {(c.before, c.after): 0.0 for c in changes}
    rows = sorted({0, *(row for pair in total for row in pair)})
    for number, (sigma, x) in enumerate(probes if changes else ()):
        found = dict(zip(rows, denoise(x, sigma, rows, maps)))
        for before, after in total:
            total[before, after] = total[before, after] + (found[after] - found[before])
        progress(number, found[0])
    sizes = {pair: magnitude(direction).cpu() for pair, direction in total.items()}
    attention = {name: maps.mean(name) for name in dict.fromkeys(name for row in watched.values() for name in row)}
    return Seen(
        {c.name: sizes[c.before, c.after] for c in changes},
        {name: image for name, image in attention.items() if image is not None},
    )


def regions_of(
    seen: Seen, settings: Settings = DEFAULTS, within: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Regions of the concepts that were seen to change: float32 [h, w] each, 0 to 1.

    Parameters
    ----------
    within : mask [h, w], 0 to 1, that bounds every region

    Raises
    ------
    CounterfactError
        If every change is outside of ``within``.
    """
    within = None if within is None else within.cpu()
    sizes = seen.sizes.values()
    # One direction of several concepts is as large as the largest of them: smaller changes must count as well.
    threshold = settings.threshold * (FUSED_THRESHOLD if settings.fused and len(sizes) > 1 else 1.0)
    if within is not None and sizes and all(misses(size, within, threshold) for size in sizes):
        raise CounterfactError(
            f"mask: nothing of {', '.join(seen.sizes)} is inside of it; paint it over what is to change, or connect "
            "regions of your own"
        )
    others = [image for name, image in seen.attention.items() if name not in seen.sizes]
    regions = {}
    for name, size in seen.sizes.items():
        own = seen.attention.get(name)
        image = region(
            size,
            own,
            threshold,
            settings.attention_weight,
            settings.grow,
            within,
            protection(own, others, settings.protect),
        )
        # Softened outwards only: a region that is weak at its rim leaves the old value standing there.
        regions[name] = torch.maximum(image, blurred(image, settings.feather))
    return regions


def sample(
    denoise: Rows,
    trajectory: Trajectory,
    guide: Guide,
    preserve: bool = True,
    progress: Progress = lambda step, denoised: None,
) -> torch.Tensor:
    """Sample the counterfactual on the abducted noise.

    Parameters
    ----------
    guide : what changes, where and how
    preserve : keep everything outside the regions from the source
    progress : called after each step with its number and the denoised latent

    Returns
    -------
    latent [B, C, h, w]

    Raises
    ------
    CounterfactError
        A step gave numbers that are not finite; the source is untouched.
    """
    x = trajectory.latents[0]
    union = torch.zeros_like(x[0, 0]) if guide.union is None else guide.union.to(x)
    steps = len(trajectory.sigmas) - 1
    for i, (sigma, sigma_next) in enumerate(zip(trajectory.sigmas, trajectory.sigmas[1:])):
        rows = guide.rows(i / steps)
        target = guide(x, dict(zip(rows, denoise(x, sigma, rows))), i / steps)
        if not torch.isfinite(target).all():
            raise CounterfactError(
                f"step {i + 1} of {steps} gave numbers that are not finite; lower the strength or use fp32"
            )
        x = step_mean(x, target, sigma, sigma_next, trajectory.eta, trajectory.flow)
        # The last correction is what the model cannot draw of the source; it has no place in what is new.
        x = x + trajectory.corrections[i] * ((1.0 - union) if i + 1 == steps else 1.0)
        if preserve and guide.union is not None:
            x = union * x + (1.0 - union) * trajectory.latents[i + 1]
        progress(i, target)
    return x


def counterfactual(
    denoise: Rows,
    x0: torch.Tensor,
    sigmas: Sequence[float],
    plan: CounterfactualPlan,
    watched: Mapping[int, Mapping[str, Span]],
    seed: int,
    settings: Settings = DEFAULTS,
    progress: Progress = lambda step, denoised: None,
    within: torch.Tensor | None = None,
    given: Mapping[str, torch.Tensor] | None = None,
    trajectory: Trajectory | None = None,
    flow: bool = False,
) -> Result:
    """Abduction, action and prediction in one call.

    Parameters
    ----------
    denoise : denoiser over the captions of the plan (:func:`causal_core.guidance.captions.captions`)
    x0 : latent of the factual picture, [B, C, h, w]
    sigmas : noise levels, falling, the last one 0
    watched : see :func:`causal_core.guidance.captions.watched_spans`
    progress : called with a running step number over inversion, locating and sampling, and the denoised latent
    within : mask [h, w], 0 to 1, outside of which nothing may change
    given : regions [h, w], 0 to 1, of concepts that need not be looked for
    trajectory : of the same picture, model, caption and noise levels; without it the picture is inverted
    flow : whether the model predicts a flow
    """
    counted, done = Counted(denoise), 0

    def shown(_: int, denoised: torch.Tensor) -> None:
        nonlocal done
        progress(done, denoised)
        done += 1

    def base(x: torch.Tensor, sigma: float) -> torch.Tensor:
        found = counted(x, sigma, [0])[0]
        shown(0, found)
        return found

    given = given or {}
    if trajectory is None:
        trajectory = invert(base, x0, sigmas, seed, settings.eta, flow)
    changes = [c for c in edits(plan, settings.strength, settings.fused) if c.strength > 0.0]
    sought = [c for c in changes if c.name not in given]
    seen = look(counted, probe_latents(trajectory, settings.probes), sought, watched, shown)
    found = regions_of(seen, settings, within)
    regions = {c.name: found[c.name] if c.name in found else given[c.name] for c in changes}
    before = counted.spent
    latent = sample(counted, trajectory, Guide(changes, regions, settings.how), settings.preserve, shown)
    steps = len(trajectory.sigmas) - 1
    return Result(latent, regions, counted.spent, (counted.spent - before) / steps, trajectory)
