"""The text encoder of the bundled model: a small pre-norm transformer that looks both ways.

It takes its layer classes as an argument, so that ComfyUI can pass its own (which cast and offload weights), and it can
start from embeddings, so that ComfyUI can weight and mix them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .tokenizer import PAD


class Block(torch.nn.Module):
    """Self-attention and a feed-forward net, each added to its input."""

    def __init__(self, width: int, heads: int, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = operations.LayerNorm(width, **factory)
        self.qkv = operations.Linear(width, 3 * width, **factory)
        self.out = operations.Linear(width, width, **factory)
        self.norm2 = operations.LayerNorm(width, **factory)
        self.up = operations.Linear(width, 4 * width, **factory)
        self.down = operations.Linear(4 * width, width, **factory)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """[B, L, W] to [B, L, W]; mask bool [B, 1, 1, L], true where a key may be looked at."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class TextEncoder(torch.nn.Module):
    """Token ids or embeddings to context vectors.

    Parameters
    ----------
    vocab : number of token ids
    width, layers, heads, max_length : sizes
    operations : namespace with Linear, LayerNorm and Embedding, such as `torch.nn` or `comfy.ops.manual_cast`
    dtype, device : of the weights
    """

    def __init__(
        self,
        vocab: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        max_length: int = 64,
        operations: Any = torch.nn,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        factory = {"dtype": dtype, "device": device}
        self.embedding = operations.Embedding(vocab, width, **factory)
        self.positions = operations.Embedding(max_length, width, **factory)
        self.blocks = torch.nn.ModuleList(Block(width, heads, operations, **factory) for _ in range(layers))
        self.norm = operations.LayerNorm(width, **factory)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Context [B, L, W] of ids [B, L]; padding is never looked at."""
        return self.forward_embeds(self.embedding(ids), ids != PAD)

    def forward_embeds(self, embeds: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Context [B, L, W] of embeddings [B, L, W]; mask [B, L] is nonzero at tokens that are not padding."""
        places = torch.arange(embeds.shape[1], device=embeds.device)
        x = embeds + self.positions(places).to(embeds)
        keys = None if mask is None else mask.bool()[:, None, None, :]
        for block in self.blocks:
            x = block(x, keys)
        return self.norm(x)
