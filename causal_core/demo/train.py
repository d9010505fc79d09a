"""Resumable training of the bundled text-to-image model.

v-prediction weighted by (min(SNR, 5) + 1) / (SNR + 1), after Hang et al. 2023; the loop and its checkpoints are
those of :mod:`causal_core.training`.

    python -m causal_core.demo.train --config micro --images 150000 --run runs/micro
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import CounterfactError, finite
from ..training import Plan, Training, Watch, save_grid, stop_signals
from ..training import run as fit
from ..worlds import dataset, get_world
from ..worlds.dataset import SceneData
from .captions import training_caption
from .config import DemoConfig, get_config
from .model import DemoModel, from_uint8, generate
from .schedule import STEPS, scale_input, sigmas, v_target

if TYPE_CHECKING:
    from tqdm import tqdm

KIND = "counterfact.demo-training"
GAMMA = 5.0
FIRST_SHARDS = 2


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


class Trainer(Training):
    """A run of the demo model.

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
            model = DemoModel(config, data.world.vocabulary()).to(device)
        super().__init__(model, Plan(KIND, {"config": config.to_dict()}, batch), seed)
        self.data = data
        self.cuda = self.device.type == "cuda"
        self.unet = torch.compile(model.unet) if self.cuda else model.unet

    def fit_latents(self, count: int = 1000) -> None:
        """Fit the latents to the first pictures; once, before the first step."""
        images, _ = self.data.batch(range(min(count, len(self.data))))
        self.model.latents.fit(from_uint8(images, self.device))
        self.average.latents.load_state_dict(self.model.latents.state_dict())

    def losses(self) -> dict[str, torch.Tensor]:
        """The loss of the next batch."""
        images, values = self.data.batch(self.choices.integers(len(self.data), size=self.plan.batch))
        captions = [training_caption(self.data.world, v, self.choices) for v in values]
        x0 = self.model.latents.encode(from_uint8(images, self.device))
        with torch.autocast("cuda", torch.bfloat16) if self.cuda else nullcontext():
            return {"loss": v_loss(self.model, self.unet, x0, captions, self.noise)}

    def export(self, path: Path) -> None:
        """Write the averaged weights as the one file that :meth:`DemoModel.load` reads."""
        self.average.provenance = {
            "images": self.images,
            "steps": self.step,
            "batch": self.plan.batch,
            "data": self.data.key,
            "world": self.data.world.name,
            "world_version": self.data.world.version,
        }
        self.average.save(path)


def preview_captions(data: SceneData, count: int = 8) -> list[str]:
    """Captions of scenes that are not trained on."""
    return [data.world.caption(data.world.sample(seed)) for seed in range(count)]


class Bar(Watch):
    """A progress bar, and sample pictures in the run folder."""

    def __init__(self, run: Trainer, folder: Path, bar: tqdm, stop: threading.Event) -> None:
        self.run, self.folder, self.bar, self.stop = run, folder, bar, stop
        self.captions = preview_captions(run.data)
        (folder / "captions.txt").write_text("\n".join(self.captions) + "\n", "utf-8")

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.bar.update(images - self.bar.n)
        if losses:
            self.bar.set_postfix(loss=f"{losses['loss']:.4f}", scenes=self.run.data.refresh())

    def samples(self) -> None:
        save_grid(generate(self.run.average, self.captions), self.folder / f"sample-{self.run.images:08d}.png")

    def stopped(self) -> bool:
        return self.stop.is_set()


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
    weights = folder / f"{config.name}.safetensors"
    with stop_signals() as stop, tqdm(total=images, initial=run.images, unit="img", unit_scale=True) as bar:
        fit(run, folder, images, Bar(run, folder, bar, stop), save_seconds, sample_seconds)
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
        args.config,
        args.run,
        args.images,
        args.device,
        args.threads,
        args.batch,
        args.seed,
        args.world,
        args.scenes,
        render=not args.no_render,
    )
    print(f"weights: {weights}")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description="Train the bundled text-to-image model; can be stopped and resumed.")
    add_arguments(_parser)
    main(_parser.parse_args())
