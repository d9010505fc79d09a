"""The parts of ``counterfact bench autoencoder``: what one process measures of one method on a few pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..autoencoder.coding import Coding
from ..autoencoder.data import spread
from ..autoencoder.model import CausalLatent
from ..errors import CounterfactError
from ..worlds import get_world
from .autoencoder_cases import SEED_STRIDE, Cases, as_images, decided, folder_cases, places, render, scales, world_cases
from .autoencoder_metrics import effectiveness, errors, latent_divergence, pixel_distance, strength, way
from .autoencoder_reader import ValueReader
from .autoencoder_training import Part
from .baselines.autoencoders import METHODS, Method
from .disentanglement import Code, dci, infomec

if TYPE_CHECKING:
    from ..autoencoder.folder import FolderSource

CYCLES = 10
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
LONG_STEPS = 250
TRUTH = "truth"
# Of a folder, this share of the pictures is for tests alone.
TEST_SHARE = 0.2

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Folder:
    """Somebody's pictures: options of :class:`causal_core.autoencoder.folder.FolderSource`."""

    images: Path
    labels: Path
    graph: Path
    size: int
    channels: int | None

    def source(self) -> FolderSource:
        """All of it."""
        from ..autoencoder.folder import FolderSource

        return FolderSource(self.images, self.labels, self.graph, self.size, channels=self.channels)


def split(source: FolderSource) -> tuple[Part, np.ndarray]:
    """The pictures of a folder to train on, and the numbers of those to test on.

    Every picture is decoded once: in place of a damaged one the folder gives its neighbour, which may be of the other
    part.
    """
    numbers = np.array([i for i in range(len(source)) if source.readable(i)])
    test = spread(numbers, TEST_SHARE).numpy()
    if test.sum() < 2 or test.all():  # a distance of distributions needs two
        raise CounterfactError(
            f"the folder has {len(numbers)} usable pictures: too few to train on some and test others"
        )
    return Part(source, numbers[~test], "train"), numbers[test]


@dataclass(frozen=True)
class Setup:
    """What a process needs to know; small, since it is sent to each.

    Attributes
    ----------
    weights : for each method measured its class, a key of METHODS, and its weights file
    reader : weights file of the reader
    world : name; empty for a folder
    folder : of pictures, in place of a world
    size, steps, seed, threads, device : of pictures, samplers, and the run
    numbers : of the test pictures, scenes of a world or places in the folder
    """

    weights: dict[str, tuple[str, Path]]
    reader: Path
    world: str
    folder: Folder | None
    size: int
    steps: int
    seed: int
    threads: int = 1
    device: str = "cpu"
    numbers: tuple[int, ...] = ()


@dataclass
class Bench:
    """Everything loaded, once a process."""

    setup: Setup
    loaded: dict[str, Method] = field(default_factory=dict)

    @cached_property
    def reader(self) -> ValueReader:
        return ValueReader.load(self.setup.reader)

    @property
    def coding(self) -> Coding:
        return self.reader.coding

    @cached_property
    def scales(self) -> list[float]:
        return scales(self.coding, self.setup.world)

    @cached_property
    def source(self) -> FolderSource:
        return self.setup.folder.source()

    def method(self, name: str) -> Method:
        """A method, on its device."""
        if name not in self.loaded:
            kind, path = self.setup.weights[name]
            self.loaded[name] = METHODS[kind].load(path).to(self.setup.device)
        return self.loaded[name]

    def cases(self, numbers: Sequence[int]) -> Cases:
        """Cases of pictures, by number of the scene or in the folder."""
        if self.setup.folder is not None:
            return folder_cases(self.source, numbers, self.setup.seed, lambda x: self.reader.read(x)[0])
        return world_cases(get_world(self.setup.world), self.coding, self.setup.size, numbers)

    def pictures(self, numbers: Sequence[int], mode: str = "observational") -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures [N, C, H, W] in -1..1 and labels [N, width], without anything asked."""
        if self.setup.folder is not None:
            pictures, labels, _ = self.source.batch(numbers)
            images = as_images(list(pictures))
            return images, torch.where(labels.isnan(), decided(self.coding, self.reader.read(images)[0]), labels)
        world = get_world(self.setup.world)
        scenes = [world.sample(number, mode=mode) for number in numbers]
        labels = torch.stack([places(self.coding, scene.values) for scene in scenes])
        return as_images([render(world, scene, self.setup.size) for scene in scenes]), labels

    def rng(self, first: int) -> torch.Generator:
        """The random numbers of a chunk that starts with this picture."""
        return torch.Generator().manual_seed(1000 * self.setup.seed + first % 1_000_000)

    def on_device(self, cases: Cases) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and labels where the methods are."""
        return cases.images.to(self.setup.device), cases.labels.to(self.setup.device)

    def floor(self, numbers: Sequence[int]) -> Rows:
        """The reader's own errors on the pictures as they are, a number a picture."""
        images, labels = self.pictures(numbers)
        found = errors(self.coding, self.scales, self.reader.read(images)[0], labels)
        rows = {"reader_floor": found.mean(1).numpy()}
        return rows | {f"reader_floor.{name}": found[:, i].numpy() for i, name in enumerate(self.coding.names)}

    @cached_property
    def pool(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All test pictures and their labels, which minimality compares with."""
        return self.pictures(self.setup.numbers)

    def made(self, method: Method, latent: CausalLatent, cases: Cases) -> torch.Tensor:
        """One picture of every intervention, [variables, N, C, H, W]."""
        asked = ({i: places.to(self.setup.device)} for i, places in enumerate(cases.do))
        return torch.stack([method.decode(method.intervened(latent, do)).cpu() for do in asked])

    def judged(self, pictures: torch.Tensor, cases: Cases) -> tuple[torch.Tensor, np.ndarray]:
        """Errors [variables, N, variables] of readings of what :meth:`made` gives, and features [N, variables, F]."""
        read, features = self.reader.read(pictures.flatten(0, 1))
        shape = pictures.shape[:2]
        found = errors(self.coding, self.scales, read.unflatten(0, shape), cases.answers)
        return found, features.unflatten(0, shape).swapaxes(0, 1).numpy()

    def effects(self, name: str, numbers: Sequence[int]) -> Rows:
        """One picture of every intervention: effectiveness, image errors, composition, minimality, time, features."""
        cases = self.cases(numbers)
        if name == TRUTH:
            found, features = self.judged(cases.truth, cases)
            return effectiveness(self.coding, found) | {"features": features}
        method = self.method(name)
        images, labels = self.on_device(cases)
        started = clock(self.setup.device)
        latent = method.encode(images, labels, self.setup.steps, self.rng(numbers[0]))
        encoded = clock(self.setup.device)
        pictures = self.made(method, latent, cases)
        seconds = encoded - started + (clock(self.setup.device) - encoded) / len(pictures)
        found, features = self.judged(pictures, cases)
        rows = effectiveness(self.coding, found) | {
            "composition_1": pixel_distance(method.decode(latent).cpu(), cases.images).numpy(),
            "seconds_per_image": np.full(len(numbers), seconds / len(numbers)),
            "minimality": self._minimality(cases, pictures),
            "features": features,
        }
        if cases.truth is not None:
            squared = ((as_shown(pictures) - as_shown(cases.truth)) ** 2).mean((2, 3, 4)).clamp_min(1e-10)
            rows["psnr_truth"] = (-10 * squared.log10()).mean(0).numpy()
        return rows

    def _minimality(self, cases: Cases, pictures: torch.Tensor) -> np.ndarray:
        images, labels = self.pool
        apart = torch.cdist(cases.images.flatten(1), images.flatten(1), p=1) / (2 * images[0].numel())
        found = [
            latent_divergence(
                pixel_distance(pictures[i], cases.images).numpy(), apart.numpy(),
                cases.labels[:, where].numpy(), cases.do[i].numpy(), labels[:, where].numpy(),
            )
            for i, where in enumerate(self.coding.places)
        ]  # fmt: skip
        return np.mean(found, axis=0)

    def axioms(self, name: str, numbers: Sequence[int]) -> Rows:
        """Ten cycles without an intervention, and each intervention undone: pixel distances to the picture."""
        cases, method, rng = self.cases(numbers), self.method(name), self.rng(numbers[0])
        images, labels = self.on_device(cases)
        latent = method.encode(images, labels, self.setup.steps, rng)
        picture = method.decode(latent)
        for _ in range(CYCLES - 1):
            picture = method.decode(method.encode(picture, labels, self.setup.steps, rng))
        back = []
        for i, where in enumerate(self.coding.places):
            new = method.intervened(latent, {i: cases.do[i].to(self.setup.device)})
            # A method that must be told what it made is told what it meant to make.
            again = method.encode(method.decode(new), new.z, self.setup.steps, rng)
            undone = method.decode(method.intervened(again, {i: labels[:, where]}))
            back.append(pixel_distance(undone, images))
        return {
            f"composition_{CYCLES}": pixel_distance(picture, images).cpu().numpy(),
            "reversibility": torch.stack(back).mean(0).cpu().numpy(),
        }

    def graded(self, name: str, numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """How far each strength goes, ``gone.VARIABLE`` [N, W], with ``factual`` [N, width], ``do.VARIABLE`` [N, w]."""
        cases, method = self.cases(numbers), self.method(name)
        latent = method.encode(*self.on_device(cases), self.setup.steps, self.rng(numbers[0]))
        before, _ = self.reader.read(cases.images)
        rows = {"factual": before.numpy()}
        for i, variable in enumerate(self.coding.names):
            new = method.intervened(latent, {i: cases.do[i].to(self.setup.device)})
            made = torch.stack([method.model.decode(latent, new, w).cpu() for w in STRENGTHS])
            read = self.reader.read(made.flatten(0, 1))[0].unflatten(0, made.shape[:2])
            rows[f"gone.{variable}"] = way(self.coding, i, read, before, cases.do[i]).T.numpy()
            rows[f"do.{variable}"] = cases.do[i].numpy()
        return rows

    def strengths(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """``strength.W.VARIABLE`` and ``strength.monotone`` of what :meth:`graded` found on all pictures."""
        metrics, rising = {}, []
        factual = torch.from_numpy(rows["factual"])
        for i, name in enumerate(self.coding.names):
            gone, target = (torch.from_numpy(rows[f"{key}.{name}"]) for key in ("gone", "do"))
            shares, monotone = strength(self.coding, i, gone.T, factual, target, self.scales[i])
            metrics |= {f"strength.{w:g}.{name}": float(share) for w, share in zip(STRENGTHS, shares)}
            metrics[f"strength.monotone.{name}"] = float(monotone.mean())
            rising.append(monotone)
        return metrics | {"strength.monotone": float(np.mean(rising))}

    def long(self, name: str, numbers: Sequence[int]) -> Rows:
        """Errors at the usual number of steps and at 250: of readings, and of pixels where the truth is known."""
        cases, method, rows = self.cases(numbers), self.method(name), {}
        for steps in (self.setup.steps, LONG_STEPS):
            latent = method.encode(*self.on_device(cases), steps, self.rng(numbers[0]))
            pictures = self.made(method, latent, cases)
            rows[f"error_{steps}"] = self.judged(pictures, cases)[0].nanmean((0, 2)).numpy()
            if cases.truth is not None:
                rows[f"pixels_{steps}"] = pixel_distance(pictures, cases.truth).mean(0).numpy()
        return rows

    def codes(self, name: str, numbers: Sequence[int]) -> dict[str, float]:
        """DCI and InfoMEC of a method's latents; none for a method without an encoder.

        Scenes of a world are those of its mode "uniform", whose variables are independent of each other.
        """
        images, labels = self.pictures(numbers, "uniform")
        method = self.method(name)
        parts = [method.code(chunk.to(self.setup.device)) for chunk in images.split(100)]
        if parts[0] is None:
            return {}
        latents = replace(parts[0], values=np.concatenate([part.values for part in parts]))
        discrete = tuple(bool(v.domain) for v in self.coding.variables)
        variables = Code(labels.numpy().astype(np.float64), self.coding.places, discrete)
        found = {f"dci.{key}": value for key, value in dci(latents, variables).items()}
        return found | {f"infomec.{key}": value for key, value in infomec(latents, variables).items()}


def as_shown(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures in -1..1 as a screen shows them: 256 levels, 0 to 1."""
    return ((pictures + 1) * 127.5).round().clamp(0, 255) / 255


def clock(device: str) -> float:
    """Seconds: of CPU time, which other programs change less, or with a GPU by the clock on the wall."""
    if not device.startswith("cuda"):
        return time.process_time()
    torch.cuda.synchronize(device)  # what was begun is done
    return time.perf_counter()


def speed(setup: Setup, name: str, batch: int) -> dict[str, float]:
    """Time and memory of one counterfactual each of a batch; made to run in a process that has loaded nothing else.

    Returns
    -------
    dict with ``counterfactuals_per_second``, of CPU time, and ``peak_memory_mb``: what the process has held at most,
    Python and torch included; with a GPU of wall time, and what was allocated there
    """
    torch.set_num_threads(setup.threads)
    kind, path = setup.weights[name]
    method = METHODS[kind].load(path).to(setup.device)
    shape = (batch, method.config.channels, method.config.size, method.config.size)
    images = torch.zeros(shape, device=setup.device)
    labels = torch.zeros(batch, method.coding.width, device=setup.device)
    do = {0: labels[:, method.coding.places[0]]}
    seconds = []
    for _ in range(2):
        started = clock(setup.device)
        method.decode(method.intervened(method.encode(images, labels, setup.steps, torch.Generator()), do)).cpu()
        seconds.append(clock(setup.device) - started)
    found = {"counterfactuals_per_second": batch / max(min(seconds), 1e-9)}
    peak = torch.cuda.max_memory_allocated() if setup.device.startswith("cuda") else peak_bytes()
    return found if peak is None else found | {"peak_memory_mb": peak / 1e6}


def peak_bytes() -> int | None:
    """The most memory that this process has held, None where nobody knows (Windows)."""
    try:
        # Of this program alone; the number of getrusage goes on from that of the process that started it.
        status = Path("/proc/self/status").read_text("ascii")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def chosen_numbers(seed: int, count: int, test: np.ndarray | None = None) -> tuple[int, ...]:
    """Numbers of test pictures: scenes of the seed, or some of those of a folder that are kept for tests."""
    if test is None:
        return tuple(range(seed * SEED_STRIDE, seed * SEED_STRIDE + count))
    chosen = np.random.default_rng([seed, 7411]).permutation(len(test))[:count]
    return tuple(int(i) for i in test[np.sort(chosen)])


_BENCH: dict[str, Any] = {}


def start_process(setup: Setup) -> None:
    """Make the benchmark of this process."""
    torch.set_num_threads(setup.threads)
    _BENCH["here"] = Bench(setup)


def measure(task: tuple[str, tuple]) -> Any:
    """Call a method of this process's :class:`Bench` by name."""
    part, arguments = task
    return getattr(_BENCH["here"], part)(*arguments)
