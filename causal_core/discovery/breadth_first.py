"""Breadth-first discovery: the roots first, then the direct effects of each concept reached, level by level.

Jiralerspong et al. (2024), with n + 1 questions for n concepts. Unlike in the original, what comes out does not depend
on the order of the concepts (a level is asked at once, lists are sorted), concepts that nothing reaches are asked as
well, and contradictory answers become votes: cycles are broken where votes are weakest, not where they happen to close.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import folded
from .interview import Interview
from .questions import CHILDREN, FORWARD, NONE, ROOTS, Context
from .reading import names as read_names
from .votes import Beliefs, Pair, Votes

MAX_TOKENS = 200


def breadth_first(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """Each concept's answer votes on all its pairs: for the edge to what it lists, against that edge otherwise.

    A pair of which both list each other has half a vote for each direction; answers that cannot be read, asked for
    twice, do not vote.
    """
    names = context.concepts.names
    asked = sorted({number for pair in pairs for number in pair})
    ordered = sorted(asked, key=lambda number: folded(names[number]))
    known = {folded(names[number]): number for number in asked}
    interview.expected = len(asked) + 1
    if len(asked) < 2:
        return Votes(pairs).beliefs()

    def read(answer: str) -> set[int] | None:
        found = read_names(answer, known)
        interview.invented += found[1] if found else 0
        return found and found[0]

    def ask(questions: list[str]) -> list:
        return interview.text_twice([context.prompt(question) for question in questions], read, MAX_TOKENS)

    (roots,) = ask([ROOTS.fill(names=[names[number] for number in ordered])])
    effects: dict[int, set[int]] = {}
    reasons: dict[int, str] = {}
    visited: set[int] = set()
    level = roots.value or set(asked)
    while level:
        questions = []
        for number in sorted(level):
            causes = [names[i] for i in ordered if effects.get(i) and i != number]
            others = [names[i] for i in ordered if i != number]
            questions.append(CHILDREN.fill(known=causes, cause=names[number], names=others))
        visited |= level
        for number, reply in zip(sorted(level), ask(questions)):
            if reply.value is not None:
                effects[number] = reply.value - {number}
                reasons[number] = reply.reason
        reached = set().union(*effects.values()) - visited
        level = reached or set(asked) - visited
    votes = Votes(pairs)
    for a, b in pairs:
        links = [link for link in ((a, b), (b, a)) if link[1] in effects.get(link[0], ())]
        for link in links:
            votes.add(link, FORWARD, 1 / len(links), reasons[link[0]])
        if not links and (a in effects or b in effects):
            votes.add((a, b), NONE)
    return votes.beliefs()
