"""Resumable training of the bundled text-to-image model.

v-prediction weighted by (min(SNR, 5) + 1) / (SNR + 1), after Hang et al. 2023, with AdamW, warm-up, cosine decay to the
planned number of images and an average of the weights. A run folder holds two checkpoints, a log and sample pictures;
starting the same command again goes on exactly where the last checkpoint was, also after a crash or with a larger
number of images.

    python -m causal_core.demo.train --config micro --images 150000 --run runs/micro
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CounterfactError, finite
from ..weights import read_tensors, write_tensors
from ..worlds import dataset, get_world
from ..worlds.dataset import SceneData
from .captions import training_caption
from .config import DemoConfig, get_config
from .model import DemoModel, from_uint8, generate
from .schedule import STEPS, scale_input, sigmas, v_target

log = logging.getLogger("counterfact")

KIND, SCHEMA_VERSION = "counterfact.demo-training", 1
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "previous.safetensors"
LEARNING_RATE, WARM_UP, FINAL_SHARE = 8e-4, 500, 0.02
EMA = 0.999
GAMMA = 5.0
FIRST_SHARDS = 2


def learning_rate(step: int, steps: int) -> float:
    """Rate at a step of a plan: a function of both alone, so that a longer plan can take over at any time."""
    done = min(step / max(steps, 1), 1.0)
    decay = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
    return LEARNING_RATE * min((step + 1) / WARM_UP, 1.0) * decay


def v_loss(
    model: DemoModel, unet: Callable, x0: torch.Tensor, captions: Sequence[str], rng: torch.Generator
) -> torch.Tensor:
    """Weighted v-prediction loss of latents [B, C, h, w], a scalar."""
    # Stratified timesteps: the same distribution with less variance from batch to batch.
    places = (torch.arange(len(x0), device=x0.device) + torch.rand(len(x0), generator=rng, device=x0.device)) / len(x0)
    t = (places * STEPS).long().clamp_max(STEPS - 1)
    sigma = sigmas().to(x0.device)[t]
    noise = torch.randn(x0.shape, generator=rng, device=x0.device)
    noisy = scale_input(x0 + sigma[:, None, None, None] * noise, sigma)
    v = unet(noisy, t, model.context(captions), return_dict=False)[0]
    snr = sigma**-2.0
    # Plus one: without it the noisiest levels, which decide layout and light, would hardly count.
    weight = (snr.clamp_max(GAMMA) + 1) / (snr + 1)
    return (weight * (v.float() - v_target(x0, noise, sigma)).square().mean((1, 2, 3))).mean()


class Trainer:
    """The state of a run: model, average, optimizer, random generators and counters.

    Parameters
    ----------
    config, data : sizes, and the pictures to learn from
    batch : images a step
    seed : of the first weights and all random choices
    device : "cpu" or "cuda"
    """

    def __init__(
        self, config: DemoConfig, data: SceneData, batch: int = 32, seed: int = 0, device: str = "cpu"
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = DemoModel(config, data.world.vocabulary())
        self.data, self.batch, self.device = data, batch, torch.device(device)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.parameters = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.choices = np.random.default_rng(seed)
        self.noise = torch.Generator(self.device).manual_seed(seed)
        self.step = self.images = 0
        self.cuda = self.device.type == "cuda"
        self.unet = torch.compile(self.model.unet) if self.cuda else self.model.unet

    def fit_latents(self, count: int = 1000) -> None:
        """Fit the latents to the first pictures; once, before the first step."""
        images, _ = self.data.batch(range(min(count, len(self.data))))
        self.model.latents.fit(from_uint8(images, self.device))
        self.average.latents.load_state_dict(self.model.latents.state_dict())

    def train_step(self, steps: int) -> torch.Tensor:
        """One step of a plan of `steps`; returns the loss as a scalar tensor."""
        images, values = self.data.batch(self.choices.integers(len(self.data), size=self.batch))
        captions = [training_caption(self.data.world, v, self.choices) for v in values]
        x0 = self.model.latents.encode(from_uint8(images, self.device))
        with torch.autocast("cuda", torch.bfloat16) if self.cuda else nullcontext():
            loss = v_loss(self.model, self.unet, x0, captions, self.noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.step, steps)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(EMA, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.parameters()), [p.detach() for p in self.parameters.values()], 1 - decay
        )
        self.step += 1
        self.images += self.batch
        return loss.detach()

    def save(self, folder: Path) -> None:
        """Write a checkpoint and keep the one before it."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["noise"] = self.noise.get_state()
        document = {
            "kind": KIND, "schema_version": SCHEMA_VERSION, "config": self.model.config.to_dict(), "step": self.step,
            "images": self.images, "batch": self.batch, "data": self.data.key,
            "choices": self.choices.bit_generator.state,
        }
        # A crash between the two renames leaves only the previous checkpoint, which resume() then takes.
        if (folder / CHECKPOINT).exists():
            os.replace(folder / CHECKPOINT, folder / PREVIOUS)
        write_tensors(folder / CHECKPOINT, tensors, document)

    def resume(self, folder: Path) -> bool:
        """Take up the newest readable checkpoint; false if the folder has none.

        Raises
        ------
        CounterfactError
            If there are checkpoints but none can be read, or they belong to another config.
        """
        errors = []
        for path in (folder / CHECKPOINT, folder / PREVIOUS):
            if not path.exists():
                continue
            try:
                self._restore(*read_tensors(path, KIND, SCHEMA_VERSION))
                return True
            except CounterfactError as error:
                log.warning("%s", error)
                errors.append(str(error))
        if errors:
            raise CounterfactError(f"run folder {folder}: no usable checkpoint; choose an empty folder. {errors[0]}")
        return False

    def _restore(self, tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
        if document.get("config") != self.model.config.to_dict():
            raise CounterfactError("the checkpoint was made with another model config")

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.model.load_state_dict(part("model."))
            self.average.load_state_dict(part("average."))
            for name, parameter in self.parameters.items() if document["step"] else ():
                self.optimizer.state[parameter] = {
                    key: tensors[f"optimizer.{key}.{name}"].to(self.device) for key in ("step", "exp_avg", "exp_avg_sq")
                }
            self.noise.set_state(tensors["noise"])
            self.choices.bit_generator.state = document["choices"]
            self.step, self.images = document["step"], document["images"]
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise CounterfactError(f"the checkpoint does not fit the model: {error}") from None

    def export(self, path: Path) -> None:
        """Write the averaged weights as the one file that :meth:`DemoModel.load` reads."""
        self.average.provenance = {
            "images": self.images, "steps": self.step, "batch": self.batch, "data": self.data.key,
            "world": self.data.world.name, "world_version": self.data.world.version,
        }
        self.average.save(path)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets, so that a step can end and be saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def preview_captions(data: SceneData, count: int = 8) -> list[str]:
    """Captions of scenes that are not trained on."""
    return [data.world.caption(data.world.sample(seed)) for seed in range(count)]


def save_grid(images: np.ndarray, path: Path, columns: int = 4) -> None:
    """Write pictures [N, H, W, 3] side by side as one PNG."""
    from PIL import Image

    rows = [np.concatenate(list(images[i : i + columns]), axis=1) for i in range(0, len(images), columns)]
    Image.fromarray(np.concatenate(rows)).save(path)


def train(
    config_name: str,
    out_dir: str | Path,
    images: int,
    device: str | None = None,
    threads: int = 1,
    batch: int = 32,
    seed: int = 0,
    world: str = "cottage",
    scenes: int = 50_000,
    save_seconds: float = 180,
    sample_seconds: float = 600,
    render: bool = True,
) -> Path:
    """Train, or go on training, until `images` pictures have been seen.

    Parameters
    ----------
    config_name : "micro" or "small"
    out_dir : run folder
    images : planned number of pictures, repeats counted; may be raised later
    device : "cpu" or "cuda"; a GPU is used if there is one
    threads : CPU threads of the training itself
    batch, seed : images a step, and the seed of everything random
    world, scenes : what to learn, and how many different pictures to render
    save_seconds, sample_seconds : time between checkpoints and between sample pictures
    render : render missing pictures in a second process while training

    Returns
    -------
    Path
        The exported weights, `<config_name>.safetensors` in the run folder (of the average so far if stopped early).
    """
    from tqdm import tqdm

    for name, number in {"images": images, "threads": threads, "batch": batch, "scenes": scenes}.items():
        finite(number, name, low=1)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "cpu" and not torch.cuda.is_available():
        raise CounterfactError(f'device: "{device}" needs a CUDA GPU and there is none; use cpu')
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    config = get_config(config_name)
    torch.set_num_threads(threads)
    data = SceneData(get_world(world), config.size, scenes)
    data.render(FIRST_SHARDS)
    if render and len(data) < scenes:
        spawn = multiprocessing.get_context("spawn")
        arguments = (world, data.size, data.count, data.seed)
        spawn.Process(target=dataset.render_all, args=arguments, daemon=True).start()
    run = Trainer(config, data, batch, seed, device)
    if not run.resume(folder):
        run.fit_latents()
    steps = math.ceil(images / batch)
    captions = preview_captions(data)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n", "utf-8")
    weights = folder / f"{config.name}.safetensors"

    def preview() -> None:
        save_grid(generate(run.average, captions), folder / f"sample-{run.images:08d}.png")

    saved = sampled = logged = time.monotonic()
    recent: list[torch.Tensor] = []
    with stop_signals() as stop, tqdm(total=images, initial=run.images, unit="img", unit_scale=True) as bar:
        while run.step < steps and not stop.is_set():
            recent.append(run.train_step(steps))
            bar.update(batch)
            now = time.monotonic()
            if now - logged > 10:
                loss = torch.stack(recent).mean().item()
                recent.clear()
                bar.set_postfix(loss=f"{loss:.4f}", scenes=data.refresh())
                with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": run.step, "images": run.images, "loss": round(loss, 5)}) + "\n")
                # Before a checkpoint, so that none is ever written of a model that has diverged.
                if not math.isfinite(loss):
                    raise CounterfactError(f"training diverged at step {run.step}: use another --seed or --batch")
                logged = now
                if now - saved > save_seconds:
                    run.save(folder)
                    saved = now
            if now - sampled > sample_seconds:
                preview()
                sampled = now
        run.save(folder)
    if not stop.is_set():
        preview()
    run.export(weights)
    return weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the training command."""
    parser.add_argument("--config", default="micro", help="size of the model: micro (64 px) or small (128 px)")
    parser.add_argument("--run", default="runs/demo-model", help="run folder; a stopped run goes on in it")
    parser.add_argument("--images", type=int, default=150_000, help="planned number of pictures, repeats counted")
    parser.add_argument("--scenes", type=int, default=50_000, help="number of different pictures to render")
    parser.add_argument("--world", default="cottage", help="world to learn")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and random choices")
    parser.add_argument("--device", help="cpu or cuda; without it a GPU is used if there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the training")
    parser.add_argument("--no-render", action="store_true", help="do not render missing pictures in a second process")


def main(args: argparse.Namespace) -> None:
    """Run the training command."""
    weights = train(
        args.config, args.run, args.images, args.device, args.threads, args.batch, args.seed, args.world, args.scenes,
        render=not args.no_render,
    )
    print(f"weights: {weights}")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description="Train the bundled text-to-image model; can be stopped and resumed.")
    add_arguments(_parser)
    main(_parser.parse_args())
