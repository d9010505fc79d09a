"""The halves of the protocol: whoever computes one answer can answer many, and the other way round."""

from __future__ import annotations

import pytest

from causal_core.language.model import OneByOne, Prompt, Request, Together

TEXT, CHOICE = Request(Prompt("What is wet?")), Request(Prompt("Is rain wet?"), choices=("Yes", "No"))


class Cancelled(Exception):
    """What a check raises."""


def cancel():
    raise Cancelled


class Single(OneByOne):
    def complete(self, request, check):
        check()
        return request.prompt.text

    def choice_logprobs(self, request, check):
        check()
        return (-1.0,) * len(request.choices)


class Many(Together):
    def batch(self, requests, progress=None, check=lambda: None):
        check()
        return [(-1.0,) * len(request.choices) or request.prompt.text for request in requests]


def test_many_are_answered_in_their_order():
    told = []
    assert Single().batch([TEXT, CHOICE, TEXT], lambda *done: told.append(done)) == [
        "What is wet?", (-1.0, -1.0), "What is wet?",
    ]  # fmt: skip
    assert told == [(1, 3), (2, 3), (3, 3)] and Single().batch([]) == []


def test_one_is_a_batch_of_one():
    assert Many().complete(TEXT) == "What is wet?" and Many().choice_logprobs(CHOICE) == (-1.0, -1.0)


def test_all_can_be_cancelled():
    for ask in (lambda: Single().batch([TEXT], check=cancel), lambda: Single().batch([CHOICE], check=cancel),
                lambda: Many().complete(TEXT, cancel), lambda: Many().choice_logprobs(CHOICE, cancel)):  # fmt: skip
        with pytest.raises(Cancelled):
            ask()
