"""``counterfact train modular``: fit a modular model to a table of labels.

counterfact train modular --labels FILE.csv --graph GRAPH.json
counterfact train modular --labels FILE.csv --edges "x -> z -> y; x <-> y" --ask "P(y | do(x))"
counterfact train modular --images DIR --labels FILE.csv --edges "x -> picture -> y; x <-> y" \
    --generator AUTOENCODER.safetensors --ask "P(y | do(x))"
"""

from __future__ import annotations

import argparse
import itertools
import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from ..autoencoder.coding import MOST_SIDE
from ..autoencoder.model import CausalAutoencoder
from ..errors import CounterfactError, finite
from ..graph import CausalGraph, parse_edges, read_graph
from ..query import parse_query
from ..training import Watch, stop_signals
from .fit import ADVERSARIAL, LIKELIHOOD, METHODS, Effort, fit
from .images import DecoderSampler
from .model import STATES, ModularModel, settled
from .records import PICTURE, Records
from .sample import answer, identified
from .sight import SIDE

WEIGHTS = "modular.safetensors"


class Bar(Watch):
    """A progress bar of one part."""

    def __init__(self, told: str, stop: threading.Event) -> None:
        self.bar, self.stop = tqdm(unit="row", unit_scale=True, desc=told, leave=False), stop

    def progress(self, images: int, losses: Mapping[str, float]) -> None:
        self.bar.update(images - self.bar.n)
        if losses:
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()})

    def samples(self) -> None:
        self.bar.close()

    def stopped(self) -> bool:
        return self.stop.is_set()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "--labels", type=Path, required=True, metavar="FILE.csv",
        help="a column for every concept; a column `do` may name what was set in a row",
    )  # fmt: skip
    graph = parser.add_mutually_exclusive_group(required=True)
    graph.add_argument("--graph", type=Path, metavar="GRAPH.json", help="the causal graph with its confounded pairs")
    graph.add_argument("--edges", metavar="EDGES", help="or typed: 'x -> m -> y; x <-> y'; <-> is a hidden cause")
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="pictures that the first column of the labels names; the concept --picture of the graph is what they show",
    )  # fmt: skip
    parser.add_argument("--picture", default=PICTURE, metavar="NAME", help="that concept, if the graph has it")
    parser.add_argument("--side", type=int, default=SIDE, help="of the picture in pixels, as what it causes sees it")
    parser.add_argument(
        "--generator", type=Path, metavar="WEIGHTS",
        help="a causal autoencoder whose variables are the picture's causes: draws it for answers, unchanged",
    )  # fmt: skip
    parser.add_argument("--method", choices=METHODS, default=METHODS[0], help="how parts are fitted")
    parser.add_argument("--states", type=int, default=STATES, help="states of each hidden cause")
    parser.add_argument("--steps", type=int, help="updates of each part; as usual for the method if not given")
    parser.add_argument("--smoothing", type=float, default=0.0, help="cases added to every cell that is counted")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument(
        "--run", type=Path, default=Path("runs", "modular"), help="run folder; a stopped run goes on in it"
    )
    parser.add_argument("--ask", action="append", default=[], metavar="QUERY", help="answer this with the fitted model")
    parser.add_argument("--samples", type=int, default=20_000, help="cases drawn for an answer")


def main(args: argparse.Namespace) -> None:
    """Fit, write the weights, answer."""
    finite(args.seed, "--seed", 0, 2**53)
    finite(args.samples, "--samples", 1, 10**7)
    if args.steps is not None:
        finite(args.steps, "--steps", 1, 10**7)
    typed = None if args.edges is None else CausalGraph.from_edges(*parse_edges(args.edges.replace(";", "\n")))
    graph = read_graph(args.graph) if typed is None else typed
    torch.set_num_threads(1)
    finite(args.side, "--side", 8, MOST_SIDE)
    if args.images is None and args.generator is not None:
        raise CounterfactError("--generator draws what --images shows; add that folder, or leave it out")
    data = Records.read(args.labels, graph, args.smoothing, args.images, args.picture, args.side)
    graph = CausalGraph(settled(graph.concepts, data.coding), graph.edges, graph.confounded)
    # Before the work, so that a mistake in a question costs nothing.
    queries = [identified(graph, parse_query(query, graph.concepts)) for query in args.ask]
    bare = ModularModel(data.coding, graph.confounded)
    terms = [term for query in queries for term in (*query.of, *query.given)]
    if args.generator is None and any(
        set(bare.pictures) & set(bare.needed([term.variable], dict(term.do))) for term in terms
    ):
        raise CounterfactError(
            f"--ask: an answer goes through the picture {bare.pictures[0]}; add --generator WEIGHTS, which draws it"
        )
    drawing = None if args.generator is None else DecoderSampler(CausalAutoencoder.load(args.generator).eval())
    usual = LIKELIHOOD if args.method == "likelihood" else ADVERSARIAL
    effort = usual if args.steps is None else Effort(args.steps, usual.batch, usual.learning_rate, usual.restarts)
    try:
        with stop_signals() as stop:
            model = fit(
                graph, data, args.run, args.method, effort, args.seed, lambda told: Bar(told, stop), states=args.states
            )
        model.save(args.run / WEIGHTS)
        model = model.plugged({name: drawing for name in model.pictures}) if drawing else model
    except OSError as error:
        raise CounterfactError(
            f"--run: {args.run} cannot be written ({error.strerror}); choose another folder"
        ) from None
    print(f"weights: {args.run / WEIGHTS}")
    for query in queries:
        table, symbols = answer(model, query, args.samples, args.seed), query.symbols
        print(query)
        for at, values in zip(itertools.product(*map(range, table.shape)),
                              itertools.product(*(data.domains[s.variable] for s in symbols))):  # fmt: skip
            named = ", ".join(f"{symbol}={value}" for symbol, value in zip(symbols, values))
            print(f"  {named or 'probability'}: {table[at]:.4f}")
