"""ComfyUI in this process, the pack loaded as ComfyUI loads it, and a demo model with random weights."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
PACK = "counterfact_pack"


def _load_pack() -> None:
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


def _load_comfyui() -> None:
    """Import ComfyUI's options as its main.py does, before anything else of it reads them."""
    locate = importlib.import_module(f"{PACK}.causal_core.comfyui.locate")
    sys.path.insert(0, str(locate.find_comfyui()))
    import comfy.options

    arguments = sys.argv
    sys.argv = ["main.py"] + ([] if os.environ.get("COUNTERFACT_DEVICE") == "cuda" else ["--cpu"])
    try:
        comfy.options.enable_args_parsing()
        import comfy.cli_args  # noqa: F401
    finally:
        sys.argv = arguments
    import torch

    # Models this small gain nothing from more threads, and lose much where the cores are busy.
    torch.set_num_threads(1)


_load_pack()
_load_comfyui()


@pytest.fixture(scope="session")
def pack():
    """Import a module of the pack by its dotted name, such as pack("nodes.demo_model")."""
    return lambda name: importlib.import_module(f"{PACK}.{name}")


@pytest.fixture(scope="session")
def weights(pack, tmp_path_factory) -> Path:
    """A weights file of the smallest model that has every kind of layer, not trained."""
    import torch

    model, config = pack("causal_core.demo.model"), pack("causal_core.demo.config")
    world = pack("causal_core.worlds").get_world("cottage")
    torch.manual_seed(3)
    sizes = config.DemoConfig("test", size=64, patch=4, latent_channels=24, widths=(32, 64, 64), text_width=64)
    demo = model.DemoModel(sizes, world.vocabulary())
    demo.latents.fit(model.from_uint8(_renders(world)))
    path = tmp_path_factory.mktemp("weights") / "test.safetensors"
    demo.save(path)
    return path


def _renders(world):
    import numpy as np

    return np.stack([world.render(world.sample(seed), 64) for seed in range(20)])


@pytest.fixture(scope="session")
def reference(pack, weights):
    """The demo model through diffusers."""
    return pack("causal_core.demo.model").DemoModel.load(weights)


@pytest.fixture(scope="session")
def comfy_model(pack, weights) -> SimpleNamespace:
    """The demo model through ComfyUI: model, clip and vae."""
    model, clip, vae = pack("nodes.demo_model").load(weights)
    return SimpleNamespace(model=model, clip=clip, vae=vae)


@pytest.fixture(scope="session")
def scene(pack, comfy_model) -> SimpleNamespace:
    """Two scenes, their latents, and plans for the first: do(season = winter), and nothing at all."""
    import numpy as np
    import torch

    world, plans = pack("causal_core.worlds").get_world("cottage"), pack("causal_core.plan")
    with torch.inference_mode():
        drawn = [world.sample(seed) for seed in (302, 71)]
        images = torch.from_numpy(np.stack([world.render(one, 64) for one in drawn])).float() / 255
        latents = comfy_model.vae.encode(images)
    graph = world.scene_graph(drawn[0])
    return SimpleNamespace(
        latent={"samples": latents[:1]}, batch={"samples": latents}, images=images, graph=graph, world=world,
        plan=plans.propagate(graph, plans.Intervention({"season": "winter"})),
        null=plans.propagate(graph, plans.Intervention({})),
    )  # fmt: skip


@pytest.fixture
def error(pack):
    """What mistakes raise."""
    return pack("causal_core.errors").CounterfactError


@pytest.fixture
def previews(tmp_path):
    """Previews go to a folder of their own."""
    import folder_paths

    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path))
    yield
    folder_paths.set_temp_directory(before)


@pytest.fixture(autouse=True)
def inference_mode():
    """ComfyUI runs every node in it."""
    import torch

    with torch.inference_mode():
        yield
