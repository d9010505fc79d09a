"""What the pack costs at the start, without a clock: it imports nothing but itself that ComfyUI has not already."""

from __future__ import annotations

import json
import subprocess
import sys

# ComfyUI imports its own nodes first, then the packs, whose nodes it then asks for, and the page for their definitions.
START = """
import asyncio, importlib.util, json, sys
root, comfy_path = sys.argv[1:]
sys.argv, sys.path[0] = ["main.py", "--cpu"], comfy_path
import comfy.options
comfy.options.enable_args_parsing()
import execution, nodes, comfy_api.latest
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
pack = sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)

async def definitions():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_NODE_INFO_V1() for node in await extension.get_node_list()]

found = asyncio.run(definitions())
print(json.dumps([len(found), sorted(set(sys.modules) - before)]))
"""


def test_the_pack_imports_nothing_that_comfyui_has_not(pack_root, comfy_path):
    command = [sys.executable, "-c", START, str(pack_root), str(comfy_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    count, imported = json.loads(done.stdout.splitlines()[-1])
    assert count > 15 and "pack.causal_core.errors" in imported
    assert not [name for name in imported if name.split(".")[0] not in {"pack", *sys.stdlib_module_names}]
