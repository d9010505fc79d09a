"""For editors that follow instructions: the plan in words, and what they changed by mistake put back."""

from __future__ import annotations

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.composite import (
    CROP,
    SAME_SCALE,
    STRETCH,
    best_fit,
    composite,
    feathered,
    fitted,
    mask_fitted,
    within,
)
from ..causal_core.instruction import FULL, SHORT, STYLES, instruction, keep
from . import types

AUTO = "auto"


class Instruction(io.ComfyNode):
    """One instruction from a plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalInstruction",
            display_name="Causal Instruction",
            category="causal/output",
            description="Say a plan in words, for editors that follow instructions, such as FLUX.1 Kontext, "
            "Qwen-Image-Edit and FLUX.2 klein: what to change, what follows from it, and what to keep. Use Paste Back "
            "Unchanged on the picture they return.",
            search_aliases=["counterfactual", "kontext", "qwen image edit", "klein", "edit prompt", "instruct"],
            inputs=[
                types.Plan.Input("plan", tooltip="What changes and what stays, from Propagate Consequences."),
                io.Combo.Input(
                    "style", options=list(STYLES), default=FULL, optional=True,
                    tooltip=f"'{FULL}': values before and after, consequences in the order of causes, and everything "
                    f"to keep by name. '{SHORT}': the new states only.",
                ),
                io.Int.Input(
                    "words", default=0, min=0, max=2000, optional=True, advanced=True,
                    tooltip="Most words of the instruction, 0 for any number. Names of what stays are left out first, "
                    "distant consequences last. About 50 fit into the 77 tokens of CLIP.",
                ),
                io.Mask.Input(
                    "regions", optional=True,
                    tooltip="Where the affected concepts are: the masks of Sample Counterfactual for the same plan, or "
                    "a mask of your own.",
                ),
            ],
            outputs=[
                io.String.Output("instruction", tooltip="The whole instruction, for the editor's prompt."),
                io.String.Output("keep", tooltip="The part about what stays, which the full instruction ends with."),
                io.Mask.Output(
                    "mask", tooltip="All regions as one mask a picture, for Paste Back Unchanged. Without regions it "
                    "is white: anything may change. If nothing changes it is black."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, plan, style: str = FULL, words: int = 0, regions=None) -> io.NodeOutput:
        said = instruction(plan, style, words)
        return io.NodeOutput(said, keep(plan), may_change(plan, regions), ui={"text": [said]})


def may_change(plan, regions):
    """One mask a picture [B, H, W] from masks [pictures * affected concepts, H, W], or from none."""
    import torch

    concepts = len(plan.affected)
    if regions is None:
        return torch.full((1, 64, 64), float(concepts > 0))
    masks = batched(regions)
    if not concepts:
        return torch.zeros_like(masks[:1])
    if len(masks) > 1 and len(masks) % concepts:
        raise CounterfactError(
            f"regions: {len(masks)} masks do not fit {concepts} affected concepts; connect the masks of Sample "
            "Counterfactual for the same plan, or one mask"
        )
    return masks.unflatten(0, (max(1, len(masks) // concepts), -1)).amax(1)


def batched(mask):
    """A mask as [B, H, W]."""
    return mask.reshape(-1, *mask.shape[-2:])


class PasteBack(io.ComfyNode):
    """Source pixels wherever nothing was to change."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalPasteBack",
            display_name="Paste Back Unchanged",
            category="causal/output",
            description="Take an edited picture inside a mask and the source everywhere else, pixel by pixel. Editors "
            "shift colours and details all over a picture and often return another size: here everything outside the "
            "mask is the source again.",
            search_aliases=["counterfactual", "composite", "restore background", "preserve", "kontext", "blend",
            "inpaint stitch"],
            inputs=[
                io.Image.Input("source", tooltip="The picture as it was. The result has its size."),
                io.Image.Input("edited", tooltip="What the editor returned, of any size. One picture, or as many as "
                "there are sources; several edits of one source are pasted one by one."),
                io.Mask.Input(
                    "mask", tooltip="White where the picture may change: from Causal Instruction or Sample "
                    "Counterfactual, or painted on the source. Several masks for one picture are joined.",
                ),
                io.Int.Input(
                    "grow", default=8, min=0, max=512,
                    tooltip="Widens the mask by that many pixels to all sides. More if a rim of the old look is left.",
                ),
                io.Int.Input(
                    "feather", default=16, min=0, max=512,
                    tooltip="Width in pixels of the soft border around the widened mask. Beyond it every pixel is "
                    "exactly the source's. 0 leaves a hard edge.",
                ),
                io.Combo.Input(
                    "fit", options=[AUTO, STRETCH, CROP, SAME_SCALE], default=AUTO, optional=True, advanced=True,
                    tooltip=f"What the editor did to the size. '{STRETCH}': scaled the whole picture, each side by its "
                    f"own factor. '{CROP}': cut the middle out and scaled it evenly; the cut-off sides stay as they "
                    f"were. '{SAME_SCALE}': cut a few pixels off the rims only. '{AUTO}': whichever makes the two "
                    "pictures agree best outside the mask.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The source with the edit inside the mask."),
                io.Mask.Output("mask", tooltip="The mask as it was used: widened, softened, and black where the "
                "edited picture does not reach."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, source, edited, mask, grow: int, feather: int, fit: str = AUTO) -> io.NodeOutput:
        source, edited, masks = source[..., :3], edited[..., :3].to(source), batched(mask).to(source)
        groups = 1 if len(masks) == 1 else len(source)
        if len(masks) % groups:
            raise CounterfactError(
                f"mask: {len(masks)} masks do not fit {len(source)} sources; connect one, or the same number for each"
            )
        size = tuple(source.shape[1:3])
        # Masks lie on the source: those of one source after each other, as Sample Counterfactual gives them.
        wide = feathered(mask_fitted(masks.unflatten(0, (groups, -1)).amax(1), size), grow, feather)
        if fit == AUTO:
            fit = best_fit(source, edited, wide)
        picture, covered = fitted(edited, size, fit)
        used = within(wide, covered, feather)
        return io.NodeOutput(composite(source, picture, used), used)


NODES = [Instruction, PasteBack]
