"""One edit inside ComfyUI, from sockets to latents and regions: what sampler and regions node have in common."""

from __future__ import annotations

import logging
from functools import partial

import torch

from ..causal_core.errors import CounterfactError, finite
from ..causal_core.guidance.captions import captions, edits
from ..causal_core.guidance.check import margins, with_retries
from ..causal_core.guidance.csg import Settings, counterfactual, look, probe_latents, probe_steps, regions_of
from ..causal_core.guidance.inversion import invert
from ..causal_core.plan import undone
from .abduct import check, made_with
from .denoise import Captions, captures, encode, noise_levels, progress_bar, run
from .phrases import watched_tokens

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
    regions : see :func:`on_grid`
    """

    def __init__(self, model, clip, latent, plan, settings: Settings, steps: int, skip: float, trajectory=None,
                 regions=None) -> None:  # fmt: skip
        skip = finite(skip, "skip", 0.0, 0.9)
        self.model, self.clip, self.latent, self.plan, self.settings = model, clip, latent, plan, settings
        self.steps, self.skip, self.images = steps, skip, len(latent["samples"])
        self.captions = captions(plan, settings.fused)
        self.sigmas = noise_levels(model, steps, skip)
        self.ratio = check_mask(model, latent)
        self.guider = Captions(model, encode(clip, self.captions))
        self.watched = watched_tokens(self.guider, clip, plan, settings.fused) if captures(model) else {}
        self.trajectory, self.regions = trajectory, regions
        self.notes = []
        if not plan.affected:
            self._note("nothing changes: the intervention sets what is already so, and the source is returned")
        elif not captures(model):
            self._note("the model shows no attention to words: regions come from the size of changes and from masks")
        if trajectory is not None and len(trajectory) != self.images:
            raise CounterfactError(
                f"trajectory: it was made of {len(trajectory)} pictures, the latent has {self.images}; connect the "
                "same latent to both nodes"
            )

    def _note(self, text: str) -> None:
        log.info("%s", text)
        self.notes.append(text)

    def _given(self, picture: int, grid) -> dict[str, torch.Tensor]:
        return on_grid(self.regions, self.plan, grid, self.ratio, picture, self.images)

    def _trajectory(self, picture: int, source: torch.Tensor):
        if self.trajectory is None:
            return None
        expected = made_with(self.model, self.captions[0], self.steps, self.skip, source.shape[-2:])
        return check(self.trajectory[picture], source, expected, self.settings.eta)

    def edited(self, seed: int, retries: int = 0, measure: bool = False):
        """Sample: (latent, one Result a picture, facts for the report)."""
        results, facts = [], {"max_latent_error_outside": 0.0}
        tries, composition, reversibility = [], [], []
        probes = len(probe_steps(self.steps, self.settings.probes))
        bar = progress_bar(self.model, self.images * (2 * self.steps + probes) * (3 if measure else 1))
        levels = [float(self.sigmas[int(share * self.steps)]) for share in CHECK_SHARES]

        def edit(rows, x0, mask):
            for i, source in enumerate(x0.split(1)):
                number = (seed + i) % 2**64
                again = partial(
                    counterfactual, rows, source, self.sigmas.tolist(), self.plan, self.watched, number, progress=bar,
                    within=None if mask is None else mask[i].amax(0), given=self._given(i, source.shape[-2:]),
                    flow=self.guider.flow,
                )  # fmt: skip
                kept = self._trajectory(i, source)

                def once(settings, again=again):
                    nonlocal kept
                    result = again(settings=settings, trajectory=kept)
                    kept = result.trajectory
                    return result

                def judge(result, source=source, number=number):
                    changes = edits(self.plan, 1.0, self.settings.fused)
                    changes = [c for c in changes if c.name in result.regions]
                    return margins(rows, result.latent, changes, result.regions, levels, number, self.guider.flow)

                if retries or measure:
                    result, tried = with_retries(once, judge, self.settings, retries)
                    tries.append(tried)
                else:
                    result = once(self.settings)
                if measure:
                    null = counterfactual(
                        rows, source, self.sigmas.tolist(), self.plan, {}, number,
                        Settings(strength=0.0, eta=self.settings.eta), bar, trajectory=kept, flow=self.guider.flow,
                    )  # fmt: skip
                    composition.append(float((null.latent - source).abs().max()))
                facts["max_latent_error_outside"] = max(
                    facts["max_latent_error_outside"], error_outside(result, source)
                )
                results.append(result)
            return torch.cat([result.latent for result in results])

        samples = run(self.guider, self.latent, self.sigmas, edit, seed)
        if measure:
            reversibility = self._undone(samples, seed, bar)
            facts["composition"] = {"max_latent_error": max(composition)}
            facts["reversibility"] = {"mean_latent_error": reversibility}
        if tries:
            facts["tries"] = tries
        self._look(results)
        return samples, results, facts | {"notes": self.notes}

    def _undone(self, samples: torch.Tensor, seed: int, bar) -> float:
        """Mean absolute difference between the source and the edit undone, in latent units."""
        back = undone(self.plan)
        guider = Captions(self.model, encode(self.clip, captions(back, self.settings.fused)))
        watched = watched_tokens(guider, self.clip, back, self.settings.fused) if captures(self.model) else {}
        errors = []

        def undo(rows, x0, mask):
            found = [
                counterfactual(
                    rows, one, self.sigmas.tolist(), back, watched, (seed + i) % 2**64, self.settings, bar,
                    flow=guider.flow,
                ).latent
                for i, one in enumerate(x0.split(1))
            ]  # fmt: skip
            return torch.cat(found)

        again = run(guider, {**self.latent, "samples": samples}, self.sigmas, undo, seed)
        errors.append(float((again - self.latent["samples"].to(again)).abs().mean()))
        return errors[0]

    def _look(self, results) -> None:
        """Note the concepts whose region came out empty."""
        for item in self.plan.affected:
            found = [result.regions[item.name] for result in results if item.name in result.regions]
            if found and not any(bool((region > 0).any()) for region in found):
                self._note(f"the region of {item.name} is empty, so that it cannot change; lower threshold, or give it "
                           "a region")  # fmt: skip

    def located(self, seed: int):
        """Find the regions alone: one dict of regions [h, w] a picture."""
        found = []
        changes = edits(self.plan, 1.0, self.settings.fused)
        steps = probe_steps(self.steps, self.settings.probes)
        bar = progress_bar(self.model, self.images * (len(steps) + (0 if self.trajectory else self.steps)))

        def search(rows, x0, mask):
            for i, source in enumerate(x0.split(1)):
                within, given = None if mask is None else mask[i].amax(0), self._given(i, source.shape[-2:])
                trajectory = self._trajectory(i, source) or invert(
                    lambda x, sigma: shown(rows(x, sigma, [0])[0]), source, self.sigmas.tolist(),
                    (seed + i) % 2**64, self.settings.eta, self.guider.flow,
                )  # fmt: skip
                sought = [c for c in changes if c.name not in given]
                seen = look(rows, probe_latents(trajectory, self.settings.probes), sought, self.watched, bar)
                regions = regions_of(seen, self.settings, within)
                found.append({c.name: regions.get(c.name, given.get(c.name)) for c in changes})
            return x0

        def shown(denoised):
            bar(denoised)
            return denoised

        run(self.guider, self.latent, self.sigmas, search, seed)
        return found


def on_grid(regions, plan, grid, ratio: int, picture: int = 0, images: int = 1) -> dict[str, torch.Tensor]:
    """The user's own regions of one of several pictures, [h, w] each; none if there are none.

    Parameters
    ----------
    regions : MASK [1, K or K * images, H, W] for the K affected concepts of the plan, or None
    grid : (h, w) of the latent
    ratio : pixels of the picture a latent pixel
    """
    names = [item.name for item in plan.affected]
    if regions is None or not names:
        return {}
    masks = regions.reshape(-1, *regions.shape[-2:])
    if len(masks) not in (1, len(names), len(names) * images):
        raise CounterfactError(
            f"regions: there are {len(masks)} masks for {len(names)} affected concepts ({', '.join(names)}); give one "
            "for each in this order, or one for all"
        )
    if len(masks) == len(names) * images:
        masks = masks[picture * len(names) :][: len(names)]
    height, width = grid
    off = max(abs(masks.shape[1] - ratio * height), abs(masks.shape[2] - ratio * width))
    if off >= ratio and tuple(masks.shape[1:]) != (height, width):
        raise CounterfactError(
            f"regions: the masks are {masks.shape[2]} x {masks.shape[1]} pixels, but the picture is {ratio * width} x "
            f"{ratio * height}; scale them to the size of the picture"
        )
    small = torch.nn.functional.interpolate(masks[:, None].float(), size=grid, mode="area")[:, 0].clamp(0, 1)
    if not bool(small.any()):
        raise CounterfactError("regions: the masks are empty; paint where the concepts may change")
    return dict(zip(names, small.expand(len(names), -1, -1)))


def check_mask(model, latent) -> int:
    """Pixels of the picture a latent pixel; a mask that is not of the picture's size raises CounterfactError."""
    ratio = model.get_model_object("latent_format").spacial_downscale_ratio
    mask = latent.get("noise_mask")
    if mask is not None:
        height, width = latent["samples"].shape[-2:]
        mask_height, mask_width = mask.shape[-2:]
        off = max(abs(mask_height - ratio * height), abs(mask_width - ratio * width))
        # Pictures whose sides are no multiples of the ratio are cropped by the VAE, masks are not.
        if off >= ratio and (mask_height, mask_width) != (height, width):
            raise CounterfactError(
                f"latent: its noise mask is {mask_width} x {mask_height} pixels, but the picture is {ratio * width} x "
                f"{ratio * height}; scale the mask to the size of the picture"
            )
        masks, images = (mask.shape[0] if mask.ndim > 2 else 1), latent["samples"].shape[0]
        if masks not in (1, images):
            raise CounterfactError(
                f"latent: it has {images} pictures and {masks} masks; give it one mask, or one for each"
            )
    return ratio


def error_outside(result, source) -> float:
    """Largest change of the latent where no region reaches."""
    error = (result.latent - source).abs().amax((0, 1)).cpu()
    for region in result.regions.values():
        error = torch.where(region.cpu() > 0, 0.0, error)
    return float(error.max())


def enlarged(plan, found, grid, ratio: int) -> torch.Tensor:
    """Regions of the affected concepts as MASK [images * concepts, H, W]; one empty mask if nothing is affected.

    Parameters
    ----------
    found : one dict of regions [h, w] by concept a picture
    grid : (h, w) of the latent
    ratio : pixels of the picture a latent pixel
    """
    empty = torch.zeros(*grid)
    regions = [one.get(item.name, empty).float().cpu() for one in found for item in plan.affected]
    stacked = torch.stack(regions or [empty])[:, None]
    return torch.nn.functional.interpolate(stacked, scale_factor=ratio, mode="bilinear")[:, 0].clamp(0, 1)
