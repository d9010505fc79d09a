"""``counterfact bench modular``: answers of fitted models against the exact ones, where causes are hidden.

Every method learns from the same observations of a known model and answers the same question by drawing cases. What is
measured is the total variation distance to the exact answer, the largest one over the values of what is set or given.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..admg import ADMG
from ..errors import CounterfactError, finite
from ..graph import CausalGraph
from ..identify import identify
from ..modular.bounds import bounds
from ..modular.fit import ADVERSARIAL, LIKELIHOOD, Effort, fit, matched
from ..modular.hgraph import Part, parts
from ..modular.idgen import Sampler
from ..modular.model import ModularModel
from ..modular.records import Records
from ..modular.sample import answer
from ..sweep import Key, here, on_cluster, sweep
from .graph_scores import interval
from .modular_pictures import VIEWS, Pictured, pictured
from .modular_problems import BITS, QUESTIONS, REFUSED, Problem, aligned, as_graph, distance, problem

log = logging.getLogger("counterfact")

PARTS = ("queries", "bounds", "identify", "hgraph")
SIZES, LARGE = (5, 10, 20, 50), (15, 20, 25, 30, 35, 40, 45, 50)
GRAPHS = 20


def ours(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """Mechanisms fitted part by part, by likelihood; pictures from pretrained generators."""
    model = learnt(args.query, args.model, args.rows, args.seed, args.steps)
    return answer(model.plugged(p.generators), p.query, args.samples, args.seed)


@functools.lru_cache(maxsize=1)
def learnt(query: str, number: int, rows: int, seed: int, steps: int | None) -> ModularModel:
    """The model that :func:`ours` and :func:`read` draw from."""
    p, data = drawn(query, seed * 1000 + number, rows)
    budget = effort(LIKELIHOOD, argparse.Namespace(steps=steps))
    return fit(p.graph, data, method="likelihood", effort=budget, seed=seed)


def dcm(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """The same, adversarially along the h-graph."""
    model = fit(p.graph, data, method="adversarial", effort=effort(ADVERSARIAL, args), seed=args.seed)
    return answer(model, p.query, args.samples, args.seed)


def joint(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """The same networks all at once, adversarially against the whole joint distribution, as GAN-NCM does."""
    names = ADMG.of(p.graph).names
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model = ModularModel(data.coding, p.graph.confounded)
    # As many updates as the parts have together.
    budget = effort(ADVERSARIAL, args)
    budget = Effort(budget.steps * len(parts(p.graph)), budget.batch, budget.learning_rate)
    model = matched(model, Part(names, (), ()), data, budget, args.seed)
    return answer(model, p.query, args.samples, args.seed)


def idgen(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """Conditional samplers wired for this question."""
    sampler = Sampler(p.graph, p.query, data, effort(LIKELIHOOD, args), args.seed, p.generators)
    return sampler.answer(args.samples, args.seed)


def formula(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """The expression, with the shares of the data put in; nothing is drawn."""
    return identify(p.graph, p.query).evaluate(data)


def conditioning(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """Seeing in place of doing, in the data."""
    found = identify(p.graph, p.seeing).evaluate(data)
    return np.broadcast_to(aligned(p.seeing, found, p.query), p.truth.shape)


def read(p: Pictured, data: Records, args: argparse.Namespace) -> float:
    """Labels read from generated pictures of our model's cases."""
    model = learnt(args.query, args.model, args.rows, args.seed, args.steps)
    return p.read(model, args.pictures, args.seed)


def reader(p: Pictured, data: Records, args: argparse.Namespace) -> float:
    """Labels read from true pictures of true cases: the reader's own error, and that of as few cases."""
    return p.floor(args.pictures, args.seed)


METHODS: dict[str, Callable[[Problem, Records, argparse.Namespace], np.ndarray]] = {
    "ours": ours, "dcm": dcm, "idgen": idgen, "joint": joint, "formula": formula, "conditioning": conditioning,
}  # fmt: skip


# Their distance is to what would be in the pictures, not to the answer.
READINGS: dict[str, Callable[[Pictured, Records, argparse.Namespace], float]] = {"read": read, "reader": reader}
QUERIES = (*QUESTIONS, *VIEWS)
# A table cannot count pictures, and critics would have the generator draw in every step.
LABELS_ONLY = ("dcm", "joint", "formula")


def suited(query: str, method: str) -> bool:
    """Whether a method can answer a query."""
    if method in READINGS:
        return query in VIEWS
    return method not in LABELS_ONLY or query not in VIEWS or not VIEWS[query].edges


def effort(usual: Effort, args: argparse.Namespace) -> Effort:
    """As usual, unless steps are given."""
    return usual if args.steps is None else Effort(args.steps, usual.batch, usual.learning_rate, usual.restarts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench modular``."""
    known = ", ".join(QUERIES)
    parser.add_argument(
        "--queries", nargs="*", choices=QUERIES, default=list(QUERIES), metavar="QUERY", help=f"of {known}"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=[*METHODS, *READINGS],
        default=[*METHODS, *READINGS],
        metavar="METHOD",
        help=f"of {', '.join([*METHODS, *READINGS])}; those that a query has no use for are left out",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--rows", type=int, default=20_000, help="observations to learn from")
    parser.add_argument("--samples", type=int, default=20_000, help="cases drawn for an answer")
    parser.add_argument("--pictures", type=int, default=500, help="pictures to read for each value of what is set")
    parser.add_argument("--n", type=int, default=3, help="models that each question is asked of")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other models and data")
    parser.add_argument("--steps", type=int, help="updates of each part; as usual for the method if not given")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--run", type=Path, help="run folder of finished results; a stopped run goes on in it")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="HOST:PORT",
        help="ask the queries on a Ray cluster that is there already, of this machine if no address is given; "
        "Counterfact must be installed on all its machines",
    )
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON."""
    for name in ("rows", "samples", "pictures", "n", "threads"):
        finite(getattr(args, name), f"--{name}", 1, 10**7)
    finite(args.seed, "--seed", 0, 900)
    if args.steps is not None:
        finite(args.steps, "--steps", 1, 10**7)
    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise CounterfactError(f"--json: there is no folder {args.json.parent}; make it first")
    torch.set_num_threads(args.threads)
    metrics: dict[str, float] = {}
    if "queries" in args.parts:
        metrics |= measured(args)
        print(table(metrics, args))
    if "bounds" in args.parts:
        metrics |= bounded(args)
    if "identify" in args.parts:
        metrics |= timed(args.seed)
    if "hgraph" in args.parts:
        metrics |= together(args.seed)
    for key, value in metrics.items():
        if not key.startswith(tuple(f"{query}." for query in QUERIES)):
            print(f"{key}: {value:.4g}")
    if args.json:
        config = {key: value for key, value in vars(args).items() if key not in ("json", "run", "ray")}
        document = {"bench": "modular", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def measured(args: argparse.Namespace) -> dict[str, float]:
    """``QUERY.M.tvd`` with its interval over models, and ``QUERY.M.seconds`` to learn and to answer once."""
    depends = {name: getattr(args, name) for name in ("rows", "samples", "pictures", "seed", "steps", "threads")}
    # Methods go through the same model one after the other, so that it is drawn once.
    keys = [
        {"query": query, "model": i, "method": method, **depends, "version": __version__}
        for query in args.queries
        for i in range(args.n)
        for method in args.methods
        if suited(query, method)
    ]
    place = here if args.ray is None else on_cluster(args.ray, args.threads)
    found: dict[str, list[tuple[float, float]]] = {}
    for key, one in zip(keys, sweep(asked, keys, args.run, place)):
        found.setdefault(f"{key['query']}.{key['method']}", []).append((one["distance"], one["seconds"]))
    metrics = {}
    for key, models in found.items():
        apart, seconds = np.array(models).T
        low, high = interval(apart, args.seed)
        metrics |= {f"{key}.tvd": float(apart.mean()), f"{key}.tvd.ci_low": low, f"{key}.tvd.ci_high": high}
        metrics |= {f"{key}.tvd.worst": float(apart.max()), f"{key}.seconds": float(seconds.mean())}
    return metrics


def asked(key: Key) -> dict[str, float]:
    """One method's ``distance`` to the exact answer of one model, and the ``seconds`` to learn and to answer."""
    torch.set_num_threads(key["threads"])
    p, data = drawn(key["query"], key["seed"] * 1000 + key["model"], key["rows"])
    started, method, given = time.perf_counter(), key["method"], argparse.Namespace(**key)
    if method in READINGS:
        apart = READINGS[method](p, data, given)
    else:
        apart = distance(p.query, METHODS[method](p, data, given), p.truth)
    return {"distance": apart, "seconds": time.perf_counter() - started}


@functools.lru_cache(maxsize=1)
def drawn(query: str, seed: int, rows: int) -> tuple[Problem, Records]:
    """A model that the question is asked of, and observations of it."""
    p = pictured(query, seed) if query in VIEWS else problem(QUESTIONS[query], seed)
    return p, p.records(rows, seed)


def table(metrics: dict[str, float], args: argparse.Namespace) -> str:
    """Markdown: distances, worst in brackets, and seconds."""
    lines = ["| query | " + " | ".join(args.methods) + " |", "|" + " --- |" * (len(args.methods) + 1)]
    for query in args.queries:
        cells = []
        for method in args.methods:
            key = f"{query}.{method}"
            cells.append(f"{metrics[f'{key}.tvd']:.4f} ({metrics[f'{key}.tvd.worst']:.4f}), "
                         f"{metrics[f'{key}.seconds']:.1f} s" if f"{key}.tvd" in metrics else "")  # fmt: skip
        lines.append(f"| {query} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bounded(args: argparse.Namespace) -> dict[str, float]:
    """Of questions without an answer: width of the bounds, and the share of true answers that lie inside them."""
    metrics = {}
    for name, question in REFUSED.items():
        inside, widths = [], []
        for i in range(args.n):
            p = problem(question, args.seed * 1000 + i)
            found = bounds(p.graph, p.exact, p.query)
            inside.append(np.mean((found.low - 1e-6 <= p.truth) & (p.truth <= found.high + 1e-6)))
            widths.append(np.mean(found.high - found.low))
        metrics |= {f"bounds.{name}.inside": float(np.mean(inside)), f"bounds.{name}.width": float(np.mean(widths))}
    return metrics


def random_graph(nodes: int, rng: np.random.Generator, degree: float = 3.0, pairs: float = 0.4) -> CausalGraph:
    """An acyclic graph with on average ``degree`` direct links and ``pairs`` hidden causes a variable."""
    names = [f"v{i}" for i in range(nodes)]
    chance = degree / max(nodes - 1, 1)
    edges = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if rng.random() < chance]
    hidden = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if rng.random() < 2 * pairs / nodes]
    return CausalGraph.from_edges(edges, hidden, as_graph("; ".join(f"{n} -> end" for n in names)).concepts)


def timed(seed: int) -> dict[str, float]:
    """Milliseconds of CPU time that one identification takes, median and 95 % quantile, by the number of variables."""
    metrics = {}
    for nodes in SIZES:
        rng, times = np.random.default_rng([seed, nodes]), []
        for _ in range(10 * GRAPHS):
            graph = random_graph(nodes, rng)
            x, y = rng.permutation(nodes)[:2]
            query = f"P(v{max(x, y)} | do(v{min(x, y)}={BITS[1]}))"
            started = time.process_time()
            identify(graph, query)
            times.append(1000 * (time.process_time() - started))
        metrics[f"identify.{nodes}.ms"] = float(np.median(times))
        metrics[f"identify.{nodes}.ms_95"] = float(np.quantile(times, 0.95))
    return metrics


def together(seed: int) -> dict[str, float]:
    """The most mechanisms that are fitted together, and that are matched to data together, by number of variables."""
    metrics = {}
    for nodes in LARGE:
        rng = np.random.default_rng([seed, nodes])
        found = [parts(random_graph(nodes, rng)) for _ in range(GRAPHS)]
        largest = [max(len(part.names) for part in one) for one in found]
        whole = [max(len(part.names) + len(part.context) for part in one) for one in found]
        metrics[f"hgraph.{nodes}.fitted"] = float(np.mean(largest))
        metrics[f"hgraph.{nodes}.matched"] = float(np.mean(whole))
    return metrics
