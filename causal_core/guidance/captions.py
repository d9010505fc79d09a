"""The captions of a counterfactual plan: from the factual one, one affected concept changed at a time, causes first.

In fused mode there are two: the factual and the counterfactual caption.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..attention.spans import Span, Tokenizer, phrase_span
from ..errors import CounterfactError
from ..plan import CounterfactualPlan

log = logging.getLogger("counterfact")


@dataclass(frozen=True)
class Edit:
    """One affected concept as the sampler needs it.

    Attributes
    ----------
    name : the concept
    strength : 0 and up, the weight of its direction
    after : number of the caption that has its new value
    before : number of the caption that differs from it by this concept (and, in fused mode, by the others)
    depth : edges from the nearest intervened concept, 0 and up
    """

    name: str
    strength: float
    after: int
    before: int = 0
    depth: int = 0


def edits(plan: CounterfactualPlan, strength: float = 1.0, fused: bool = False) -> list[Edit]:
    """The affected concepts of a plan, causes first, with their strengths multiplied by ``strength``."""
    return [
        Edit(item.name, strength * item.strength, *((1, 0) if fused else (row, row - 1)), item.depth or 0)
        for row, item in enumerate(plan.affected, start=1)
    ]


def caption_values(plan: CounterfactualPlan, fused: bool = False) -> list[dict[str, str]]:
    """Values of the concepts behind the captions c_0 ... c_K, or behind c_0 and c_K alone in fused mode."""
    rows = [dict(plan.concepts.values())]
    for item in plan.affected:
        rows.append({**rows[-1], item.name: item.counterfactual or ""})
    return [rows[0], rows[-1]] if fused and len(rows) > 1 else rows


def phrases(plan: CounterfactualPlan, values: Mapping[str, str]) -> dict[str, str]:
    """Phrase of each concept that has a value, in caption order."""
    return {c.name: c.phrase(values[c.name]) for c in plan.concepts if values.get(c.name)}


def captions(plan: CounterfactualPlan, fused: bool = False) -> list[str]:
    """The captions c_0 ... c_K themselves, or c_0 and c_K alone in fused mode."""
    return [", ".join(phrases(plan, values).values()) for values in caption_values(plan, fused)]


def watched_spans(tokenize: Tokenizer, plan: CounterfactualPlan, fused: bool = False) -> dict[int, dict[str, Span]]:
    """Which tokens to watch in which caption.

    An affected concept is looked for in two places: where c_0 names its old value and where the caption that changes it
    names the new one, so that what is absent before, or after, is found all the same. Invariant concepts are looked for
    in c_0.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included
    plan, fused : the captions are those of :func:`captions`

    Returns
    -------
    dict from caption number to token spans by concept
        Invariant concepts whose phrases are cut off or have no tokens are left out, with a warning in the log.

    Raises
    ------
    CounterfactError
        An affected concept's old or new phrase is cut off or has no token, so that words cannot change it.
    """
    tokenize = cache(tokenize)
    rows = [phrases(plan, values) for values in caption_values(plan, fused)]
    watched: dict[int, dict[str, Span]] = {row: {} for row in range(len(rows))}

    def watch(row: int, name: str) -> None:
        names, words = zip(*rows[row].items())
        watched[row][name] = phrase_span(tokenize, words, names.index(name))

    changes, unread = edits(plan, fused=fused), []
    for edit in changes:
        try:
            for row in (0, edit.after):
                if edit.name in rows[row]:
                    watch(row, edit.name)
        except CounterfactError as error:
            raise CounterfactError(f"plan: words cannot change {edit.name}: {error}") from None
    invariant = [name for name in rows[0] if name not in {edit.name for edit in changes}]
    for name in invariant if changes else ():
        try:
            watch(0, name)
        except CounterfactError as error:
            unread.append(str(error))
    if unread:
        log.warning("Attention protects only what the text encoder reads: %s", "; ".join(unread))
    return watched
