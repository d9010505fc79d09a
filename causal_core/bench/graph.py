"""``counterfact bench graph``: from a picture to a causal graph, part by part.

Each part is a module of this package with ``run(args) -> dict of metrics``, ``table(metrics) -> str`` and, for options
of its own, ``add_arguments(parser)``.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ..discovery.cli import WEAK, add_model_arguments

PARTS = {
    "discovery": "graph_discovery",
    "mechanisms": "mechanisms",
    "extraction": "extraction",
    "chain": "graph_chain",
    "editor": "editor",
}


def part(name: str) -> ModuleType:
    """The module of a part."""
    return import_module(f"{__package__}.{PARTS[name]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench graph``."""
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"of {', '.join(PARTS)}; all if not given")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1, help="another seed, other scenes and oracles")
    add_model_arguments(parser, WEAK, none="leave out what a language model does")
    for module in map(part, PARTS):
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser)
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def main(args: argparse.Namespace) -> int:
    """Run the parts, print their tables, write the JSON."""
    metrics: dict[str, float] = {}
    seconds = {}
    for name in args.parts:
        started = time.perf_counter()
        found = part(name).run(args)
        seconds[name] = round(time.perf_counter() - started, 1)
        print(part(name).table(found), end="\n\n", flush=True)
        metrics |= found
    if args.json:
        config = {key: value for key, value in vars(args).items() if key != "json"} | {"seconds": seconds}
        document = {"bench": "graph", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    return 0
