"""Readers of pictures: they learn, keep what they learnt in a file, and refuse what is not a reader."""

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.worlds import get_world
from causal_core.worlds.dataset import SceneData
from causal_core.worlds.reader import WEIGHTS, Reader, as_input, train


def test_training_learns_and_is_deterministic(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    data = SceneData(get_world("cottage"), 64, 128)
    data.render()
    first, second = train(data, 128, batch=32), train(data, 128, batch=32)
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    first.save(tmp_path / "reader.safetensors")
    again = Reader.load(tmp_path / "reader.safetensors")
    assert again.domains == first.domains and again.provenance["images"] == 128


def test_pictures_of_any_size_are_read_at_64_pixels():
    for side in (32, 64, 128):
        assert as_input(np.zeros((1, side, side, 3), np.uint8)).shape == (1, 3, 64, 64)


def test_missing_and_damaged_weights_are_named(tmp_path):
    with pytest.raises(CounterfactError, match="no such file"):
        Reader.load(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(CounterfactError, match="damaged"):
        Reader.load(broken)
