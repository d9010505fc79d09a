"""Training a causal autoencoder in the canvas, on a folder of pictures with a table of labels."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..causal_core.errors import identifier
from . import types
from .demo import AUTOENCODER
from .files import chosen, offered, run_folder, target, unchanged, within


class TrainAutoencoder(io.ComfyNode):
    """Train a causal autoencoder, or go on where a run was stopped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        folders, tables = offered()
        return io.Schema(
            node_id="CausalTrainAutoencoder",
            display_name="Train Causal Autoencoder",
            category="causal/autoencoder",
            description="Train a CausalDiffAE on your own pictures. Cancelling saves the run: the same settings go on "
            "where it was. The weights lie in models/counterfact in the end, for Load Causal Autoencoder.",
            search_aliases=["counterfactual", "causaldiffae", "fine tune", "dataset", "learn"],
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "images", options=folders,
                    tooltip="A folder in ComfyUI's input folder, with pictures of any size in it and in folders below "
                    "it. Each is scaled and cut to its central square.",
                ),
                io.Combo.Input(
                    "labels", options=tables,
                    tooltip="A CSV file in ComfyUI's input folder. Its first line names the columns; the first column "
                    "names the pictures by their paths in the folder, and there is one column for each concept of the "
                    "graph. Cells may be empty.",
                ),
                types.Graph.Input(
                    "graph", tooltip="What causes what among the labels, from Build Causal Graph. A concept without "
                    "values or range takes them from its column."
                ),
                io.String.Input(
                    "name", default="my autoencoder",
                    tooltip="Of the weights and of the run: the file will be models/counterfact/NAME.safetensors. The "
                    "same name goes on with its run; other pictures or settings need another name.",
                ),
                io.Int.Input(
                    "size", default=64, min=16, max=512, step=16,
                    tooltip="Side in pixels of the pictures that the autoencoder works on. Twice the side takes more "
                    "than four times as long.",
                ),
                io.Int.Input(
                    "seen", default=200_000, min=1, max=100_000_000, step=1000,
                    tooltip="How many pictures to see in all, each counted every time. May be raised later: the run "
                    "then goes on.",
                ),
                io.Int.Input(
                    "batch", default=32, min=2, max=1024, optional=True, advanced=True,
                    tooltip="Pictures a step. More takes more memory.",
                ),
                io.Float.Input(
                    "learning_rate", default=0.001, min=0.00001, max=0.1, step=0.00001, optional=True, advanced=True,
                    tooltip="How large the steps are. Lower it if training diverges.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**53, control_after_generate=False, optional=True, advanced=True,
                    tooltip="Of the first weights and of everything random in a new run.",
                ),
                types.Autoencoder.Input(
                    "start", optional=True,
                    tooltip="An autoencoder to train on, in place of random weights. It needs the same graph, values "
                    "and ranges: connect the graph of the same Load Causal Autoencoder as well.",
                ),
            ],
            outputs=[
                types.Autoencoder.Output("autoencoder", tooltip="The trained autoencoder, for CausalDiffAE Encode, "
                "Decode and Causal Traversal."),
                io.Image.Output(
                    "samples", tooltip="A picture of the folder, what comes back when it is encoded and decoded, and "
                    "a row for each variable swept over its range."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, images: str = "", labels: str = "", **_) -> str:
        table = [Path(folder_paths.get_input_directory(), labels)] if labels else []
        return unchanged(table + within(images))

    @classmethod
    def execute(
        cls, images: str, labels: str, graph, name: str, size: int, seen: int, batch: int = 32,
        learning_rate: float = 1e-3, seed: int = 0, start=None,
    ) -> io.NodeOutput:  # fmt: skip
        import torch
        from comfy_api.latest import ui

        from ..causal_core.autoencoder.model import CausalAutoencoder
        from .autoencoder_memory import ManagedAutoencoder
        from .autoencoder_run import trained

        name = identifier(name, "name")
        weights = target(name, AUTOENCODER, "autoencoder")
        folders, tables = offered()
        pictures, table = chosen("images", images, folders), chosen("labels", labels, tables)
        settings = {"name": name, "size": size, "images": seen, "batch": batch, "learning_rate": learning_rate}
        # ComfyUI runs nodes in a mode in which nothing can be learnt.
        with torch.inference_mode(False), torch.enable_grad():
            before = None if start is None else start.model
            samples, told = trained(settings, pictures, table, graph, run_folder(name), weights, seed, before)
        shown = ui.PreviewImage(samples, cls=cls).as_dict()
        model = ManagedAutoencoder(CausalAutoencoder.load(weights))
        return io.NodeOutput(model, samples, ui={**shown, "text": [told]})


NODES = [TrainAutoencoder]
