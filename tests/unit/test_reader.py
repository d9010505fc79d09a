"""Readers of pictures: they take pictures of any size, and refuse what is not a reader."""

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.worlds.reader import WEIGHTS, Reader, as_input


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
