"""The whole chain twice: with the true graph, and with the graph and the mechanisms of a language model.

The language model gets the concepts of the cottage world with their values, and no more.
"""

from __future__ import annotations

import argparse

from ..discovery import discover
from ..discovery.cli import open_for
from ..discovery.mechanisms import language_mechanism
from ..language.answers import Cached
from ..worlds import get_world
from . import chain
from .chain import add_arguments, table

__all__ = ["add_arguments", "run", "table"]


def run(args: argparse.Namespace) -> dict[str, float]:
    """The metrics of :func:`causal_core.bench.chain.run`, for the language model with names that end in ``_llm``."""
    read = chain.readings(args)
    metrics = chain.run(args, found=read)
    model = open_for(args)
    if model is None:
        return metrics
    model = Cached(model)
    found = discover(get_world("cottage").concepts(), model)
    return metrics | chain.run(args, found.graph, lambda graph: language_mechanism(graph, model), read)
