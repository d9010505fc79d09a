"""Streaming cross-attention maps: how much each place of the picture attends to the tokens of a phrase.

The attention is evaluated once more with indicator columns as values (1 where a token belongs to a phrase), which gives
the summed probabilities of each phrase exactly and with any attention kernel; no map of all tokens is ever stored.
Source of the idea of token maps: Hertz et al. 2022 (prompt-to-prompt), equation 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .spans import Span


class AttentionMaps:
    """Running sums of phrase maps over layers, heads and calls.

    Parameters
    ----------
    watched : mapping from a row (index of a caption in a batched call) to the spans to watch there, by concept
    grid : (height, width) of the latent; maps of coarser layers are enlarged to it
    """

    def __init__(self, watched: Mapping[int, Mapping[str, Span]], grid: tuple[int, int]) -> None:
        self.watched = {row: dict(spans) for row, spans in watched.items() if spans}
        self.grid = grid
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, q: torch.Tensor, k: torch.Tensor, heads: int, rows: Sequence[int], shape: tuple[int, int]) -> None:
        """Add the maps of one layer; layers finer than half the latent are passed over.

        Parameters
        ----------
        q : [R * B, N, heads * d], queries of R caption rows, B images each
        k : [R * B, T, heads * d], keys of the text tokens
        heads : number of heads
        rows : caption row of each of the R chunks of the batch
        shape : (height, width) with height * width = N
        """
        # The finest layers look at texture rather than at things.
        if 2 * shape[0] > self.grid[0] + 1:
            return
        for row, q_row, k_row in zip(rows, q.chunk(len(rows)), k.chunk(len(rows))):
            spans = self.watched.get(row)
            if not spans:
                continue
            indicator = torch.zeros(k_row.shape[1], len(spans), dtype=q.dtype, device=q.device)
            for column, (start, end) in enumerate(spans.values()):
                indicator[start:end, column] = 1.0
            maps = _phrase_probabilities(q_row, k_row, heads, indicator)
            maps = maps.transpose(1, 2).reshape(maps.shape[0], len(spans), *shape).mean(0, keepdim=True).float()
            maps = torch.nn.functional.interpolate(maps, size=self.grid, mode="bilinear", align_corners=False)[0]
            for name, image in zip(spans, maps.cpu()):
                self.sums[name] = self.sums.get(name, 0.0) + image
                self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> torch.Tensor | None:
        """Mean map of a concept, float32 [height, width], 0 to 1; None where nothing was captured."""
        return self.sums[name] / self.counts[name] if name in self.sums else None


def _phrase_probabilities(q: torch.Tensor, k: torch.Tensor, heads: int, indicator: torch.Tensor) -> torch.Tensor:
    """Probability mass of each phrase, mean over heads: [B, N, number of phrases]."""
    b, n, width = q.shape
    d = width // heads
    q, k = (t.view(b, -1, heads, d).transpose(1, 2) for t in (q, k))
    v = indicator[None, None].expand(b, heads, -1, -1)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).mean(1)
