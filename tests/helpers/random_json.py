"""Random JSON, valid and odd, for the fuzzing of readers.

Hypothesis draws the generator, once for several cases: a draw for each value would cost many times what is tested.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

# Ends of ranges of characters: ASCII, Latin, everything below the surrogates, and everything.
ALPHABETS = 128, 0x250, 0xD800, 0x110000
NUMBERS = 0, 1, -1, 7, 45, 10**30, -0.0, 0.5, 2.5, 1e-300, 1e308, -200_000.5, math.nan, math.inf, -math.inf


def text(rng: random.Random, longest: int) -> str:
    """Characters of any kind, halves of pairs among them."""
    end = rng.choice(ALPHABETS)
    return "".join(chr(rng.randrange(end)) for _ in range(rng.randint(0, longest)))


def scalar(rng: random.Random, words: Sequence[str]) -> Any:
    """No list and no object; every second is one of the words."""
    if rng.random() < 0.5:
        return rng.choice(words)
    return rng.choice([None, True, False, rng.choice(NUMBERS), rng.uniform(-100, 100), text(rng, 12)])


def anything(rng: random.Random, words: Sequence[str], depth: int = 2) -> Any:
    """A value with up to `depth` levels of lists and objects in it."""
    kind = rng.randrange(4) if depth else 0
    if kind == 1:
        return [anything(rng, words, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 2:
        names = (rng.choice(words) if rng.random() < 0.5 else text(rng, 4) for _ in range(rng.randrange(4)))
        return {name: anything(rng, words, depth - 1) for name in names}
    return scalar(rng, words)
