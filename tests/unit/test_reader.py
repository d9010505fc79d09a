"""The shipped reader is right on renders that nobody trained on, and refuses what is not a reader."""

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.worlds import get_world
from causal_core.worlds.dataset import SceneData
from causal_core.worlds.reader import WEIGHTS, Reader, accuracy, as_input, train

HELD_OUT = range(5_000_000, 5_000_200)


@pytest.mark.parametrize("mode", ["observational", "uniform"])
def test_shipped_reader_is_right_on_held_out_renders(mode):
    shares = accuracy(Reader.load(), get_world("cottage"), HELD_OUT, mode)
    assert len(shares) == 17 and min(shares.values()) >= 0.99, shares


def test_reader_tells_noise_from_nothing():
    """A picture of another scene must be read differently: the reader looks at the picture."""
    world, reader = get_world("cottage"), Reader.load()
    scenes = [world.sample(seed, mode="uniform") for seed in range(40)]
    read = reader.read(np.stack([world.render(scene) for scene in scenes[::-1]]))
    agreement = np.mean([found[name] == scene.values[name] for found, scene in zip(read, scenes) for name in found])
    assert agreement < 0.6


def test_larger_pictures_are_read_as_well():
    world = get_world("cottage")
    scene = world.sample(11)
    read = Reader.load().read(world.render(scene, 128)[None])[0]
    assert sum(read[name] == scene.values[name] for name in read) >= 16
    assert as_input(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 3, 64, 64)


def test_training_learns_and_is_deterministic(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    data = SceneData(get_world("cottage"), 64, 128)
    data.render()
    first, second = train(data, 128, batch=32), train(data, 128, batch=32)
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    first.save(tmp_path / "reader.safetensors")
    again = Reader.load(tmp_path / "reader.safetensors")
    assert again.domains == first.domains and again.provenance["images"] == 128


def test_missing_and_damaged_weights_are_named(tmp_path):
    with pytest.raises(CounterfactError, match="no such file"):
        Reader.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(CounterfactError, match="damaged"):
        Reader.load(broken)
