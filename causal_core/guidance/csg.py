"""Causal Semantic Guidance: action and prediction on the abducted noise of a picture.

Directions telescope. The caption is changed one factor at a time, causes first, c_0 (factual), c_1, ... c_K (all
affected concepts changed), and the direction of concept k is ``psi_k = D(x, c_k) - D(x, c_{k-1})``. Their sum is the
direction of the whole counterfactual caption, so no interaction between concepts is counted twice, while each of them
keeps its own region W_k and strength s_k:

    D* = D(x, c_0) + sum_k s_k W_k psi_k ;   x_{i+1} = W (mu(D*) + sigma_up z_i) + (1 - W) x^source_{i+1}

with W the union of the regions, z_i the abducted noise and x^source the picture's own trajectory. Where W is 0 the
picture is returned exactly.
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
from .inversion import Trajectory, invert
from .regions import blurred, magnitude, region
from .steps import ancestral_split, posterior_mean


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
    threshold : 0 to 1, of the largest change; lower gives wider regions
    attention_weight : 0 to 1, how much attention maps narrow the regions
    probes : noise levels at which regions are looked for, 1 to number of steps
    grow : latent pixels by which regions are widened
    feather : blur of the regions' borders in latent pixels
    preserve : keep everything outside the regions from the source
    eta : share of fresh noise a step, above 0 to 1
    """

    strength: float = 1.25
    threshold: float = 0.2
    attention_weight: float = 0.5
    probes: int = 8
    grow: int = 1
    feather: float = 0.7
    preserve: bool = True
    eta: float = 1.0


@dataclass(frozen=True)
class Edit:
    """One affected concept as the sampler needs it: its name, its strength (0 and up) and the row of its caption."""

    name: str
    strength: float
    row: int


@dataclass(frozen=True)
class Result:
    """What sampling gives: latents [B, C, h, w] and, for each affected concept, its region [h, w], 0 to 1."""

    latent: torch.Tensor
    regions: Mapping[str, torch.Tensor] = field(default_factory=dict)
    evaluations: int = 0


def edits(plan: CounterfactualPlan, strength: float) -> list[Edit]:
    """The affected concepts of a plan, causes first, with their strengths multiplied by ``strength``."""
    return [Edit(item.name, strength * item.strength, row) for row, item in enumerate(plan.affected, start=1)]


def locate(
    denoise: Rows,
    trajectory: Trajectory,
    changes: Sequence[Edit],
    watched: Mapping[int, Mapping[str, Span]],
    settings: Settings,
) -> dict[str, torch.Tensor]:
    """Regions of the concepts, from the picture's own trajectory at several noise levels.

    Parameters
    ----------
    watched : for each caption row the token spans of the concepts to watch there; empty where there is no attention

    Returns
    -------
    dict of float32 [h, w], 0 to 1
    """
    grid = tuple(trajectory.residual.shape[-2:])
    maps = AttentionMaps(watched, grid)
    sizes = {change.name: torch.zeros(grid) for change in changes}
    levels = len(trajectory.sigmas) - 1
    count = max(1, min(settings.probes, levels))
    # The middle of the schedule: before it everything is noise, after it only texture is left to change.
    for i in sorted({round(levels * (0.15 + 0.60 * (j + 0.5) / count)) for j in range(count)}):
        i = min(i, levels - 1)
        rows = denoise(trajectory.latents[i], trajectory.sigmas[i], [0, *(c.row for c in changes)], maps)
        for change, before, after in zip(changes, rows, rows[1:]):
            sizes[change.name] += magnitude(after - before).cpu()
    return {
        name: blurred(
            region(size, maps.mean(name), settings.threshold, settings.attention_weight, settings.grow),
            settings.feather,
        )
        for name, size in sizes.items()
    }


def sample(
    denoise: Rows,
    trajectory: Trajectory,
    changes: Sequence[Edit],
    regions: Mapping[str, torch.Tensor],
    settings: Settings,
    progress: Callable[[int, torch.Tensor], None] = lambda step, denoised: None,
) -> torch.Tensor:
    """Sample the counterfactual on the abducted noise.

    Parameters
    ----------
    regions : region of each concept in ``changes``, [h, w]
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
    active = [c for c in changes if c.strength > 0.0]
    weights = {c.name: regions[c.name].to(x) for c in active}
    union = torch.stack(list(weights.values())).amax(0) if weights else torch.zeros_like(x[0, 0])
    steps = list(zip(trajectory.sigmas[:-1], trajectory.sigmas[1:]))
    for i, (sigma, sigma_next) in enumerate(steps):
        needed = sorted({0, *(c.row for c in active), *(c.row - 1 for c in active)})
        found = dict(zip(needed, denoise(x, sigma, needed)))
        target = found[0]
        for c in active:
            target = target + c.strength * weights[c.name] * (found[c.row] - found[c.row - 1])
        if not torch.isfinite(target).all():
            raise CounterfactError(
                f"step {i + 1} of {len(steps)} gave numbers that are not finite; lower the strength or use fp32"
            )
        if i + 1 == len(steps):
            x = target + trajectory.residual * (1.0 - union)
        else:
            down, up = ancestral_split(sigma, sigma_next, settings.eta)
            x = posterior_mean(x, target, sigma, down) + up * trajectory.noises[i]
        if settings.preserve and active:
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
    settings: Settings = Settings(),
    progress: Callable[[int, torch.Tensor], None] = lambda step, denoised: None,
    within: torch.Tensor | None = None,
) -> Result:
    """Abduction, action and prediction in one call.

    Parameters
    ----------
    denoise : denoiser over the captions of the plan (:func:`causal_core.guidance.captions.captions`)
    x0 : latent of the factual picture, [B, C, h, w]
    sigmas : noise levels, falling, the last one 0
    progress : called with a running step number over inversion, locating and sampling, and the denoised latent
    within : mask [h, w], 0 to 1, outside of which nothing may change
    """
    counted, done = Counted(denoise), 0

    def shown(denoised: torch.Tensor) -> torch.Tensor:
        nonlocal done
        progress(done, denoised)
        done += 1
        return denoised

    def base(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return shown(counted(x, sigma, [0])[0])

    def probe(x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None) -> torch.Tensor:
        found = counted(x, sigma, rows, maps)
        shown(found[0])
        return found

    changes = edits(plan, settings.strength)
    trajectory = invert(base, x0, sigmas, seed, settings.eta)
    active = [c for c in changes if c.strength > 0.0]
    regions = locate(probe, trajectory, active, watched, settings) if active else {}
    if within is not None:
        regions = {name: image * within.to(image) for name, image in regions.items()}
    latent = sample(counted, trajectory, active, regions, settings, lambda step, denoised: shown(denoised))
    return Result(latent, regions, counted.spent)
