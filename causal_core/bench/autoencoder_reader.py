"""Reads the variables of a graph from a picture: one small network that no measured method has anything to do with.

The anti-causal predictors of effectiveness (Monteiro et al., ICLR 2023), all variables in one network, discrete and
continuous. It learns from pictures of its own, half of them a little blurred, noisy and tinted, as generated ones are;
what it errs on clean ones is the floor under every effectiveness that is measured with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..autoencoder.coding import Coding
from ..autoencoder.data import Source
from ..autoencoder.objective import Batch, known
from ..errors import CounterfactError
from ..weights import read_tensors, write_tensors
from ..worlds import get_world
from ..worlds.reader import degraded
from .autoencoder_cases import channels, places, render
from .autoencoder_training import fit

KIND, SCHEMA_VERSION = "counterfact.value-reader", 1
CHANNELS, HIDDEN = (32, 64, 96, 128), 256
IMAGES, BATCH = 320_000, 64
# Autoencoders learn from scenes of lower numbers, tests are of far lower ones.
FIRST_SEED, LAST_SEED = 3_000_000_000, 4_000_000_000
# Errors below this, in half intervals, count squared: it is about what a reader errs.
NEARLY_RIGHT = 0.02


class UniformScenes:
    """Scenes of a world with all variables independent, rendered as they are needed: a source without end.

    Independent, so that a reader cannot conclude a variable from another and must see it: else it would read the right
    shadow where the wrong one is drawn.

    Parameters
    ----------
    world : name
    size : side of the pictures in pixels
    """

    def __init__(self, world: str, size: int) -> None:
        self.world, self.size = get_world(world), size
        self.channels = channels(self.world)
        self.coding = Coding.of(self.world.graph())
        self.key = f"{world}-{self.world.version}-{size}-uniform"

    def __len__(self) -> int:
        return LAST_SEED - FIRST_SEED

    def refresh(self) -> int:
        """All scenes are always there."""
        return len(self)

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """See :class:`causal_core.autoencoder.data.Source`."""
        scenes = [self.world.sample(FIRST_SEED + int(i), mode="uniform") for i in indices]
        labels = torch.stack([places(self.coding, scene.values) for scene in scenes])
        free = torch.zeros(len(scenes), len(self.coding.variables), dtype=torch.bool)
        return np.stack([render(self.world, scene, self.size) for scene in scenes]), labels, free


class ValueReader(nn.Module):
    """Strided convolutions and one linear head over all variables.

    Parameters
    ----------
    coding : variables and their places
    size : side of the pictures in pixels
    provenance : where the weights come from, JSON values
    """

    def __init__(self, coding: Coding, size: int, provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.coding, self.size, self.provenance = coding, size, dict(provenance or {})
        layers: list[nn.Module] = []
        for before, after in zip((3, *CHANNELS), CHANNELS):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        side = -(-size // 2 ** len(CHANNELS))
        # Flattened, not pooled: where a thing is says what it is.
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * side * side, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, coding.width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Readings [B, width] (of discrete variables: logits) of colour pictures [B, 3, H, W] in 0..1."""
        return self.head(self.body(images - 0.5))

    @torch.no_grad()
    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places [B, width] (of discrete variables: probabilities) and features [B, HIDDEN] of pictures [B, C, H, W] in
        -1..1, grey or colour."""
        features = self.body(colour(images) - 0.5)
        found = self.head(features)
        for variable, where in zip(self.coding.variables, self.coding.places):
            if variable.domain:
                found[:, where] = found[:, where].softmax(1)
        return found, features

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        """See :class:`.autoencoder_training.Learner`."""
        images = colour(batch.images)
        half = len(images) // 2
        images = torch.cat([images[:half], degraded(images[half:], rng)])
        found, there, terms = self(images), known(self.coding, batch.labels), []
        for i, (variable, where) in enumerate(zip(self.coding.variables, self.coding.places)):
            target = batch.labels[:, where].nan_to_num()
            if variable.domain:
                error = F.cross_entropy(found[:, where], target.argmax(1), reduction="none")
            else:
                error = F.smooth_l1_loss(found[:, where], target, beta=NEARLY_RIGHT, reduction="none")[:, 0]
            terms.append((error * there[:, i]).sum() / there[:, i].sum().clamp_min(1))
        return {"loss": torch.stack(terms).mean()}

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        document = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "size": self.size, "variables": self.coding.to_dict(),
            "provenance": self.provenance,
        }  # fmt: skip
        write_tensors(path, self.state_dict(), document)

    @classmethod
    def load(cls, path: Path) -> ValueReader:
        """Read a weights file; raises CounterfactError if it is missing, damaged or of another kind."""
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            reader = cls(Coding.from_dict(document["variables"]), document["size"], document["provenance"])
            reader.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CounterfactError(
                f"{path} is no usable reader ({error}); delete it, and it is trained again"
            ) from None
        return reader.eval().requires_grad_(False)


def colour(images: torch.Tensor) -> torch.Tensor:
    """Pictures [B, C, H, W] in -1..1 as [B, 3, H, W] in 0..1."""
    return (images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)) / 2 + 0.5


def trained(source: Source, images: int, folder: Path, seed: int = 1, device: str = "cpu") -> ValueReader:
    """The reader in a run folder, on the CPU; trained to ``images`` pictures on a device if it is not there yet.

    Raises
    ------
    CounterfactError
        If the folder's reader is of other variables, another size or other pictures.
    """
    path = folder / "reader.safetensors"
    if path.exists():
        reader = ValueReader.load(path)
        if (reader.coding, reader.size, reader.provenance.get("data")) != (source.coding, source.size, source.key):
            raise CounterfactError(f"{path} reads other pictures than {source.key}: choose another --run folder")
        if reader.provenance["images"] >= images:
            return reader
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = ValueReader(source.coding, source.size).to(device)
    identity = {"reader": reader.coding.to_dict(), "size": source.size}
    warm_up = max(1, min(200, images // BATCH // 20))
    reader, provenance = fit(
        reader, source, images, folder / "reader", identity, "reader", seed, BATCH, learning_rate=2e-3, warm_up=warm_up
    )
    reader.provenance = provenance
    reader.save(path)
    return reader.cpu()
