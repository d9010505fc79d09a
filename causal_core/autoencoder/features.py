"""Latents as networks take them: waves of continuous variables, so that small differences of a value can be told apart.

Fourier features after Tancik et al. 2020; discrete variables go through as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .coding import Variable

OCTAVES = 4


class Waves(nn.Module):
    """Latents [B, places] to features [B, width]; a place of a continuous variable becomes 1 + 2 * OCTAVES numbers."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        super().__init__()
        kinds = [not v.domain for v in variables for _ in range(v.width)]
        smooth = [place for place, continuous in enumerate(kinds) if continuous]
        self.places = len(kinds)
        self.width = self.places + 2 * OCTAVES * len(smooth)
        self.register_buffer("smooth", torch.tensor(smooth, dtype=torch.long), persistent=False)
        # Half a period over the interval -1..1 first: no two values look alike.
        self.register_buffer("rates", math.pi / 2 * 2.0 ** torch.arange(OCTAVES), persistent=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        angles = (z[:, self.smooth, None] * self.rates).flatten(1)
        return torch.cat([z, angles.sin(), angles.cos()], 1)
