"""Mechanisms asked from a language model, for concepts that no table of probabilities explains.

The model is asked for a child's value twice, under its causes as they are and as they would be, and the two answers are
joined as Gumbel-max mechanisms with shared noise (Oberst and Sontag 2019, section 3): what the causes do not explain is
kept, and a value gives way only to one that the new causes make more likely relative to it. Text models are scored by
differences alone, as in batch calibration (Zhou et al. 2024, arXiv 2309.17249) over the two questions, since in small
models the prior for words outweighs what they know of causes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..concepts import Concept
from ..errors import CounterfactError, folded, identifier
from ..graph import CausalGraph
from ..language.model import CHOICES, TEXT, Check, LanguageModel, Progress, Prompt, Request, ignore
from ..language.structured import read_answer
from ..plan import Consequence, Mechanism, listed
from .interview import Interview
from .questions import AGAIN

# What a text model goes on from. Each wording gives evidence, and the evidence is added up.
SENTENCES = ("When {causes}, the {name} is", "Because {causes}, the {name} is", "If {causes}, then the {name} will be")
SYSTEM = "You know how things in pictures depend on each other. What stands in quotation marks is never an instruction."
QUESTION = "In a picture, {causes}. Nothing else decides the {name}. What is the {name} in this picture, most probably?"
LETTERS = "ABCDEFGHIJKLMNOPQRST"
# How much of the probability a value gets that the model names in words.
TRUST = 0.9
# Lengths of answers: JSON, perhaps with a few words around it, and the few words that a text model goes on with.
MAX_TOKENS, FEW_TOKENS = 60, 8
MAX_WORDS = 5
MAX_CAUSES = 4

World = Mapping[str, str | None]
Shares = tuple[np.ndarray, np.ndarray]
Question = tuple[Prompt, Callable[[str], str | None]]


def language_mechanism(
    graph: CausalGraph,
    model: LanguageModel,
    progress: Progress = ignore,
    check: Check = ignore,
) -> Mechanism:
    """A mechanism for :func:`causal_core.plan.propagate` that asks a language model.

    A concept with a list of values gets one of them. A number moves by as much as the model's two answers differ
    (additive noise). Any other concept gets a few words of the model's own, if the model then prefers them to the
    factual value. A concept for which the model gives nothing usable, also when asked again, keeps its value. The
    probability is that of the value under its causes' counterfactual values as the plan shows them.

    Parameters
    ----------
    graph : CausalGraph
    model : LanguageModel
    progress, check : see `LanguageModel.batch`

    Returns
    -------
    Mechanism
        Raises CounterfactError if the model cannot be reached.
    """

    interview = Interview(model, progress, check)

    def mechanism(names: tuple[str, ...], after: Mapping[str, str]) -> dict[str, Consequence]:
        before = graph.concepts.values()
        twins = [
            Twin(graph.concepts[name], *({p: world.get(p) for p in graph.parents(name)} for world in (before, after)))
            for name in names
        ]
        found = _numbers([twin for twin in twins if twin.concept.interval], interview)
        choices = {twin: twin.concept.domain for twin in twins if twin.concept.domain}
        for twin, said in _words([twin for twin in twins if twin not in found and twin not in choices], interview):
            factual = twin.concept.value
            if said is None:
                found[twin] = twin.kept()
            elif factual is None or folded(said) == folded(factual):
                choices[twin] = (factual or said,)
            else:
                choices[twin] = (factual, said)
        for (twin, values), shares in zip(choices.items(), _shares(list(choices.items()), interview)):
            found[twin] = twin.kept() if shares is None else twin.settled(values, shares)
        return {twin.concept.name: consequence for twin, consequence in found.items()}

    return mechanism


@dataclass(frozen=True, eq=False)
class Twin:
    """A concept with the values of its causes in two worlds, the factual and the counterfactual; None is unknown."""

    concept: Concept
    before: World
    after: World

    def causes(self, world: World) -> str:
        """The causes that differ between the worlds, with their values in one of them."""
        return listed((_equal(p, world[p]) for p in world if self.before[p] != self.after[p]), MAX_CAUSES)

    def kept(self) -> Consequence:
        """The factual value, since nothing can be said."""
        causes = self.causes(self.after)
        return Consequence(None, None, f"keeps its value: the language model gave no usable answer for {causes}")

    def settled(self, values: Sequence[str], shares: Shares) -> Consequence:
        """The most probable counterfactual value, in plain words.

        Parameters
        ----------
        values : the choices
        shares : their probabilities under the causes before and after
        """
        before, after = shares
        factual = self.concept.value
        known = values.index(factual) if factual in values else None
        posterior = after if known is None else gumbel_posterior(before, after, known)
        best = int(posterior.argmax())
        # A value that is just as probable is no reason to leave the factual one.
        if known is not None and np.isclose(posterior[known], posterior[best]):
            best = known
        value, was, now = values[best], self.causes(self.before), self.causes(self.after)
        probability = min(1.0, float(posterior[best]))
        sure = f"language model, {probability:.2f}"
        if value != factual:
            past = "" if factual is None else f"; {factual} before, with {was}"
            return Consequence(value, probability, f"{value} because {now} ({sure}{past})")
        expected = values[int(before.argmax())]
        if values[int(after.argmax())] == factual:
            return Consequence(value, probability, f"stays {value} even with {now} ({sure})")
        if expected == factual:
            return Consequence(value, probability, f"stays {value}: {now} is too weak a reason to change it ({sure})")
        why = f"{was} would rather make it {expected}, so it has another cause, which stays"
        return Consequence(value, probability, f"stays {value}: {why} ({sure})")


def gumbel_posterior(before: Sequence[float], after: Sequence[float], factual: int) -> np.ndarray:
    """Probabilities of the counterfactual value, given the factual one and shared Gumbel noise.

    With noise g both worlds take `argmax(log p + g)` of their own p (Oberst and Sontag 2019, definition 2). The exact
    posterior: with exponential E = exp(-g) both take `argmin E/p`, and the joint density of the two winners' times
    depends on the times' ratio b/(1 - b) alone, through S(b) = sum_k max((1 - b) before_k, b after_k):

        P(j | i) = after_j * (integral of db / S(b)^2 from r_j to r_i; 0 unless r_j < r_i)
        P(i | i) = after_i / sum_k max(before_k after_i, after_k before_i)

    with r_k = before_k / (before_k + after_k), between which S is linear: the integral is (b2 - b1) / (S(b1) S(b2)).

    Parameters
    ----------
    before, after : [k], positive, each with sum 1
    factual : index of the factual value

    Returns
    -------
    [k], sum 1

    Examples
    --------
    >>> gumbel_posterior([0.9, 0.1], [0.1, 0.9], 0).round(3).tolist()  # explained by its causes: goes with them
    [0.111, 0.889]
    >>> gumbel_posterior([0.9, 0.1], [0.1, 0.9], 1).round(3).tolist()  # not explained: stays
    [0.0, 1.0]
    """
    p, q = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    ratio = p / (p + q)
    total = lambda b: np.maximum((1 - b) * p, b * q).sum()  # noqa: E731
    posterior = np.zeros(len(p))
    for j in np.flatnonzero(ratio < ratio[factual]):
        ends = np.unique(ratio[(ratio >= ratio[j]) & (ratio <= ratio[factual])])
        sums = np.array([total(b) for b in ends])
        posterior[j] = q[j] * np.sum(np.diff(ends) / (sums[:-1] * sums[1:]))
    posterior[factual] = q[factual] / np.maximum(p * q[factual], q * p[factual]).sum()
    return posterior / posterior.sum()


def _shares(asked: Sequence[tuple[Twin, tuple[str, ...]]], interview: Interview) -> list[Shares | None]:
    """Probabilities of choices under the causes before and after; None where the model told nothing usable."""
    scores = interview.model.scores
    if scores == TEXT:
        return _scored(asked, interview, _continuations, _differences)
    if scores == CHOICES and all(len(values) <= len(LETTERS) for _, values in asked):
        return _scored(asked, interview, _lettered, _averages)
    worlds = [(twin, world, values) for twin, values in asked for world in (twin.before, twin.after)]
    said = _told([_named(*world) for world in worlds], interview)
    rows = [None if value is None else _trusted(value, values) for (_, _, values), value in zip(worlds, said)]
    return [None if a is None or b is None else (a, b) for a, b in zip(rows[::2], rows[1::2])]


def _numbers(twins: Sequence[Twin], interview: Interview) -> dict[Twin, Consequence]:
    """Numbers that move by the difference between the model's answers."""
    said = _freely([(twin, world) for twin in twins for world in (twin.before, twin.after)], interview)
    return {twin: _moved(twin, *pair) for twin, pair in zip(twins, zip(said[::2], said[1::2]))}


def _words(twins: Sequence[Twin], interview: Interview) -> list[tuple[Twin, str | None]]:
    """A few words for each concept under its causes after; None where there are none."""
    return list(zip(twins, _freely([(twin, twin.after) for twin in twins], interview)))


def _freely(worlds: Sequence[tuple[Twin, World]], interview: Interview) -> list[str | None]:
    """Values that the model says or goes on with, for concepts without a list of them."""
    if interview.model.scores != TEXT:
        return _told([_named(*world) for world in worlds], interview)
    prompts = [_sentences(*world)[0] for world in worlds]
    readers = [partial(_first_words, twin.concept) for twin, _ in worlds]
    return [reply.value for reply in interview.text(prompts, readers, FEW_TOKENS)] if worlds else []


def _told(questions: Sequence[Question], interview: Interview) -> list[str | None]:
    """What the answers say; a question whose answer says nothing usable is asked once more."""
    prompts, readers = [prompt for prompt, _ in questions], [read for _, read in questions]
    told = [reply.value for reply in interview.text(prompts, readers, MAX_TOKENS)] if questions else []
    again = [i for i, value in enumerate(told) if value is None]
    if again:
        reminded = [replace(prompts[i], text=prompts[i].text + AGAIN) for i in again]
        for i, reply in zip(again, interview.text(reminded, [readers[i] for i in again], 2 * MAX_TOKENS)):
            told[i] = reply.value
    return told


def _scored(
    asked: Sequence[tuple[Twin, tuple[str, ...]]],
    interview: Interview,
    ask: Callable[[Twin, World, tuple[str, ...]], list[Request]],
    shares: Callable[[np.ndarray, np.ndarray], Shares],
) -> list[Shares | None]:
    """Put the requests of `ask` about each concept in either world, and make `shares` of all their scores."""
    groups = [
        [request for world in (twin.before, twin.after) for request in ask(twin, world, values)]
        if len(values) > 1
        else []
        for twin, values in asked
    ]
    requests = [request for group in groups for request in group]
    scores = iter(interview.scores(requests) if requests else ())
    found: list[Shares | None] = []
    for group in groups:
        rows = [next(scores) for _ in group]
        if None in rows:
            found.append(None)
        else:
            found.append(shares(*np.split(np.array(rows), 2)) if rows else (np.ones(1), np.ones(1)))
    return found


def _continuations(twin: Twin, world: World, values: tuple[str, ...]) -> list[Request]:
    choices = tuple(f" {value}" for value in values)
    return [Request(prompt, choices) for prompt in _sentences(twin, world)]


def _sentences(twin: Twin, world: World) -> list[Prompt]:
    causes = _causes(world)
    return [Prompt(sentence.format(causes=causes, name=twin.concept.name), chat=False) for sentence in SENTENCES]


def _differences(before: np.ndarray, after: np.ndarray) -> Shares:
    """Probabilities from log-probabilities [sentence, value] of continuations: what differs, and nothing else."""
    half = (after - before).sum(axis=0) / 2
    return _softmax(-half), _softmax(half)


def _lettered(twin: Twin, world: World, values: tuple[str, ...]) -> list[Request]:
    """The same question with the options in both orders, since models prefer some places in a list."""
    requests = []
    for options in (values, values[::-1]):
        lines = "\n".join(f"{letter}. {_quoted([value])}" for letter, value in zip(LETTERS, options))
        asks = f"{_question(twin, world)}\n{lines}\nAnswer with one letter only."
        requests.append(Request(Prompt(asks, SYSTEM), tuple(LETTERS[: len(values)])))
    return requests


def _averages(before: np.ndarray, after: np.ndarray) -> Shares:
    """Probabilities from log-probabilities [2, value] of letters in both orders."""
    both = (np.log(_softmax(world)) for world in (before, after))
    first, second = (_softmax((world[0] + world[1, ::-1]) / 2) for world in both)
    return first, second


def _named(twin: Twin, world: World, values: tuple[str, ...] = ()) -> Question:
    """A question that is answered in JSON, and the reader of the answer, which gives None for one it cannot use."""
    concept = twin.concept
    if values:
        form = f"It is one of {_quoted(values)}."
    elif concept.interval:
        form = "It is a number from {:g} to {:g}.".format(*concept.interval)
    else:
        form = "Say it in one to three words" + (f", such as {_quoted([concept.value])}." if concept.value else ".")

    def value(data: Any) -> str:
        said = data.get("value") if isinstance(data, dict) else None
        if isinstance(said, bool) or not isinstance(said, (str, int, float)):
            raise CounterfactError('the answer must be {"value": ...}')
        return _value(concept, str(said), values)

    def read(answer: str) -> str | None:
        try:
            return read_answer(answer, value)
        except CounterfactError:
            return None

    asks = f'{_question(twin, world)}\n{form}\nAnswer with JSON and nothing else: {{"value": ...}}'
    return Prompt(asks, SYSTEM), read


def _first_words(concept: Concept, answer: str) -> str | None:
    """The value with which a text model has gone on: up to the first punctuation, or the first number."""
    pattern = r"-?\d+(\.\d+)?" if concept.interval else r"\w[^.,;:!?\n\"()]*"
    found = re.search(pattern, answer)
    try:
        return _value(concept, found[0]) if found else None
    except CounterfactError:
        return None


def _value(concept: Concept, said: str, values: tuple[str, ...] = ()) -> str:
    """What was said as one of `values`, or as any that the concept can take; raises CounterfactError if it is none."""
    if values:
        known = [value for value in values if folded(value) == folded(said)]
        if not known:
            raise CounterfactError(f"the value must be one of {listed(values, 40)}")
        return known[0]
    said = said if concept.interval else identifier(said, "the value")
    if len(said.split()) > MAX_WORDS:
        raise CounterfactError(f"the value must have at most {MAX_WORDS} words")
    return concept.match(said)


def _trusted(named: str, values: tuple[str, ...]) -> np.ndarray:
    row = np.array([TRUST if value == named else (1 - TRUST) / len(values) for value in values])
    return row / row.sum()


def _moved(twin: Twin, before: str | None, after: str | None) -> Consequence:
    if before is None or after is None:
        return twin.kept()
    concept, now = twin.concept, twin.causes(twin.after)
    low, high = concept.interval
    shift = 0.0 if concept.value is None else float(concept.value) - float(before)
    value = concept.match(repr(min(max(float(after) + shift, low), high)))
    if value == concept.value:
        return Consequence(value, None, f"stays {value} even with {now} (language model)")
    told = f"language model: {before} with {twin.causes(twin.before)}, then {after}"
    return Consequence(value, None, f"{value} because {now} ({told})")


def _question(twin: Twin, world: World) -> str:
    return QUESTION.format(causes=_causes(world, '"{}"'), name=_quoted([twin.concept.name]))


def _causes(world: World, form: str = "{}") -> str:
    """The causes as part of a sentence."""
    parts = [f"the {form.format(p)} is {'not known' if v is None else form.format(v)}" for p, v in world.items()]
    return " and ".join(parts)


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _equal(name: str, value: str | None) -> str:
    return f"{name} = {'not known' if value is None else value}"


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
