"""Pairwise discovery: every pair on its own, in both orders and several phrasings.

Kiciman et al. (2023) with "neither" as a third option. A model that scores is asked for probabilities (see
:mod:`.scored`), any other for text, whose choices are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import repeat

from ..language.model import NOTHING
from .interview import Interview
from .questions import CHOICES, Choice, Context
from .reading import letter
from .scored import scored
from .votes import Beliefs, Pair, Votes

MAX_TOKENS = 160


def pairwise(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """Beliefs about each pair from log-probabilities where the model gives them, else from votes."""
    return (by_votes if interview.model.scores == NOTHING else scored)(interview, context, pairs)


def by_votes(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """Four votes a pair: two phrasings in both orders."""
    names = context.concepts.names
    asked = [(choice, order) for pair in pairs for choice in CHOICES for order in (pair, pair[::-1])]
    prompts = [
        context.prompt(choice.question.fill(first=names[a], second=names[b]), (a, b)) for choice, (a, b) in asked
    ]
    replies = interview.text(prompts, repeat(partial(letter, letters=Choice.LETTERS)), MAX_TOKENS)
    votes = Votes(pairs)
    for (choice, order), reply in zip(asked, replies):
        if reply.value is not None:
            votes.add(order, choice.meaning(reply.value), reason=reply.reason)
    return votes.beliefs()
