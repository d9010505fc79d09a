"""OpenAI's chat protocol as JSON: what a request looks like, and what an answer says.

Pure functions. Nothing about an answer is taken for granted: it may have any form at all.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CounterfactError, shorten
from .model import Request

MAX_SIDE = 1024
# The most tokens whose probabilities servers tell, and what some of them allow.
TOP, FEWER = 20, 5
# Fields of a request that some models refuse, and can do without or in another form.
OPTIONAL = "max_tokens", "temperature", "seed", "top_logprobs"


def path(request: Request) -> str:
    """Where a request goes, below the base URL."""
    return "/chat/completions" if request.prompt.chat else "/completions"


def body(model: str, request: Request, without: Collection[str] = ()) -> dict[str, Any]:
    """The JSON of a request.

    Parameters
    ----------
    model : its name on the server
    without : those of `OPTIONAL` that the server refuses
    """
    prompt, scored = request.prompt, bool(request.choices)
    tokens = 1 if scored else request.max_tokens
    data: dict[str, Any] = {"model": model, "stream": False}
    data["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = tokens
    if "temperature" not in without:
        data["temperature"] = 0.0 if scored else request.temperature
    if request.temperature > 0 and not scored and "seed" not in without:
        data["seed"] = request.seed
    if not prompt.chat:
        return data | {"prompt": prompt.text}
    content: Any = prompt.text
    if prompt.images:
        content = [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in prompt.images]
        content.append({"type": "text", "text": prompt.text})
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    data["messages"] = [*system, {"role": "user", "content": content}]
    if scored:
        data |= {"logprobs": True, "top_logprobs": FEWER if "top_logprobs" in without else TOP}
    return data


def refused(answer: bytes, without: Collection[str] = ()) -> str | None:
    """The field of a request that an error is about, if it is one of `OPTIONAL`."""
    words = answer[:20_000].decode("utf-8", "replace")
    return next((name for name in OPTIONAL if name in words and name not in without), None)


def decode(answer: bytes) -> Any:
    """The JSON of an answer; raises ValueError for anything else."""
    try:
        return json.loads(answer.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def text(data: Any) -> str:
    """The text of an answer.

    Raises
    ------
    CounterfactError
        If it has another form.

    Examples
    --------
    >>> text({"choices": [{"message": {"content": "Yes."}}]}), text({"choices": [{"text": "Yes."}]})
    ('Yes.', 'Yes.')
    """
    choice = at(data, "choices", 0)
    message = at(choice, "message")
    words = at(choice, "text") if message is None else at(message, "content")
    if isinstance(words, list):
        words = "".join(part for part in (at(item, "text") for item in words) if isinstance(part, str))
    if words is None and isinstance(message, dict):
        words = ""  # it has thought only, or refuses
    if not isinstance(words, str):
        raise CounterfactError(
            f"base_url: the server's answer has no text where it should be: {shorten(data)}; check that it is an "
            "OpenAI-compatible server"
        )
    return words.encode("utf-8", "replace").decode("utf-8")


def first_tokens(data: Any) -> dict[str, float]:
    """Log-probabilities of the most probable first tokens of an answer; none if it does not tell them."""
    known = {}
    for item in _items(at(data, "choices", 0, "logprobs", "content", 0, "top_logprobs")):
        token, number = at(item, "token"), at(item, "logprob")
        if isinstance(token, str) and isinstance(number, (int, float)) and -1e9 < number < 1e-3:
            known[token] = min(float(number), 0.0)
    return known


def score(choices: Sequence[str], known: Mapping[str, float]) -> tuple[float, ...]:
    """The log-probability of each choice from those of first tokens.

    A token counts for the one choice that it begins or begins with: "Y" and "Yes," for "Yes", but not "Ye" for both
    "Yes" and "Yesterday", and not "An" for "A".

    Examples
    --------
    >>> score(("A", "B", "C"), {"A": -0.5, " B": -1.0, "An": -2.0})
    (-0.5, -1.0, -inf)
    """
    names = [choice.strip() for choice in choices]
    totals = [0.0] * len(names)
    for token, number in known.items():
        word = token.strip()
        fits = [n for n, name in enumerate(names) if word and name == word]
        fits = fits or [n for n, name in enumerate(names) if word and _begins(name, word)]
        if len(fits) == 1:
            totals[fits[0]] += math.exp(number)
    return tuple(math.log(total) if total > 0 else -math.inf for total in totals)


def models(data: Any) -> list[str]:
    """The names of the models that a server lists."""
    return [name for name in (at(item, "id") for item in _items(at(data, "data"))) if isinstance(name, str)]


def complaint(answer: bytes) -> str:
    """The words of a server's error; "" for none."""
    words = answer[:20_000].decode("utf-8", "replace")
    try:
        data = decode(answer)
    except ValueError:
        return "" if is_html(answer) else words
    error = at(data, "error")
    options = at(error, "message"), error, at(data, "message"), at(data, "detail")
    return next((words for words in options if isinstance(words, str)), "")


def is_html(answer: bytes) -> bool:
    return answer.lstrip()[:15].lower().startswith((b"<!doctype", b"<html"))


def at(data: Any, *path: str | int) -> Any:
    """What lies at a place in JSON; None if there is no such place."""
    for step in path:
        kind = list if isinstance(step, int) else dict
        try:
            data = data[step] if isinstance(data, kind) else None
        except (KeyError, IndexError):
            return None
    return data


def _items(data: Any) -> list[Any]:
    return data[:1000] if isinstance(data, list) else []


def _begins(choice: str, word: str) -> bool:
    return choice.startswith(word) or (word.startswith(choice) and not word[len(choice)].isalnum())


def _data_url(image: np.ndarray) -> str:
    """A picture as a data URL, not larger than models look at."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
