"""Worlds: scenes whose causal model and renderer are known, the ground truth of every benchmark.

>>> world = get_world("cottage")
>>> scene = world.sample(3)
>>> world.render(scene, 64).shape
(64, 64, 3)
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import unknown
from .base import Scene, World
from .circuit import Circuit
from .cottage import Cottage
from .digits import ColouredDigits, Digits
from .pendulum import Pendulum

WORLDS: dict[str, Callable[[], World]] = {
    "cottage": Cottage,
    "pendulum": Pendulum,
    "pendulum-noise": lambda: Pendulum(noisy=True),
    "digits": Digits,
    "coloured-digits": ColouredDigits,
    "circuit": Circuit,
}

__all__ = ["WORLDS", "Scene", "World", "get_world"]


def get_world(name: str) -> World:
    """The world of that name; raises CounterfactError that lists the known ones."""
    if name not in WORLDS:
        raise unknown("world", name, WORLDS)
    return WORLDS[name]()
