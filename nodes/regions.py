"""Where each concept may change: regions found by the model, shown, and corrected by hand."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..causal_core.errors import CounterfactError, folded, unknown
from ..causal_core.guidance.composite import mask_fitted
from ..causal_core.guidance.picture import SKIP
from . import types
from .edit import Run
from .grid import enlarged, flat
from .mistakes import naming
from .options import PER_CONCEPT, settings, widgets

REPLACE, WIDEN, NARROW = "replace", "widen", "narrow"
WAYS = {REPLACE: lambda region, mask: mask, WIDEN: torch.maximum, NARROW: torch.minimum}


class FindRegions(io.ComfyNode):
    """Find the regions of the affected concepts without changing anything."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalRegions",
            display_name="Find Regions",
            category="causal/sampling",
            description="Find where each affected concept would change the picture, before anything is sampled: as "
            "masks to correct or combine, and as a picture to look at.",
            search_aliases=["counterfactual", "attention map", "mask", "daam", "segment", "where"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Latent.Input("latent", tooltip="The source picture, from VAE Encode. With a noise mask, regions "
                "stay inside of it."),
                types.Plan.Input("plan", tooltip="What changes and what stays, from Propagate Consequences."),
                *widgets("seed", "steps"),
                io.Image.Input("image", optional=True, tooltip="The source picture, to draw the regions on."),
                types.Trajectory.Input("trajectory", optional=True, tooltip="From Invert Picture with the same model, "
                "steps, skip and eta; saves its time here."),
                *widgets("mode", "threshold", "attention_weight", "protect", "grow", "feather", "eta", "skip"),
            ],
            outputs=[
                io.Mask.Output("masks", tooltip="The region of each affected concept, in the order of the plan; for a "
                "batch, picture after picture."),
                io.Image.Output("overlay", tooltip="The regions drawn on the picture, each with its name."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, latent, plan, seed: int, steps: int, image=None, trajectory=None, mode: str = PER_CONCEPT,
        skip: float = SKIP, **chosen,
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.draw_regions import overlay

        run = Run(model, clip, latent, plan, settings(mode, **chosen), steps, skip, trajectory)
        if image is not None and len(image) != run.images:
            raise CounterfactError(
                f"image: it has {len(image)} pictures, the latent {run.images}; connect the image that was encoded"
            )
        masks = enlarged(plan, run.located(seed), latent["samples"].shape[-2:], run.ratio)
        pictures = torch.full((run.images, *masks.shape[-2:], 3), 0.5) if image is None else image[..., :3].cpu()
        names, fitting = [item.name for item in plan.affected], mask_fitted(masks, tuple(pictures.shape[1:3]))
        drawn = [
            overlay(picture.numpy(), dict(zip(names, fitting[i * len(names) :].numpy())))
            for i, picture in enumerate(pictures)
        ]
        shown = torch.stack([torch.from_numpy(one) for one in drawn])
        return io.NodeOutput(masks, shown, ui=ui.PreviewImage(shown, cls=cls))


class SetRegion(io.ComfyNode):
    """Replace the region of one concept by a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalSetRegion",
            display_name="Set Region",
            category="causal/sampling",
            description="Decide yourself where one concept may change: its mask takes the place of, widens or narrows "
            "the region that the model found.",
            search_aliases=["counterfactual", "mask override", "inpaint mask", "segment anything"],
            inputs=[
                io.Mask.Input("regions", tooltip="From Find Regions, or another Set Region."),
                types.Plan.Input("plan", tooltip="The plan that the regions belong to."),
                io.String.Input("concept", default="", tooltip="Name of the concept, as in the plan."),
                io.Mask.Input("mask", tooltip="Where it may change: painted by hand, or from a segmentation node."),
                io.Combo.Input(
                    "how", options=list(WAYS), default=REPLACE, optional=True,
                    tooltip=f"'{REPLACE}': the mask alone. '{WIDEN}': region or mask. '{NARROW}': where both are.",
                ),
            ],
            outputs=[io.Mask.Output("regions", tooltip="For Sample Counterfactual, Apply CSG to Model or CSG Guider.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, regions, plan, concept: str, mask, how: str = REPLACE) -> io.NodeOutput:
        names, regions = [item.name for item in plan.affected], flat(regions)
        numbers = {folded(name): number for number, name in enumerate(names)}
        number = numbers.get(folded(concept))
        if number is None:
            with naming("concept"):
                raise unknown("concept", concept, names, "affected concepts")
        if len(regions) % len(names):
            raise CounterfactError(
                f"regions: there are {len(regions)} masks for {len(names)} affected concepts; connect Find Regions "
                "with the same plan"
            )
        mask, images = flat(mask).to(regions), len(regions) // len(names)
        if len(mask) not in (1, images):
            raise CounterfactError(f"mask: there are {len(mask)} for {images} pictures; give one, or one for each")
        size = tuple(regions.shape[-2:])
        if tuple(mask.shape[-2:]) != size:
            mask = torch.nn.functional.interpolate(mask[:, None], size=size, mode="area")[:, 0]
        found = regions.clone().unflatten(0, (images, len(names)))
        old = found[:, number].clone()
        found[:, number] = WAYS[how](old, mask)
        if how == NARROW and bool(old.any()) and bool(mask.any()) and not bool(found[:, number].any()):
            raise CounterfactError(
                f"mask: it lies outside the region of {names[number]}; paint it over the region, or set how to "
                f"'{REPLACE}'"
            )
        return io.NodeOutput(found.flatten(0, 1))


NODES = [FindRegions, SetRegion]
