"""What every method of the benchmark gets, and how its evaluations are counted.

All methods share the picture, the noise levels, the plan and the inversion: a factual trajectory (edit-friendly
inversion, Huberman-Spiegelglas et al., CVPR 2024) is computed once a caption and counted for each method that asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from ...attention.capture import AttentionMaps
from ...demo.model import DemoModel
from ...guidance.captions import captions
from ...guidance.csg import Rows
from ...guidance.inversion import Trajectory, invert
from ...guidance.rows import DiffusersRows
from ...guidance.steps import step_mean
from ...plan import CounterfactualPlan

INVERSION, SAMPLING, STEPS = "inversion", "sampling", "steps"


@dataclass(frozen=True)
class Setting:
    """One picture and one plan, as a method sees them.

    Attributes
    ----------
    model : text-to-image model
    plan : what changes
    x0 : latent of the picture, [B, C, h, w]
    sigmas : noise levels, falling, the last one 0
    seed : of all noise
    changed : where the true counterfactual differs, [h, w], 0 or 1; only for methods that are given the truth
    rows : makes a denoiser for captions; without it the model's own
    """

    model: DemoModel
    plan: CounterfactualPlan
    x0: torch.Tensor
    sigmas: Sequence[float]
    seed: int
    changed: torch.Tensor | None = None
    rows: Callable[[Sequence[str]], Rows] | None = None
    spent: Counter = field(default_factory=Counter, repr=False)
    trajectories: dict[str, Trajectory] = field(default_factory=dict, repr=False)

    @property
    def factual(self) -> str:
        """Caption of the picture as it is."""
        return captions(self.plan)[0]

    @property
    def target(self) -> str:
        """Caption with all affected concepts changed, descendants included."""
        return captions(self.plan)[-1]

    def count(self, rows: int, phase: str = SAMPLING) -> None:
        """Note one call with so many rows; every call of the phase ``SAMPLING`` is one sampling step."""
        self.spent[phase] += rows
        self.spent[STEPS] += phase == SAMPLING

    def denoiser(self, texts: Sequence[str], phase: str = SAMPLING) -> Rows:
        """A counted denoiser over the rows ``texts``."""
        denoise = self.rows(texts) if self.rows else DiffusersRows(self.model, texts)

        def counted(
            x: torch.Tensor, sigma: float, chosen: Sequence[int], maps: AttentionMaps | None = None
        ) -> torch.Tensor:
            self.count(len(chosen), phase)
            return denoise(x, sigma, chosen, maps)

        return counted

    def trajectory(self, caption: str) -> Trajectory:
        """The edit-friendly inversion with a caption at guidance 1; counted each time, computed once."""
        if caption not in self.trajectories:
            denoise = replace(self, spent=Counter()).denoiser([caption])
            self.trajectories[caption] = invert(lambda x, s: denoise(x, s, [0])[0], self.x0, self.sigmas, self.seed)
        self.count(len(self.sigmas) - 1, INVERSION)
        return self.trajectories[caption]


def changed_phrases(plan: CounterfactualPlan) -> dict[str, tuple[str, str]]:
    """Phrase before and after of each affected concept, causes first; empty where it has no value."""

    def phrase(name: str, value: str | None) -> str:
        return plan.concepts[name].phrase(value) if value else ""

    return {i.name: (phrase(i.name, i.factual), phrase(i.name, i.counterfactual)) for i in plan.affected}


Method = Callable[[Setting], torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a method gives: its latent [B, C, h, w], rows of a sampling step, and evaluations, inversion included."""

    latent: torch.Tensor
    rows_per_step: float
    evaluations: int


def edited(method: Method, setting: Setting) -> Outcome:
    """Run one method with a count of its own; trajectories are shared through ``setting``."""
    own = replace(setting, spent=Counter())
    latent = method(own)
    spent = own.spent
    return Outcome(latent, spent[SAMPLING] / max(1, spent[STEPS]), spent[SAMPLING] + spent[INVERSION])


def replay(
    trajectory: Trajectory,
    estimate: Callable[[int, torch.Tensor], torch.Tensor],
    blend: Callable[[int, torch.Tensor], torch.Tensor] = lambda i, x: x,
) -> torch.Tensor:
    """Sample on the abducted noise; with the predictor of the inversion this returns the picture.

    Parameters
    ----------
    estimate : function (i, x_i) -> estimate of x0 at noise level i
    blend : function (i, x_{i+1}) -> x_{i+1}, called after step i
    """
    x = trajectory.latents[0]
    for i, (sigma, sigma_next) in enumerate(zip(trajectory.sigmas, trajectory.sigmas[1:])):
        x = step_mean(x, estimate(i, x), sigma, sigma_next, trajectory.eta) + trajectory.corrections[i]
        x = blend(i, x)
    return x


def guided(denoise: Rows, x: torch.Tensor, sigma: float, scale: float) -> torch.Tensor:
    """Classifier-free guidance of row 0 over row 1, the empty caption; scale 1 is row 0 alone."""
    if scale == 1.0:
        return denoise(x, sigma, [0])[0]
    target, empty = denoise(x, sigma, [0, 1])
    return empty + scale * (target - empty)


def seeded_noise(setting: Setting) -> torch.Tensor:
    """Standard normal noise of the latent's shape, drawn on the CPU."""
    generator = torch.Generator("cpu").manual_seed(setting.seed)
    return torch.randn(setting.x0.shape, generator=generator).to(setting.x0)
