"""Attention capture for diffusers: a processor for the cross-attention layers of a UNet2DConditionModel.

The output is computed as diffusers' own processor does; queries and keys are shown to the maps in passing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from .capture import AttentionMaps


def grid_of(tokens: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a layer with that many image tokens, for a latent of size ``grid``.

    >>> grid_of(64, (16, 16))
    (8, 8)
    >>> grid_of(24, (12, 32))
    (3, 8)
    """
    height, width = grid
    while height * width > tokens:
        # Strided convolutions with padding round up.
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != tokens:
        raise ValueError(f"{tokens} tokens are no halving of a {grid[0]}x{grid[1]} latent")
    return height, width


class CaptureProcessor:
    """Cross-attention that shows its queries and keys to ``maps``; one object serves all layers of a call."""

    def __init__(self, maps: AttentionMaps, rows: Sequence[int]) -> None:
        self.maps, self.rows = maps, rows

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Attend from [R * B, N, width] to text tokens [R * B, T, text width]; returns [R * B, N, width]."""
        q, k, v = (attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        self.maps.add(q, k, attn.heads, self.rows, grid_of(q.shape[1], self.maps.grid))
        b, n, _ = q.shape
        q, k, v = (t.view(b, -1, attn.heads, t.shape[-1] // attn.heads).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).reshape(b, n, -1)))


@contextmanager
def capturing(unet: Any, maps: AttentionMaps | None, rows: Sequence[int]) -> Iterator[None]:
    """Within this context a diffusers UNet shows its cross-attention to the maps; without maps nothing happens."""
    if maps is None or not maps.watched:
        yield
        return
    layers = [module for name, module in unet.named_modules() if name.endswith(".attn2")]
    before, shared = [layer.processor for layer in layers], CaptureProcessor(maps, rows)
    # One by one: diffusers' own setter walks through every module of the network for each name.
    for layer in layers:
        layer.processor = shared
    try:
        yield
    finally:
        for layer, processor in zip(layers, before):
            layer.processor = processor
