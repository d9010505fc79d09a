"""Ours and its ablations in ``counterfact bench csg``: what each part of the guidance is worth.

All variants of one picture share its abducted noise and what the model shows of the concepts in it; both are counted
for each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..guidance.captions import captions, edits, watched_spans
from ..guidance.csg import Counted, Seen, Settings, counterfactual, look, probe_latents, regions_of
from ..guidance.inversion import Trajectory
from ..guidance.rows import DiffusersRows
from ..plan import CounterfactualPlan
from .baselines import Setting

FOUND, ATTENTION, EVERYWHERE = "found", "attention", "everywhere"


@dataclass(frozen=True)
class Variant:
    """One way to edit.

    Attributes
    ----------
    settings : of the guidance
    composite : take pixels outside the regions from the source
    descendants : change what follows from the intervention too, not only the intervened concepts
    where : regions as they are found, from attention alone, or the whole picture
    """

    settings: Settings = Settings()
    composite: bool = True
    descendants: bool = True
    where: str = FOUND


def variants(settings: Settings) -> dict[str, Variant]:
    """Ours with these settings, and the same without one of its parts, by name in the table."""
    fused = replace(settings, fused=True)
    return {
        "ours": Variant(settings),
        "fused": Variant(fused),
        "no_composite": Variant(settings, composite=False),
        "no_blend": Variant(replace(settings, preserve=False), composite=False),
        "no_descendants": Variant(settings, descendants=False),
        "global_cfg": Variant(replace(fused, preserve=False), composite=False, where=EVERYWHERE),
        "m1_only": Variant(settings, where=ATTENTION),
        "m2_only": Variant(replace(settings, attention_weight=0.0)),
    }


@dataclass(frozen=True)
class Edited:
    """Latent [B, C, h, w], regions [h, w] by concept, rows of a sampling step, and evaluations in all."""

    latent: torch.Tensor
    regions: Mapping[str, torch.Tensor]
    rows_per_step: float
    evaluations: int


class Ours:
    """All variants on one picture and plan, on the trajectory that all methods share or on another."""

    def __init__(self, setting: Setting, trajectory: Trajectory | None = None) -> None:
        self.setting, self.given = setting, trajectory
        self.seen: dict[tuple, tuple[Seen, int]] = {}
        self.done: dict[Variant, Edited] = {}

    def __call__(self, variant: Variant) -> Edited:
        """Edit; variants that come to the same on this plan, or differ in the composite alone, are computed once."""
        affected = self.setting.plan.affected
        settings = replace(variant.settings, fused=variant.settings.fused and len(affected) > 1)
        descendants = variant.descendants or all(item.role == "intervened" for item in affected)
        variant = replace(variant, settings=settings, composite=True, descendants=descendants)
        if variant not in self.done:
            self.done[variant] = self._edit(variant)
        return self.done[variant]

    def _edit(self, variant: Variant) -> Edited:
        setting, settings = self.setting, variant.settings
        plan = setting.plan if variant.descendants else without_descendants(setting.plan)
        rows = DiffusersRows(setting.model, captions(plan, settings.fused))
        watched = watched_spans(setting.model.tokenizer.encode, plan, settings.fused)
        trajectory = self.given or setting.trajectory(setting.factual)
        spent = len(trajectory.sigmas) - 1
        if variant.where == EVERYWHERE:
            whole = torch.ones(setting.x0.shape[-2:])
            regions = {c.name: whole for c in edits(plan, settings.strength, settings.fused)}
        else:
            key = (variant.descendants, settings.fused, settings.probes)
            if key not in self.seen:
                counted = Counted(rows)
                probes = probe_latents(trajectory, settings.probes)
                changes = edits(plan, settings.strength, settings.fused)
                self.seen[key] = look(counted, probes, changes, watched), counted.spent
            seen, cost = self.seen[key]
            spent += cost
            if variant.where == ATTENTION:
                attention = {name: seen.attention.get(name, size) for name, size in seen.sizes.items()}
                seen = Seen({name: image - image.min() for name, image in attention.items()}, {})
            regions = regions_of(seen, settings)
        result = counterfactual(
            rows, setting.x0, setting.sigmas, plan, watched, setting.seed, settings, given=regions,
            trajectory=trajectory,
        )  # fmt: skip
        return Edited(result.latent, result.regions, result.rows_per_step, spent + result.evaluations)


def without_descendants(plan: CounterfactualPlan) -> CounterfactualPlan:
    """The plan with the intervened concepts alone: everything that would follow keeps its value."""
    items = tuple(
        replace(item, counterfactual=item.factual) if item.role == "descendant" else item for item in plan.items
    )
    return replace(plan, items=items)
