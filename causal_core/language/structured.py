"""JSON out of a language model's answer, checked, and asked for once more where it is no good.

Models put prose and Markdown fences around JSON, cut it short and contradict themselves. What they write is data only:
it is parsed, given to a reader that checks it, and never followed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import CounterfactError, shorten
from .model import Check, LanguageModel, Request, ignore

T = TypeVar("T")

# How much of an answer is looked at, at how many brackets; how deep JSON may be nested, and how long a whole number.
MAX_ANSWER = 200_000
MAX_STARTS = 200
MAX_DEPTH = 50
MAX_DIGITS = 300
QUOTED = 1_000

_BRACKET = re.compile(r"[\[{]")
# What may be left of a number or a word such as true.
_UNFINISHED = re.compile(r"\\?[\w.+-]{0,400}")

AGAIN = """{text}

An earlier answer to this began like this:
{answer}

It could not be used: {error}
Answer again, with JSON and nothing else."""


class CutShort(CounterfactError):
    """JSON that is not finished, so that more room for it may help."""


def ask_json(
    model: LanguageModel,
    request: Request,
    read: Callable[[Any], T],
    check: Check = ignore,
) -> T:
    """Ask for JSON; if the answer is no good, show the model what is wrong with it and ask once more.

    Parameters
    ----------
    request : its prompt says what JSON is wanted
    read : makes the result of a JSON object or array; raises CounterfactError, with a reason that the model may see,
        for one that is not what was asked for
    check : see `LanguageModel.complete`

    Returns
    -------
    What `read` makes of the first object or array that it accepts.

    Raises
    ------
    CounterfactError
        If the second answer cannot be used either; the message has its beginning.
    """
    answer = model.complete(request, check)
    try:
        return read_answer(answer, read)
    except CounterfactError as error:
        text = AGAIN.format(text=request.prompt.text, answer=answer[:QUOTED].strip() or "(nothing)", error=error)
        length = request.max_tokens * (2 if isinstance(error, CutShort) else 1)
    again = replace(request, prompt=replace(request.prompt, text=text), max_tokens=length)
    answer = model.complete(again, check)
    try:
        return read_answer(answer, read)
    except CounterfactError as error:
        problem = str(error)
    raise CounterfactError(
        f"the language model {model.name} gave no usable answer, twice: {problem}. Its answer began with "
        f"{shorten(answer.strip(), 120)}. Choose a larger model, or write by hand what it should find"
    )


def read_answer(answer: str, read: Callable[[Any], T]) -> T:
    """What `read` makes of the first JSON object or array of an answer that it accepts.

    Raises
    ------
    CounterfactError
        If there is none; with the reason of the longest that was refused.

    Examples
    --------
    >>> read_answer('As [said]: ```json\\n{"rain": true}\\n``` I hope that helps.', dict)
    {'rain': True}
    >>> read_answer("It rains.", dict)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: the answer has no JSON in it
    """
    # Models that think aloud try out answers before.
    answer = answer.rpartition("</think>")[2] if answer.lstrip().startswith("<think>") else answer
    if not answer.strip():
        raise CounterfactError("the answer is empty")
    longest, problem = 0, CounterfactError("the answer has no JSON in it")
    for data, length in documents(answer):
        try:
            if isinstance(data, CounterfactError):
                raise data
            return read(data)
        except CounterfactError as error:
            if length > longest:
                longest, problem = length, error
    raise problem from None


def documents(answer: str) -> Iterator[tuple[Any, int]]:
    """The JSON objects and arrays of a text, each with its length in characters, in their order.

    In the place of one that is cut short, broken, nested too deeply, or has NaN or contradicting values in it stands
    the CounterfactError that says so.

    Examples
    --------
    >>> list(documents('[1] and {"a": [2]}'))
    [([1], 3), ({'a': [2]}, 10)]
    """
    answer = answer[:MAX_ANSWER].rstrip()
    place = 0
    for _ in range(MAX_STARTS):
        found = _BRACKET.search(answer, place)
        if found is None:
            return
        place, flaws = found.start(), []
        try:
            data, end = _decoder(flaws).raw_decode(answer, place)
            data = _clean(data)
        except json.JSONDecodeError as error:
            # What is inside of JSON that is cut short does not stand for the whole: nothing more is looked for.
            if error.msg.startswith("Unterminated") or _UNFINISHED.fullmatch(answer, error.pos):
                yield CutShort("the JSON is cut short"), len(answer) - place
                return
            end = max(error.pos, place + 1)
            flaws.append(f"this is no JSON: {shorten(answer[place:])}, {error.msg} at character {end - place + 1}")
        except RecursionError:
            yield CounterfactError("the JSON is nested too deeply"), len(answer) - place
            return
        yield (CounterfactError(flaws[0]) if flaws else data), end - place
        place = end


def _decoder(flaws: list[str]) -> json.JSONDecoder:
    """A decoder that goes on to the end of a document, and notes what is wrong with it."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in pairs:
            if data.setdefault(key, value) != value:
                flaws.append(f"the JSON gives {shorten(key)} two values in one object")
        return data

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            flaws.append(f"the JSON has the number {shorten(digits)} in it")
        return value

    def whole(digits: str) -> float:
        return int(digits) if len(digits) < MAX_DIGITS else number(digits)

    # Line breaks in strings are no JSON, but there is no doubt about what they mean.
    return json.JSONDecoder(
        strict=False, object_pairs_hook=once, parse_float=number, parse_int=whole, parse_constant=number
    )


def _clean(data: Any, depth: int = 0) -> Any:
    """The same without halves of characters, which could not be written to a file."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode("utf-8")
    if isinstance(data, list):
        return [_clean(item, depth + 1) for item in data]
    if isinstance(data, dict):
        return {_clean(key): _clean(value, depth + 1) for key, value in data.items()}
    return data
