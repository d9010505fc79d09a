"""The counterfactual picture: Causal Semantic Guidance as a sampler."""

from __future__ import annotations

import logging
from dataclasses import asdict
from time import perf_counter

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError, finite, write_document
from ..causal_core.guidance.csg import Settings
from . import types

REPORT_KIND, REPORT_VERSION = "counterfact.report", 1
DEFAULTS = Settings()
SKIP = 0.1

log = logging.getLogger("counterfact")


class CSGSampler(io.ComfyNode):
    """Invert a picture, find where each affected concept lives, sample the counterfactual on the same noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalCSGSampler",
            display_name="Sample Counterfactual (CSG)",
            category="causal/sampling",
            description="Draw the picture as it would have been: the affected concepts change, each in its own region, and "
            "everything else is kept from the source. Made for UNets with cross-attention: Load Demo Model and Stable "
            "Diffusion 1.x, 2.x and SDXL checkpoints. Tested with the demo model so far.",
            search_aliases=["counterfactual", "what if", "causal semantic guidance", "prompt2prompt", "attention "
            "edit", "edit "
            "image"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Latent.Input(
                    "latent", tooltip="The source picture, from VAE Encode. With a noise mask nothing changes outside "
                    "of it. Every picture of a batch is edited by itself; picture n takes the seed plus n."
                ),
                types.Plan.Input("plan", tooltip="What changes and what stays, from Propagate Consequences."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Of the noise that the picture is inverted with. The same seed gives the same picture.",
                ),
                io.Int.Input(
                    "steps", default=30, min=2, max=200,
                    tooltip="Sampling steps. More follow the source more finely and take longer.",
                ),
                io.Float.Input(
                    "strength", default=DEFAULTS.strength, min=0.0, max=4.0, step=0.05,
                    tooltip="How far to go: 0 returns the source, 1 follows the plan, more exaggerates.",
                ),
                io.Float.Input(
                    "threshold", default=DEFAULTS.threshold, min=0.01, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="How large a change must be to belong to a concept's region, as a share of the largest. "
                    "Lower gives wider regions.",
                ),
                io.Float.Input(
                    "attention_weight", default=DEFAULTS.attention_weight, min=0.0, max=1.0, step=0.05, optional=True,
                    advanced=True,
                    tooltip="How much the model's cross-attention to a concept's words narrows its region; 0 does "
                    "without.",
                ),
                io.Int.Input(
                    "grow", default=DEFAULTS.grow, min=0, max=32, optional=True, advanced=True,
                    tooltip="Widens the regions by that many latent pixels (4 image pixels each in the demo model, 8 "
                    "in SD).",
                ),
                io.Float.Input(
                    "feather", default=DEFAULTS.feather, min=0.0, max=16.0, step=0.1, optional=True, advanced=True,
                    tooltip="Softens the borders of the regions, in latent pixels.",
                ),
                io.Boolean.Input(
                    "preserve", default=DEFAULTS.preserve, optional=True, advanced=True,
                    tooltip="Keep everything outside the regions exactly as in the source. Off lets light and colour "
                    "adapt everywhere.",
                ),
                io.Float.Input(
                    "eta", default=DEFAULTS.eta, min=0.05, max=1.0, step=0.05, optional=True, advanced=True,
                    tooltip="Share of fresh noise a step. Lower follows the source's structure more closely.",
                ),
                io.Float.Input(
                    "skip", default=SKIP, min=0.0, max=0.9, step=0.05, optional=True, advanced=True,
                    tooltip="Share of the noise schedule to leave out at its noisy end. More keeps the layout of the "
                    "source, less allows larger changes. The number of steps stays the same.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The counterfactual, for VAE Decode."),
                io.Mask.Output("masks", tooltip="The region of each affected concept, in the order of the report."),
                io.String.Output(
                    "report", tooltip="What was done, as JSON: concepts, areas of regions, seed, settings, time, and "
                    "how far the latent is from the source where it should not have changed."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, latent, plan, seed: int, steps: int, strength: float, threshold=DEFAULTS.threshold,
        attention_weight=DEFAULTS.attention_weight, grow=DEFAULTS.grow, feather=DEFAULTS.feather,
        preserve=DEFAULTS.preserve, eta=DEFAULTS.eta, skip: float = SKIP,
    ) -> io.NodeOutput:  # fmt: skip
        import torch

        from ..causal_core.guidance.captions import captions, watched_spans
        from ..causal_core.guidance.csg import counterfactual
        from .denoise import Captions, encode, noise_levels, progress_bar, run, token_ids

        settings = Settings(
            strength=finite(strength, "strength"), threshold=finite(threshold, "threshold"),
            attention_weight=finite(attention_weight, "attention_weight"), grow=grow,
            feather=finite(feather, "feather"), preserve=preserve, eta=finite(eta, "eta"),
        )  # fmt: skip
        sigmas = noise_levels(model, steps, finite(skip, "skip"))
        ratio = _check_mask(model, latent)
        start = perf_counter()
        guider = Captions(model, encode(clip, captions(plan)))
        try:
            watched = watched_spans(lambda text: token_ids(clip, text), plan)
        except CounterfactError as error:
            log.warning("Regions are found without attention: %s", error)
            watched = {}
        bar = progress_bar(model, len(latent["samples"]) * (2 * steps + min(steps, settings.probes)))
        results, errors = [], []

        def edit(rows, x0, mask):
            for i, source in enumerate(x0.split(1)):
                within = None if mask is None else mask[i].amax(0)
                result = counterfactual(
                    rows, source, sigmas.tolist(), plan, watched, (seed + i) % 2**64, settings, bar, within
                )
                results.append(result)
                errors.append(_error_outside(result, source))
            return torch.cat([result.latent for result in results])

        samples = run(guider, latent, sigmas, edit, seed)
        report = _report(plan, results, steps, {
            "max_latent_error_outside": max(errors),
            "seconds": round(perf_counter() - start, 3),
            "seed": seed,
            "settings": {**asdict(settings), "steps": steps, "skip": skip},
        })  # fmt: skip
        masks = _masks(plan, results, samples.shape[-2:], ratio)
        return io.NodeOutput({**latent, "samples": samples}, masks, report, ui={"counterfact_report": [report]})


def _report(plan, results, steps: int, more: dict) -> str:
    """What was done, as a JSON document."""

    def area(name: str) -> float:
        return sum(float(r.regions[name].mean()) for r in results if name in r.regions) / len(results)

    affected = [
        {
            "name": item.name, "factual": item.factual, "counterfactual": item.counterfactual,
            "strength": more["settings"]["strength"] * item.strength, "area": area(item.name),
        }
        for item in plan.affected
    ]  # fmt: skip
    return write_document(REPORT_KIND, REPORT_VERSION, {
        "do": dict(plan.intervention.do),
        "affected": affected,
        "invariant": [item.name for item in plan.invariant],
        "images": len(results),
        "evaluations_per_step": sum(r.evaluations for r in results) / len(results) / steps,
        **more,
    })  # fmt: skip


def _check_mask(model, latent) -> int:
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


def _error_outside(result, source) -> float:
    """Largest change of the latent where no region reaches."""
    import torch

    error = (result.latent - source).abs().amax((0, 1)).cpu()
    for region in result.regions.values():
        error = torch.where(region.cpu() > 0, 0.0, error)
    return float(error.max())


def _masks(plan, results, grid, ratio: int):
    """Regions of the affected concepts as MASK [images * concepts, H, W]; one empty mask if nothing is affected."""
    import torch

    empty = torch.zeros(*grid)
    regions = [r.regions.get(item.name, empty).float().cpu() for r in results for item in plan.affected]
    stacked = torch.stack(regions or [empty])[:, None]
    return torch.nn.functional.interpolate(stacked, scale_factor=ratio, mode="bilinear")[:, 0].clamp(0, 1)


NODES = [CSGSampler]
