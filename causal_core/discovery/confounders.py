"""Latent confounders, proposed: pairs that have a common cause which is none of the concepts.

Only pairs without an edge are asked about. The answers of a small model are no evidence; a proposal is for a person to
judge, as a bidirected edge of the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from ..language.model import NOTHING, Request
from .interview import Interview
from .questions import CONFOUNDERS, Context
from .reading import yes_or_no
from .votes import Pair

MAX_TOKENS = 8
SHARE = 0.75


def confounders(interview: Interview, context: Context, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs for which three of four answers, two wordings in both orders, say yes.

    Where the model scores, the four scores count instead: the log-odds of yes must be positive and one standard
    deviation above the mean of all pairs.
    """
    names = context.concepts.names
    asked = [(pair, wording, order) for pair in pairs for wording in CONFOUNDERS for order in (pair, pair[::-1])]
    prompts = [context.prompt(w.fill(first=names[a], second=names[b]), (a, b)) for _, w, (a, b) in asked]
    found: dict[Pair, list[float]] = {pair: [] for pair in pairs}
    if interview.model.scores == NOTHING:
        for (pair, *_), reply in zip(asked, interview.text(prompts, repeat(yes_or_no), MAX_TOKENS)):
            if reply.value is not None:
                found[pair].append(float(reply.value))
        return [pair for pair, said in found.items() if said and sum(said) >= SHARE * len(said)]
    for (pair, *_), scores in zip(asked, interview.scores([Request(p, choices=("Yes", "No")) for p in prompts])):
        if scores is not None:
            found[pair].append(scores[0] - scores[1])
    means = {pair: sum(odds) / len(odds) for pair, odds in found.items() if odds}
    if not means:
        return []
    mean = sum(means.values()) / len(means)
    spread = (sum((x - mean) ** 2 for x in means.values()) / len(means)) ** 0.5
    return [pair for pair, odds in means.items() if odds > max(0.0, mean + spread)]
