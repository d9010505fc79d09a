"""Asking a language model many questions: what it cost, and how many answers could not be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Generic, TypeVar

from ..errors import CounterfactError
from ..language.model import Check, LanguageModel, Progress, Prompt, Request, ignore
from .questions import AGAIN
from .reading import reason

T = TypeVar("T")


class NothingReadable(CounterfactError):
    """A model was asked `calls` times, and nothing could be read in any of its answers."""

    def __init__(self, message: str, calls: int) -> None:
        super().__init__(message)
        self.calls = calls


# A choice that the model did not consider counts as this much less probable (natural logarithm) than the best.
FLOOR = 20.0


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What was read in an answer, None for nothing, and the reason that it gives, empty for none."""

    value: T | None
    reason: str = ""


@dataclass
class Interview:
    """One conversation-free interview: every question stands alone.

    Attributes
    ----------
    model : who is asked
    progress : told the questions answered and the questions known so far
    check : what it raises ends the interview at once
    calls : requests sent
    unreadable : answers in which nothing could be read
    invented : things in answers that were no concepts, or no edges between them
    """

    model: LanguageModel
    progress: Progress = ignore
    check: Check = ignore
    calls: int = 0
    unreadable: int = 0
    invented: int = 0
    expected: int = field(default=0, repr=False)

    def text(
        self, prompts: Sequence[Prompt], readers: Iterable[Callable[[str], T | None]], max_tokens: int
    ) -> list[Reply[T]]:
        """The answers in free text, each as its reader reads it."""
        answers = self._batch([Request(prompt, max_tokens=max_tokens) for prompt in prompts])
        replies = [Reply(read(answer), reason(answer)) for answer, read in zip(answers, readers)]
        self.unreadable += sum(reply.value is None for reply in replies)
        return replies

    def text_twice(self, prompts: Sequence[Prompt], read: Callable[[str], T | None], max_tokens: int) -> list[Reply[T]]:
        """The same; questions whose answer could not be read are asked once more with a reminder of the form."""
        replies = self.text(prompts, repeat(read), max_tokens)
        again = [number for number, reply in enumerate(replies) if reply.value is None]
        reminded = [replace(prompts[number], text=prompts[number].text + AGAIN) for number in again]
        for number, reply in zip(again, self.text(reminded, repeat(read), max_tokens)):
            replies[number] = reply
        return replies

    def scores(self, requests: Sequence[Request], floor: float = FLOOR) -> list[tuple[float, ...] | None]:
        """Log-probabilities of choices, none more than `floor` below the best; None where none is known."""
        return [self._finite(answer, floor) for answer in self._batch(requests)]

    def check_something_was_read(self) -> None:
        """Raise NothingReadable if there were answers and none could be read."""
        if self.calls and self.unreadable == self.calls:
            raise NothingReadable(
                f"none of the {self.calls} answers of {self.model.name} could be read: it does not follow the form "
                "that it is asked for; take another strategy or model, or draw the edges by hand",
                self.calls,
            )

    def _batch(self, requests: Sequence[Request]) -> list:
        before, self.calls = self.calls, self.calls + len(requests)
        total = max(self.calls, self.expected)
        return self.model.batch(requests, lambda done, _: self.progress(before + done, total), self.check)

    def _finite(self, answer: tuple[float, ...], floor: float) -> tuple[float, ...] | None:
        if any(math.isnan(x) for x in answer) or math.isinf(best := max(answer)):
            self.unreadable += 1
            return None
        return tuple(max(x, best - floor) for x in answer)
