"""How a mechanism looks at a picture: a small convolutional network in front of it.

A picture among the causes of a label comes as its pixels; what matters of it to the label is learnt with the mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..autoencoder.folder import square

SIDE = 32
CHANNELS, FEATURES = (16, 32, 48), 24


def looked(pictures: np.ndarray, side: int) -> torch.Tensor:
    """Pictures uint8 [N, H, W, 3] as places [N, 3 * side * side] in -1..1, of their central squares."""
    found = torch.empty(len(pictures), 3 * side**2)
    for row, picture in zip(found, pictures):
        pixels = square(Image.fromarray(picture), side)
        row.copy_(torch.tensor(pixels).expand(side, side, 3).movedim(-1, 0).reshape(-1))
    return found / 127.5 - 1


class Sight(nn.Module):
    """Features of causes some of which are pictures; without a picture, the causes themselves.

    Parameters
    ----------
    labels : places of all causes that are no pictures; they come first
    sides : of the pictures, in pixels

    Attributes
    ----------
    width : numbers out
    """

    def __init__(self, labels: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.labels, self.sides = labels, tuple(sides)
        self.eyes = nn.ModuleList(_eye(side) for side in sides)
        self.width = labels + FEATURES * len(self.sides)

    def forward(self, causes: torch.Tensor) -> torch.Tensor:
        """Features [N, width] of causes [N, places]."""
        sizes = [self.labels, *(3 * side**2 for side in self.sides)]
        labels, *pictures = causes.split(sizes, 1)
        seen = [eye(x.reshape(-1, 3, side, side)) for eye, x, side in zip(self.eyes, pictures, self.sides)]
        return torch.cat([labels, *seen], 1)


def _eye(side: int) -> nn.Sequential:
    """Features [N, FEATURES] of pictures [N, 3, side, side]."""
    layers: list[nn.Module] = []
    for before, after in zip((3, *CHANNELS), CHANNELS):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        side = -(-side // 2)
    # Flattened, not pooled: where a thing is says what it is.
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * side * side, FEATURES), nn.SiLU())
