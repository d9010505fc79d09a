"""A world of two coloured rectangles, its scenes, and a text-to-image model too small to draw them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from causal_core.demo.config import DemoConfig
from causal_core.demo.train import Trainer
from causal_core.worlds.dataset import SceneData

TINY = DemoConfig("tiny", size=16, patch=4, latent_channels=8, widths=(32,), text_width=16, text_heads=2, max_length=16)
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220), "green": (40, 160, 60)}


class StubWorld:
    """Two coloured rectangles."""

    name, version = "stub", "1"

    def concepts(self):
        return [SimpleNamespace(name=name, domain=tuple(COLOURS)) for name in ("sky", "wall")]

    def vocabulary(self):
        return sorted({*COLOURS, "sky", "wall", "the", "is"})

    def phrases(self, name, value):
        return f"{value} {name}", f"the {name} is {value}"

    def sample(self, seed, do=None, mode="observational"):
        rng = np.random.default_rng(seed)
        values = {name: str(rng.choice(list(COLOURS))) for name in ("sky", "wall")}
        return SimpleNamespace(seed=seed, values={**values, **(do or {}), "hidden": "x"})

    def render(self, scene, size):
        image = np.empty((size, size, 3), np.uint8)
        image[: size // 2] = COLOURS[scene.values["sky"]]
        image[size // 2 :] = COLOURS[scene.values["wall"]]
        noise = np.random.default_rng(scene.seed).integers(-20, 20, image.shape)
        return (image + noise).clip(0, 255).astype(np.uint8)

    def caption(self, scene):
        return ", ".join(f"{scene.values[name]} {name}" for name in ("sky", "wall"))


@pytest.fixture(name="data")
def scenes(tmp_path, monkeypatch):
    """Scenes of the stub world, of which the first are rendered."""
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("causal_core.worlds.dataset.SHARD", 20)
    scenes = SceneData(StubWorld(), 16, count=50)
    scenes.render(1)
    return scenes


def trainer_of(data):
    """A run of the tiny model on scenes, before its first step."""
    trainer = Trainer(TINY, data, batch=4)
    trainer.fit_latents()
    return trainer
