"""``counterfact identify``: verdict, expression and reason for a causal question.

counterfact identify "P(y | do(x=1), z=0)" --graph GRAPH.json
counterfact identify "P(y_{x=1} | x=0)" --edges "x -> m -> y; x <-> y" --json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .errors import CounterfactError
from .graph import CausalGraph, parse_edges, read_graph
from .identify import Estimand, identify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("query", help='such as "P(y | do(x=1), z=0)", or "P(y_{x=1} | x=0)" for a counterfactual')
    graph = parser.add_mutually_exclusive_group(required=True)
    graph.add_argument("--graph", type=Path, metavar="GRAPH.json", help="the causal graph with its confounded pairs")
    graph.add_argument("--edges", metavar="EDGES", help="or typed: 'x -> m -> y; x <-> y'; <-> is a hidden cause")
    parser.add_argument(
        "--experiment", action="append", default=[], metavar="NAMES",
        help="there are also data in which these variables, divided by commas, were set; may be given more than once",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> None:
    """Identify and print."""
    if args.edges is None:
        graph = read_graph(args.graph)
    else:
        graph = CausalGraph.from_edges(*parse_edges(args.edges.replace(";", "\n")))
    experiments = [[name for name in names.split(",") if name.strip()] for names in args.experiment]
    if not all(experiments):
        raise CounterfactError("--experiment needs names of variables, such as x or x,z")
    found = identify(graph, args.query, experiments)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if args.json else described(found))


def described(found: Estimand) -> str:
    """Verdict, expression and reason, a line each."""
    lines = [f"query:      {found.query}", f"verdict:    {'' if found.identifiable else 'not '}identifiable"]
    if found.identifiable:
        lines.append(f"expression: {found}")
    if found.anything:
        lines.append(f"any value:  {', '.join(map(str, found.anything))}")
    return "\n".join([*lines, f"reason:     {found.reason}"])
