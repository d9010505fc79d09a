"""Training as ComfyUI runs it: progress and samples on the page, and a checkpoint before a cancelled run ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import comfy.utils
import torch

from ..causal_core.autoencoder.config import AutoencoderConfig
from ..causal_core.autoencoder.data import as_batch
from ..causal_core.autoencoder.folder import FolderSource
from ..causal_core.autoencoder.model import CausalAutoencoder
from ..causal_core.autoencoder.train import Trainer, train
from ..causal_core.autoencoder.traversal import sheet
from ..causal_core.errors import CounterfactError
from ..causal_core.training import Watch
from .autoencoder_memory import strip
from .mistakes import naming

SAMPLE_SECONDS, SAMPLE_STEPS, SAMPLE_COLUMNS = 60.0, 8, 4


class Canvas(Watch):
    """Shows a run on the page, and ends it with ComfyUI's exception when that is cancelled.

    Attributes
    ----------
    sample : the last contact sheet [1, H, W, 3] in 0..1
    """

    def __init__(self, run: Trainer, images: int) -> None:
        self.run, self.bar = run, comfy.utils.ProgressBar(images)
        self.sample: torch.Tensor | None = None

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.bar.update_absolute(images)

    def stopped(self) -> bool:
        memory.throw_exception_if_processing_interrupted()
        return False

    def samples(self) -> None:
        image = as_batch(self.run.source, [0], self.run.device).images
        self.run.average.eval()
        check = memory.throw_exception_if_processing_interrupted
        self.sample = sheet(self.run.average, image, SAMPLE_COLUMNS, SAMPLE_STEPS, lambda _: check())
        self.bar.update_absolute(self.bar.current, preview=strip(self.sample))


def trained(
    settings: Mapping[str, Any], images: Path, labels: Path, graph, folder: Path, weights: Path, seed: int,
    start: CausalAutoencoder | None,
) -> tuple[torch.Tensor, str]:  # fmt: skip
    """Train, or go on training, and write the weights.

    Parameters
    ----------
    settings : entries of the config
    images, labels, graph : see :class:`causal_core.autoencoder.folder.FolderSource`
    folder : of the run's checkpoints
    weights : the file to write
    start : weights to begin with, whose sizes are kept

    Returns
    -------
    samples [1, H, W, 3] in 0..1, and what became of the folder in words

    Raises
    ------
    CounterfactError
        For pictures, labels, graph or settings that do not fit, for a run folder of other settings, and where something
        cannot be written.
    InterruptProcessingException
        If ComfyUI's run was cancelled; a checkpoint is written before.
    """
    channels = None if start is None else start.config.channels
    check = memory.throw_exception_if_processing_interrupted
    source = FolderSource(images, labels, graph, settings["size"], channels=channels, check=check)
    if start is None:
        config = AutoencoderConfig(**settings, channels=source.channels)
    elif start.config.size == settings["size"]:
        config = replace(start.config, **settings)
    else:
        raise CounterfactError(f"size: the autoencoder to start from has {start.config.size} pixels; set that size")
    memory.unload_all_models()
    canvas: Canvas | None = None

    def watch(run: Trainer) -> Canvas:
        nonlocal canvas
        canvas = Canvas(run, config.images)
        return canvas

    device = str(memory.get_torch_device())
    try:
        train(
            config, source, folder, device, seed, watch, sample_seconds=SAMPLE_SECONDS, weights=weights, start=start
        )  # fmt: skip
    except CounterfactError:
        if canvas is not None:
            raise
        with naming("name"):  # the run folder is of other pictures or settings
            raise
    except OSError as error:
        raise CounterfactError(
            f"name: {error.filename or weights} cannot be written ({error.strerror}); make room and run it again, it "
            "goes on from the last checkpoint"
        ) from None
    left_out = "".join(f"\nleft out: {name} ({why})" for name, why in source.left_out.items())
    return canvas.sample, f"{canvas.run.images} pictures seen, {len(source)} different ones{left_out}"
