"""Where the phrases of a plan's captions stand in the conditionings that the model reads.

Text encoders wrap a text into a template, drop tokens of it again or follow one another; a phrase's tokens are known
only where the lengths of all that add up.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..causal_core.attention.spans import Span, Tokenizer
from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.captions import captions, watched_spans
from ..causal_core.plan import CounterfactualPlan
from .denoise import Captions, token_ids

log = logging.getLogger("counterfact")


def watched_tokens(
    guider: Captions, clip: Any, plan: CounterfactualPlan, fused: bool = False
) -> dict[int, dict[str, list[Span]]]:
    """Which tokens of which conditioning to watch; none, with a warning in the log, where they cannot be known.

    Parameters
    ----------
    guider : made of the conditionings of the captions
    clip : the text encoder that made them
    plan, fused : the captions are those of :func:`causal_core.guidance.captions.captions`

    Returns
    -------
    dict from caption row to token spans by concept; several spans where text encoders follow one another

    Raises
    ------
    CounterfactError
        If the text encoder does not read an affected concept, see
        :func:`causal_core.guidance.captions.watched_spans`.
    """
    return followed(guider, clip, captions(plan, fused), lambda tokenize: watched_spans(tokenize, plan, fused))


def followed(
    guider: Captions, clip: Any, texts: Sequence[str], spans: Callable[[Tokenizer], Mapping[int, Mapping[str, Span]]]
) -> dict[int, dict[str, list[Span]]]:
    """Where tokens of texts stand in their conditionings; nothing, with a warning in the log, where it is not known.

    Parameters
    ----------
    guider : made of the conditionings of the texts
    clip : the text encoder that made them
    texts : one a conditioning
    spans : from a tokenizer to token spans by text row and name

    Returns
    -------
    dict from text row to token spans by name
    """
    if guider.attention is None:
        return {}
    names = guider.attention.encoders(clip, list(clip.tokenize("")))
    try:
        starts = [
            _starts(guider, clip, names, text, length) for text, length in zip(texts, guider.lengths, strict=True)
        ]
    except CounterfactError as error:
        log.warning("Regions are found without attention: %s", error)
        return {}
    found: dict[int, dict[str, list[Span]]] = {}
    for number, name in enumerate(names):
        tokenize = partial(token_ids, clip, encoder=name)
        head, tail = _template(tokenize)
        for row, by_name in spans(_between(tokenize, head, tail)).items():
            shift = starts[row][number] + head
            for concept, (start, end) in by_name.items():
                found.setdefault(row, {}).setdefault(concept, []).append((start + shift, end + shift))
    return found


def _starts(guider: Captions, clip: Any, names: Sequence[str], text: str, length: int) -> list[int]:
    """Position in a conditioning of that length of each text encoder's first token, negative if it was dropped."""
    ends = list(itertools.accumulate((len(token_ids(clip, text, name)) for name in names), initial=0))
    dropped = ends[-1] - length
    template = _template(partial(token_ids, clip, encoder=names[0]))[0] if guider.attention.cuts_template else 0
    if dropped not in (0, template):
        raise CounterfactError(
            f"clip: it made a conditioning of {length} tokens from {ends[-1]}, and which is which is not known"
        )
    return [end - dropped for end in ends[:-1]]


def _template(tokenize: Tokenizer) -> tuple[int, int]:
    """How many tokens the text encoder puts before and after every text; none if it fills texts up to a length."""
    empty, short = tokenize(""), tokenize("a")
    head, tail = _shared(empty, short), _shared(empty[::-1], short[::-1])
    # Where texts are filled up, whatever an empty text has is special, and needs no counting.
    return (head, tail) if head + tail == len(empty) else (0, 0)


def _between(tokenize: Tokenizer, head: int, tail: int) -> Tokenizer:
    """A tokenizer without that many tokens before and after."""

    def bare(text: str) -> list[int]:
        ids = list(tokenize(text))
        return ids[head : len(ids) - tail]

    return bare


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of what two sequences begin with."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second)))
