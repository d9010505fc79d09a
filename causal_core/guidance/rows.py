"""Denoising several captions at once with the bundled model through diffusers.

The ComfyUI nodes have their own :class:`causal_core.guidance.csg.Rows`; both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..attention.capture import AttentionMaps
from ..attention.processors import capturing
from ..demo.model import DemoModel
from ..demo.schedule import denoised


class DiffusersRows:
    """The captions of a call, encoded once; see :class:`causal_core.guidance.csg.Rows` for calling it."""

    def __init__(self, model: DemoModel, captions: Sequence[str]) -> None:
        self.model = model
        with torch.no_grad():
            self.contexts = model.context(captions)

    @torch.no_grad()
    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        """Denoised estimates [len(rows), B, C, h, w] of x [B, C, h, w]."""
        context = self.contexts[list(rows)].repeat_interleave(len(x), 0)
        batch = x.repeat(len(rows), 1, 1, 1)
        with capturing(self.model.unet, maps, rows):
            out = denoised(self.model.unet, batch, batch.new_full((len(batch),), sigma), context)
        return out.unflatten(0, (len(rows), len(x)))
