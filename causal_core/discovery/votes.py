"""From votes on pairs to beliefs: how probable a -> b, b -> a and neither are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .questions import BACKWARD, FORWARD, NONE

# Added to each count: Jeffreys' prior, so that no finite number of votes makes anything certain.
SMOOTHING = 0.5

Pair = tuple[int, int]
Posterior = tuple[float, float, float]


@dataclass(frozen=True)
class Beliefs:
    """What a strategy believes.

    Attributes
    ----------
    posteriors : for each pair (i, j) that was asked about the probabilities of i -> j, j -> i and neither
    reasons : for edges (cause, effect) a line that says why
    boldness : an edge is drawn if log p(edge) - log p(neither) is above minus this
    """

    posteriors: Mapping[Pair, Posterior]
    reasons: Mapping[Pair, str]
    boldness: float = 0.0


@dataclass
class Votes:
    """Counts of votes on pairs.

    Examples
    --------
    >>> votes = Votes([(0, 1)])
    >>> votes.add((0, 1), FORWARD, reason="Rain makes streets wet.")
    >>> votes.add((1, 0), BACKWARD)
    >>> votes.beliefs().posteriors
    {(0, 1): (0.714..., 0.142..., 0.142...)}
    >>> votes.beliefs().reasons[0, 1]
    'Rain makes streets wet. (2 of 2 answers)'
    """

    pairs: Iterable[Pair]
    counts: dict[Pair, np.ndarray] = field(init=False)
    said: dict[Pair, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.counts = {pair: np.zeros(3) for pair in self.pairs}

    def add(self, pair: Pair, outcome: int, weight: float = 1.0, reason: str = "") -> None:
        """Count a vote on a pair in either order; pairs that were not asked about do not count."""
        if pair not in self.counts:
            pair, outcome = pair[::-1], (BACKWARD, FORWARD, NONE)[outcome]
        if pair not in self.counts:
            return
        self.counts[pair][outcome] += weight
        if reason and outcome != NONE:
            self.said.setdefault(pair if outcome == FORWARD else pair[::-1], reason)

    def beliefs(self) -> Beliefs:
        """Smoothed shares of the votes, and a reason for each edge that has a vote."""
        posteriors, reasons = {}, {}
        for pair, counts in self.counts.items():
            smoothed = counts + SMOOTHING
            posteriors[pair] = tuple((smoothed / smoothed.sum()).tolist())
            for outcome, link in ((FORWARD, pair), (BACKWARD, pair[::-1])):
                if counts[outcome]:
                    share = _share(counts[outcome], counts.sum())
                    reasons[link] = f"{self.said[link]} ({share})" if link in self.said else share
        return Beliefs(posteriors, reasons)


def _share(votes: float, total: float) -> str:
    if total > 1:
        return f"{votes:g} of {total:g} answers"
    return "the one answer" if votes == total else "one answer, another says the reverse"
