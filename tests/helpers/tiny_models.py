"""Text-to-image models of random weights, too small to draw anything, made once for all tests that ask for one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A weights file of a model that knows the words of the cottage world: pictures of 64 pixels, latents of 8 by 8."""
    import torch

    from causal_core.demo.config import DemoConfig
    from causal_core.demo.model import DemoModel
    from causal_core.worlds import get_world

    torch.manual_seed(0)
    config = DemoConfig("test", size=64, patch=8, latent_channels=8, widths=(32, 64), text_width=32, text_heads=2)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    DemoModel(config, get_world("cottage").vocabulary()).save(path)
    return path


@pytest.fixture(scope="session")
def model():
    """A model that knows the words of a winter, in which a car may change its colour: latents of 8 by 8."""
    import torch

    from causal_core.demo.config import DemoConfig
    from causal_core.demo.model import DemoModel

    torch.manual_seed(0)
    config = DemoConfig("test", size=32, patch=4, latent_channels=8, widths=(32, 64), text_width=32, text_heads=2)
    words = "summer winter season green bare foliage red blue car".split()
    return DemoModel(config, words).eval().requires_grad_(False)
