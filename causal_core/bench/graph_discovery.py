"""Discovery against known graphs, strategy by strategy: a language model, noisy oracles, and what guessing reaches.

Concepts are listed by name, so that their order tells nothing. A call is one request to the model; an oracle's errors
are those of :class:`causal_core.discovery.oracle.Oracle`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence

from ..concepts import Concept, Concepts
from ..discovery import STRATEGIES, Oracle, discover
from ..discovery.cli import open_for
from ..discovery.interview import NothingReadable
from ..discovery.oracle import ANSWER, ERRORS
from ..discovery.run import OF_PAIRS
from ..errors import CounterfactError
from ..graph import CausalGraph, Edge
from ..language.model import LanguageModel, Prompt, Request
from .graph_scores import belief_scores, interval, random_scores, scores
from .graphs import GRAPHS, PAIRS

EVERYDAY = "pairs"
FLIPS = {"oracle_10": 0.1, "oracle_20": 0.2, "oracle_30": 0.3}
COLUMNS = ("shd", "nhd", "precision", "recall", "f1", "direction", "auc", "calls", "calls_per_second", "unreadable")

Pairs = Sequence[tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    graphs = [*GRAPHS, EVERYDAY]
    parser.add_argument("--graphs", nargs="+", choices=graphs, default=graphs, metavar="GRAPH",
                        help=f"to discover, of {', '.join(graphs)}; all if not given")  # fmt: skip
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES), metavar="STRATEGY",
                        help=f"of {', '.join(STRATEGIES)}; all if not given")  # fmt: skip
    parser.add_argument("--n", type=int, default=20, help="noisy oracles for each rate of errors")
    parser.add_argument("--errors", choices=ERRORS, default=ANSWER,
                        help="whether an oracle errs anew in each answer, or once for each pair")  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, float]:
    """All metrics as one flat mapping.

    Returns
    -------
    dict
        ``GRAPH.STRATEGY.METRIC`` for the language model, ``GRAPH.oracle_10.STRATEGY.METRIC`` with ``.ci_low`` and
        ``.ci_high`` for the oracles, ``GRAPH.random.METRIC`` and ``GRAPH.empty.METRIC`` for guessing; the graph "pairs"
        has directions only
    """
    from tqdm import tqdm

    if args.n < 1:
        raise CounterfactError("--n must be at least 1")
    model = open_for(args)
    if model is not None:
        model.complete(Request(Prompt("Hello"), max_tokens=1))  # loading it is not part of a call
    metrics: dict[str, float] = {}
    work = [(g, s) for g in args.graphs for s in args.strategies if g != EVERYDAY or s in OF_PAIRS]
    for name, strategy in tqdm(work, unit="discovery"):
        truth, pairs = everyday(PAIRS) if name == EVERYDAY else (by_name(GRAPHS[name].make()), None)
        if pairs is None and f"{name}.empty.f1" not in metrics:
            guesses = {"random": random_scores(truth, args.seed), "empty": scores([], truth)}
            metrics |= {
                f"{name}.{guess}.{key}": value for guess, found in guesses.items() for key, value in found.items()
            }
        if model is not None:
            found = measured(truth, model, strategy, pairs)
            metrics |= {f"{name}.{strategy}.{key}": value for key, value in found.items()}
        for oracle, flips in FLIPS.items():
            seeds = range(args.seed * 1000, args.seed * 1000 + args.n)
            several = [measured(truth, Oracle(truth, flips, seed, args.errors), strategy, pairs) for seed in seeds]
            metrics |= averaged(f"{name}.{oracle}.{strategy}", several, args.seed)
    return metrics


def measured(truth: CausalGraph, model: LanguageModel, strategy: str, pairs: Pairs | None = None) -> dict[str, float]:
    """Scores of one discovery; with pairs, of their directions only. Answers without any sense are an empty graph."""
    started = time.perf_counter()
    try:
        found = discover(truth.concepts, model, strategy, pairs=pairs)
    except NothingReadable as error:
        edges, posteriors, calls, unreadable = [], {}, error.calls, error.calls
    else:
        edges = [(edge.source, edge.target) for edge in found.graph.edges]
        posteriors, calls, unreadable = found.posteriors, found.calls, found.unreadable
    seconds = time.perf_counter() - started
    spent = {"calls": float(calls), "calls_per_second": calls / seconds, "unreadable": unreadable / max(calls, 1)}
    beliefs = {"direction": 0.5, **belief_scores(posteriors, truth)}
    return {**(scores(edges, truth) if pairs is None else {}), **beliefs, **spent}


def averaged(prefix: str, several: Sequence[Mapping[str, float]], seed: int) -> dict[str, float]:
    """Means over several runs with their 95 % intervals; how fast an oracle answers does not matter."""
    metrics = {}
    for key in several[0]:
        if key == "calls_per_second":
            continue
        values = [one[key] for one in several]
        low, high = interval(values, seed)
        metrics[f"{prefix}.{key}"] = sum(values) / len(values)
        metrics |= {f"{prefix}.{key}.ci_low": low, f"{prefix}.{key}.ci_high": high}
    return metrics


def by_name(graph: CausalGraph) -> CausalGraph:
    """The same edges with the concepts in the order of their names."""
    concepts = Concepts(tuple(sorted(graph.concepts, key=lambda concept: concept.name.casefold())))
    return CausalGraph.from_edges(graph.edges, graph.confounded, concepts)


def everyday(pairs: Pairs) -> tuple[CausalGraph, Pairs]:
    """The graph of the pairs, and the pairs as they are asked: every other one with the effect first."""
    names = dict.fromkeys(name for pair in pairs for name in pair)
    truth = CausalGraph.from_edges([Edge(*pair) for pair in pairs], concepts=Concepts(tuple(map(Concept, names))))
    return truth, [pair[::-1] if number % 2 else pair for number, pair in enumerate(pairs)]


def table(metrics: Mapping[str, float]) -> str:
    """One Markdown table a graph: guessing, the model's strategies, the oracles' with 95 % intervals in brackets."""
    tables = []
    for graph in dict.fromkeys(name.split(".")[0] for name in metrics):
        rows = dict.fromkeys(
            name.removesuffix(".direction").removesuffix(".f1")
            for name in metrics
            if name.startswith(f"{graph}.") and name.endswith((".direction", ".f1"))
        )
        known = GRAPHS.get(graph)
        source = f" ({known.source}{'; used for development' if known.development else ''})" if known else ""
        lines = [f"{graph}{source}", "", "| | " + " | ".join(COLUMNS) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
        for row in rows:
            cells = [_cell(metrics, f"{row}.{column}") for column in COLUMNS]
            lines.append(f"| {row.removeprefix(f'{graph}.')} | " + " | ".join(cells) + " |")
        tables.append("\n".join(lines))
    return "\n\n".join(
        [
            *tables,
            "random: acyclic graphs with the true number of edges; direction and auc by chance: 0.5; "
            "of 20 pairs, one standard error of the direction is about 0.1",
        ]  # fmt: skip
    )


def _cell(metrics: Mapping[str, float], name: str) -> str:
    value, low, high = (metrics.get(name + end) for end in ("", ".ci_low", ".ci_high"))
    if value is None:
        return ""
    digits = 0 if name.endswith("calls") else 1 if name.endswith(("shd", "second")) else 2
    return f"{value:.{digits}f}" + (f" ({low:.{digits}f} to {high:.{digits}f})" if low != high else "")
