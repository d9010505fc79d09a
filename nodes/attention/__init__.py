"""Where the text attention of each model family is, and how to watch it in passing.

One adapter a family. It sets patches on the options of a single call, never on the MODEL, which other nodes and later
runs share; a patch that is there already stays in force. The output of the model is the one it has without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import comfy.model_base
import comfy.model_patcher
import torch

from ...causal_core.attention.capture import AttentionMaps
from . import joint, unet


class Adapter(Protocol):
    """What the nodes ask of a family.

    Attributes
    ----------
    width : numbers a text token has, None where the network does not say
    cuts_template : whether the text encoder drops the tokens before the user's text from what it made of them
    several_sizes : whether some layers see the picture coarser than others
    """

    width: int | None
    cuts_template: bool
    several_sizes: bool

    def __init__(self, base: comfy.model_base.BaseModel) -> None: ...

    @staticmethod
    def fits(network: torch.nn.Module) -> bool:
        """Whether a diffusion model is of this family."""

    def capturing(
        self, options: Mapping[str, Any], maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int]
    ) -> dict[str, Any]:
        """Model options of one call, in which text attention shows its queries and keys to the maps.

        Parameters
        ----------
        options : model options without
        rows : caption row behind each index of the call's `cond_or_uncond`
        lengths : tokens of each caption row's conditioning
        """

    def encoders(self, clip: Any, names: Sequence[str]) -> Sequence[str]:
        """Of the names of a text's token lists those whose encodings follow one another in the conditioning."""


FAMILIES: tuple[type[Adapter], ...] = (unet.UNet, *joint.FAMILIES)


def adapter(model: comfy.model_patcher.ModelPatcher) -> Adapter | None:
    """The adapter of a MODEL; None for families whose text attention is not known."""
    base = model.model
    return next((family(base) for family in FAMILIES if family.fits(base.diffusion_model)), None)
