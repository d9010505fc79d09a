"""Pairs judged by log-probabilities, for models that give them.

Letters: the choices of a multiple-choice question, averaged as logarithms over both orders and all phrasings, so that a
preference for a letter cancels. What is left is nearly nothing for a model that only guesses, and much for one that
knows.

Sentences, for a model whose letters cancel and which can score any text: how probable each concept is in the place of
"X" after "Y depends on". What a small model knows is little, and the posteriors say so. Phrasings and constants: see
the README beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..language.model import TEXT, Prompt, Request
from .interview import Interview
from .questions import BACKWARD, FORWARD, LETTER_CHOICES, NONE, Choice, Context
from .votes import Beliefs, Pair

# A prompt about the effect, and how it goes on with a cause.
SENTENCES = (
    ("Fact: {effect}", " depends on {cause}."),
    ("Fact: {effect}", " is caused by {cause}."),
    ("Fact: The {effect}", " changed because of the {cause}."),
)
# So many edges a concept are expected; graphs that people draw have 0.6 to 1.6.
EDGES_PER_CONCEPT = 1.0
# How much of what a concept scores as a cause, or as an effect, of all others is its wording rather than its edges.
WORDING = 0.5
# Log-odds of an edge, and of its direction, for one standard deviation of the sentences' scores: logistic regression on
# the development graphs, with standard errors of 0.2.
EXISTENCE, DIRECTION = 0.7, 0.8
# Letters are tried on so many pairs; if their log-odds vary less than this, the model only guesses.
TRIED, TELLING = 6, 0.5


def scored(interview: Interview, context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """Beliefs from letters, or from sentences if the model can score them and its letters tell nothing."""
    if not pairs:
        return Beliefs({}, {})
    if interview.model.scores == TEXT:
        interview.expected = _calls_of_sentences(pairs) + len(_tried(pairs)) * 2 * len(LETTER_CHOICES)
        odds = [np.mean(found, 0) for found in letters(interview, context, _tried(pairs)).values() if found]
        if not telling(odds):
            return from_sentences(sentences(interview, context, pairs), context, pairs)
        interview.expected = 0
    return from_letters(letters(interview, context, pairs), context, pairs)


def telling(found: Sequence[np.ndarray]) -> bool:
    """Whether mean log-probabilities of the three options differ between pairs, or between directions.

    Examples
    --------
    >>> telling([np.log([0.34, 0.33, 0.33]), np.log([0.31, 0.34, 0.35])])
    False
    >>> telling([np.log([0.9, 0.05, 0.05]), np.log([0.1, 0.1, 0.8])])
    True
    """
    if not found:
        return False
    forward, backward, none = np.stack(found, 1)
    linked = none - np.logaddexp(forward, backward)
    return float(max(np.std(linked), np.sqrt(np.mean((forward - backward) ** 2)))) > TELLING


def letters(interview: Interview, context: Context, pairs: Sequence[Pair]) -> dict[Pair, list[np.ndarray]]:
    """For each pair the log-probabilities of FORWARD, BACKWARD and NONE in each phrasing and order that can be read."""
    names = context.concepts.names
    asked = [(pair, choice, order) for pair in pairs for choice in LETTER_CHOICES for order in (pair, pair[::-1])]
    requests = [
        Request(context.prompt(choice.question.fill(first=names[a], second=names[b]), (a, b)), Choice.LETTERS)
        for _, choice, (a, b) in asked
    ]
    found: dict[Pair, list[np.ndarray]] = {pair: [] for pair in pairs}
    for (pair, choice, order), scores in zip(asked, interview.scores(requests)):
        if scores is not None:
            by_meaning = np.zeros(3)
            for meaning, score in zip(choice.options, scores):
                turned = order != pair and meaning != NONE
                by_meaning[(BACKWARD if meaning == FORWARD else FORWARD) if turned else meaning] = score
            found[pair].append(by_meaning - np.logaddexp.reduce(by_meaning))
    return found


def from_letters(found: dict[Pair, list[np.ndarray]], context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """The geometric mean of the answers times the prior."""
    edge = expected_edges(pairs) / len(pairs)
    prior = np.log([edge / 2, edge / 2, 1 - edge])
    posteriors, reasons = {}, {}
    for pair, answers in found.items():
        log = prior + (np.mean(answers, 0) if answers else 0.0)
        probabilities = np.exp(log - np.logaddexp.reduce(log))
        posteriors[pair] = tuple(probabilities.tolist())
        for outcome, link in ((FORWARD, pair), (BACKWARD, pair[::-1])):
            most = sum(answer.argmax() == outcome for answer in answers)
            reasons[link] = f"the most probable answer to {most} of {len(answers)} questions, {_asked(context, link)}"
    return Beliefs(posteriors, reasons, _boldness(posteriors, pairs))


def sentences(interview: Interview, context: Context, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """Log-probabilities of the sentences, one [n, n] a phrasing: row cause, column effect, NaN where nobody asked."""
    names = [name.replace("_", " ") for name in context.concepts.names]
    causes: dict[int, list[int]] = {}
    for a, b in pairs:
        causes.setdefault(a, []).append(b)
        causes.setdefault(b, []).append(a)
    asked = [(number, effect) for number in range(len(SENTENCES)) for effect in sorted(causes)]
    requests = [
        Request(
            Prompt(SENTENCES[number][0].format(effect=names[effect]), chat=False),
            tuple(SENTENCES[number][1].format(cause=names[cause]) for cause in causes[effect]),
        )
        for number, effect in asked
    ]
    found = [np.full((len(names), len(names)), np.nan) for _ in SENTENCES]
    for (number, effect), scores in zip(asked, interview.scores(requests, floor=1000.0)):
        if scores is not None:
            found[number][causes[effect], effect] = scores
    return found


def from_sentences(found: Sequence[np.ndarray], context: Context, pairs: Sequence[Pair]) -> Beliefs:
    """Beliefs from how scores compare with each other: nothing is learnt from how large they are."""
    a, b = np.array(pairs).T
    partly = [WORDING * centred(scores) + (1 - WORDING) * scores for scores in found]
    linked = _unit(sum(_unit(_deviation(scores[a, b] + scores[b, a])) for scores in partly))
    differences = np.stack([np.nan_to_num(scores[a, b] - scores[b, a]) for scores in found])
    direction = _unit(sum(map(_unit, differences)))
    edge = logistic(EXISTENCE * linked + _offset(EXISTENCE * linked, expected_edges(pairs)))
    forward = edge * logistic(DIRECTION * direction)
    posteriors, reasons = {}, {}
    for number, pair in enumerate(pairs):
        posteriors[pair] = tuple(float(p) for p in (forward[number], edge[number] - forward[number], 1 - edge[number]))
        for sign, link in ((1, pair), (-1, pair[::-1])):
            more = int((sign * differences[:, number] > 0).sum())
            reasons[link] = (
                f"more probable than the reverse in {more} of {len(found)} phrasings, {_asked(context, link)}"
            )
    return Beliefs(posteriors, reasons, _boldness(posteriors, pairs))


def centred(scores: np.ndarray) -> np.ndarray:
    """What is left of a matrix after the best sum of row and column effects; NaN where it is NaN.

    Examples
    --------
    >>> centred(np.array([[np.nan, 1.0, 2.0], [3.0, np.nan, 5.0], [4.0, 5.0, np.nan]])).round(6) + 0.0
    array([[nan,  0.,  0.],
           [ 0., nan,  0.],
           [ 0.,  0., nan]])
    """
    residual = np.array(scores, np.float64)
    known = ~np.isnan(residual)
    for _ in range(50):
        for axis in (0, 1):
            count = np.maximum(known.sum(axis, keepdims=True), 1)
            residual = residual - np.nansum(residual, axis, keepdims=True) / count
    return residual


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    return np.exp(-np.logaddexp(0.0, -x))


def expected_edges(pairs: Sequence[Pair]) -> float:
    """How many of these pairs are expected to have an edge: one for each concept, at most half of them."""
    return min(EDGES_PER_CONCEPT * len({number for pair in pairs for number in pair}), len(pairs) / 2)


def _deviation(x: np.ndarray) -> np.ndarray:
    """What differs from the mean of what is known."""
    known = ~np.isnan(x)
    return x - x[known].mean() if known.any() else x


def _unit(x: np.ndarray) -> np.ndarray:
    """Scores with a root mean square of 1; 0 where nothing is known, or if nothing differs."""
    x = np.nan_to_num(x)
    scale = np.sqrt(np.mean(x**2))
    return x / scale if scale > 1e-9 else np.zeros_like(x)


def _offset(log_odds: np.ndarray, total: float) -> float:
    """What to add to log-odds so that the probabilities add up to `total`."""
    low, high = -100.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if logistic(log_odds + middle).sum() > total else (middle, high)
    return (low + high) / 2


def _boldness(posteriors: dict[Pair, tuple[float, float, float]], pairs: Sequence[Pair]) -> float:
    """How much less probable than none an edge may be and still be drawn, as a difference of logarithms.

    A weak model never makes an edge more probable than none, and a graph without edges is nothing to correct. So as
    many edges are drawn as are expected, the surest, as far as the evidence speaks for them: as they would be drawn if
    an edge were as probable as none beforehand.
    """
    count = expected_edges(pairs)
    against = np.sort([np.log(none / max(forward, backward)) for forward, backward, none in posteriors.values()])
    prior_against = np.log((len(pairs) - count) / (count / 2))
    return float(np.clip(against[max(round(count), 1) - 1] + 1e-9, 0.0, prior_against))


def _calls_of_sentences(pairs: Sequence[Pair]) -> int:
    return len(SENTENCES) * len({number for pair in pairs for number in pair})


def _tried(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """A few pairs from all over the list."""
    return pairs[:: -(-len(pairs) // TRIED)]


def _asked(context: Context, link: Pair) -> str:
    cause, effect = (context.concepts.names[number] for number in link)
    return f"both orders, about '{cause}' and '{effect}'"
