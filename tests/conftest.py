"""What all tests share: the pack's folder and a ComfyUI to test in."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the current folder on sys.path; there, the pack's nodes/ would hide ComfyUI's nodes.py.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
# What several layers of tests share.
sys.path.append(str(ROOT / "tests" / "helpers"))


LAYERS = {
    "unit": "needs no ComfyUI",
    "slow": "needs no ComfyUI either, but trains, runs whole commands or goes through thousands of cases",
    "model": "ComfyUI's classes, or models as they are shipped, in this process",
    "server": "a running ComfyUI server",
    "browser": "a running ComfyUI server and a browser",
}


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports make much and drop little
    for name, meaning in LAYERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning} (tests in tests/{name})")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        layer = item.path.relative_to(ROOT / "tests").parts[0]
        if layer in LAYERS:
            item.add_marker(layer)
    # The quick ones first, and browsers last: Playwright leaves an event loop behind, in which no other can be started.
    items.sort(key=lambda item: next((i for i, layer in enumerate(LAYERS) if item.get_closest_marker(layer)), -1))


def pytest_collection_finish() -> None:
    # What the imports have made stays to the end: looking through it again and again took a seventh of the time.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def pack_root() -> Path:
    """The folder of the node pack."""
    return ROOT


@pytest.fixture(scope="session")
def comfy_path() -> Path:
    """A ComfyUI source tree, fetched into the cache folder if need be; without one the tests fail, they do not skip."""
    from causal_core.comfyui.locate import find_comfyui

    return find_comfyui()
