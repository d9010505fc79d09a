"""The captions of a counterfactual plan: from the factual one, one affected concept changed at a time, causes first."""

from __future__ import annotations

from ..attention.spans import Span, Tokenizer, phrase_spans
from ..plan import CounterfactualPlan


def caption_values(plan: CounterfactualPlan) -> list[dict[str, str]]:
    """Values of the concepts behind the captions c_0 ... c_K."""
    rows = [dict(plan.concepts.values())]
    for item in plan.affected:
        rows.append({**rows[-1], item.name: item.counterfactual or ""})
    return rows


def phrases(plan: CounterfactualPlan, values: dict[str, str]) -> dict[str, str]:
    """Phrase of each concept that has a value, in caption order."""
    return {c.name: c.phrase(values[c.name]) for c in plan.concepts if values.get(c.name)}


def captions(plan: CounterfactualPlan) -> list[str]:
    """The captions c_0 ... c_K themselves."""
    return [", ".join(phrases(plan, values).values()) for values in caption_values(plan)]


def watched_spans(tokenize: Tokenizer, plan: CounterfactualPlan) -> dict[int, dict[str, Span]]:
    """Which tokens to watch in which caption.

    An affected concept is looked for in two places: where c_0 names its old value and where the caption that changes it
    names the new one, so that what is absent before, or after, is found all the same.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included
    plan : its captions are those of :func:`captions`

    Returns
    -------
    dict from caption number to token spans by concept
    """
    rows = caption_values(plan)

    def spans(row: int) -> dict[str, Span]:
        named = phrases(plan, rows[row])
        return dict(zip(named, phrase_spans(tokenize, list(named.values()))))

    before = spans(0)
    watched = {0: {item.name: before[item.name] for item in plan.affected if item.name in before}}
    for row, item in enumerate(plan.affected, start=1):
        after = spans(row)
        watched[row] = {item.name: after[item.name]} if item.name in after else {}
    return watched
