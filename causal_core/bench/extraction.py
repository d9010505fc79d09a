"""The part ``extraction`` of ``counterfact bench graph``: concepts read from pictures, and where they are.

Held-out scenes of the cottage world. Values are read with early stopping, with all values compared at all noise levels
(exhaustive), and without joint passes (alone); always guessing a concept's most common value is the floor. Regions, of
the values that were read, are compared with the masks of the renderer; beside them stands what the true masks would
score if they were as coarse as the model's latents.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import CounterfactError
from ..extraction.classifier import Settings
from ..extraction.picture import read_picture, regions_in_picture
from ..guidance.csg import Settings as Guidance
from ..worlds import Scene, World
from ..worlds.reader import WEIGHTS
from .csg import SEED_STRIDE, start_process, worker
from .graph_scores import interval

METHODS = {"ours": Settings(), "exhaustive": Settings(error=0.0), "alone": Settings(error=0.0, first=6, passes=0)}
OURS = "ours"
# Edges of the bins of confidence; each bin has its lower edge.
BINS = (0.0, 0.8, 0.95, 0.99, 1.0 + 1e-9)

Task, Found = TypeVar("Task"), TypeVar("Found")


def score(seed: int) -> dict[str, Any]:
    """One scene: its values, readings of every method, and intersection over union of the regions."""
    bench = worker()
    world, scene = bench.world, bench.world.sample(seed)
    picture = world.render(scene, bench.model.config.size)
    read, concepts = {}, world.concepts()
    for name, settings in METHODS.items():
        found = read_picture(bench.model, picture, world.concepts(), seed, settings)
        read[name] = {c.name: (c.value, c.confidence, found.evaluations[c.name]) for c in found.concepts}
        concepts = found.concepts if name == OURS else concepts
    regions = regions_in_picture(bench.model, picture, concepts, seed=seed)
    masks = true_masks(world, scene, len(picture))
    return {
        "truth": {name: scene.values[name] for name in concepts.names},
        "read": read,
        "iou": {name: iou(regions[name].numpy() >= 0.5, mask) for name, mask in masks.items()},
        "coarse": {name: iou(coarse(mask, bench.model.config.patch), mask) for name, mask in masks.items()},
    }


def true_masks(world: World, scene: Scene, size: int) -> dict[str, np.ndarray]:
    """Masks, bool [size, size], of the concepts that a scene shows."""
    masks = {name: mask >= 0.5 for name, mask in world.masks(scene, size).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks, bool [H, W] each, of which at least one is not empty.

    >>> iou(np.array([[True, True, False]]), np.array([[True, False, False]]))
    0.5
    """
    return float((found & truth).sum() / (found | truth).sum())


def coarse(mask: np.ndarray, patch: int) -> np.ndarray:
    """A mask in squares of `patch` pixels: those that it covers by half, or, where there is none, most."""
    height, width = mask.shape
    share = mask.reshape(height // patch, patch, width // patch, patch).mean((1, 3))
    return np.kron(share >= min(0.5, share.max()), np.ones((patch, patch), bool))


def summary(scenes: Sequence[Mapping[str, Any]], seed: int) -> dict[str, float]:
    """All metrics, with 95 % bootstrap intervals over scenes.

    Parameters
    ----------
    scenes : of :func:`score`, at least one
    seed : of the bootstrap
    """
    metrics: dict[str, float] = {}

    def put(name: str, values: Sequence[float]) -> None:
        low, high = interval(values, seed)
        metrics.update({name: float(np.mean(values)), f"{name}.ci_low": low, f"{name}.ci_high": high})

    names = list(scenes[0]["truth"])
    for method in METHODS:
        prefix = "extract." if method == OURS else f"extract.{method}."
        right = {n: [scene["read"][method][n][0] == scene["truth"][n] for scene in scenes] for n in names}
        put(f"{prefix}value_accuracy", np.mean(list(right.values()), axis=0))
        put(f"{prefix}scene_accuracy", np.all(list(right.values()), axis=0))
        spent = [np.mean([spent for *_, spent in scene["read"][method].values()]) for scene in scenes]
        put(f"{prefix}evaluations_per_concept", spent)
        for name in names:
            put(f"{prefix}value.{name}", right[name])
    common = {n: Counter(scene["truth"][n] for scene in scenes).most_common(1)[0][1] for n in names}
    metrics["extract.most_common.value_accuracy"] = sum(common.values()) / len(names) / len(scenes)
    for kind, name in (("iou", "region_iou"), ("coarse", "region_iou_coarse")):
        put(f"extract.{name}", [np.mean(list(scene[kind].values())) for scene in scenes if scene[kind]])
        for concept in names:
            values = [scene[kind][concept] for scene in scenes if concept in scene[kind]]
            if values:
                put(f"extract.{name}.{concept}", values)
    return metrics | calibration(
        [(c, v == scene["truth"][n]) for scene in scenes for n, (v, c, _) in scene["read"][OURS].items()]
    )


def calibration(readings: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Share of right readings in each bin of confidence, and the mean distance between the two.

    Parameters
    ----------
    readings : confidence, 0 to 1, and whether the value is right

    Returns
    -------
    dict with ``extract.confidence.LOWEST.count``, ``.mean`` and ``.accuracy`` of the bins that are not empty, and
    ``extract.calibration_error`` (expected calibration error, Guo et al. 2017)
    """
    metrics, error = {}, 0.0
    for low, high in zip(BINS, BINS[1:]):
        inside = [(confidence, right) for confidence, right in readings if low <= confidence < high]
        if inside:
            mean, accuracy = (float(x) for x in np.mean(inside, axis=0))
            error += abs(mean - accuracy) * len(inside) / len(readings)
            found = {"count": float(len(inside)), "mean": mean, "accuracy": accuracy}
            metrics |= {f"extract.confidence.{low:g}.{key}": value for key, value in found.items()}
    return metrics | {"extract.calibration_error": error}


def run(args: argparse.Namespace) -> dict[str, float]:
    """All metrics as one flat mapping; see :func:`summary`."""
    seeds = range(args.seed * SEED_STRIDE, args.seed * SEED_STRIDE + args.scenes)
    return summary(mapped(score, seeds, args), args.seed)


def mapped(function: Callable[[Task], Found], tasks: Sequence[Task], args: argparse.Namespace) -> list[Found]:
    """Call a function of this package for every task, in processes that have loaded the models.

    Parameters
    ----------
    args : has the options of :func:`add_arguments`
    """
    from tqdm import tqdm

    from ..demo import weights_path

    if args.scenes < 1 or args.processes < 1:
        raise CounterfactError("--scenes and --processes must be at least 1")
    weights = args.weights or weights_path("micro")
    start = weights, args.reader, "cottage", getattr(args, "steps", 30), Guidance(), args.threads
    if args.processes > 1:
        with multiprocessing.get_context("spawn").Pool(args.processes, start_process, start) as pool:
            return list(tqdm(pool.imap(function, tasks), total=len(tasks), unit="scene"))
    start_process(*start)
    return [function(task) for task in tqdm(tasks, unit="scene")]


def table(metrics: Mapping[str, float]) -> str:
    """Markdown tables: the methods, the concepts, and the bins of confidence; 95 % intervals in brackets."""
    columns = ("value_accuracy", "scene_accuracy", "evaluations_per_concept")
    lines = ["| values | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for method in METHODS:
        prefix = "extract." if method == OURS else f"extract.{method}."
        lines.append(f"| {method} | " + " | ".join(_cell(metrics, prefix + column) for column in columns) + " |")
    lines.append(f"| most common | {_cell(metrics, 'extract.most_common.value_accuracy')} | | |")
    lines += ["", "| concept | ours | exhaustive | alone | region | region, coarse |", "|" + " --- |" * 6]
    keys = ("value", "exhaustive.value", "alone.value", "region_iou", "region_iou_coarse")
    names = [key.removeprefix("extract.value.") for key in metrics if key.startswith("extract.value.")]
    for name in dict.fromkeys(name.split(".")[0] for name in names):
        lines.append(f"| {name} | " + " | ".join(_cell(metrics, f"extract.{key}.{name}") for key in keys) + " |")
    cells = (_cell(metrics, f"extract.{key}") for key in keys[3:])
    lines.append("| all | | | | " + " | ".join(cells) + " |")
    lines += ["", "| confidence from | readings | mean confidence | right |", "|" + " --- |" * 4]
    for low in BINS[:-1]:
        found = [metrics.get(f"extract.confidence.{low:g}.{key}") for key in ("count", "mean", "accuracy")]
        if found[0]:
            lines.append(f"| {low:g} | {found[0]:.0f} | {found[1]:.3f} | {found[2]:.3f} |")
    return "\n".join(lines)


def _cell(metrics: Mapping[str, float], name: str) -> str:
    value, low, high = (metrics.get(name + end) for end in ("", ".ci_low", ".ci_high"))
    if value is None:
        return ""
    digits = 1 if "evaluations" in name else 3
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if low is not None else "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the parts that look at pictures; they use ``seed`` as well."""
    parser.add_argument("--scenes", type=int, default=200, help="pictures to read")
    parser.add_argument("--weights", type=Path, help="weights of the text-to-image model; the bundled ones without it")
    parser.add_argument("--reader", type=Path, default=WEIGHTS, help="weights of the reader of edited pictures")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the pictures")
