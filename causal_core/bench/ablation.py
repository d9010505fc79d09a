"""``counterfact bench ablation``: every constant of the guidance, one at a time around its default.

Run on other scenes than the comparison with known methods, since the defaults were chosen by it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ..demo.schedule import sampling_sigmas
from ..errors import CounterfactError
from ..guidance.csg import Settings
from ..guidance.inversion import invert
from ..guidance.picture import SKIP
from ..guidance.rows import DiffusersRows
from ..worlds.reader import WEIGHTS
from .csg import Bench, cases, flat, scores, start_process, summary, table, worker
from .ours import Ours, Variant

SWEEP: dict[str, tuple] = {
    "strength": (0.75, 1.0, 1.25, 1.5, 2.0),
    "threshold": (0.05, 0.1, 0.15, 0.2, 0.3),
    "attention_weight": (0.0, 0.25, 0.5, 1.0),
    "protect": (0.0, 0.5, 1.0),
    "probes": (2, 4, 8, 12),
    "grow": (0, 1, 2),
    "feather": (0.0, 0.5, 1.0),
    "eta": (0.0, 0.5, 1.0),
    "skip": (0.0, 0.1, 0.2, 0.35),
    "inversion": ("edit-friendly", "ddim"),
    "delay": (0.0, 0.05, 0.15),
    "stop": (0.7, 0.85, 1.0),
    "project": (0.0, 0.5, 1.0),
    "clamp": (0.0, 0.5, 1.0, 2.0),
    "momentum": (0.0, 0.1, 0.3),
    "share_overlaps": (False, True),
}
# Of the sampler rather than of the settings: each needs an inversion of its own.
OF_THE_SAMPLER = ("eta", "skip", "inversion")


def changed(settings: Settings, name: str, value: object) -> Settings:
    """The settings with one of them, or one of those in ``how``, set to another value."""
    if name in Settings.__dataclass_fields__:
        return replace(settings, **{name: value})
    return replace(settings, how=replace(settings.how, **{name: value}))


def default(name: str, settings: Settings) -> object:
    """The value of a constant of the sweep in these settings."""
    return {"skip": SKIP, "inversion": "edit-friendly", **asdict(settings), **asdict(settings.how)}[name]


def configurations(names: list[str], settings: Settings) -> dict[str, tuple[str, object]]:
    """Constant and value by the name of a row; the defaults once, as ``default``."""
    rows = {"default": ("strength", settings.strength)}
    for name in names:
        rows |= {f"{name}={value}": (name, value) for value in SWEEP[name] if value != default(name, settings)}
    return rows


def _ours(bench: Bench, case, factual: np.ndarray, name: str, value: object) -> tuple[Ours, Settings]:
    """Ours on a case with one constant changed; DDIM inversion brings its deterministic sampler along."""
    settings = bench.settings if name in ("skip", "inversion") else changed(bench.settings, name, value)
    setting = bench.setting(case, factual)
    if name not in OF_THE_SAMPLER:
        return Ours(setting), settings
    method = str(value) if name == "inversion" else "edit-friendly"
    settings = replace(settings, eta=0.0) if method == "ddim" else settings
    if name == "skip":
        setting = replace(setting, sigmas=sampling_sigmas(bench.steps, float(value)).tolist(), trajectories={})
    rows = DiffusersRows(bench.model, [setting.factual])
    trajectory = invert(
        lambda x, sigma: rows(x, sigma, [0])[0], setting.x0, setting.sigmas, case.seed, settings.eta, method=method
    )
    return Ours(setting, trajectory), settings


def _score(task: tuple) -> dict[str, dict]:
    case, rows = task
    bench = worker()
    size = bench.model.config.size
    factual, truth = bench.world.render(case.scene, size), bench.world.render(case.truth, size)
    shared, pictures = Ours(bench.setting(case, factual)), {}
    for row, (name, value) in rows.items():
        ours, settings = _ours(bench, case, factual, name, value)
        ours = ours if name in OF_THE_SAMPLER else shared
        pictures[row] = bench.composited(ours(Variant(settings)), factual)
    read = bench.reader.read(np.stack(list(pictures.values())))
    return {row: scores(case, pictures[row], factual, truth, found) for row, found in zip(pictures, read)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench ablation``."""
    parser.add_argument("--n", type=int, default=48, help="scenes, each with one random intervention")
    parser.add_argument("--seed", type=int, default=50, help="another seed, other scenes")
    parser.add_argument("--steps", type=int, default=30, help="sampling steps")
    parser.add_argument("--only", nargs="+", choices=list(SWEEP), metavar="CONSTANT", help="sweep these alone")
    parser.add_argument("--weights", type=Path, help="weights of the text-to-image model; the bundled ones without it")
    parser.add_argument("--reader", type=Path, default=WEIGHTS, help="weights of the reader")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the scenes")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Run, print the table, write the JSON."""
    from tqdm import tqdm

    from ..demo import weights_path

    if args.n < 1 or args.steps < 4 or args.processes < 1:
        raise CounterfactError("--n and --processes must be at least 1 and --steps at least 4")
    started, settings = time.perf_counter(), Settings()
    start = args.weights or weights_path("micro"), args.reader, "cottage", args.steps, settings, args.threads
    start_process(*start)
    rows = configurations(args.only or list(SWEEP), settings)
    tasks = [(case, rows) for case in cases(worker().world, args.n, args.seed)]
    if args.processes > 1:
        with multiprocessing.get_context("spawn").Pool(args.processes, start_process, start) as pool:
            results = list(tqdm(pool.imap(_score, tasks), total=args.n, unit="scene"))
    else:
        results = [_score(task) for task in tqdm(tasks, unit="scene")]
    metrics = flat({row: summary([result[row] for result in results]) for row in rows})
    print(table(metrics))
    if args.json:
        config = {
            "n": args.n,
            "seed": args.seed,
            "steps": args.steps,
            "settings": asdict(settings),
            "seconds": round(time.perf_counter() - started, 1),
            "model": worker().model.provenance,
        }
        document = {"bench": "ablation", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0
