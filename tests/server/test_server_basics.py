"""The life of a server: it starts clean, runs prompts, explains what goes wrong, and is gone afterwards."""

from __future__ import annotations

import io
import os
import re
import signal
import sys

import pytest
from PIL import Image

from causal_core.comfyui.server import ComfyServer, ServerDied
from causal_core.errors import CounterfactError


def grey(side: int = 16, **inputs):
    """A prompt of core nodes alone."""
    values = {"width": side, "height": side, "batch_size": 1, "color": 0x808080, **inputs}
    return {
        "1": {"class_type": "EmptyImage", "inputs": values, "_meta": {"title": "Grey"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_starts_without_a_traceback(start_log, client, server):
    system = client.system_stats()["system"]
    assert system["comfyui_version"]
    assert str(server.base_dir) in system["argv"]
    assert "Traceback" not in start_log and "comfy_entrypoint" not in start_log
    assert re.search(r"seconds: \S*counterfact", start_log), "the pack is in the list of import times"
    assert "IMPORT FAILED" not in start_log


def test_only_this_pack_is_loaded(client):
    modules = {node["python_module"].split(".")[0] for node in client.object_info().values()}
    packs = {node["python_module"] for node in client.object_info().values() if "custom_nodes" in node["python_module"]}
    assert modules <= {"nodes", "comfy_extras", "custom_nodes"}
    assert packs == {"custom_nodes.counterfact"}


def test_runs_a_prompt_and_reports_progress(client):
    events = []
    entry = client.run(grey(), lambda kind, data: events.append(kind), timeout=60)
    picture = Image.open(io.BytesIO(client.view(**entry["outputs"]["2"]["images"][0])))
    assert picture.size == (16, 16)
    assert picture.getpixel((3, 3)) == (128, 128, 128)
    assert {"execution_start", "progress_state", "executing", "executed", "execution_success"} <= set(events)


def test_uploaded_image_can_be_loaded(client, tmp_path):
    Image.new("RGB", (24, 8), "red").save(tmp_path / "red.png")
    name = client.upload_image(tmp_path / "red.png")
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    entry = client.run(prompt, timeout=60)
    picture = Image.open(io.BytesIO(client.view(**entry["outputs"]["2"]["images"][0])))
    assert picture.size == (24, 8)


def test_refused_prompt_names_node_and_input(client):
    with pytest.raises(CounterfactError, match='Node "Grey", input "width": Value -5 smaller than min'):
        client.run(grey(width=-5), timeout=60)


def test_unknown_node_is_named(client):
    with pytest.raises(CounterfactError, match="NoSuchNode"):
        client.queue({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_same_port_twice(server, pack_root, comfy_path):
    with pytest.raises(CounterfactError, match=f"port {server.port} cannot be used.*--port"):
        ComfyServer(pack_root, comfy_path, port=server.port).__enter__()


def test_bad_flag_shows_exit_code_and_log(pack_root, comfy_path):
    with pytest.raises(ServerDied) as caught:
        ComfyServer(pack_root, comfy_path, extra_args=["--no-such-flag"]).__enter__()
    assert "exit code 2" in str(caught.value)
    assert "unrecognized arguments: --no-such-flag" in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_death_in_the_middle_of_a_run_and_nothing_left_behind(pack_root, comfy_path):
    running = ComfyServer(pack_root, comfy_path)
    with running:
        process, folder = running.process, running.base_dir

        def kill(kind, data):
            os.kill(process.pid, signal.SIGKILL)

        with pytest.raises(ServerDied, match=r"(?s)exit code -9 \(SIGKILL\).*last lines.*got prompt"):
            running.client().run(grey(), kill, timeout=60)
        with pytest.raises(ServerDied):
            running.client().system_stats()
    assert process.poll() is not None
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
