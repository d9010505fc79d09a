"""Captions to train with: the phrases of a scene as an artist might write them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..worlds import World


def training_caption(world: World, values: Mapping[str, str], rng: np.random.Generator) -> str:
    """A caption of a scene as an artist might write it.

    One in ten is empty (for classifier-free guidance), three in ten leave concepts out, one in ten changes their order;
    each phrase is the canonical one in half of the cases and any of its paraphrases otherwise.
    """
    if rng.random() < 0.1:
        return ""
    names = list(values)
    if rng.random() < 0.3:
        kept = rng.random(len(names)) < rng.random()
        names = [name for name, keep in zip(names, kept) if keep]
    if rng.random() < 0.1:
        rng.shuffle(names)
    phrases = []
    for name in names:
        options = world.phrases(name, values[name])
        phrases.append(options[0] if rng.random() < 0.5 else options[int(rng.integers(len(options)))])
    return ", ".join(phrases)
