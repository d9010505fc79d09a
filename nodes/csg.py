"""The counterfactual picture: Causal Semantic Guidance as a sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.check import MOST_RETRIES
from ..causal_core.guidance.composite import SAME_SCALE, fitted, pixel_mask
from ..causal_core.guidance.composite import composite as pasted
from ..causal_core.guidance.csg import Settings
from ..causal_core.guidance.picture import COMPOSITE_FEATHER, SKIP
from ..causal_core.guidance.report import sampled, write_report
from . import types
from .edit import Run
from .grid import enlarged
from .options import DEFAULTS, PER_CONCEPT, settings, widgets


class CSGSampler(io.ComfyNode):
    """Invert a picture, find where each affected concept lives, sample the counterfactual on the same noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalCSGSampler",
            display_name="Sample Counterfactual (CSG)",
            category="causal/sampling",
            description="Draw the picture as it would have been: the affected concepts change, each in its own region, "
            "and everything else is kept from the source. Measured with the demo model; its parts are tested on the "
            "architectures of Stable Diffusion 1.x, 2.x, SDXL, SD3, Flux, Qwen-Image, Z-Image and Wan.",
            search_aliases=["counterfactual", "what if", "causal semantic guidance", "prompt2prompt", "attention edit",
            "edit image"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Latent.Input(
                    "latent", tooltip="The source picture, from VAE Encode. With a noise mask nothing changes outside "
                    "of it. Every picture of a batch is edited by itself; picture n takes the seed plus n."
                ),
                types.Plan.Input("plan", tooltip="What changes and what stays, from Propagate Consequences."),
                *widgets(
                    "seed", "steps", "strength", "threshold", "attention_weight", "grow", "feather", "preserve", "eta",
                    "skip",
                ),
                types.Trajectory.Input(
                    "trajectory", optional=True,
                    tooltip="The picture's noise from Invert Picture, so that it need not be inverted again. Made with "
                    "the same model, steps, skip and eta; the seed is then the one given there.",
                ),
                io.Mask.Input(
                    "regions", optional=True,
                    tooltip="Regions that you decide yourself, in place of those that the model finds: one mask for "
                    "each affected concept in the order of the plan, or one for all. From Find Regions, Set Region or "
                    "any mask node.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The VAE of the same checkpoint; needed for the image "
                "output."),
                io.Image.Input("image", optional=True, tooltip="The source picture itself. With it, everything "
                "outside the regions is taken from it pixel by pixel."),
                *widgets("mode", "protect", "delay", "stop", "project", "clamp", "momentum", "share_overlaps"),
                io.Boolean.Input(
                    "composite", default=True, optional=True, advanced=True,
                    tooltip="Take the pixels outside the regions from the source image, so that not even the VAE "
                    "changes them. Needs image and preserve.",
                ),
                io.Float.Input(
                    "composite_feather", default=COMPOSITE_FEATHER, min=0.0, max=32.0, step=0.25, optional=True,
                    advanced=True,
                    tooltip="Width of the soft border of that, in latent pixels (4 image pixels each in the demo "
                    "model, 8 in SD).",
                ),
                io.Int.Input(
                    "retries", default=0, min=0, max=MOST_RETRIES, optional=True, advanced=True,
                    tooltip="If the model does not recognise a new value in the edited picture, try again with more "
                    "strength and wider regions, at most so many times. Each try finds regions and samples again.",
                ),
                io.Boolean.Input(
                    "measure", default=False, optional=True, advanced=True,
                    tooltip="Also measure composition (setting nothing must change nothing) and reversibility (do, "
                    "then undo) and put them into the report. Takes more than twice as long.",
                ),
            ],
            outputs=[
                io.Latent.Output(tooltip="The counterfactual, for VAE Decode."),
                io.Mask.Output("masks", tooltip="The region of each affected concept, in the order of the report."),
                io.String.Output(
                    "report", tooltip="What was done, as JSON: concepts, areas of regions, seed, settings, time, and "
                    "how far the latent is from the source where it should not have changed."
                ),
                io.Image.Output("image", tooltip="The counterfactual picture; outside the regions it is the source "
                "image bit by bit. Needs vae, and image for that."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, latent, plan, seed: int, steps: int, strength: float, threshold=DEFAULTS.threshold,
        attention_weight=DEFAULTS.attention_weight, grow=DEFAULTS.grow, feather=DEFAULTS.feather,
        preserve=DEFAULTS.preserve, eta=DEFAULTS.eta, skip: float = SKIP, trajectory=None, regions=None, vae=None,
        image=None, mode: str = PER_CONCEPT, protect=DEFAULTS.protect, delay=DEFAULTS.how.delay,
        stop=DEFAULTS.how.stop, project=DEFAULTS.how.project, clamp=DEFAULTS.how.clamp,
        momentum=DEFAULTS.how.momentum, share_overlaps=DEFAULTS.how.share_overlaps, composite: bool = True,
        composite_feather: float = COMPOSITE_FEATHER, retries: int = 0, measure: bool = False,
    ) -> io.NodeOutput:  # fmt: skip
        chosen = settings(
            mode, strength=strength, threshold=threshold, attention_weight=attention_weight, protect=protect,
            grow=grow, feather=feather, preserve=preserve, eta=eta, delay=delay, stop=stop, project=project,
            clamp=clamp, momentum=momentum, share_overlaps=share_overlaps,
        )  # fmt: skip
        start = perf_counter()
        if image is not None and vae is None:
            raise CounterfactError("vae: connect the VAE of the checkpoint, or leave image unconnected")
        run = Run(model, clip, latent, plan, chosen, steps, skip, trajectory, regions)
        samples, results, facts = run.edited(seed, retries, measure)
        report = write_report({
            **sampled(plan, results, strength), **facts, "seconds": round(perf_counter() - start, 3), "seed": seed,
            "settings": {
                **_flat(chosen), "mode": mode, "steps": steps, "skip": skip, "retries": retries,
                "trajectory": trajectory is not None, "regions": regions is not None,
            },
        })  # fmt: skip
        found = [result.regions for result in results]
        masks = enlarged(plan, found, samples.shape[-2:], run.ratio)
        if vae is None:
            picture = ExecutionBlocker("vae: connect it to Sample Counterfactual to get an image")
        else:
            kept = image if composite and preserve else None
            picture = _picture(vae, samples, kept, found, run.ratio, composite_feather)
        return io.NodeOutput(
            {**latent, "samples": samples}, masks, report, picture, ui={"counterfact_report": [report]}
        )


def _flat(chosen: Settings) -> dict[str, Any]:
    """All settings by name."""
    values = asdict(chosen)
    return {**values, **values.pop("how")}


def _picture(
    vae, samples: torch.Tensor, source: torch.Tensor | None, found: Sequence[Mapping[str, torch.Tensor]], ratio: int,
    feather: float,
) -> torch.Tensor:  # fmt: skip
    """The decoded pictures; outside their regions they are the sources, where these are given."""
    edited = vae.decode(samples)
    edited = edited.reshape(-1, *edited.shape[-3:])
    if source is None:
        return edited
    source = source[..., :3].to(edited)
    if len(source) != len(edited):
        raise CounterfactError(
            f"image: it has {len(source)} pictures, the latent {len(edited)}; connect the image that was encoded"
        )
    size, (height, width) = tuple(source.shape[1:3]), samples.shape[-2:]
    if (size[0] // ratio, size[1] // ratio) != (height, width):
        raise CounterfactError(
            f"image: it is {size[1]} x {size[0]} pixels, but the latent is of a picture of {ratio * width} x "
            f"{ratio * height}; connect the image that was encoded"
        )
    masks = torch.stack([pixel_mask(regions.values(), size, round(feather * ratio), ratio) for regions in found])
    return pasted(source, fitted(edited, size, SAME_SCALE)[0], masks)


NODES = [CSGSampler]
