"""Resumable training of a causal autoencoder, on a world's scenes or on a folder of anybody's pictures.

    counterfact train autoencoder --config pendulum
    counterfact train autoencoder --images DIR --labels FILE.csv --graph GRAPH.json --size 64

Several GPUs: ``torchrun --nproc-per-node N -m -- causal_core train autoencoder ...``; each draws its own batches.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..errors import CounterfactError, finite
from ..recorded import RecordedTraining
from ..training import Plan, Watch, save_grid, stop_signals
from ..training import run as fit
from ..worlds import dataset
from .config import PAPER, PRESETS, AutoencoderConfig, get_config
from .data import Source, WorldSource, as_batch
from .model import CausalAutoencoder
from .objective import Batch, objective
from .traversal import sheet

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("counterfact")

KIND = "counterfact.autoencoder-training"
FIRST_SHARDS = 2
# Compute capability from which on GPUs have bfloat16.
BFLOAT16 = 8
SAMPLES = 4


class Objective(nn.Module):
    """The objective as a module, so that several processes can share its gradient."""

    def __init__(self, model: CausalAutoencoder, half: bool) -> None:
        super().__init__()
        self.model, self.half = model, half

    def forward(self, batch: Batch, rng: torch.Generator, step: torch.Tensor) -> dict[str, torch.Tensor]:
        return objective(self.model, batch, rng, step, self.half)


class Trainer(RecordedTraining):
    """A run of an autoencoder.

    Parameters
    ----------
    config, source : sizes and objective, and what to learn from
    seed : of the first weights and all random choices
    accelerator : of `accelerate`, when several processes train together
    half : compute the decoder in bfloat16, in training only; without it on a GPU that has it
    start : trained weights of the same sizes and variables to begin with, in place of random ones
    """

    def __init__(
        self,
        config: AutoencoderConfig,
        source: Source,
        seed: int = 0,
        device: str = "cpu",
        accelerator: Any = None,
        half: bool | None = None,
        start: CausalAutoencoder | None = None,
    ) -> None:
        if (source.size, source.channels) != (config.size, config.channels):
            raise CounterfactError(
                f"the pictures have {source.size} pixels and {source.channels} channels, the config wants "
                f"{config.size} and {config.channels}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = CausalAutoencoder(config, source.coding).to(device)
        if start is not None:
            _take_over(model, start)
        rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
        # How long to train may be changed on the way; everything else belongs to the run.
        identity = {
            "config": {k: v for k, v in config.to_dict().items() if k != "images"}, "data": source.key,
            "variables": source.coding.to_dict(), "processes": processes,
        } | ({} if start is None else {"start": start.provenance})  # fmt: skip
        plan = Plan(KIND, identity, config.batch * processes, config.learning_rate, config.warm_up, config.ema)
        super().__init__(model, plan, seed)
        self.source, self.rank, self.seed = source, rank, seed
        self.before = {} if start is None else start.provenance
        cuda = self.device.type == "cuda"
        if half is None:
            half = cuda and torch.cuda.get_device_capability(self.device)[0] >= BFLOAT16
        self.shared = Objective(model, half)
        if accelerator is not None:
            self.shared = accelerator.prepare(self.shared)

    def resume(self, folder: Path) -> bool:
        found = super().resume(folder)
        if self.rank:
            # The checkpoint is the first process's; others must not draw the same noise.
            self.noise.manual_seed(hash((self.seed, self.rank, self.step)) % 2**63)
        return found

    def draw(self) -> Batch:
        # Drawn for all processes, so that a checkpoint of the first holds for every one of them.
        chosen = self.choices.integers(len(self.source), size=self.plan.batch)
        mine = chosen[self.rank * self.model.config.batch :][: self.model.config.batch]
        return as_batch(self.source, mine, self.device)

    def terms(self, batch: Batch, step: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.shared(batch, self.noise, step)

    def export(self, path: Path) -> None:
        """Write the averaged weights as the one file that :meth:`CausalAutoencoder.load` reads."""
        self.average.provenance = {
            "images": self.images + self.before.get("images", 0), "steps": self.step, "batch": self.plan.batch,
            "data": self.source.key, "pictures": len(self.source),
        } | ({"start": self.before} if self.before else {})  # fmt: skip
        self.average.save(path)


def _take_over(model: CausalAutoencoder, start: CausalAutoencoder) -> None:
    """Copy trained weights into a new model; raises CounterfactError if they are of other variables or sizes."""
    if start.coding != model.coding:
        raise CounterfactError(
            f"start: those weights are of {', '.join(start.coding.names)} with their own values, ranges and causes; "
            "training can only go on with the same graph"
        )
    try:
        model.load_state_dict(start.state_dict())
    except RuntimeError:
        raise CounterfactError(
            "start: those weights are of other sizes; train with the config that they were made with"
        ) from None


class Bar(Watch):
    """A progress bar, and contact sheets in the run folder if there is one."""

    def __init__(self, run: Trainer, folder: Path | None, bar: tqdm, stop: threading.Event) -> None:
        self.run, self.folder, self.bar, self.stop = run, folder, bar, stop

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.bar.update(images - self.bar.n)
        if losses:
            self.bar.set_postfix({k: f"{v:.4f}" for k, v in losses.items()}, pictures=self.run.source.refresh())

    def samples(self) -> None:
        if self.folder is not None:
            save_grid(samples(self.run), self.folder / f"sample-{self.run.images:08d}.png", columns=2)

    def stopped(self) -> bool:
        return self.stop.is_set()


class Together(Watch):
    """The watch of one process, which stops when any process wants to: none may wait for a step of another."""

    def __init__(self, watch: Watch, accelerator: Any) -> None:
        self.progress, self.samples = watch.progress, watch.samples
        self.watch, self.accelerator = watch, accelerator

    def stopped(self) -> bool:
        wish = torch.tensor(float(self.watch.stopped()), device=self.accelerator.device)
        return bool(self.accelerator.reduce(wish, "sum") > 0)


def samples(run: Trainer, count: int = SAMPLES) -> np.ndarray:
    """A contact sheet a picture: as it is, decoded again, and each variable swept; uint8 [count, H, W, 3]."""
    batch = as_batch(run.source, range(min(count, len(run.source))), run.device)
    run.average.eval()
    return torch.cat([sheet(run.average, image[None]) for image in batch.images]).mul(255).round().byte().numpy()


def train(
    config: AutoencoderConfig,
    source: Source,
    folder: str | Path,
    device: str | None = None,
    seed: int = 0,
    watch: Callable[[Trainer], Watch] | None = None,
    half: bool | None = None,
    save_seconds: float = 180,
    sample_seconds: float = 600,
    weights: str | Path | None = None,
    start: CausalAutoencoder | None = None,
    record: bool = False,
) -> Path:
    """Train, or go on training, until `config.images` pictures have been seen.

    Parameters
    ----------
    config, source : sizes and objective, and what to learn from
    folder : run folder
    device : "cpu" or "cuda"; a GPU is used if there is one
    seed : of everything random
    watch : makes what is told of the run and may stop it, once the run is there; a progress bar without
    half : compute the decoder in bfloat16, in training only; without it on a GPU that has it
    save_seconds, sample_seconds : time between checkpoints and between samples
    weights : the file to write; without it `<config.name>.safetensors` in the run folder
    start : trained weights of the same sizes and variables to begin with; without it random ones
    record : play the steps from a CUDA graph, on one GPU

    Returns
    -------
    Path
        The exported weights (of the average so far if stopped early).

    Raises
    ------
    CounterfactError
        If checkpoints in the folder belong to another run, the loss diverges, a checkpoint cannot be written, there is
        no such device or no picture.
    OSError
        If the run folder cannot be made, or the weights cannot be written.
    """
    from tqdm import tqdm

    folder, accelerator = Path(folder), _accelerator()
    folder.mkdir(parents=True, exist_ok=True)
    if not len(source):
        raise CounterfactError("there is no picture to learn from: check the folder of images")
    device = str(accelerator.device) if accelerator else device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise CounterfactError(f'device: "{device}" needs a CUDA GPU and there is none; use cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise CounterfactError(f'device: there is no "{device}"; use cpu, or cuda for a GPU') from None
    run = Trainer(config, source, seed, device, accelerator, half, start)
    run.records = record and accelerator is None and device.startswith("cuda")
    run.resume(folder)
    weights = Path(weights or folder / f"{config.name}.safetensors")
    writes = run.rank == 0
    with (
        stop_signals() as stop,
        tqdm(
            total=config.images,
            initial=run.images,
            unit="img",
            unit_scale=True,
            disable=watch is not None or not writes,
        ) as bar,
    ):
        written = folder if writes else None
        told = watch(run) if watch else Bar(run, written, bar, stop)
        told = Together(told, accelerator) if accelerator else told
        fit(run, written, config.images, told, save_seconds, sample_seconds)
    if writes:
        run.export(weights)
    return weights


def _accelerator() -> Any:
    """What `accelerate launch` has set up for several processes; None for one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import Accelerator
    except ImportError:
        raise CounterfactError("several processes need the package accelerate: run pip install accelerate") from None
    return Accelerator(cpu=not torch.cuda.is_available())


def world_source(config: AutoencoderConfig, pictures: int, labelled: float = 1.0, all_now: bool = False) -> WorldSource:
    """The scenes of a config's world; what is missing is rendered in a second process while training goes on.

    ``all_now`` renders everything first.
    """
    source = WorldSource(config.world, config.size, pictures, labelled)
    source.scenes.render(None if all_now else FIRST_SHARDS)
    source.refresh()
    if len(source) < pictures:
        spawn = multiprocessing.get_context("spawn")
        arguments = (config.world, source.scenes.size, source.scenes.count, source.scenes.seed)
        spawn.Process(target=dataset.render_all, args=arguments, daemon=True).start()
    return source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact train autoencoder``."""
    parser.add_argument(
        "--config", help=f"{', '.join(PRESETS)}, or a JSON file of a config; without it that of --start, else pendulum"
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="train on this folder of pictures")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.csv",
        help="... with these labels; the first column names the files",
    )
    parser.add_argument("--graph", type=Path, metavar="GRAPH.json", help="... and this causal graph of the labels")
    parser.add_argument("--size", type=int, help="side of the pictures in pixels")
    parser.add_argument(
        "--objective", choices=("ours", "paper"), default="ours",
        help="paper: losses, their weights and learning rate as the published code of CausalDiffAE has them",
    )  # fmt: skip
    parser.add_argument("--start", type=Path, metavar="WEIGHTS", help="begin with these weights, not with random ones")
    parser.add_argument("--run", type=Path, help="run folder; a stopped run goes on in it")
    parser.add_argument("--seen", type=int, help="pictures to see in all, repeats counted")
    parser.add_argument("--batch", type=int, help="pictures a step")
    parser.add_argument("--pictures", type=int, default=20_000, help="different scenes to render, without --images")
    parser.add_argument("--labelled", type=float, default=1.0, help="share of the pictures whose labels are used")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and random choices")
    parser.add_argument("--device", help="cpu or cuda; without it a GPU is used if there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--record", action="store_true", help="on one GPU: record a step as a CUDA graph and play it (not yet measured)"
    )
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, help="train the decoder in bfloat16; without it on a GPU alone"
    )


def read_config(name: str) -> AutoencoderConfig:
    """A preset by name, or the config in a JSON file."""
    if not name.endswith(".json"):
        return get_config(name)
    try:
        return AutoencoderConfig.from_dict(json.loads(Path(name).read_text("utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CounterfactError):
            raise
        raise CounterfactError(f"--config: cannot read {name} ({error})") from None


def check(args: argparse.Namespace) -> None:
    """Raise CounterfactError if options make no sense, alone or together."""
    least = {"size": 1, "seen": 1, "batch": 1, "pictures": 1, "seed": 0}
    for name, low in least.items():
        if getattr(args, name) is not None:
            finite(getattr(args, name), f"--{name}", low, 2**53)
    finite(args.labelled, "--labelled", 0.0, 1.0)
    finite(args.threads, "--threads", 1, 256)
    if args.images is None and (args.labels is not None or args.graph is not None):
        raise CounterfactError("--labels and --graph belong to --images DIR; add it, or leave them out")


def main(args: argparse.Namespace) -> None:
    """Run the training command."""
    check(args)
    changes = {"size": args.size, "images": args.seen, "batch": args.batch}
    changes = {key: value for key, value in changes.items() if value is not None}
    start = None if args.start is None else CausalAutoencoder.load(args.start)
    if args.config is not None:
        config = read_config(args.config)
    elif start is not None:
        config = start.config
    else:
        config = get_config("pendulum") if args.images is None else AutoencoderConfig()
    config = replace(config, **changes, **(PAPER if args.objective == "paper" else {}))
    torch.set_num_threads(args.threads)
    if args.images is not None:
        from .folder import FolderSource

        channels = None if start is None else config.channels
        source: Source = FolderSource(
            args.images, args.labels, args.graph, config.size, labelled=args.labelled, channels=channels
        )
        config = replace(config, name="custom", world="", channels=source.channels)
    elif not config.world:
        raise CounterfactError("that config is of no world: add --images DIR, or choose another with --config")
    folder = args.run or Path("runs", config.name)
    try:
        if args.images is None:
            source = world_source(config, args.pictures, args.labelled, all_now=_accelerator() is not None)
        weights = train(config, source, folder, args.device, args.seed, half=args.bf16, start=start, record=args.record)
    except OSError as error:
        raise CounterfactError(
            f"--run: {error.filename or folder} cannot be written ({error.strerror}); make room, or choose another "
            "folder; started again, a run goes on from its last checkpoint"
        ) from None
    if not int(os.environ.get("RANK", "0")):
        print(f"weights: {weights}")
