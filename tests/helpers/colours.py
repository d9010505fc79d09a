"""A generator of pictures that needs no training: red or blue, as it is told, and a shade of green of each seed."""

from __future__ import annotations

import numpy as np

SIDE = 16


class Colours:
    """See :class:`causal_core.modular.images.ConditionalSampler`; ``concepts`` has a colour, red or blue.

    Attributes
    ----------
    told : values and seed of all pictures so far
    """

    def __init__(self, concepts) -> None:
        self.concepts, self.told = concepts, []

    def sample(self, values, seeds, check=lambda: None):
        check()
        self.told += list(zip(values, seeds, strict=True))
        colour = next(name for name in self.concepts.names if name.casefold() == "colour")
        return np.stack([square(one[colour], seed) for one, seed in zip(values, seeds)])

    def fingerprint(self) -> str:
        return "colours"


def square(colour: str, seed: int) -> np.ndarray:
    """A picture, uint8 [16, 16, 3]; its green is one of 100 shades."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[..., {"red": 0, "blue": 2}[colour]] = 220
    picture[..., 1] = seed % 100
    return picture
