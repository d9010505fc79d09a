"""UNets with cross-attention from picture to text: Stable Diffusion 1.x, 2.x, SDXL and the bundled model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_base
import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, optimized_attention

from ...causal_core.attention.capture import AttentionMaps

Site = tuple[str, int, int]

_SITE = re.compile(r"(input|middle|output)_blocks?\.(\d+)\..*transformer_blocks\.(\d+)")


def sites(network: torch.nn.Module) -> dict[Site, torch.nn.Module]:
    """Cross-attention layers of a UNet by the key under which ComfyUI takes a replacement for them."""
    found: dict[Site, torch.nn.Module] = {}
    for name, module in network.named_modules():
        place = _SITE.fullmatch(name)
        if place and isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
            kind, number, index = place[1], int(place[2]), int(place[3])
            # The middle block's attention is its module 1, but ComfyUI's key for it has a 0.
            found[kind, 0 if kind == "middle" else number, index] = module.attn2
    return found


class UNet:
    """See :class:`nodes.attention.Adapter`."""

    cuts_template = False
    several_sizes = True

    def __init__(self, base: comfy.model_base.BaseModel) -> None:
        self.sites = sites(base.diffusion_model)
        self.width = next(iter(self.sites.values())).to_k.in_features

    @staticmethod
    def fits(network: torch.nn.Module) -> bool:
        return bool(sites(network))

    def capturing(
        self, options: Mapping[str, Any], maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int]
    ) -> dict[str, Any]:
        options = dict(options)
        present = options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        for kind, number, index in self.sites:
            before = present.get((kind, number, index)) or present.get((kind, number))
            shown = _showing(maps, rows, lengths, before)
            comfy.model_patcher.set_model_options_patch_replace(options, shown, "attn2", kind, number, index)
        return options

    def encoders(self, clip: Any, names: Sequence[str]) -> Sequence[str]:
        # SDXL's two encoders cut a text into the same tokens and stand side by side.
        return names[:1]


def _showing(maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int], before: Callable | None) -> Callable:
    """Cross-attention as it would be without this patch, shown to the maps in passing."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        shape = tuple(options["activations_shape"][-2:])
        present = [rows[i] for i in options["cond_or_uncond"]]
        for row, q_row, k_row in zip(present, q.chunk(len(present)), k.chunk(len(present))):
            # Texts of different lengths come tiled to a common one: the first tile holds all there is to know.
            maps.add(q_row, k_row[:, : lengths[row]], options["n_heads"], [row], shape)
        if before is not None:
            return before(q, k, v, options)
        return optimized_attention(
            q, k, v, options["n_heads"], attn_precision=options["attn_precision"], transformer_options=options
        )

    return attend
