"""The command line. Commands live in the modules of the table below, which are imported only when they are used: help
costs nothing and works without torch.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

from . import __version__
from .errors import CounterfactError


class Command(NamedTuple):
    """Where a command is defined: a function that adds its arguments to a parser, and one that runs it."""

    module: str
    help: str
    add_arguments: str = "add_arguments"
    main: str = "main"


COMMANDS: dict[tuple[str, ...], Command] = {
    ("demo",): Command(
        "comfyui.demo",
        "run a workflow in a real, headless ComfyUI and write its pictures",
        "add_demo_arguments",
        "demo",
    ),
    ("studio",): Command(
        "comfyui.demo", "start ComfyUI with the pack and its templates, for a person", "add_studio_arguments", "studio"
    ),
    ("edit",): Command("edit", "draw one counterfactual picture from a picture and a plan, without ComfyUI"),
    ("world",): Command("worlds.cli", "scenes and their true counterfactuals as PNG and JSON"),
    ("discover",): Command(
        "discovery.cli", "ask a language model which concept causes which, and write the causal graph"
    ),
    ("identify",): Command(
        "identify_cli", "whether data can answer a causal question in spite of hidden causes, and by which expression"
    ),
    ("fetch", "smollm2"): Command("language.smollm2", "fetch the small language model, once (93 MB)"),
    ("train", "demo-model"): Command("demo.train", "train the bundled text-to-image model"),
    ("train", "autoencoder"): Command(
        "autoencoder.train", "train a causal autoencoder (CausalDiffAE) on a world's scenes or a folder of pictures"
    ),
    ("train", "modular"): Command("modular.cli", "fit a modular causal model to a table of labels, and ask it"),
    ("train", "reader"): Command("worlds.reader", "train the network that reads a scene's concepts off its picture"),
    ("bench", "csg"): Command("bench.csg", "measure counterfactual edits against the true counterfactuals"),
    ("bench", "graph"): Command("bench.graph", "measure causal graphs, and what leads to them, against known truths"),
    ("bench", "autoencoder"): Command(
        "bench.autoencoder", "measure causal autoencoders against true counterfactuals and other methods"
    ),
    ("bench", "modular"): Command(
        "bench.modular", "measure identification and samplers against exact answers where causes are hidden"
    ),
    ("bench", "ablation"): Command("bench.ablation", "measure every constant of the guidance around its default"),
    ("bench", "overhead"): Command(
        "bench.overhead", "measure the time and memory that attention capture and masks take"
    ),
}

EXIT_ERROR, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for a mistake of the user, 130 for Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("counterfact").setLevel(logging.INFO)
    # An orderly end also when the terminal is closed, so that what was started is stopped too.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and threading.current_thread() is threading.main_thread():
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    try:
        return _run(argv)
    except CounterfactError as error:
        print(f"counterfact: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("counterfact: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(argv: list[str]) -> int:
    words = next((words for words in COMMANDS if tuple(argv[: len(words)]) == words), None)
    if words is None:
        overview = _overview(argv)
        overview.parse_args(argv)
        overview.error("no such command")
    command = COMMANDS[words]
    module = _load(command.module)
    parser = argparse.ArgumentParser(prog=" ".join(("counterfact", *words)), description=command.help)
    getattr(module, command.add_arguments)(parser)
    args = parser.parse_args(argv[len(words) :])
    return getattr(module, command.main)(args) or 0


def _load(name: str) -> object:
    try:
        return importlib.import_module(f"{__package__}.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != __package__:
            raise CounterfactError(
                f"this command needs the Python package {error.name}, which is not installed: "
                "run pip install -e '.[comfyui]' in the folder of the pack"
            ) from error
        raise


def _overview(argv: list[str]) -> argparse.ArgumentParser:
    """A parser that knows the commands by name only: it prints help, or says what is wrong with `argv`."""
    groups = {words[0] for words in COMMANDS if len(words) == 2}
    group = argv[:1] if argv and argv[0] in groups else []
    if group:
        argv.pop(0)
    parser = argparse.ArgumentParser(
        prog=" ".join(["counterfact", *group]),
        description=None if group else 'Causal "what if" editing of pictures in ComfyUI.',
        epilog="COMMAND --help lists the options of a command.",
    )
    if not group:
        parser.add_argument("--version", action="version", version=f"counterfact {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for words, command in COMMANDS.items():
        if words[0] in group:
            commands.add_parser(words[1], help=command.help)
        elif not group:
            commands.add_parser(" ".join(words), help=command.help)
    return parser
