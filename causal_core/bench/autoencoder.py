"""``counterfact bench autoencoder``: causal autoencoders against true counterfactuals, side by side with others.

Every method learns from the same pictures as often and is asked the same: do(variable = value) on every variable of
every test picture. An independently trained reader says which values a picture shows; what it errs on the true
counterfactual pictures is the row ``truth``. Of a stranger's folder the true counterfactuals are not known, and what
needs them is left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..autoencoder.config import PRESETS, AutoencoderConfig
from ..autoencoder.model import DEFAULT_STEPS, CausalAutoencoder
from ..autoencoder.train import read_config, world_source
from ..cache import cache_dir
from ..errors import CounterfactError, finite
from . import autoencoder_reader as reader
from .autoencoder_measure import (
    LONG_STEPS,
    STRENGTHS,
    TRUTH,
    Bench,
    Folder,
    Setup,
    chosen_numbers,
    measure,
    speed,
    split,
    start_process,
)
from .autoencoder_metrics import flat, frechet
from .baselines.autoencoders import METHODS
from .graph_scores import interval

log = logging.getLogger("counterfact")

SHIPPED = Path(__file__).parents[1] / "autoencoder" / "weights"
PARTS = ("effects", "axioms", "latents", "strength", "steps", "speed")
OURS = "ours"
CHUNK = 25
# Columns of the table, and the digits they are worth.
COLUMNS = {
    "intervened_mae": 4, "descendant_mae": 4, "drift": 4, "composition_1": 4, "composition_10": 4, "reversibility": 4,
    "minimality": 3, "psnr_truth": 2, "frechet": 2, "dci.disentanglement": 3, "dci.completeness": 3,
    "dci.informativeness": 3, "infomec.infom": 3, "infomec.infoe": 3, "infomec.infoc": 3, "seconds_per_image": 3,
}  # fmt: skip
BY_VARIABLE = ("intervened_mae", "descendant_mae", "drift")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench autoencoder``."""
    parser.add_argument("--world", default="pendulum", help="world with true counterfactuals")
    parser.add_argument("--images", type=Path, metavar="DIR", help="measure on this folder of pictures instead")
    parser.add_argument("--labels", type=Path, metavar="FILE.csv", help="... with these labels")
    parser.add_argument("--graph", type=Path, metavar="GRAPH.json", help="... and this causal graph of the labels")
    parser.add_argument("--weights", type=Path, help="ours; without it the shipped ones, and of a folder trained here")
    parser.add_argument(
        "--also", nargs="*", default=[], metavar="NAME=FILE", help="more weights of ours to measure, such as half=FILE"
    )
    parser.add_argument(
        "--methods", nargs="*", choices=METHODS, default=list(METHODS), metavar="METHOD",
        help=f"of {', '.join(METHODS)}; all if not given",
    )  # fmt: skip
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
        help=f"of {', '.join(PARTS)}; all if not given",
    )  # fmt: skip
    parser.add_argument("--n", type=int, default=500, help="test pictures, an intervention on every variable of each")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other scenes and interventions")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="sampling steps of ours")
    parser.add_argument("--axioms", type=int, default=50, help="pictures for ten cycles and reversibility")
    parser.add_argument("--graded", type=int, default=25, help="pictures for the strength of interventions")
    parser.add_argument("--long", type=int, default=10, help=f"pictures for {LONG_STEPS} steps")
    parser.add_argument("--codes", type=int, default=2000, help="pictures for DCI and InfoMEC")
    parser.add_argument(
        "--budget", type=int, help="pictures that each method sees in training; as many as ours has seen if not given"
    )
    parser.add_argument("--pictures", type=int, default=20_000, help="different scenes that methods train on")
    parser.add_argument("--reader-images", type=int, default=reader.IMAGES, help="pictures that the reader sees")
    parser.add_argument(
        "--config", help="sizes of what is trained here, a preset or a JSON file; those of ours without it"
    )
    parser.add_argument("--size", type=int, help="side of the pictures in pixels, if ours is trained here")
    parser.add_argument(
        "--run", type=Path, help="run folder of baselines and reader; what is there is not trained again"
    )
    parser.add_argument("--device", help="cpu or cuda; without it a GPU is used if there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the pictures")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def check(args: argparse.Namespace) -> None:
    """Raise CounterfactError if options make no sense, alone or together."""
    least = dict.fromkeys(("steps", "axioms", "graded", "long", "pictures", "threads", "processes"), 1)
    for name, low in {"n": 2, "codes": 20, "reader_images": 1, **least}.items():
        finite(getattr(args, name), f"--{name.replace('_', '-')}", low)
    finite(args.seed, "--seed", 0, 900)
    if args.budget is not None:
        finite(args.budget, "--budget", 1)
    if args.images is not None and (args.labels is None or args.graph is None):
        raise CounterfactError("--images needs --labels FILE.csv and --graph GRAPH.json as well")
    if args.images is None and (args.labels is not None or args.graph is not None):
        raise CounterfactError("--labels and --graph belong to --images DIR; add it, or leave them out")
    if args.weights is not None and args.config is not None:
        raise CounterfactError("--config is of what is trained here, but --weights are there already; leave one out")
    taken = {*METHODS, TRUTH}
    for word in args.also:
        name, _, path = word.partition("=")
        if not name.isidentifier() or not path or name in taken:
            raise CounterfactError(f"--also {word}: expected NAME=FILE with a name that nothing else has")
        taken.add(name)
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise CounterfactError(f"--json: there is no folder {args.json.parent}; make it first")


def own_weights(args: argparse.Namespace) -> Path | None:
    """The weights of ours that are there already, None if they are to be trained."""
    if args.weights is not None or args.images is not None or args.config is not None:
        return args.weights
    path = SHIPPED / f"{args.world}.safetensors"
    return path if path.exists() else None


def sizes(args: argparse.Namespace, weights: Path | None) -> AutoencoderConfig:
    """The config that methods are trained with here: of ours, with the budget of pictures."""
    if weights is not None:
        model = CausalAutoencoder.load(weights)
        config = model.config
        budget = args.budget or model.provenance.get("images") or config.images
        if args.size not in (None, config.size):
            raise CounterfactError(
                f"--size {args.size}: the weights are of pictures of {config.size} pixels; leave it out"
            )
    else:
        if args.images is not None and args.config is None:
            config = AutoencoderConfig()
        else:
            config = read_config(args.config or (args.world if args.world in PRESETS else "pendulum"))
        config = config if args.size is None else replace(config, size=args.size)
        budget = args.budget or config.images
    return replace(config, images=budget)


def prepare(args: argparse.Namespace) -> tuple[Setup, dict[str, Any]]:
    """Train what is missing, reader and methods; the setup, and where everything comes from."""
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise CounterfactError(f'--device: there is no "{device}"; use cpu, or cuda for a GPU') from None
    weights = own_weights(args)
    config = sizes(args, weights)
    if args.images is not None:
        channels = None if weights is None else config.channels
        folder = Folder(args.images, args.labels, args.graph, config.size, channels)
        whole = folder.source()
        source, test = split(whole)
        own, world = source, ""
        config = replace(config, name="custom", world="", channels=whole.channels) if weights is None else config
    else:
        folder, test, world = None, None, args.world
        config = replace(config, name=world, world=world) if weights is None else config
        source = world_source(replace(config, world=world), args.pictures, all_now=True)
        own = reader.UniformScenes(world, config.size)
    given = {name: Path(path) for name, path in (word.split("=", 1) for word in args.also)}
    for path in (*given.values(), *([] if weights is None else [weights])):
        model = CausalAutoencoder.load(path)
        if (model.coding, model.config.size, model.config.channels) != (source.coding, source.size, source.channels):
            raise CounterfactError(
                f"{path} has other variables, ranges, sizes or channels than the pictures that are measured on; check "
                "--weights and --also"
            )
    run = args.run or cache_dir() / "bench" / "autoencoder" / f"{world or args.images.resolve().name}-{config.size}"
    reading = reader.trained(own, args.reader_images, run, device=device)
    ready: dict[str, tuple[str, Path]] = {}
    for name in dict.fromkeys(args.methods):
        if METHODS[name].name == OURS and weights is not None:
            ready[name] = name, weights
        else:
            ready[name] = name, METHODS[name].trained(config, source, run, device=device)
    ready |= {name: (OURS, path) for name, path in given.items()}
    made_with = {"reader": reading.provenance}
    for name, (kind, path) in ready.items():
        method = METHODS[kind].load(path)
        made_with[name] = method.provenance
        if method.provenance.get("images", config.images) != config.images:
            log.warning(
                "%s has seen %s pictures in training, the budget is %d: they are no equals",
                name, method.provenance["images"], config.images,
            )  # fmt: skip
    numbers = chosen_numbers(args.seed, args.n, test)
    setup = Setup(
        ready,
        run / "reader.safetensors",
        world,
        folder,
        config.size,
        args.steps,
        args.seed,
        args.threads,
        device,
        numbers,
    )
    return setup, {"config": config.to_dict(), "provenance": made_with}


@contextmanager
def workers(setup: Setup, processes: int) -> Iterator[Callable[[Sequence[tuple[str, tuple]], str], list]]:
    """A function that measures tasks, in this process or in several that stay loaded."""
    from tqdm import tqdm

    if processes == 1:
        start_process(setup)
        yield lambda tasks, name: [measure(task) for task in tqdm(tasks, desc=name, leave=False)]
        return
    with multiprocessing.get_context("spawn").Pool(processes, start_process, (setup,)) as pool:
        yield lambda tasks, name: list(tqdm(pool.imap(measure, tasks), total=len(tasks), desc=name, leave=False))


def chunks(numbers: Sequence[int], processes: int) -> list[tuple[int, ...]]:
    """Numbers in parts of at most CHUNK, so small that every process has some."""
    size = max(1, min(CHUNK, -(-len(numbers) // processes)))
    return [tuple(numbers[i : i + size]) for i in range(0, len(numbers), size)]


def run(args: argparse.Namespace, setup: Setup) -> dict[str, float]:
    """All metrics of the parts asked for, as one flat mapping."""
    metrics: dict[str, float] = {}
    rows: dict[str, dict[str, np.ndarray]] = {name: {} for name in setup.weights}
    numbers, ours = setup.numbers, OURS in setup.weights
    with workers(setup, args.processes) as work:

        def gathered(part: str, name: str, count: int | None = None) -> dict[str, np.ndarray]:
            tasks = [(part, (name, chunk)) for chunk in chunks(numbers[:count], args.processes)]
            found = work(tasks, f"{part} {name}")
            return {key: np.concatenate([one[key] for one in found]) for key in found[0]}

        floor = work([("floor", (chunk,)) for chunk in chunks(numbers, args.processes)], "reader")
        for key in floor[0]:
            put(metrics, key, np.concatenate([one[key] for one in floor]), args.seed)
        if "effects" in args.parts:
            true = {} if setup.folder else {TRUTH: gathered("effects", TRUTH)}
            rows = true | {name: gathered("effects", name) for name in setup.weights}
            metrics |= realism(rows, setup)
        if "axioms" in args.parts:
            for name in setup.weights:
                found = gathered("axioms", name, args.axioms)
                rows[name] |= found
        metrics |= summary(rows, args.seed)
        if "latents" in args.parts:
            many = chosen_numbers(args.seed, args.codes, None if setup.folder is None else np.array(numbers))
            names = list(setup.weights)
            for name, found in zip(names, work([("codes", (name, many)) for name in names], "latents")):
                metrics |= {f"{name}.{key}": value for key, value in found.items()}
        if "strength" in args.parts and ours:
            found = Bench(setup).strengths(gathered("graded", OURS, args.graded))
            metrics |= {f"{OURS}.{key}": value for key, value in found.items()}
        if "steps" in args.parts and ours:
            found = flat(gathered("long", OURS, args.long))
            metrics |= {f"{OURS}.{key}": value for key, value in found.items()}
            for kind, end in (("error", ""), ("pixels", ".pixels")):
                if f"{kind}_{LONG_STEPS}" in found and setup.steps != LONG_STEPS:
                    ratio = found[f"{kind}_{setup.steps}"] / max(found[f"{kind}_{LONG_STEPS}"], 1e-12)
                    metrics[f"{OURS}.steps{setup.steps}_over_{LONG_STEPS}{end}"] = ratio
    if "speed" in args.parts:
        # Each in a process of its own, whose peak memory is the method's alone.
        for name in setup.weights:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(speed, (setup, name, 8))
            metrics |= {f"{name}.{key}": value for key, value in found.items()}
    return metrics


def put(metrics: dict[str, float], key: str, values: np.ndarray, seed: int, kind: str = "ci") -> None:
    """Note the mean of the known among values [N] and its 95 % interval over pictures; of a gain the interval alone."""
    values = values[~np.isnan(values)]
    if not len(values):
        return
    low, high = interval(values, seed)
    mean = {key: float(values.mean())} if kind == "ci" else {}
    metrics |= mean | {f"{key}.{kind}_low": low, f"{key}.{kind}_high": high}


def summary(rows: Mapping[str, Mapping[str, np.ndarray]], seed: int) -> dict[str, float]:
    """Means over pictures as ``M.metric``, their intervals, and for ours minus M, picture by picture, ``.gain_low`` and
    ``.gain_high``."""
    metrics: dict[str, float] = {}
    for name, found in rows.items():
        for key, values in found.items():
            if key == "features":
                continue
            put(metrics, f"{name}.{key}", values, seed)
            ours = rows.get(OURS, {}).get(key)
            if name not in (OURS, TRUTH) and ours is not None:
                put(metrics, f"{name}.{key}", ours - values, seed, "gain")
    return metrics


def realism(rows: Mapping[str, Mapping[str, np.ndarray]], setup: Setup) -> dict[str, float]:
    """Frechet distances of each method's pictures to the true counterfactuals, or else to the test pictures."""
    if TRUTH in rows:
        real = rows[TRUTH]["features"].reshape(-1, rows[TRUTH]["features"].shape[-1])
    else:
        bench = Bench(setup)
        real = bench.reader.read(bench.pool[0])[1].numpy()
    made = {name: found["features"] for name, found in rows.items() if name != TRUTH}
    return {f"{name}.frechet": frechet(f.reshape(-1, f.shape[-1]), real) for name, f in made.items()}


def table(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    """Markdown tables: the methods, errors by intervention, strengths; 95 % intervals in brackets."""
    columns = {c: digits for c, digits in COLUMNS.items() if any(f"{name}.{c}" in metrics for name in names)}
    lines = ["| method | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for name in names:
        cells = (cell(metrics, f"{name}.{column}", digits) for column, digits in columns.items())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    variables = [key.split(".")[1] for key in metrics if key.startswith("reader_floor.") and key.count(".") == 1]
    variables = [name for name in variables if name not in ("ci_low", "ci_high")]
    for kind in ("reader_floor", *BY_VARIABLE):
        rows = {"": kind} if kind == "reader_floor" else {name: f"{name}.{kind}" for name in names}
        lines += ["", f"| {kind} | all | " + " | ".join(variables) + " |", "|" + " --- |" * (len(variables) + 2)]
        for name, key in rows.items():
            cells = (f"{metrics[k]:.4f}" if k in metrics else "" for k in (key, *(f"{key}.{v}" for v in variables)))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    graded = f"{OURS}.strength"
    if f"{graded}.monotone" in metrics:
        columns = [f"{w:g}" for w in STRENGTHS] + ["monotone"]
        lines += ["", f"| {graded} | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
        for variable in variables:
            cells = (f"{metrics[f'{graded}.{column}.{variable}']:.3f}" for column in columns)
            lines.append(f"| {variable} | " + " | ".join(cells) + " |")
    parts = (f"{graded}.monotone", f"{OURS}.steps", f"{OURS}.error", f"{OURS}.pixels")
    rest = {k: v for k, v in metrics.items() if k.startswith(parts) or k.endswith(("per_second", "memory_mb"))}
    rest = {k: v for k, v in rest.items() if not k.startswith(f"{graded}.monotone.")}
    return "\n".join([*lines, "", *(f"{key}: {value:.4g}" for key, value in rest.items())]).rstrip()


def cell(metrics: Mapping[str, float], key: str, digits: int) -> str:
    """A metric with its interval, or nothing."""
    value, low, high = (metrics.get(key + end) for end in ("", ".ci_low", ".ci_high"))
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if low is not None else "")


def main(args: argparse.Namespace) -> int:
    """Train what is missing, measure, print the tables, write the JSON."""
    check(args)
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    setup, made = prepare(args)
    prepared = time.perf_counter()
    metrics = run(args, setup)
    names = [name for name in (TRUTH, *setup.weights) if f"{name}.drift" in metrics or name != TRUTH]
    print(table(metrics, names))
    if args.json:
        seconds = {"training": round(prepared - started, 1), "measuring": round(time.perf_counter() - prepared, 1)}
        options = {key: value for key, value in vars(args).items() if key != "json"}
        document = {
            "bench": "autoencoder",
            "version": 1,
            "config": options | made | {"seconds": seconds},
            "metrics": metrics,
        }
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    return 0
