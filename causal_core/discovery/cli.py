"""``counterfact discover``: a list of concepts, or of pairs of them, and a language model's causal graph of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..concepts import Concept, Concepts
from ..errors import MAX_DOCUMENT, CounterfactError, fields, limited, shorten
from ..language.model import LanguageModel
from .constraints import Constraints, parse_constraints
from .run import MAX_PAIRS, STRATEGIES, Discovery, discover

WEAK = "smollm2"


def add_model_arguments(parser: argparse.ArgumentParser, default: str | None = None, none: str = "") -> None:
    """Add the options that name a language model; with `none`, which says what it means, there may be no model."""
    what = "smollm2 (a small model, fetched on first use), server (OpenAI-compatible), or a folder or .gguf file"
    parser.add_argument("--backend", required=default is None, default=default, metavar="NAME",
                        help=what + (f"; none: {none}" if none else ""))  # fmt: skip
    parser.add_argument("--url", help="of the server, such as http://127.0.0.1:8080/v1")
    parser.add_argument("--model", help="which of the server's models")


def open_for(args: argparse.Namespace) -> LanguageModel | None:
    """The language model that the options name, None for "none"."""
    if args.backend == "none":
        return None
    from ..language.backends import open_model

    return open_model(args.backend, **{key: getattr(args, key) for key in ("url", "model") if getattr(args, key)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact discover``."""
    parser.add_argument(
        "--concepts", type=Path, required=True, metavar="FILE",
        help='JSON: a counterfact.concepts document, a list of names or of {"name", "description"}, or a list of pairs '
        '[["a", "b"], ...], of which each is judged by itself',
    )  # fmt: skip
    add_model_arguments(parser)
    parser.add_argument("--strategy", choices=STRATEGIES, default=STRATEGIES[0], help="how the model is asked")
    parser.add_argument(
        "--constraints", type=Path, metavar="FILE",
        help="lines such as 'season -> foliage', 'not smoke -> season', 'first: season', 'then: smoke'",
    )  # fmt: skip
    parser.add_argument("--confounders", action="store_true", help="propose pairs with a latent common cause too")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the graph (of pairs: the report) to this file")
    parser.add_argument(
        "--report", type=Path, metavar="OUT", help="write the report: all probabilities, edges given up"
    )
    parser.add_argument("--no-cache", action="store_true", help="ask everything again, keep no answer")


def main(args: argparse.Namespace) -> int:
    """Read, ask, print, write."""
    from tqdm import tqdm

    from ..language.answers import Cached

    concepts, descriptions, pairs = read_concepts(_read(args.concepts, "--concepts"))
    constraints = Constraints()
    if args.constraints:
        constraints = parse_constraints(_read(args.constraints, "--constraints"), concepts)
    model = open_for(args)
    if model is None:
        raise CounterfactError("--backend none asks nobody: name a language model")
    with tqdm(unit="question") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = discover(
            concepts, model if args.no_cache else Cached(model), args.strategy, constraints, pairs, args.confounders,
            progress, descriptions=descriptions,
        )  # fmt: skip
    print(pairs_table(found) if pairs else graph_table(found))
    if args.backend == WEAK:
        print("This small model is a weak prior: check each edge, add constraints, or use a larger model.")
    if args.json:
        _write(args.json, found.to_json() if pairs else found.graph.to_json())
    if args.report:
        _write(args.report, found.to_json())
    return 0


def read_concepts(document: str) -> tuple[Concepts, dict[str, str], list[tuple[str, str]] | None]:
    """Concepts, their descriptions, and the pairs to judge if the document lists pairs.

    Examples
    --------
    >>> concepts, descriptions, pairs = read_concepts('["rain", {"name": "mud", "description": "wet earth"}]')
    >>> concepts.names, descriptions, pairs
    (('rain', 'mud'), {'mud': 'wet earth'}, None)
    >>> read_concepts('[["rain", "mud"], ["rain", "flood"]]')[0].names
    ('rain', 'mud', 'flood')
    """
    remedy = 'write a list of names such as ["rain", "mud"], or of pairs such as [["rain", "mud"]]'
    if len(document) > MAX_DOCUMENT:
        raise CounterfactError(f"--concepts has more than {MAX_DOCUMENT} characters: {remedy}")
    try:
        data = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise CounterfactError(f"--concepts is no JSON ({error}): {remedy}") from None
    if isinstance(data, dict):
        return Concepts.from_json(document), {}, None
    if not isinstance(data, list):
        raise CounterfactError(f"--concepts holds {shorten(data)}: {remedy}")
    if data and all(isinstance(item, list) for item in data):
        pairs = [_pair(item, number) for number, item in enumerate(limited(data, "--concepts", MAX_PAIRS), 1)]
        names = {concept.name: concept for pair in pairs for concept in map(Concept, pair)}
        return Concepts(tuple(names.values())), {}, pairs
    descriptions, items = {}, []
    for number, item in enumerate(limited(data, "--concepts"), 1):
        if isinstance(item, dict):
            item = fields(item, f"concept {number}", name=str, description=(str, None))
            concept = Concept(item["name"])
            if item["description"]:
                descriptions[concept.name] = item["description"]
        else:
            concept = Concept(item)
        items.append(concept)
    return Concepts(tuple(items)), descriptions, None


def graph_table(found: Discovery) -> str:
    """The edges as a Markdown table, what was given up and what could not be read."""
    lines = ["| edge | confidence | why |", "| --- | --- | --- |"]
    lines += [f"| {e.source} -> {e.target} | {e.confidence:.2f} | {e.reason} |" for e in found.graph.edges]
    lines += [f"| {a} <-> {b} | | proposed: a common cause outside the list |" for a, b in found.graph.confounded]
    lines += [f"| (not {e.source} -> {e.target}) | {e.confidence:.2f} | {e.reason} |" for e in found.broken]
    if not found.graph.edges:
        lines.append("| no edges | | |")
    return "\n".join([*lines, _spent(found)])


def pairs_table(found: Discovery) -> str:
    """The pairs as a Markdown table, with the more probable direction of each."""
    lines = ["| direction | confidence | forward | backward | none |", "| --- | --- | --- | --- | --- |"]
    for (a, b), (forward, backward, none) in found.posteriors.items():
        cause, effect = (a, b) if forward >= backward else (b, a)
        share = max(forward, backward) / (forward + backward) if forward + backward else 0.5
        lines.append(f"| {cause} -> {effect} | {share:.2f} | {forward:.2f} | {backward:.2f} | {none:.2f} |")
    return "\n".join([*lines, _spent(found)])


def _spent(found: Discovery) -> str:
    unreadable = f", {found.unreadable} answers unreadable" if found.unreadable else ""
    invented = f", {found.invented} invented things ignored" if found.invented else ""
    return f"{found.model}, {found.strategy}: {found.calls} questions{unreadable}{invented}"


def _pair(item: list[Any], number: int) -> tuple[str, str]:
    if len(item) != 2 or not all(isinstance(name, str) for name in item):
        raise CounterfactError(f'--concepts: pair {number} must be two names ["a", "b"], not {shorten(item)}')
    return item[0], item[1]


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CounterfactError(f"{option}: cannot read {path}: {error}") from None


def _write(path: Path, document: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise CounterfactError(f"cannot write {path}: {error}") from None
