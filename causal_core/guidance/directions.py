"""Action: from the denoised estimates for a plan's captions to the guided estimate of one step.

The caption is changed one factor at a time, causes first, c_0 (factual), c_1, ... c_K (all affected concepts
changed), and the direction of concept k is ``psi_k = D(x, c_k) - D(x, c_{k-1})``: directions telescope. Their sum is
the direction of the whole counterfactual caption, so that no interaction between concepts counts twice, while each of
them keeps its own region W_k, strength s_k and time h_k:

    D* = D(x, c_0) + sum_k s_k h_k(t) W_k psi_k

In fused mode there is one direction, ``D(x, c_K) - D(x, c_0)``, weighted by ``max_k s_k h_k(t) W_k``. Projection
follows OAVC (2026) and APG (Sadat et al., ICLR 2025), momentum follows SEGA (Brack et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from .captions import Edit
from .regions import shared, union

MOMENTUM_DECAY = 0.4


@dataclass(frozen=True)
class How:
    """How directions act; the defaults leave them as they are.

    Attributes
    ----------
    delay : 0 to 1, share of the steps by which each further edge from the intervention starts later
    stop : 0 to 1, share of the steps after which no direction acts any more
    project : 0 to 1, share of each direction's part along ``D_0 - x`` to leave out; lowers contrast and saturation
    clamp : 0 (off) and up, largest size of a weighted direction as a multiple of that of ``D_0 - x`` in its region
    momentum : 0 and up, weight of the directions of earlier steps
    share_overlaps : share out what regions have in common, so that no more than one whole region acts anywhere
    """

    delay: float = 0.0
    stop: float = 1.0
    project: float = 0.0
    clamp: float = 0.0
    momentum: float = 0.0
    share_overlaps: bool = False

    def acts(self, depth: int, share: float) -> bool:
        """Whether a concept at this depth acts when this share of the steps, 0 to below 1, is done."""
        return self.delay * depth <= share < self.stop


class Guide:
    """The guided estimate of each step of one sampling run.

    Parameters
    ----------
    changes : affected concepts; those of strength 0 are left out
    regions : region of each concept, [h, w], 0 to 1
    how : see :class:`How`
    """

    def __init__(self, changes: Sequence[Edit], regions: Mapping[str, torch.Tensor], how: How = How()) -> None:
        self.how = how
        self.changes = tuple(c for c in changes if c.strength > 0.0)
        named = {c.name: regions[c.name] for c in self.changes}
        #: where anything changes, [h, w]; None if nothing does
        self.union = union(named) if named else None
        self.regions = shared(named) if how.share_overlaps else named
        self.earlier: torch.Tensor | float = 0.0

    def rows(self, share: float) -> list[int]:
        """The captions whose estimates this step needs; always c_0, the base."""
        acting = [c for c in self.changes if self.how.acts(c.depth, share)]
        return sorted({0, *(c.after for c in acting), *(c.before for c in acting)})

    def __call__(self, x: torch.Tensor, found: Mapping[int, torch.Tensor], share: float) -> torch.Tensor:
        """D* [B, C, h, w] from x [B, C, h, w] and the estimates of the captions of :meth:`rows`."""
        base = found[0]
        weights: dict[tuple[int, int], torch.Tensor] = {}
        for c in self.changes:
            if self.how.acts(c.depth, share):
                weight, pair = c.strength * self.regions[c.name].to(base), (c.before, c.after)
                weights[pair] = torch.maximum(weights[pair], weight) if pair in weights else weight
        if not weights:
            return base
        total = torch.zeros_like(base)
        for (before, after), weight in weights.items():
            direction = found[after] - found[before]
            if self.how.project > 0.0:
                direction = without(direction, base - x, self.how.project)
            direction = weight * direction
            if self.how.clamp > 0.0:
                direction = clamped(direction, (base - x) * (weight > 0.0), self.how.clamp)
            total = total + direction
        if self.how.momentum > 0.0:
            pushed = total + self.how.momentum * self.earlier
            self.earlier = MOMENTUM_DECAY * self.earlier + (1.0 - MOMENTUM_DECAY) * total
            total = pushed
        return base + total


def without(direction: torch.Tensor, along: torch.Tensor, amount: float) -> torch.Tensor:
    """A direction less ``amount`` (0 to 1) of its part along another, picture by picture; [B, C, h, w]."""
    dims = tuple(range(1, direction.ndim))
    share = (direction * along).sum(dims, keepdim=True) / along.pow(2).sum(dims, keepdim=True).clamp_min(1e-12)
    return direction - amount * share * along


def clamped(direction: torch.Tensor, reference: torch.Tensor, most: float) -> torch.Tensor:
    """A direction no longer than ``most`` times a reference, picture by picture; [B, C, h, w]."""
    dims = tuple(range(1, direction.ndim))
    size, limit = direction.pow(2).sum(dims, keepdim=True).sqrt(), reference.pow(2).sum(dims, keepdim=True).sqrt()
    return direction * (most * limit / size.clamp_min(1e-12)).clamp(max=1.0)
