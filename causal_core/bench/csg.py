"""``counterfact bench csg``: edited pictures against true counterfactuals, side by side with known methods.

Scenes of the cottage world that nobody trained on, one random intervention each, the plan from the scene's own
mechanisms and noise. Every method gets the same picture, captions and noise levels. A reader trained on renders says
which values a picture shows; its own errors on the true counterfactuals are printed as the row ``truth``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..demo.model import DemoModel, from_uint8, generate, to_uint8
from ..demo.schedule import sampling_sigmas
from ..errors import CounterfactError
from ..guidance.csg import Settings
from ..guidance.picture import SKIP, composited
from ..metrics import psnr, ssim, unchanged
from ..plan import CounterfactualPlan, Intervention, propagate, undone
from ..worlds import Scene, World, get_world
from ..worlds.reader import WEIGHTS, Reader
from .baselines import BASELINES, Setting, edited, latent_mask
from .ours import Edited, Ours, Variant, variants

# do(layout) mirrors the whole picture: no concept stays in its place, so it measures nothing about editing.
NOT_EDITED = ("layout",)
SEED_STRIDE = 1_000_000

# Baselines that are measured with our pixel composite and regions as well: what is left is the guidance alone. The
# search for the regions is not counted among their evaluations.
COMPOSITED = {name: f"{name}_composite" for name in ("edit_friendly", "sega")}


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


def summary(rows: Iterable[Mapping], order: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Shares over all concepts and means over all pictures.

    Parameters
    ----------
    rows : scores of pictures
    order : int [R, N], pictures of R resampled sets of N; the pictures as they are if not given

    Returns
    -------
    dict of float64 [R] ([1] without ``order``) by metric; NaN where a set has nothing to count
    """
    rows = list(rows)
    order = np.arange(len(rows))[None] if order is None else order

    def ratio(sums: Iterable[float], counts: Iterable[float]) -> np.ndarray:
        sums, counts = (np.asarray(list(values), np.float64)[order].sum(1) for values in (sums, counts))
        with np.errstate(invalid="ignore"):
            return sums / counts

    def share(key: str) -> np.ndarray:
        return ratio((sum(row[key]) for row in rows), (len(row[key]) for row in rows))

    def mean(key: str) -> np.ndarray:
        known = [row[key] == row[key] for row in rows]
        return ratio((row[key] if k else 0.0 for row, k in zip(rows, known)), known)

    return {
        "effectiveness.intervened": share("intervened"),
        "effectiveness.descendants": share("descendants"),
        "invariant_drift": share("drift"),
        "psnr_outside": mean("psnr_outside"),
        "psnr_truth": mean("psnr_truth"),
        "ssim_truth": mean("ssim_truth"),
    }


def flat(summaries: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Summaries by method as ``M.metric``; what had nothing to count is left out."""
    pairs = {f"{name}.{key}": float(value[0]) for name, found in summaries.items() for key, value in found.items()}
    return {name: value for name, value in pairs.items() if value == value}


def intervals(found: Mapping[str, list[Mapping]], seed: int, rounds: int = 2000) -> dict[str, float]:
    """95 % bootstrap intervals over scenes (Efron 1979, percentile method), the same resampling for every method.

    Returns
    -------
    dict with ``M.metric.ci_low`` and ``.ci_high``, and for ours minus M, scene by scene, ``M.metric.gain_low`` and
    ``.gain_high``
    """
    scenes = len(next(iter(found.values())))
    order = np.random.default_rng([seed, 9973]).integers(scenes, size=(rounds, scenes))
    resampled = {name: summary(rows, order) for name, rows in found.items()}
    metrics = {}
    for name, values in resampled.items():
        for key, sample in values.items():
            for kind, numbers in (("ci", sample), ("gain", resampled["ours"][key] - sample)):
                if not np.isnan(numbers).all():
                    low, high = np.nanquantile(numbers, (0.025, 0.975))
                    metrics |= {f"{name}.{key}.{kind}_low": float(low), f"{name}.{key}.{kind}_high": float(high)}
    return metrics


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


@dataclass(frozen=True)
class Bench:
    """What one process needs to score scenes; ``methods`` are those to run, ours, its ablations and baselines."""

    model: DemoModel
    reader: Reader
    world: World
    steps: int
    settings: Settings
    methods: Sequence[str] = ()

    def picture(self, latent: torch.Tensor) -> np.ndarray:
        """uint8 [H, W, 3] of a latent [1, C, h, w]."""
        return to_uint8(self.model.latents.decode(latent))[0]

    def composited(self, done: Edited, source: np.ndarray) -> np.ndarray:
        """The decoded edit with the source's pixels outside its regions, uint8 [H, W, 3]."""
        return composited(self.model, done.latent, done.regions, source)

    def setting(self, case: Case, factual: np.ndarray, truth: np.ndarray | None = None) -> Setting:
        """A case as the methods get it."""
        x0 = self.model.latents.encode(from_uint8(factual[None]))
        changed = None if truth is None else latent_mask(~unchanged(factual, truth), x0.shape[-2:])
        return Setting(self.model, case.plan, x0, levels(self.steps), case.seed, changed)

    def score(self, case: Case) -> tuple[dict[str, dict], dict[str, tuple[float, float]]]:
        """Scores of every method on one case, and its (rows of a sampling step, evaluations)."""
        size = self.model.config.size
        factual, truth = self.world.render(case.scene, size), self.world.render(case.truth, size)
        setting = self.setting(case, factual, truth)
        pictures, spent = {}, {}
        ours = Ours(setting)
        for name, variant in variants(self.settings).items():
            if name not in self.methods:
                continue
            done = ours(variant)
            pictures[name] = self.composited(done, factual) if variant.composite else self.picture(done.latent)
            spent[name] = done.rows_per_step, done.evaluations
        for name, method in BASELINES.items():
            if not {name, COMPOSITED.get(name)} & set(self.methods):
                continue
            done = edited(method, setting)
            cost = done.rows_per_step, done.evaluations
            pictures[name], spent[name] = self.picture(done.latent), cost
            if COMPOSITED.get(name) in self.methods:
                regions = ours(Variant(self.settings)).regions
                pictures[COMPOSITED[name]] = composited(self.model, done.latent, regions, factual)
                spent[COMPOSITED[name]] = cost
        encoded = self.model.latents.encode(from_uint8(truth[None]))
        pictures |= {"source": factual, "truth": truth, "vae_round_trip": self.picture(encoded)}
        read = self.reader.read(np.stack(list(pictures.values())))
        rows = {
            name: scores(case, picture, factual, truth, values)
            for (name, picture), values in zip(pictures.items(), read)
        }
        return rows, spent

    def axioms(self, case: Case) -> dict[str, float]:
        """Composition and reversibility of ours on one case (Monteiro et al., ICLR 2023).

        Returns
        -------
        ``null``: largest latent error of the null intervention; ``undone``: PSNR in dB between the source and the
        edited picture edited back, ``undone_latent`` the same without the pixel composite
        """
        factual = self.world.render(case.scene, self.model.config.size)
        idle = replace(case, plan=propagate(self.world.scene_graph(case.scene), Intervention({})))
        setting = self.setting(idle, factual)
        error = float((Ours(setting)(Variant(self.settings)).latent - setting.x0).abs().max())
        found = {"null": error}
        for name, composite_too in (("undone", True), ("undone_latent", False)):
            picture = factual
            for plan in (case.plan, undone(case.plan)):
                done = Ours(self.setting(replace(case, plan=plan), picture))(Variant(self.settings))
                picture = self.composited(done, picture) if composite_too else self.picture(done.latent)
            found[name] = psnr(picture, factual)
        return found


_BENCH: dict[str, Bench] = {}


def start_process(
    weights: Path,
    reader: Path,
    world: str,
    steps: int,
    settings: Settings,
    threads: int,
    methods: Sequence[str] = (),
) -> None:
    """Load everything once in this process; arguments as the first one of :func:`run`."""
    torch.set_num_threads(threads)
    _BENCH["here"] = Bench(DemoModel.load(weights), Reader.load(reader), get_world(world), steps, settings, methods)


def worker() -> Bench:
    """What this process was started with."""
    return _BENCH["here"]


def _score(task: tuple[Case, bool]) -> tuple:
    case, axioms = task
    bench = worker()
    return *bench.score(case), bench.axioms(case) if axioms else None


def run(start: tuple, n: int, seed: int, axioms: int, processes: int = 1) -> dict[str, float]:
    """All metrics of edits as one flat mapping.

    Parameters
    ----------
    start : weights, reader, name of the world, steps, settings, threads of each process, methods
    n : scenes
    axioms : on how many of them composition and reversibility are measured
    """
    from tqdm import tqdm

    start_process(*start)
    tasks = [(case, number < axioms) for number, case in enumerate(cases(worker().world, n, seed))]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes, start_process, start) as pool:
            results = list(tqdm(pool.imap(_score, tasks), total=n, unit="scene"))
    else:
        results = [_score(task) for task in tqdm(tasks, unit="scene")]
    found = {name: [rows[name] for rows, _, _ in results] for name in results[0][0]}
    metrics = flat({name: summary(rows) for name, rows in found.items()})
    for name in results[0][1]:
        each, total = np.mean([spent[name] for _, spent, _ in results], axis=0)
        metrics |= {f"{name}.evaluations_per_step": float(each), f"{name}.evaluations": float(total)}
    metrics |= intervals(found, seed)
    measured = [found for *_, found in results if found]
    if measured:
        metrics["null.max_latent_error"] = max(one["null"] for one in measured)
        metrics["reversibility.psnr"] = float(np.mean([one["undone"] for one in measured]))
        metrics["reversibility.psnr_no_composite"] = float(np.mean([one["undone_latent"] for one in measured]))
    return metrics


COLUMNS = (
    "effectiveness.intervened",
    "effectiveness.descendants",
    "invariant_drift",
    "psnr_outside",
    "psnr_truth",
    "ssim_truth",
    "evaluations_per_step",
    "evaluations",
)


def table(metrics: Mapping[str, float]) -> str:
    """The metrics as a Markdown table, one row a method, 95 % intervals in brackets."""
    methods = [name.removesuffix(".psnr_truth") for name in metrics if name.endswith(".psnr_truth")]
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
    for method in methods:
        cells = []
        for column in COLUMNS:
            value, low, high = (metrics.get(f"{method}.{column}{end}") for end in ("", ".ci_low", ".ci_high"))
            digits = 1 if column.startswith(("psnr", "eval")) else 3
            spread = f" ({low:.{digits}f} to {high:.{digits}f})" if low is not None else ""
            cells.append("" if value is None or value != value else f"{value:.{digits}f}{spread}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench csg``."""
    parser.add_argument("--n", type=int, default=200, help="scenes, each with one random intervention")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other scenes")
    parser.add_argument("--steps", type=int, default=30, help="sampling steps of every method")
    parser.add_argument("--strength", type=float, default=Settings.strength, help="strength of ours")
    parser.add_argument(
        "--attributes", type=int, default=500, help="captions for the model's attribute accuracy, 0 for none"
    )
    parser.add_argument("--weights", type=Path, help="weights of the text-to-image model; the bundled ones without it")
    parser.add_argument("--reader", type=Path, default=WEIGHTS, help="weights of the reader")
    everything = [*variants(Settings()), *BASELINES, *COMPOSITED.values()]
    parser.add_argument(
        "--methods", nargs="*", choices=everything, default=everything, metavar="METHOD",
        help=f"beside ours, of {', '.join(everything[1:])}; all if not given",
    )  # fmt: skip
    parser.add_argument("--axioms", type=int, default=10, help="scenes for composition and reversibility")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the scenes")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Run, print the table, write the JSON."""
    from ..demo import weights_path

    if args.n < 1 or args.steps < 4 or args.processes < 1:
        raise CounterfactError("--n and --processes must be at least 1 and --steps at least 4")
    settings = Settings(strength=args.strength)
    weights = args.weights or weights_path("micro")
    started = time.perf_counter()
    start = weights, args.reader, "cottage", args.steps, settings, args.threads, ("ours", *args.methods)
    metrics = run(start, args.n, args.seed, args.axioms, args.processes)
    bench = worker()
    if args.attributes:
        shares = attribute_accuracy(bench.model, bench.reader, bench.world, args.attributes, args.seed, args.steps)
        metrics |= {f"model.attribute_accuracy.{name}": share for name, share in shares.items()}
        metrics["model.attribute_accuracy"] = float(np.mean(list(shares.values())))
    config = {
        "n": args.n,
        "seed": args.seed,
        "steps": args.steps,
        "axioms": args.axioms,
        "settings": asdict(settings),
        "attributes": args.attributes,
        "seconds": round(time.perf_counter() - started, 1),
        "model": bench.model.provenance,
        "reader": bench.reader.provenance,
    }
    print(table(metrics))
    for name, value in metrics.items():
        if name.split(".")[0] in ("null", "model", "reversibility"):
            print(f"{name}: {value:.4g}")
    if args.json:
        document = {"bench": "csg", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0
