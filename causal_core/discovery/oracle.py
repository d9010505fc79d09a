"""A scripted language model that knows a graph and errs at a given rate, to test strategies without any real model.

It reads the very prompts that the strategies write and answers in the form that they ask for, so that prompts,
strategies and readers are all exercised. Its errors are drawn by a hash of the question: the same question has the same
answer.
"""

from __future__ import annotations

import hashlib
import itertools

from ..errors import CounterfactError, finite, unknown
from ..graph import CausalGraph
from ..language.model import NOTHING, Check, OneByOne, Request, ignore
from .questions import AGAIN, BACKWARD, CHILDREN, CHOICES, CONFOUNDERS, FORWARD, NONE, ROOTS, TRIPLET, YES_NO, Choice

ERRORS = ANSWER, PAIR = "answer", "pair"

GARBLED = ("", "I am not sure what you mean.", "<Answer>", "Ignore the question. <Answer>unicorns</Answer>")


class Oracle(OneByOne):
    """A language model that answers from a graph.

    Parameters
    ----------
    graph : the truth
    flips : share of wrong beliefs, 0 to 1. The truth about a pair (an edge, its reverse, or none) becomes one of the
        other two; whether a concept is a root, or a pair is confounded, becomes the opposite.
    seed : of the errors
    errors : "answer" draws the errors for each answer anew, as of a model that guesses differently each time it is
        asked otherwise; "pair" once for each pair, as of a model that believes something wrong, whatever the phrasing
    garbled : share of answers in which nothing can be read

    Examples
    --------
    >>> from causal_core.discovery import discover
    >>> graph = CausalGraph.from_edges([("rain", "wet street"), ("wet street", "accidents")])
    >>> found = discover(graph.concepts, Oracle(graph))
    >>> [(edge.source, edge.target) for edge in found.graph.edges]
    [('rain', 'wet street'), ('wet street', 'accidents')]
    """

    scores = NOTHING
    sees = False

    def __init__(
        self, graph: CausalGraph, flips: float = 0.0, seed: int = 0, errors: str = ANSWER, garbled: float = 0.0
    ) -> None:
        if errors not in ERRORS:
            raise unknown("kind of errors", errors, ERRORS, "kinds")
        self.flips, self.garbled = finite(flips, "flips", 0.0, 1.0), finite(garbled, "garbled", 0.0, 1.0)
        self.graph, self.seed, self.errors = graph, seed, errors
        self.links = {(edge.source, edge.target) for edge in graph.edges}
        truth = hashlib.sha256(graph.to_json().encode()).hexdigest()[:12]
        self.name = f"oracle:{truth}:{flips:g}:{errors}:{garbled:g}:{seed}"

    def complete(self, request: Request, check: Check = ignore) -> str:
        """The answer to one of the questions of :mod:`.questions`; raises CounterfactError for any other."""
        check()
        question = request.prompt.text.removesuffix(AGAIN)
        garbled, which = self._draw("garbled", request.prompt.text)
        if garbled < self.garbled:
            return GARBLED[int(which * len(GARBLED))]
        for template, answer in self._answers():
            if (names := template.match(question)) is not None:
                return answer(question, **names)
        raise CounterfactError(f"the oracle knows the questions of this pack only, not {question[:80]!r}")

    def choice_logprobs(self, request: Request, check: Check = ignore) -> tuple[float, ...]:
        """The oracle gives no scores."""
        raise CounterfactError("the oracle answers in text only: ask without choices")

    def _answers(self):
        for choice in CHOICES:
            yield (
                choice.question,
                lambda question, first, second, choice=choice: self._choice(choice, question, first[0], second[0]),
            )
        yield YES_NO, lambda question, first, second: self._yes(self._causes(question, first[0], second[0]))
        yield ROOTS, self._roots
        yield CHILDREN, self._children
        yield TRIPLET, self._triplet
        for template in CONFOUNDERS:
            yield template, self._confounded

    def _choice(self, choice: Choice, question: str, first: str, second: str) -> str:
        state = self._state(question, first, second)
        letter = choice.LETTERS[choice.options.index(state)]
        cause, effect = (second, first) if state == BACKWARD else (first, second)
        why = f"{cause} and {effect} are unrelated" if state == NONE else f"A change of {cause} changes {effect}"
        return f"{why}.\n<Answer>{letter}</Answer>"

    def _roots(self, question: str, names: list[str]) -> str:
        effects = {effect for cause, effect in self.links if cause in names}
        roots = [
            name
            for name in names
            if (name not in effects) != self._flipped(f"root {name}" if self.errors == PAIR else f"{question}\0{name}")
        ]
        return self._tagged(", ".join(roots))

    def _children(self, question: str, known: list[str], cause: list[str], names: list[str]) -> str:
        return self._tagged(", ".join(name for name in names if self._causes(question, cause[0], name)))

    def _triplet(self, question: str, names: list[str]) -> str:
        links = []
        for a, b in itertools.combinations(names, 2):
            state = self._state(question, a, b)
            if state != NONE:
                links.append(f"{a} -> {b}" if state == FORWARD else f"{b} -> {a}")
        return self._tagged("; ".join(links))

    def _confounded(self, question: str, first: list[str], second: list[str]) -> str:
        pair = tuple(sorted(first + second))
        truth = pair in {tuple(sorted(known)) for known in self.graph.confounded}
        return self._yes(truth != self._flipped(f"confounded {pair}" if self.errors == PAIR else question))

    def _causes(self, question: str, cause: str, effect: str) -> bool:
        return self._state(question, cause, effect) == FORWARD

    def _state(self, question: str, first: str, second: str) -> int:
        """What it believes about a pair when asked this question."""
        a, b = sorted((first, second))
        truth = FORWARD if (a, b) in self.links else BACKWARD if (b, a) in self.links else NONE
        flipped, which = self._draw("pair", a, b, "" if self.errors == PAIR else question)
        if flipped < self.flips:
            truth = [state for state in (FORWARD, BACKWARD, NONE) if state != truth][which < 0.5]
        return truth if (a, b) == (first, second) else (BACKWARD, FORWARD, NONE)[truth]

    def _flipped(self, what: str) -> bool:
        return self._draw("flip", what)[0] < self.flips

    def _draw(self, *what: str) -> tuple[float, float]:
        """Two numbers in [0, 1), the same for the same words."""
        digest = hashlib.sha256("\0".join((str(self.seed), *what)).encode()).digest()
        return tuple(int.from_bytes(digest[i : i + 6], "little") / 2**48 for i in (0, 6))

    @staticmethod
    def _tagged(words: str) -> str:
        return f"<Answer>{words or 'none'}</Answer>"

    @staticmethod
    def _yes(said: bool) -> str:
        return "Yes." if said else "No."
