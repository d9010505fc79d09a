"""What a language model can be asked for: text, or the log-probabilities of given answers.

The protocol is as small as its users need. A backend says in `scores` what its log-probabilities are worth, so that a
strategy can choose between scoring choices and counting votes; it implements what comes natural to it, one answer or
many at once, and takes the rest of the protocol from `OneByOne` or `Together`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

# What `choice_logprobs` can do: score any continuation of any text; compare choices that differ in their first token,
# after a chat prompt; nothing.
SCORES = TEXT, CHOICES, NOTHING = "text", "choices", "nothing"

Progress = Callable[[int, int], None]
Check = Callable[[], None]


def ignore(*_: int) -> None:
    """The progress and the check of those who need none."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked.

    Attributes
    ----------
    text : the user's message, or, without `chat`, text to continue as it stands
    system : instructions that come before it; empty for none, and without `chat`
    images : pictures that the message is about, uint8 [h, w, 3] each; none without `chat`
    chat : whether the model's own chat template goes around the message
    """

    text: str
    system: str = ""
    images: tuple[np.ndarray, ...] = field(default=(), compare=False)
    chat: bool = True


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes
    ----------
    prompt : what to ask
    choices : if not empty, their log-probabilities are the answer, else text
    max_tokens : longest text, in tokens
    temperature : 0 and up; 0 takes the most probable token, so that the same question has the same answer
    seed : of the draws at a temperature above 0
    """

    prompt: Prompt
    choices: tuple[str, ...] = ()
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


Answer = str | tuple[float, ...]


class LanguageModel(Protocol):
    """Any language model.

    Attributes
    ----------
    name : backend and model, such as "file:SmolLM2-135M-Instruct"; the same name gives the same answers, so that they
        can be kept; never has a key or a password in it
    scores : one of `SCORES`
    sees : whether prompts may have images
    """

    name: str
    scores: str
    sees: bool

    def complete(self, request: Request, check: Check = ignore) -> str:
        """The model's text.

        Parameters
        ----------
        check : called again and again while the answer is awaited; what it raises ends the wait at once

        Raises
        ------
        CounterfactError
            If there is no answer; the message names the cause and the remedy.
        """

    def choice_logprobs(self, request: Request, check: Check = ignore) -> tuple[float, ...]:
        """Natural logarithm of the probability of each of `request.choices` as what follows the prompt.

        With `scores` = "choices" they are comparable with each other only; -inf stands for a choice that the model did
        not consider. Raises CounterfactError where `scores` is "nothing".
        """

    def batch(self, requests: Sequence[Request], progress: Progress = ignore, check: Check = ignore) -> list[Answer]:
        """Answers in the order of the requests: text, or log-probabilities for those that have choices."""


class Together:
    """A model that computes many answers at once: one is a batch of one."""

    def complete(self, request: Request, check: Check = ignore) -> str:
        """See `LanguageModel.complete`."""
        return self.batch([request], check=check)[0]

    def choice_logprobs(self, request: Request, check: Check = ignore) -> tuple[float, ...]:
        """See `LanguageModel.choice_logprobs`."""
        return self.batch([request], check=check)[0]


class OneByOne:
    """A model that computes one answer at a time: a batch is answered in turn."""

    def batch(self, requests: Sequence[Request], progress: Progress = ignore, check: Check = ignore) -> list[Answer]:
        """See `LanguageModel.batch`."""
        answers: list[Answer] = []
        for request in requests:
            answers.append(self.choice_logprobs(request, check) if request.choices else self.complete(request, check))
            progress(len(answers), len(requests))
        return answers
