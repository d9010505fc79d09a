"""Squares to learn from, an autoencoder too small to draw them, and a watch that stops its training."""

from __future__ import annotations

import numpy as np
import torch

from causal_core.autoencoder.coding import Coding
from causal_core.autoencoder.config import AutoencoderConfig
from causal_core.concepts import Concept, Concepts
from causal_core.graph import CausalGraph
from causal_core.training import Watch

TINY = AutoencoderConfig(
    "tiny", size=16, patch=4, widths=(32,), attention_levels=0, encoder_widths=(8, 16), encoder_hidden=16, residual=3,
    batch=4, images=16, warm_up=2,
)  # fmt: skip

GRAPH = CausalGraph.from_edges(
    [("sun", "shade"), ("shade", "mood")],
    concepts=Concepts((
        Concept("mood", ("low", "fair", "high")), Concept("sun", interval=(0.0, 10.0)),
        Concept("shade", interval=(-2.0, 2.0)), Concept("wind", ("no", "yes")),
    )),
)  # fmt: skip
CODING = Coding.of(GRAPH)


class Squares:
    """A source of squares: how bright is "sun", how large "shade"; everything else by chance."""

    coding, size, channels, key = CODING, 16, 3, "squares"

    def __init__(self, count: int = 12, labelled: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.images = np.zeros((count, 16, 16, 3), np.uint8)
        rows = []
        for image in self.images:
            sun, side = rng.uniform(0, 10), int(rng.integers(2, 8))
            image[4 : 4 + side, 4 : 4 + side] = int(25 * sun)
            values = {"sun": repr(sun), "shade": repr(side / 2 - 2), "mood": "fair", "wind": "yes"}
            rows.append(CODING.vector(values if labelled else {}))
        self.labels = torch.stack(rows)

    def __len__(self) -> int:
        return len(self.images)

    def refresh(self) -> int:
        return len(self)

    def batch(self, indices):
        indices = list(indices)
        return self.images[indices], self.labels[indices], torch.ones(len(indices), 4, dtype=torch.bool)


class Stops(Watch):
    """Stops after some steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.seen = steps, []

    def progress(self, images, losses):
        self.left -= 1
        self.seen.append(images)

    def stopped(self):
        return self.left <= 0
