"""Pictures of one grey, an autoencoder for pictures of their size that cannot draw, and a chain of three variables."""

from __future__ import annotations

import numpy as np
import torch

from causal_core.autoencoder.coding import Coding, Variable
from causal_core.autoencoder.config import AutoencoderConfig

TINY = AutoencoderConfig(
    "tiny", size=16, widths=(32,), attention_levels=0, encoder_widths=(8, 16), encoder_hidden=16, residual=3, batch=4,
    images=8,
)  # fmt: skip
CHAIN = Coding(tuple(Variable(n, interval=(0.0, 10.0)) for n in "abc"), ((), (0,), (1,)))


class Brightness:
    """Pictures of one grey, which is the label, and of a second variable that nobody can see."""

    size, channels, key = 16, 3, "brightness"
    coding = Coding((Variable("grey", interval=(0.0, 255.0)), Variable("side", ("left", "right"))), ((), ()))

    def __len__(self):
        return 200

    def refresh(self):
        return 200

    def readable(self, index):
        return True

    def batch(self, indices):
        greys = [int(i) * 97 % 256 for i in indices]
        images = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in greys])
        labels = torch.stack([self.coding.vector({"grey": str(g), "side": "left"}) for g in greys])
        return images, labels, torch.ones(len(greys), 2, dtype=torch.bool)
