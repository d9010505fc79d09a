"""What became of the concepts: a report of an edit for people and for programs."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..causal_core.errors import CounterfactError, folded
from ..causal_core.guidance.composite import RIM, SAME_SCALE, fitted, mask_fitted
from ..causal_core.guidance.report import compared, measures, read_report, table, write_report
from . import types
from .grid import regions_of_picture
from .mistakes import naming

MARGIN = 4


class CounterfactualReport(io.ComfyNode):
    """Compare source and counterfactual, concept by concept."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalCounterfactualReport",
            display_name="Counterfactual Report",
            category="causal/output",
            description="Show what an edit did: before and after, what changed where, the region of each concept, and "
            "a table of all concepts. With values that were read again in the edited picture it also says which "
            "concepts became what they should, and which moved that should not.",
            search_aliases=["counterfactual", "before after", "compare", "heat map", "metrics", "psnr", "evaluate"],
            is_output_node=True,
            inputs=[
                types.Plan.Input("plan", tooltip="The plan that was followed."),
                io.Image.Input("source", tooltip="The picture as it was."),
                io.Image.Input("edited", tooltip="The counterfactual, in the size of the source. If the VAE cut a rim "
                "off, the source is cut likewise."),
                io.Mask.Input("masks", tooltip="The region of each affected concept, from Sample Counterfactual or "
                "Find Regions; or one mask for all."),
                io.String.Input("report", optional=True, force_input=True, tooltip="The report of Sample "
                "Counterfactual: what it did and measured is taken over."),
                types.Concepts.Input("concepts", optional=True, tooltip="The concepts of the edited picture, from a "
                "second Extract Concepts that reads it. Without, effectiveness and drift are not known."),
                io.Int.Input(
                    "picture", default=0, min=0, max=4095, optional=True, advanced=True,
                    tooltip="Which picture of a batch the report is about, counted from 0.",
                ),
                io.Int.Input(
                    "margin", default=MARGIN, min=0, max=256, optional=True, advanced=True,
                    tooltip="Pixels around the regions that do not count as outside: about as many as the soft border "
                    "of the edit is wide.",
                ),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="Before, after, difference, regions and table in one picture."),
                io.String.Output("report", tooltip="The report as JSON: that of the sampler, and what this node "
                "measured."),
                io.String.Output("table", tooltip="The table in Markdown, for Preview as Text or a note."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, plan, source, edited, masks, report: str | None = None, concepts=None, picture: int = 0,
        margin: int = MARGIN,
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.draw_report import ReportRow, before_after

        images = max(len(source), len(edited))
        before, after = _one(source, picture, "source"), _one(edited, picture, "edited")
        before = _cut(before, after)
        regions = {}
        if plan.affected:
            chosen = regions_of_picture(masks, plan, picture, images, "masks")
            regions = {name: mask_fitted(mask[None], tuple(after.shape[:2]))[0] for name, mask in chosen.items()}
        with naming("report"):
            told = read_report(report, plan) if report else {"do": dict(plan.intervention.do)}
        told |= compared(plan, before, after, regions, concepts, margin)
        seen = told.get("read", {})
        rows = [
            ReportRow(
                item.name, item.factual, item.counterfactual, told["areas"].get(item.name),
                _spelled(seen.get(item.name), item.counterfactual), item.role,
            )
            for item in plan.items
        ]  # fmt: skip
        drawn = before_after(
            before.cpu().numpy(), after.cpu().numpy(), {name: mask.cpu().numpy() for name, mask in regions.items()},
            rows, str(plan.intervention), notes=measures(told),
        )  # fmt: skip
        image = torch.from_numpy(np.array(drawn)).float()[None] / 255
        document, text = write_report(told), table(plan, told)
        shown = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(
            image, document, text, ui={**shown, "counterfact_report": [document], "text": [text]}
        )  # fmt: skip


def _one(pictures: torch.Tensor, number: int, name: str) -> torch.Tensor:
    """One picture [H, W, 3] of a batch; the only one, where there is one."""
    if len(pictures) > 1 and number >= len(pictures):
        raise CounterfactError(
            f"picture: there is no number {number} in {name}, which has {len(pictures)}, counted from 0"
        )
    return pictures[number if len(pictures) > 1 else 0, ..., :3]


def _cut(source: torch.Tensor, edited: torch.Tensor) -> torch.Tensor:
    """The source [H, W, 3] without the rim that a VAE cut off the edited picture [h, w, 3]."""
    rims = [big - small for big, small in zip(source.shape[:2], edited.shape[:2])]
    if not all(0 <= rim < RIM for rim in rims):
        raise CounterfactError(
            f"edited: it is {edited.shape[1]} x {edited.shape[0]} pixels, but the source is {source.shape[1]} x "
            f"{source.shape[0]}; scale it to the size of the source"
        )
    return fitted(source[None], tuple(edited.shape[:2]), SAME_SCALE)[0][0]


def _spelled(value: str | None, expected: str | None) -> str | None:
    """A value in the spelling of the expected one, where it is the same."""
    return expected if None not in (value, expected) and folded(value) == folded(expected) else value


NODES = [CounterfactualReport]
