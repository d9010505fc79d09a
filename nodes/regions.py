"""Where each concept may change: regions found by the model, shown, and corrected by hand."""

from __future__ import annotations

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError, unknown
from . import types
from .options import PER_CONCEPT, settings, widgets


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
        skip: float = 0.1, **chosen,
    ) -> io.NodeOutput:  # fmt: skip
        import torch
        from comfy_api.latest import ui

        from ..causal_core.draw import overlay
        from .edit import Run, enlarged

        run = Run(model, clip, latent, plan, settings(mode, **chosen), steps, skip, trajectory)
        found = run.located(seed)
        masks = enlarged(plan, found, latent["samples"].shape[-2:], run.ratio)
        names = [item.name for item in plan.affected]
        height, width = masks.shape[-2:]
        pictures = torch.full((len(found), height, width, 3), 0.5) if image is None else image[..., :3].cpu()
        if len(pictures) != len(found):
            raise CounterfactError(
                f"image: it has {len(pictures)} pictures, the latent {len(found)}; connect the image that was encoded"
            )
        drawn = [
            overlay(picture.numpy(), {name: masks[i * len(names) + k].numpy() for k, name in enumerate(names)})
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
                    "how", options=["replace", "widen", "narrow"], default="replace", optional=True,
                    tooltip="'replace': the mask alone. 'widen': region or mask. 'narrow': where both are.",
                ),
            ],
            outputs=[io.Mask.Output("regions", tooltip="For Sample Counterfactual, Apply CSG to Model or CSG Guider.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, regions, plan, concept: str, mask, how: str = "replace") -> io.NodeOutput:
        import torch

        names = [item.name for item in plan.affected]
        folded = [name.casefold() for name in names]
        if concept.strip().casefold() not in folded:
            raise unknown("concept", concept, names, "affected concepts")
        if not names or len(regions) % len(names):
            raise CounterfactError(
                f"regions: there are {len(regions)} masks for {len(names)} affected concepts; connect Find Regions "
                "with the same plan"
            )
        size = tuple(regions.shape[-2:])
        mask = mask.reshape(-1, *mask.shape[-2:]).to(regions)
        if tuple(mask.shape[-2:]) != size:
            mask = torch.nn.functional.interpolate(mask[:, None], size=size, mode="area")[:, 0]
        number, images = folded.index(concept.strip().casefold()), len(regions) // len(names)
        if len(mask) not in (1, images):
            raise CounterfactError(f"mask: it is {len(mask)} masks for {images} pictures; give it one, or one for each")
        found = regions.clone().reshape(images, len(names), *size)
        old = found[:, number]
        new = {"replace": mask, "widen": torch.maximum(old, mask), "narrow": torch.minimum(old, mask)}[how]
        found[:, number] = new
        return io.NodeOutput(found.reshape(regions.shape))


NODES = [FindRegions, SetRegion]
