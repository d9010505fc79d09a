"""``counterfact bench modular``: answers of fitted models against the exact ones, where causes are hidden.

Every method learns from the same observations of a known model and answers the same question by drawing cases. What is
measured is the total variation distance to the exact answer, the largest one over the values of what is set or given.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

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
from .graph_scores import interval
from .modular_problems import BITS, QUESTIONS, REFUSED, Problem, aligned, as_graph, distance, problem

log = logging.getLogger("counterfact")

PARTS = ("queries", "bounds", "identify", "hgraph")
SIZES, LARGE = (5, 10, 20, 50), (15, 20, 25, 30, 35, 40, 45, 50)
GRAPHS = 20


def ours(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """Mechanisms fitted part by part, by likelihood."""
    model = fit(p.graph, data, method="likelihood", effort=effort(LIKELIHOOD, args), seed=args.seed)
    return answer(model, p.query, args.samples, args.seed)


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
    return Sampler(p.graph, p.query, data, effort(LIKELIHOOD, args), args.seed).answer(args.samples, args.seed)


def formula(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """The expression, with the shares of the data put in; nothing is drawn."""
    return identify(p.graph, p.query).evaluate(data)


def conditioning(p: Problem, data: Records, args: argparse.Namespace) -> np.ndarray:
    """Seeing in place of doing, in the data."""
    found = identify(p.graph, p.seeing).evaluate(data)
    return np.broadcast_to(aligned(p.seeing, found, p.query), p.truth.shape)


METHODS: dict[str, Callable[[Problem, Records, argparse.Namespace], np.ndarray]] = {
    "ours": ours, "dcm": dcm, "idgen": idgen, "joint": joint, "formula": formula, "conditioning": conditioning,
}  # fmt: skip


def effort(usual: Effort, args: argparse.Namespace) -> Effort:
    """As usual, unless steps are given."""
    return usual if args.steps is None else Effort(args.steps, usual.batch, usual.learning_rate, usual.restarts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench modular``."""
    known = ", ".join(QUESTIONS)
    parser.add_argument(
        "--queries", nargs="*", choices=QUESTIONS, default=list(QUESTIONS), metavar="QUERY", help=f"of {known}"
    )
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=METHODS,
        default=list(METHODS),
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument("--rows", type=int, default=20_000, help="observations to learn from")
    parser.add_argument("--samples", type=int, default=20_000, help="cases drawn for an answer")
    parser.add_argument("--n", type=int, default=3, help="models that each question is asked of")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other models and data")
    parser.add_argument("--steps", type=int, help="updates of each part; as usual for the method if not given")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Measure, print the tables, write the JSON."""
    for name in ("rows", "samples", "n", "threads"):
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
        if not key.startswith(tuple(f"{query}." for query in QUESTIONS)):
            print(f"{key}: {value:.4g}")
    if args.json:
        document = {"bench": "modular", "version": 1, "config": vars(args) | {"json": None}, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def measured(args: argparse.Namespace) -> dict[str, float]:
    """``QUERY.M.tvd`` with its interval over models, and ``QUERY.M.seconds`` to learn and to answer once."""
    from tqdm import tqdm

    metrics = {}
    tasks = [(query, method) for query in args.queries for method in args.methods]
    problems = {}
    for query, method in tqdm(tasks, disable=None):
        if query not in problems:
            made = [problem(QUESTIONS[query], args.seed * 1000 + i) for i in range(args.n)]
            problems = {query: [(p, p.records(args.rows, args.seed * 1000 + i)) for i, p in enumerate(made)]}
        started = time.perf_counter()
        apart = np.array([distance(p.query, METHODS[method](p, d, args), p.truth) for p, d in problems[query]])
        low, high = interval(apart, args.seed)
        key = f"{query}.{method}"
        metrics |= {f"{key}.tvd": float(apart.mean()), f"{key}.tvd.ci_low": low, f"{key}.tvd.ci_high": high}
        metrics |= {f"{key}.tvd.worst": float(apart.max())}
        metrics[f"{key}.seconds"] = (time.perf_counter() - started) / args.n
    return metrics


def table(metrics: dict[str, float], args: argparse.Namespace) -> str:
    """Markdown: distances, worst in brackets, and seconds."""
    lines = ["| query | " + " | ".join(args.methods) + " |", "|" + " --- |" * (len(args.methods) + 1)]
    for query in args.queries:
        cells = []
        for method in args.methods:
            key = f"{query}.{method}"
            cells.append(f"{metrics[f'{key}.tvd']:.4f} ({metrics[f'{key}.tvd.worst']:.4f}), "
                         f"{metrics[f'{key}.seconds']:.1f} s")  # fmt: skip
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
