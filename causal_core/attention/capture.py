"""Streaming attention maps: how much each place of the picture attends to the tokens of a phrase.

The attention is evaluated once more with indicator columns as values (1 where a token belongs to a phrase), which gives
the summed probabilities of each phrase exactly and with any attention kernel; no map of all tokens is ever stored.
Source of the idea of token maps: Hertz et al. 2022 (prompt-to-prompt), equation 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from .spans import Span

Shape = tuple[int, int]


class AttentionMaps:
    """Running sums of phrase maps over layers, heads and calls, on the device where the attention is.

    Parameters
    ----------
    watched : mapping from a row (index of a caption in a batched call) to what to watch there, by concept: one span of
        tokens, or several where a text is encoded more than once
    grid : (height, width) of the latent; maps of coarser layers are enlarged to it

    Attributes
    ----------
    finest : layers finer than the latent divided by this are passed over: of several resolutions the finest looks at
        texture rather than at things
    """

    def __init__(self, watched: Mapping[int, Mapping[str, Span | Sequence[Span]]], grid: Shape) -> None:
        self.watched = {row: {name: _spans(s) for name, s in spans.items()} for row, spans in watched.items() if spans}
        self.grid = grid
        # Sums [phrases of the row, h, w] and how many layers went into them, by row and shape of the layer.
        self.sums: dict[tuple[int, Shape], torch.Tensor] = {}
        self.counts: dict[tuple[int, Shape], int] = {}
        self.finest = 2

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """Within this context an exception leaves the maps as they were before."""
        # Sums are replaced, never changed in place.
        sums, counts = dict(self.sums), dict(self.counts)
        try:
            yield
        except BaseException:
            self.sums, self.counts = sums, counts
            raise

    def add(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        heads: int,
        rows: Sequence[int],
        shape: Shape,
        first: Sequence[int] = (),
        mask: torch.Tensor | None = None,
        fine: bool = False,
    ) -> None:
        """Add the maps of one layer; nothing waits for the device.

        Parameters
        ----------
        q : [R * B, N, heads * d] or [R * B, heads, N, d], queries of the picture of R caption rows, B images each
        k : [R * B, T, heads * d] or [R * B, heads, T, d], all keys that the softmax runs over
        heads : number of heads
        rows : caption row of each of the R chunks of the batch
        shape : (height, width) with height * width = N
        first : position among the keys of the first token of each row's text, 0 if not given
        mask : added to the logits, or False where a key is hidden; [R * B or 1, heads or 1, N or 1, T]
        fine : count the layer whatever its resolution
        """
        if self.finest * shape[0] >= self.grid[0] + self.finest and not fine:
            return
        q, k = (t if t.ndim == 4 else t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        count = len(rows)
        masks = [mask] * count if mask is None or len(mask) == 1 else mask.chunk(count)
        starts = first or [0] * count
        for row, start, q_row, k_row, mask_row in zip(rows, starts, q.chunk(count), k.chunk(count), masks):
            spans = self.watched.get(row)
            if not spans:
                continue
            maps = _phrase_probabilities(q_row, k_row, list(spans.values()), start, mask_row).view(len(spans), *shape)
            before = self.sums.get((row, shape))
            self.sums[row, shape] = maps if before is None else before + maps.to(before.device)
            self.counts[row, shape] = self.counts.get((row, shape), 0) + 1

    def mean(self, name: str) -> torch.Tensor | None:
        """Mean map of a concept, float32 [height, width] on the CPU, 0 to 1; None where nothing was captured."""
        found = [(key, list(self.watched[key[0]])) for key in self.sums if name in self.watched[key[0]]]
        if not found:
            return None
        total = torch.zeros(self.grid)
        for key, names in found:
            image = self.sums[key][names.index(name)].cpu()[None, None]
            total += torch.nn.functional.interpolate(image, size=self.grid, mode="bilinear", align_corners=False)[0, 0]
        return total / sum(self.counts[key] for key, _ in found)


def _spans(spans: Span | Sequence[Span]) -> tuple[Span, ...]:
    return (spans,) if isinstance(spans[0], int) else tuple(spans)


def _phrase_probabilities(
    q: torch.Tensor, k: torch.Tensor, phrases: Sequence[Sequence[Span]], first: int, mask: torch.Tensor | None
) -> torch.Tensor:
    """Probability mass of each phrase, mean over batch and heads, float32 [phrases, N]."""
    # As wide as the keys: kernels that need no map of all tokens take nothing else.
    width = max(q.shape[-1], len(phrases))
    indicator = torch.zeros(k.shape[-2], width, dtype=q.dtype, device=q.device)
    for column, spans in enumerate(phrases):
        for start, end in spans:
            indicator[first + start : first + end, column] = 1.0
    v = indicator.expand(*k.shape[:2], -1, -1)
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return found[..., : len(phrases)].mean((0, 1), dtype=torch.float32).T
