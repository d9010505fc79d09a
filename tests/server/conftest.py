"""One ComfyUI server with the pack for all tests of this folder: a start takes 10 to 15 seconds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from causal_core.comfyui.client import ComfyClient
from causal_core.comfyui.convert import ui_to_api
from causal_core.comfyui.demo import set_input
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


@pytest.fixture(scope="session")
def object_info(server: ComfyServer) -> dict[str, Any]:
    """Definitions of all nodes as the server tells them."""
    return server.client().object_info()


class Template:
    """A template workflow in API format, `prompt`, and what it showed when it ran last, `entry`."""

    def __init__(self, client: ComfyClient, prompt: dict[str, dict[str, Any]]) -> None:
        self.client, self.prompt, self.entry = client, prompt, {}

    def set(self, *changes: str) -> None:
        """Change inputs, as `counterfact demo --set` does."""
        for change in changes:
            set_input(self.prompt, change)

    def run(self, on_event: Callable[[str, dict[str, Any]], None] | None = None, timeout: float = 120) -> Template:
        """Run it to its end."""
        self.entry = self.client.run(self.prompt, on_event, timeout)
        return self

    def node(self, name: str) -> str:
        """The id of the only node with this title or class."""
        found = [key for key, node in self.prompt.items() if name in (node["_meta"]["title"], node["class_type"])]
        assert len(found) == 1, name
        return found[0]

    def pictures(self, name: str) -> list[np.ndarray]:
        """What a node showed, uint8 arrays [H, W, 3]."""
        shown = self.entry["outputs"][self.node(name)]["images"]
        return [np.array(Image.open(io.BytesIO(self.client.view(**image))).convert("RGB")) for image in shown]

    def text(self, name: str, key: str = "text") -> str:
        """The text that a node showed."""
        return self.entry["outputs"][self.node(name)][key][0]

    def document(self, name: str, key: str) -> Any:
        """The JSON document that a node showed."""
        return json.loads(self.text(name, key))


@pytest.fixture
def template(client: ComfyClient, pack_root: Path, object_info: dict[str, Any]) -> Callable[[str], Template]:
    """Fresh copies of template workflows by name."""

    def fresh(name: str) -> Template:
        workflow = json.loads((pack_root / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        return Template(client, ui_to_api(workflow, object_info))

    return fresh
