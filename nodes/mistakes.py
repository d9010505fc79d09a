"""Mistakes of the user: the message names the input to fix, and the log shows that message without a traceback.

ComfyUI reports an exception of a node to the page, to the API and in the history, which is where people look for it;
but it also logs the traceback, which tells a user nothing about a typing error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..causal_core.errors import CounterfactError


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of an input before the message of a mistake made in it."""
    try:
        yield
    except CounterfactError as error:
        raise CounterfactError(f"{name}: {error}") from None


def keep_log_plain() -> None:
    """Leave tracebacks of mistakes, and of nothing else, out of ComfyUI's log."""
    logging.getLogger().addFilter(_tells_something)


def _tells_something(record: logging.LogRecord) -> bool:
    mistake = isinstance(sys.exc_info()[1], CounterfactError)
    return not (mistake and str(record.msg).startswith("Traceback (most recent call last)"))
