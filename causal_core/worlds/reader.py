"""Reads the concepts of a world from a picture: a small convolutional network trained on renders.

It measures generated and edited pictures, so it is trained on renders that are a little blurred, noisy and tinted as
well; the benchmarks report its own accuracy on held-out renders beside what it measures.

    >>> from causal_core.worlds import get_world
    >>> reader = Reader.load(WEIGHTS)  # doctest: +SKIP
    >>> reader.read(get_world("cottage").render(scene)[None])  # doctest: +SKIP
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import CounterfactError
from ..weights import read_tensors, write_tensors
from . import World, get_world
from .dataset import SceneData

log = logging.getLogger("counterfact")

KIND, SCHEMA_VERSION = "counterfact.reader", 1
WEIGHTS = Path(__file__).parent / "weights" / "cottage_reader.safetensors"
SIZE = 64
CHANNELS = (32, 64, 96, 128)


class Reader(nn.Module):
    """One linear head a concept on a shared stack of four strided convolutions.

    Parameters
    ----------
    domains : values of each concept, in the order of the logits
    provenance : where the weights come from, JSON values
    """

    def __init__(self, domains: Mapping[str, Sequence[str]], provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.domains = {name: tuple(values) for name, values in domains.items()}
        self.provenance = dict(provenance or {})
        widths = (3, *CHANNELS)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        side = SIZE >> len(CHANNELS)
        # Flattened, not pooled: where a thing is says what it is.
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * side * side, 256), nn.ReLU())
        self.heads = nn.Linear(256, sum(map(len, self.domains.values())))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits [B, values] of each concept for images [B, 3, 64, 64] in 0..1."""
        logits = self.heads(self.body(images - 0.5))
        return dict(zip(self.domains, logits.split([len(v) for v in self.domains.values()], 1)))

    @torch.no_grad()
    def probabilities(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities [B, values] of each concept for uint8 images [B, H, W, 3] of any size."""
        found = self(as_input(images))
        return {name: logits.softmax(1).numpy() for name, logits in found.items()}

    def read(self, images: np.ndarray) -> list[dict[str, str]]:
        """The most probable value of every concept for uint8 images [B, H, W, 3]."""
        best = {name: p.argmax(1) for name, p in self.probabilities(images).items()}
        return [{name: self.domains[name][k[i]] for name, k in best.items()} for i in range(len(images))]

    def save(self, path: str | Path) -> None:
        """Write the weights as float16 safetensors."""
        document = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "provenance": self.provenance,
            "domains": [[name, list(values)] for name, values in self.domains.items()],
        }
        tensors = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        write_tensors(path, tensors, document)

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> Reader:
        """Read a weights file; raises CounterfactError if it is missing, damaged or of another kind."""
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            reader = cls({name: values for name, values in document["domains"]}, document["provenance"])
            reader.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CounterfactError(f"{path} is no usable reader ({error}); download or train it again") from None
        return reader.eval().requires_grad_(False)


def as_input(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, 64, 64] in 0..1; other sizes are averaged down or enlarged."""
    x = torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1).float() / 255.0
    if x.shape[-1] != SIZE or x.shape[-2] != SIZE:
        x = F.interpolate(x, (SIZE, SIZE), mode="area" if x.shape[-1] > SIZE else "bilinear")
    return x


def degraded(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Renders [B, 3, H, W] as a sampler might leave them: partly blurred, noisy and tinted."""

    def u(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng, device=x.device)

    n = len(x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blur = (u(n, 1, 1, 1) * 1.4 - 0.6).clamp_min(0.0)
    x = x + blur * (soft - x)
    x = x + 0.05 * u(n, 1, 1, 1) * torch.randn(x.shape, generator=rng, device=x.device)
    return x * (1.0 + 0.06 * (u(n, 3, 1, 1) - 0.5)) + 0.04 * (u(n, 3, 1, 1) - 0.5)


def accuracy(reader: Reader, world: World, seeds: Sequence[int], mode: str = "observational") -> dict[str, float]:
    """Share of right readings of each concept on renders of the given seeds."""
    scenes = [world.sample(seed, mode=mode) for seed in seeds]
    found = reader.read(np.stack([world.render(scene, SIZE) for scene in scenes]))
    return {
        name: float(np.mean([values[name] == scene.values[name] for values, scene in zip(found, scenes)]))
        for name in reader.domains
    }


def train(data: SceneData, images: int, batch: int = 64, seed: int = 0) -> Reader:
    """Train a reader on ``images`` renders (repeats counted), with a one-cycle learning rate."""
    from tqdm import tqdm

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    chosen = np.random.default_rng(seed)
    reader = Reader({concept.name: concept.domain for concept in data.world.concepts()})
    steps = max(1, images // batch)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    with tqdm(total=steps * batch, unit="img", unit_scale=True) as bar:
        for step in range(steps):
            pictures, values = data.batch(chosen.integers(len(data), size=batch))
            found = reader(degraded(as_input(pictures), rng))
            loss = sum(
                F.cross_entropy(logits, torch.tensor([reader.domains[name].index(v[name]) for v in values]))
                for name, logits in found.items()
            ) / len(found)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(batch)
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.4f}")
    reader.provenance = {"images": steps * batch, "data": data.key, "seed": seed}
    return reader.eval().requires_grad_(False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact train reader``."""
    parser.add_argument("--world", default="cottage")
    parser.add_argument("--images", type=int, default=250_000, help="renders to see, repeats counted")
    parser.add_argument("--scenes", type=int, default=50_000, help="number of different renders")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, default=Path("runs/reader/cottage_reader.safetensors"))


def main(args: argparse.Namespace) -> int:
    """Train, save and print the accuracy on held-out renders."""
    torch.set_num_threads(args.threads)
    world = get_world(args.world)
    data = SceneData(world, SIZE, args.scenes)
    data.render()
    reader = train(data, args.images, seed=args.seed)
    reader.save(args.out)
    for mode in ("observational", "uniform"):
        for name, share in accuracy(Reader.load(args.out), world, range(2000), mode).items():
            print(f"{mode:14s} {name:14s} {share:.4f}")
    return 0
