"""The bundled model and pictures whose true counterfactuals are known: everything a first try needs, offline."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from safetensors import SafetensorError, safe_open

from ..causal_core.errors import CounterfactError
from ..causal_core.weights import METADATA_KEY
from . import types
from .mistakes import naming

BUNDLED = Path(__file__).parents[1] / "causal_core" / "demo" / "weights"
FOLDER = "counterfact"
# The kind of causal autoencoders, which have a loader of their own; that of checkpoints begins with it.
AUTOENCODER = "counterfact.autoencoder"
# That of modular models.
MODULAR = "counterfact.modular"


def register_folder() -> None:
    """Let users put weights of their own into models/counterfact."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def own_files() -> dict[str, str | None]:
    """Weights of the user by file name, with the kind that each says it is; None where it cannot be read."""
    names = [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")]
    paths = {name: folder_paths.get_full_path(FOLDER, name) for name in names}
    return {name: _kind(path, fingerprint(Path(path))) for name, path in paths.items() if path}


@lru_cache
def _kind(path: str, unchanged: str) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
        return str(document.get("kind", ""))
    except (OSError, SafetensorError, ValueError, AttributeError, RecursionError):
        return None


def presets() -> list[str]:
    """Bundled models by name, models of the user by file name."""
    bundled = sorted(file.stem for file in BUNDLED.glob("*.safetensors"))
    own = [name for name, kind in own_files().items() if not (kind or "").startswith((AUTOENCODER, MODULAR))]
    return (bundled or ["micro"]) + own


def find_weights(preset: str, bundled: Path | None = None) -> Path:
    """The file of a preset; it need not exist.

    ``bundled`` is the folder of the weights that come with the pack, of the text-to-image models if not given.
    """
    own = folder_paths.get_full_path(FOLDER, preset)
    return Path(own) if own else (bundled or BUNDLED) / f"{Path(preset).name}.safetensors"


def fingerprint(file: Path) -> str:
    """Another one whenever the file is."""
    if not file.is_file():
        return "missing"
    status = file.stat()
    return f"{status.st_mtime_ns} {status.st_size}"


class LoadDemoModel(io.ComfyNode):
    """MODEL, CLIP and VAE of the bundled text-to-image model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        options = presets()
        return io.Schema(
            node_id="CausalLoadDemoModel",
            display_name="Load Demo Model",
            category="causal/demo",
            description="Load the small text-to-image model that comes with the pack. It draws cottages and works with "
            "ComfyUI's own nodes too: CLIP Text Encode, KSampler, VAE Decode.",
            search_aliases=["counterfactual", "counterfact", "tiny model", "cottage"],
            inputs=[
                io.Combo.Input(
                    "preset", options=options, default="micro" if "micro" in options else options[0],
                    tooltip="Which model to load: micro is fast on any CPU and draws 64 pixels. Files that "
                    "'counterfact train demo-model' wrote appear here too when they lie in models/counterfact.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The diffusion model, for Sample Counterfactual or KSampler."),
                io.Clip.Output(tooltip="The text encoder: one word, one token."),
                io.Vae.Output(tooltip="The latents: 24 numbers for each patch of 4 by 4 pixels."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, preset: str) -> str:
        return fingerprint(find_weights(preset))

    @classmethod
    def execute(cls, preset: str) -> io.NodeOutput:
        from .demo_model import load

        file = find_weights(preset)
        if not file.is_file():
            raise CounterfactError(
                f"preset: there is no file {file}; install the pack again, or choose another preset (press R to "
                "refresh)"
            )
        with naming("preset"):
            return io.NodeOutput(*load(file))


class DemoScene(io.ComfyNode):
    """A rendered picture together with everything that caused it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalDemoScene",
            display_name="Draw Demo Scene",
            category="causal/demo",
            description="Draw a picture whose causes are known exactly. With an intervention it draws the true "
            "counterfactual: the same scene, and only what follows from the intervention is different.",
            search_aliases=["counterfactual", "ground truth", "cottage", "pendulum", "test image", "world"],
            inputs=[
                io.Combo.Input(
                    "world", options=["cottage", "pendulum", "digits", "circuit"], default="cottage",
                    tooltip="The kind of scene. cottage: a house by a pond, with concepts such as season. pendulum: a "
                    "lamp and a pendulum cast a shadow. digits: handwriting whose thickness makes it brighter. "
                    "circuit: a robot arm switches lamps. The last three have numbers as values, such as 'angle = 20'.",
                ),
                io.Int.Input(
                    "seed", default=7, min=0, max=2**53, control_after_generate=True,
                    tooltip="Which scene. The same number always draws the same scene.",
                ),
                io.Int.Input(
                    "size", default=64, min=64, max=256, step=64,
                    tooltip="Side of the picture in pixels. The micro model was trained at 64.",
                ),
                types.Intervention.Input(
                    "intervention", optional=True,
                    tooltip="From Do (Set Concept). Draws what the scene would have looked like; everything that does "
                    "not follow from the intervention stays, pixel by pixel.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The picture."),
                io.String.Output("caption", tooltip="What the picture shows, one phrase for each concept."),
                types.Concepts.Output("concepts", tooltip="The concepts of the scene with their true values."),
                types.Graph.Output(
                    "graph", tooltip="The true causal graph, with its mechanisms and the exogenous noise of this scene."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, world: str, seed: int, size: int, intervention=None) -> io.NodeOutput:
        import torch

        from ..causal_core.worlds import get_world

        maker = get_world(world)
        scene = maker.sample(seed)
        if intervention is not None:
            with naming("intervention"):
                scene = maker.counterfactual(scene, intervention.do)
        image = torch.from_numpy(maker.render(scene, size)).float()[None] / 255
        graph = maker.scene_graph(scene)
        return io.NodeOutput(image, maker.caption(scene), graph.concepts, graph)


NODES = [LoadDemoModel, DemoScene]
