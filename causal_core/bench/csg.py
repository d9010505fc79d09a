"""``counterfact bench csg``: edited pictures against true counterfactuals, side by side with known methods.

Scenes of the cottage world that nobody trained on, one random intervention each, the plan from the scene's own
mechanisms and noise. Every method gets the same picture, captions and noise levels. A reader trained on renders says
which values a picture shows; its own errors on the true counterfactuals are printed as the row ``truth``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..demo.model import DemoModel, from_uint8, generate, to_uint8
from ..demo.schedule import sampling_sigmas
from ..errors import CounterfactError
from ..guidance.captions import captions, watched_spans
from ..guidance.csg import Counted, Settings, counterfactual
from ..guidance.rows import DiffusersRows
from ..metrics import psnr, ssim, unchanged
from ..plan import CounterfactualPlan, Intervention, propagate
from ..worlds import Scene, World, get_world
from ..worlds.reader import WEIGHTS, Reader
from .baselines import BASELINES

# do(layout) mirrors the whole picture: no concept stays in its place, so it measures nothing about editing.
NOT_EDITED = ("layout",)
SEED_STRIDE = 1_000_000
SKIP = 0.1


def levels(steps: int) -> list[float]:
    """Noise levels of every method: the noisiest tenth of the schedule is skipped."""
    return sampling_sigmas(steps, SKIP).tolist()


@dataclass(frozen=True)
class Case:
    """One scene, one intervention: the picture, its true counterfactual and the plan."""

    seed: int
    scene: Scene
    truth: Scene
    plan: CounterfactualPlan


def cases(world: World, n: int, seed: int) -> list[Case]:
    """``n`` scenes with a random intervention each; the same for the same arguments."""
    found = []
    for number in range(seed * SEED_STRIDE, seed * SEED_STRIDE + n):
        rng = np.random.default_rng([number, 5501])
        scene = world.sample(number)
        concepts = [c for c in world.concepts(scene.values) if c.name not in NOT_EDITED]
        concept = concepts[int(rng.integers(len(concepts)))]
        value = str(rng.choice([v for v in concept.domain if v != concept.value]))
        plan = propagate(world.scene_graph(scene), Intervention({concept.name: value}))
        found.append(Case(number, scene, world.counterfactual(scene, {concept.name: value}), plan))
    return found


def edited(model: DemoModel, x0: torch.Tensor, case: Case, steps: int, settings: Settings) -> dict[str, tuple]:
    """Latent and evaluations of every method for one case."""
    sigmas = levels(steps)
    rows = captions(case.plan)
    ours = counterfactual(
        DiffusersRows(model, rows),
        x0,
        sigmas,
        case.plan,
        watched_spans(model.tokenizer.encode, case.plan),
        case.seed,
        settings,
    )
    results = {"ours": (ours.latent, ours.evaluations / (len(sigmas) - 1))}
    for name, method in BASELINES.items():
        plain = Counted(DiffusersRows(model, [rows[0], rows[-1], ""]))
        latent = method(plain, x0, sigmas, case.seed)
        results[name] = (latent, plain.spent / (len(sigmas) - 1))
    return results


def scores(case: Case, picture: np.ndarray, factual: np.ndarray, truth: np.ndarray, read: Mapping[str, str]) -> dict:
    """What one edited picture shows: hits and counts of each kind of concept, and image distances."""
    kinds: dict[str, list[bool]] = {"intervened": [], "descendants": [], "drift": []}
    for item in case.plan.items:
        if not item.changed:
            kinds["drift"].append(read[item.name] != item.factual)
        elif item.role == "intervened":
            kinds["intervened"].append(read[item.name] == item.counterfactual)
        else:
            kinds["descendants"].append(read[item.name] == item.counterfactual)
    return {
        **kinds,
        "psnr_outside": psnr(picture, factual, unchanged(factual, truth)),
        "psnr_truth": psnr(picture, truth),
        "ssim_truth": ssim(picture, truth),
    }


def summary(rows: Iterable[Mapping]) -> dict[str, float]:
    """Shares over all concepts and means over all pictures."""
    rows = list(rows)

    def share(key: str) -> float:
        hits = [hit for row in rows for hit in row[key]]
        return float(np.mean(hits)) if hits else float("nan")

    def mean(key: str) -> float:
        return float(np.nanmean([row[key] for row in rows]))

    return {
        "effectiveness.intervened": share("intervened"),
        "effectiveness.descendants": share("descendants"),
        "invariant_drift": share("drift"),
        "psnr_outside": mean("psnr_outside"),
        "psnr_truth": mean("psnr_truth"),
        "ssim_truth": mean("ssim_truth"),
    }


def attribute_accuracy(
    model: DemoModel, reader: Reader, world: World, n: int, seed: int, steps: int
) -> dict[str, float]:
    """Share of right readings of each concept on pictures generated from held-out captions."""
    scenes = [world.sample(number) for number in range((seed + 1) * SEED_STRIDE - n, (seed + 1) * SEED_STRIDE)]
    pictures = generate(model, [world.caption(scene) for scene in scenes], seed, steps)
    found = reader.read(pictures)
    return {
        name: float(np.mean([read[name] == scene.values[name] for read, scene in zip(found, scenes)]))
        for name in reader.domains
    }


def run(
    model: DemoModel, reader: Reader, world: World, n: int, seed: int, steps: int, settings: Settings, attributes: int
) -> dict[str, float]:
    """All metrics of the benchmark as one flat mapping."""
    from tqdm import tqdm

    size = model.config.size
    found: dict[str, list[dict]] = {}
    spent: dict[str, list[float]] = {}
    null = 0.0
    for case in tqdm(cases(world, n, seed), unit="scene"):
        factual, truth = world.render(case.scene, size), world.render(case.truth, size)
        x0 = model.latents.encode(from_uint8(factual[None]))
        results = edited(model, x0, case, steps, settings)
        pictures = {name: to_uint8(model.latents.decode(latent))[0] for name, (latent, _) in results.items()}
        pictures["source"] = factual
        pictures["truth"] = truth
        pictures["vae_round_trip"] = to_uint8(model.latents.decode(model.latents.encode(from_uint8(truth[None]))))[0]
        for (name, picture), read in zip(pictures.items(), reader.read(np.stack(list(pictures.values())))):
            found.setdefault(name, []).append(scores(case, picture, factual, truth, read))
        for name, (_, evaluations) in results.items():
            spent.setdefault(name, []).append(evaluations)
        idle = propagate(world.scene_graph(case.scene), Intervention({}))
        if len(found["ours"]) <= 8:
            rows = DiffusersRows(model, captions(idle))
            same = counterfactual(rows, x0, levels(steps), idle, {}, case.seed, settings)
            null = max(null, float((same.latent - x0).abs().max()))
    metrics = {f"{name}.{key}": value for name, rows in found.items() for key, value in summary(rows).items()}
    metrics.update({f"{name}.evaluations_per_step": float(np.mean(values)) for name, values in spent.items()})
    metrics["null.max_latent_error"] = null
    if attributes:
        shares = attribute_accuracy(model, reader, world, attributes, seed, steps)
        metrics.update({f"model.attribute_accuracy.{name}": share for name, share in shares.items()})
        metrics["model.attribute_accuracy"] = float(np.mean(list(shares.values())))
    return metrics


COLUMNS = (
    "effectiveness.intervened",
    "effectiveness.descendants",
    "invariant_drift",
    "psnr_outside",
    "psnr_truth",
    "ssim_truth",
    "evaluations_per_step",
)


def table(metrics: Mapping[str, float]) -> str:
    """The metrics as a Markdown table, one row a method."""
    methods = list(dict.fromkeys(name.split(".")[0] for name in metrics if name.endswith(".psnr_truth")))
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
    for method in methods:
        cells = []
        for column in COLUMNS:
            value = metrics.get(f"{method}.{column}")
            digits = 1 if column.startswith(("psnr", "eval")) else 3
            cells.append("" if value is None or value != value else f"{value:.{digits}f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench csg``."""
    parser.add_argument("--n", type=int, default=100, help="scenes, each with one random intervention")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other scenes")
    parser.add_argument("--steps", type=int, default=30, help="sampling steps of every method")
    parser.add_argument("--strength", type=float, default=Settings.strength, help="strength of ours")
    parser.add_argument(
        "--attributes", type=int, default=500, help="captions for the model's attribute accuracy, 0 for none"
    )
    parser.add_argument("--weights", type=Path, help="weights of the text-to-image model; the bundled ones without it")
    parser.add_argument("--reader", type=Path, default=WEIGHTS, help="weights of the reader")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Run, print the table, write the JSON."""
    from ..demo import weights_path

    if args.n < 1 or args.steps < 4:
        raise CounterfactError("--n must be at least 1 and --steps at least 4")
    torch.set_num_threads(args.threads)
    settings = Settings(strength=args.strength)
    model, reader = DemoModel.load(args.weights or weights_path("micro")), Reader.load(args.reader)
    started = time.perf_counter()
    metrics = run(model, reader, get_world("cottage"), args.n, args.seed, args.steps, settings, args.attributes)
    config = {
        "n": args.n,
        "seed": args.seed,
        "steps": args.steps,
        "settings": asdict(settings),
        "attributes": args.attributes,
        "seconds": round(time.perf_counter() - started, 1),
        "model": model.provenance,
        "reader": reader.provenance,
    }
    print(table(metrics))
    for name, value in metrics.items():
        if name.split(".")[0] in ("null", "model"):
            print(f"{name}: {value:.4g}")
    if args.json:
        document = {"bench": "csg", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0
