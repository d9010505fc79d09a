"""One edit inside ComfyUI, from sockets to latents and regions: what sampler and regions node have in common."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.captions import captions, edits
from ..causal_core.guidance.check import MOST_RETRIES, margins, with_retries
from ..causal_core.guidance.csg import (
    Result,
    Settings,
    counterfactual,
    look,
    probe_latents,
    probe_steps,
    regions_of,
    sample,
)
from ..causal_core.guidance.directions import Guide
from ..causal_core.guidance.inversion import Trajectory, invert
from ..causal_core.plan import CounterfactualPlan, undone
from .abduct import check, made_with
from .denoise import Captions, Rows, captures, encode, noise_levels, progress_bar, run
from .grid import on_grid, ratio_of, require_mask
from .options import checked
from .phrases import watched_tokens
from .steer import unsteered

CHECK_SHARES = (0.2, 0.35, 0.5, 0.65)

log = logging.getLogger("counterfact")


class Run:
    """The inputs of an edit, checked and prepared; nothing is sampled yet.

    Parameters
    ----------
    model, clip, latent, plan : as they come from the sockets
    settings : how to edit
    steps, skip : of the noise schedule
    trajectory : tuple of one Trajectory a picture, or None
    regions : MASK of the user's own regions, see :func:`nodes.grid.on_grid`, or None

    Attributes
    ----------
    ratio : pixels of the picture a latent pixel
    notes : what the user should know, in words for the report
    """

    def __init__(
        self, model, clip, latent: Mapping[str, Any], plan: CounterfactualPlan, settings: Settings, steps: int,
        skip: float, trajectory: tuple[Trajectory, ...] | None = None, regions: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        unsteered(model)
        self.model, self.clip, self.latent, self.plan, self.settings = model, clip, latent, plan, settings
        self.steps, self.skip = checked("steps", steps), checked("skip", skip)
        self.images, self.ratio = len(latent["samples"]), ratio_of(model)
        require_mask(latent, self.ratio)
        self.sigmas = noise_levels(model, self.steps, self.skip)
        self.guider, self.watched = self._prepared(plan)
        self.trajectory, self.regions, self.notes = trajectory, regions, []
        if not plan.affected:
            self._note("nothing changes: the intervention sets what is already so, and the source is returned")
        elif not captures(model):
            self._note("the model shows no attention to words: regions come from the size of changes and from masks")
        elif not self.watched:
            self._note("the captions' words cannot be followed: regions come from the size of changes and from masks")
        if trajectory is None:
            return
        if len(trajectory) != self.images:
            raise CounterfactError(
                f"trajectory: it was made of {len(trajectory)} pictures, the latent has {self.images}; connect the "
                "same latent to both nodes"
            )
        size = latent["samples"].shape[-2:]
        self.expected = made_with(model, plan.caption_factual, self.steps, self.skip, size)

    def _prepared(self, plan: CounterfactualPlan):
        """Guider and watched tokens for the captions of a plan."""
        guider = Captions(self.model, encode(self.clip, captions(plan, self.settings.fused)))
        return guider, watched_tokens(guider, self.clip, plan, self.settings.fused)

    def _note(self, text: str) -> None:
        log.info("%s", text)
        self.notes.append(text)

    def _bounds(self, picture: int, source: torch.Tensor, mask: torch.Tensor | None) -> dict[str, Any]:
        """What the user says about where one picture may change."""
        given = on_grid(self.regions, self.plan, tuple(source.shape[-2:]), self.ratio, picture, self.images)
        return {"given": given, "within": None if mask is None else mask[picture].amax(0)}

    def _trajectory(self, picture: int, source: torch.Tensor) -> Trajectory | None:
        """The given trajectory of one picture, once it is known to belong to it."""
        if self.trajectory is None:
            return None
        return check(self.trajectory[picture], source, self.expected, self.settings.eta)

    def _counts(self) -> tuple[int, int]:
        """Steps that progress shows for inverting one picture, and for finding its regions."""
        changes = [c for c in edits(self.plan, self.settings.strength, self.settings.fused) if c.strength > 0.0]
        given = self.regions is not None
        return self.steps, len(probe_steps(self.steps, self.settings.probes)) if changes and not given else 0

    def edited(self, seed: int, retries: int = 0, measure: bool = False):
        """Sample.

        Parameters
        ----------
        seed : of the noise of the first picture; the next takes the next
        retries : 0 to 2, how often an edit may be tried again that does not show its new values
        measure : also composition (setting nothing) and reversibility (the edit undone)

        Returns
        -------
        latent as from a sampler, one Result a picture, facts for the report
        """
        results, tries, composition, spent = [], [], [], []
        inverting, finding = self._counts()
        tried_most = 1 + min(retries, MOST_RETRIES)
        total = (inverting if self.trajectory is None else 0) + tried_most * (finding + self.steps)
        total += self.steps + inverting + finding + self.steps if measure else 0
        bar = progress_bar(self.model, self.images * total)
        levels = [float(self.sigmas[int(share * self.steps)]) for share in CHECK_SHARES]

        def edit(rows: Rows, x0: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            for i, source in enumerate(x0.split(1)):
                number = (seed + i) % 2**64
                kept = self._trajectory(i, source)

                def once(settings: Settings, i=i, source=source, number=number) -> Result:
                    nonlocal kept
                    result = counterfactual(
                        rows, source, self.sigmas.tolist(), self.plan, self.watched, number, settings, bar,
                        trajectory=kept, flow=self.guider.flow, **self._bounds(i, source, mask),
                    )  # fmt: skip
                    kept = result.trajectory
                    spent.append(result.evaluations)
                    return result

                if retries or measure:
                    judge = partial(self._margins, rows, levels=levels, seed=number)
                    result, tried = with_retries(once, judge, self.settings, retries)
                    tries.append([{**one, "margins": _known(one["margins"])} for one in tried])
                else:
                    result = once(self.settings)
                if measure:
                    null = sample(rows, kept, Guide([], {}), progress=bar)
                    composition.append(float((null - source).abs().max()))
                results.append(result)
            self.notes += rows.notes
            return torch.cat([result.latent for result in results])

        samples = run(self.guider, self.latent, self.sigmas, edit, seed)
        facts: dict[str, Any] = {
            "max_latent_error_outside": max(error_outside(result) for result in results),
            # Of all tries; judging and measuring come on top.
            "evaluations_per_step": sum(spent) / self.images / self.steps,
        }
        if tries:
            facts["tries"] = tries
        if measure:
            facts["composition"] = {"max_latent_error": max(composition)}
            try:
                facts["reversibility"] = {"mean_latent_error": self._error_undone(samples, seed, bar)}
            except CounterfactError as error:
                self._note(f"reversibility is not known: {error}")
        self._note_empty(results)
        return samples, results, facts | {"notes": self.notes}

    def _margins(self, rows: Rows, result: Result, levels: list[float], seed: int) -> dict[str, float]:
        changes = [c for c in edits(self.plan, fused=self.settings.fused) if c.name in result.regions]
        return margins(rows, result.latent, changes, result.regions, levels, seed, self.guider.flow)

    def _error_undone(self, samples: torch.Tensor, seed: int, bar) -> float:
        """Mean absolute difference between the source and the edit undone, in latent units."""
        back = undone(self.plan)
        guider, watched = self._prepared(back)

        def undo(rows: Rows, x0: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            return torch.cat([
                counterfactual(
                    rows, one, self.sigmas.tolist(), back, watched, (seed + i) % 2**64, self.settings, bar,
                    flow=guider.flow, **self._bounds(i, one, mask),
                ).latent
                for i, one in enumerate(x0.split(1))
            ])  # fmt: skip

        again = run(guider, {**self.latent, "samples": samples}, self.sigmas, undo, seed)
        return float((again - self.latent["samples"].to(again).reshape(again.shape)).abs().mean())

    def _note_empty(self, results: list[Result]) -> None:
        for item in self.plan.affected:
            found = [result.regions[item.name] for result in results if item.name in result.regions]
            if found and not any(bool((region > 0).any()) for region in found):
                self._note(
                    f"the region of {item.name} is empty, so that it cannot change; lower threshold, or give it a "
                    "region of your own"
                )

    def located(self, seed: int) -> list[Mapping[str, torch.Tensor]]:
        """Find the regions alone: one dict of regions [h, w] a picture."""
        found = []
        changes = edits(self.plan, 1.0, self.settings.fused)
        inverting, finding = self._counts()
        bar = progress_bar(self.model, self.images * ((inverting if self.trajectory is None else 0) + finding))

        def search(rows: Rows, x0: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
            def base(x: torch.Tensor, sigma: float) -> torch.Tensor:
                estimate = rows(x, sigma, [0])[0]
                bar(estimate)
                return estimate

            for i, source in enumerate(x0.split(1)):
                trajectory = self._trajectory(i, source) or invert(
                    base, source, self.sigmas.tolist(), (seed + i) % 2**64, self.settings.eta, self.guider.flow
                )
                seen = look(rows, probe_latents(trajectory, self.settings.probes), changes, self.watched, bar)
                within = None if mask is None else mask[i].amax(0)
                found.append(regions_of(seen, self.settings, within))
            return x0

        run(self.guider, self.latent, self.sigmas, search, seed)
        return found


def error_outside(result: Result) -> float:
    """Largest change of the latent where no region reaches."""
    error = (result.latent - result.trajectory.latents[-1]).abs().amax((0, 1)).cpu()
    for region in result.regions.values():
        error = torch.where(region.cpu() > 0, 0.0, error)
    return float(error.max())


def _known(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same with None in place of what is no number, as JSON wants it."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
