"""Triplet voting: the edges among each three concepts, and the majority of all answers about a pair.

Vashishtha et al. (ICLR 2025). A third concept makes a model think of mediators and common causes. All triplets of few
concepts are asked; of many, a subset in which each pair has about `PER_PAIR` answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..errors import folded
from .interview import Interview
from .questions import FORWARD, NONE, TRIPLET, Context
from .reading import edges
from .votes import Beliefs, Pair, Votes

MAX_TOKENS = 80
PER_PAIR = 6


def triplets(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """One vote on each pair of a triplet: for an edge that the answer lists, for none otherwise."""
    names = context.concepts.names
    wanted = set(pairs)
    asked = [t for t in chosen(len(names)) if any(pair in wanted for pair in itertools.combinations(t, 2))]

    def reader(triplet: tuple[int, int, int]):
        known = {folded(names[number]): number for number in triplet}

        def read(answer: str) -> set[Pair] | None:
            found = edges(answer, known)
            interview.invented += found[1] if found else 0
            return found and found[0]

        return read

    ordered = [sorted(triplet, key=lambda number: folded(names[number])) for triplet in asked]
    prompts = [context.prompt(TRIPLET.fill(names=[names[i] for i in three]), three) for three in ordered]
    replies = interview.text(prompts, [reader(triplet) for triplet in asked], MAX_TOKENS)
    votes = Votes(pairs)
    for triplet, reply in zip(asked, replies):
        if reply.value is None:
            continue
        for a, b in itertools.combinations(triplet, 2):
            link = next((link for link in ((a, b), (b, a)) if link in reply.value), None)
            votes.add(link or (a, b), FORWARD if link else NONE, reason=reply.reason if link else "")
    return votes.beliefs()


def chosen(n: int, per_pair: int = PER_PAIR, seed: int = 0) -> list[tuple[int, int, int]]:
    """Triplets of 0..n-1: all of them while a pair is in at most `per_pair`, else about so many for each pair.

    Examples
    --------
    >>> len(chosen(8)), len(chosen(20)), len(list(itertools.combinations(range(20), 3)))
    (56, 3..., 1140)
    """
    if n - 2 <= per_pair:
        return list(itertools.combinations(range(n), 3))
    rng = np.random.default_rng(seed)
    count = np.zeros((n, n), np.int64)
    found: set[tuple[int, int, int]] = set()
    for level in range(1, per_pair + 1):
        for a, b in rng.permutation(np.argwhere(np.triu(np.ones((n, n), bool), 1))).tolist():
            if count[a, b] >= level:
                continue
            # The third is one that is still missing with both, drawn among equals.
            need = -(np.maximum(count[a] - level, -1) + np.maximum(count[b] - level, -1)) + rng.random(n)
            need[[a, b]] = -np.inf
            for third in np.argsort(-need).tolist():
                triplet = tuple(sorted((a, b, third)))
                if third not in (a, b) and triplet not in found:
                    found.add(triplet)
                    for i, j in itertools.permutations(triplet, 2):
                        count[i, j] += 1
                    break
    return sorted(found)
