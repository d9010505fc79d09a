"""The plain protocol, for comparison: "does changing a change b?" for each ordered pair, yes or no in free text.

Kiciman et al. (2023), and the protocol of CausalVLBench. Small models say no, or yes, to everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from .interview import Interview
from .questions import FORWARD, NONE, YES_NO, Context
from .reading import yes_or_no
from .votes import Beliefs, Pair, Votes

MAX_TOKENS = 8


def yes_no(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """A yes is a vote for the edge; two are half a vote for each direction; two times no is one for no edge."""
    names = context.concepts.names
    asked = [link for pair in pairs for link in (pair, pair[::-1])]
    prompts = [context.prompt(YES_NO.fill(first=names[a], second=names[b]), (a, b)) for a, b in asked]
    replies = dict(zip(asked, interview.text(prompts, repeat(yes_or_no), MAX_TOKENS)))
    votes = Votes(pairs)
    for pair in pairs:
        answers = {link: replies[link].value for link in (pair, pair[::-1])}
        said_yes = [link for link, answer in answers.items() if answer]
        for link in said_yes:
            votes.add(link, FORWARD, 1 / len(said_yes))
        if not said_yes and None not in answers.values():
            votes.add(pair, NONE)
    return votes.beliefs()
