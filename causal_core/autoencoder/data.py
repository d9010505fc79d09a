"""What an autoencoder learns from: pictures with labels, out of a world's renderer.

A source has a coding, pictures and labels; which pictures are drawn by interventions is part of it, since a variable
that was set says nothing of its mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from ..worlds import get_world
from ..worlds.dataset import SceneData
from .coding import Coding
from .objective import Batch


class Source(Protocol):
    """Pictures with labels.

    Attributes
    ----------
    coding : variables of the labels
    size, channels : of the pictures
    key : names the data in checkpoints and provenance
    """

    coding: Coding
    size: int
    channels: int
    key: str

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """Pictures uint8 [B, H, W, C], labels [B, width] with NaN where unknown, free [B, variables]."""

    def refresh(self) -> int:
        """Take in pictures that have been completed since; returns their number."""


class WorldSource:
    """Scenes of a world with all labels, or with the labels of a share of them.

    Parameters
    ----------
    world : name
    size : side of the pictures in pixels
    count : how many different scenes
    labelled : share of the scenes that have labels, 0 to 1
    seed : of the scenes
    """

    def __init__(self, world: str, size: int, count: int = 20_000, labelled: float = 1.0, seed: int = 0) -> None:
        self.scenes = SceneData(get_world(world), size, count, seed)
        self.coding = Coding.of(self.scenes.world.graph())
        self.size, self.labelled = size, labelled
        self.channels = 1 if getattr(self.scenes.world, "grey", False) else 3
        self.key = f"{self.scenes.key}-{labelled:g}"
        self._labels = torch.empty(0, self.coding.width)
        self._free = torch.empty(0, len(self.coding.variables), dtype=torch.bool)
        self.refresh()

    def __len__(self) -> int:
        return len(self._labels)

    def refresh(self) -> int:
        """Take in scenes that have been rendered since."""
        fresh = range(len(self), self.scenes.refresh())
        if fresh:
            # Noise may leave the interval.
            labels = [self.coding.vector(self.scenes.values(i), clamp=True) for i in fresh]
            free = [[name not in done for name in self.coding.names] for done in map(self.scenes.intervened, fresh)]
            known = torch.where(spread(fresh, self.labelled)[:, None], torch.stack(labels), torch.nan)
            self._labels = torch.cat([self._labels, known])
            self._free = torch.cat([self._free, torch.tensor(free)])
        return len(self)

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """See :class:`Source`."""
        images, _ = self.scenes.batch(indices)
        chosen = torch.as_tensor(np.asarray(indices))
        return images[..., : self.channels], self._labels[chosen], self._free[chosen]


def spread(indices: Sequence[int], share: float) -> torch.Tensor:
    """Which of the numbered things belong to a share (0 to 1) of them, evenly spread by the golden ratio: bool [N].

    What belongs to a share belongs to every larger one.
    """
    return torch.as_tensor(np.asarray(indices, np.float64) * 0.6180339887498949 % 1.0 < share)


def as_batch(source: Source, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
    """Pictures and labels of a source as the objective takes them."""
    images, labels, free = source.batch(indices)
    pixels, labels, free = (_sent(t, device) for t in (torch.from_numpy(np.ascontiguousarray(images)), labels, free))
    return Batch(pixels.movedim(-1, 1).float() / 127.5 - 1, labels, free)


def _sent(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A tensor on a device; a GPU is not waited for."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
