"""The captions of a counterfactual plan: from the factual one, one affected concept changed at a time, causes first.

In fused mode there are two: the factual and the counterfactual caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..attention.spans import Span, Tokenizer, phrase_spans
from ..plan import CounterfactualPlan


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
    """
    rows = [phrases(plan, values) for values in caption_values(plan, fused)]
    spans = [dict(zip(named, phrase_spans(tokenize, list(named.values())))) for named in rows]
    watched = {row: {} for row in range(len(rows))}
    watched[0] = spans[0] if plan.affected else {}
    for edit in edits(plan, fused=fused):
        if edit.name in spans[edit.after]:
            watched[edit.after][edit.name] = spans[edit.after][edit.name]
    return watched
