"""One ComfyUI server with the pack for all tests of this folder: a start takes 10 to 15 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from causal_core.comfyui.client import ComfyClient
from causal_core.comfyui.server import ComfyServer


@pytest.fixture(scope="session")
def server(pack_root: Path, comfy_path: Path) -> Iterator[ComfyServer]:
    """A running server."""
    with ComfyServer(pack_root, comfy_path) as running:
        yield running


@pytest.fixture(scope="session")
def start_log(server: ComfyServer) -> str:
    """What the server printed up to the first test that looked; later tests may make nodes fail on purpose."""
    return server.log_file.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def client(server: ComfyServer) -> ComfyClient:
    """A client of the running server."""
    return server.client()
