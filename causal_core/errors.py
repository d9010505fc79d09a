"""The one error that users see, and the checks of untrusted input that raise it.

Everything that comes from outside (typed lists, JSON documents, shared plans) passes through these functions, so that a
mistake ends in plain words that name the input and the remedy, never in a KeyError from deep inside.
"""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

MAX_ITEMS = 500
MAX_LENGTH = 80
MAX_DOCUMENT = 8_000_000

_WORDS = {
    str: "text",
    float: "a number",
    int: "a whole number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}


class CounterfactError(ValueError):
    """A mistake of the user; the message names the input and how to put it right."""


def finite(x: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `x` as a float once it is known to be a finite number in [low, high].

    Raises
    ------
    CounterfactError
        If `x` is not a number, is NaN or infinite, or lies outside the range.

    Examples
    --------
    >>> finite(1, "strength")
    1.0
    >>> finite(float("nan"), "strength")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: strength must be a finite number, not nan
    """
    try:
        number = math.nan if isinstance(x, (bool, str, bytes)) else float(x)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise CounterfactError(f"{name} must be a finite number, not {shorten(x)}")
    if not low <= number <= high:
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise CounterfactError(f"{name} must be a number {limits}, not {number:g}")
    return number


def text(x: Any, name: str, limit: int = MAX_LENGTH) -> str:
    """Return `x` trimmed and in Unicode normal form C, once it is known to be short, non-empty and printable.

    Examples
    --------
    >>> text(" late summer ", "value")
    'late summer'
    """
    if not isinstance(x, str):
        raise CounterfactError(f"{name} must be text, not {shorten(x)}")
    words = unicodedata.normalize("NFC", x[: 4 * limit + 4].strip())
    if not words:
        raise CounterfactError(f"{name} is empty: write at least one character")
    if len(words) > limit:
        raise CounterfactError(f"{name} is too long: {shorten(words)} has more than {limit} characters")
    if not words.isprintable():
        raise CounterfactError(f"{name} has control characters in it: {shorten(words)}; retype it without them")
    return words


def identifier(x: Any, name: str) -> str:
    """Return `x` as a name: words of letters and digits of any script, with spaces, _ and - between them.

    Examples
    --------
    >>> identifier("  chimney  smoke", "concept name")
    'chimney smoke'
    """
    words = " ".join(text(x, name).split())
    # Marks (category M) are part of letters in many scripts, but str.isalnum does not count them.
    if not (words[0].isalnum() and words[-1] != "-") or not all(
        c.isalnum() or c in " _-" or unicodedata.category(c)[0] == "M" for c in words
    ):
        raise CounterfactError(f"{name} {shorten(words)} may only have letters, digits, spaces, _ and - in it")
    return words


def folded(name: str) -> str:
    """The form in which names and values are compared: case and spacing do not count."""
    return " ".join(unicodedata.normalize("NFC", name).split()).casefold()


def unknown(what: str, given: Any, known: Iterable[str], plural: str | None = None) -> CounterfactError:
    """The error for a word that is not one of the known ones: lists them and offers the closest.

    Examples
    --------
    >>> print(unknown("concept", "saeson", ["season", "car"]))
    unknown concept 'saeson'. Did you mean 'season'? Known concepts: season, car
    """
    known = list(known)
    by_fold = {folded(word): word for word in known}
    close = difflib.get_close_matches(folded(str(given)[:MAX_LENGTH]), by_fold, n=1)
    hint = f". Did you mean {by_fold[close[0]]!r}?" if close else "."
    shown = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
    return CounterfactError(f"unknown {what} {shorten(given)}{hint} Known {plural or what + 's'}: {shown or 'none'}")


def limited(items: Sequence, name: str, limit: int = MAX_ITEMS) -> Sequence:
    """Return `items` once it is known to hold at most `limit` of them."""
    if len(items) > limit:
        raise CounterfactError(f"{name} has {len(items)} items, more than the {limit} allowed: leave some out")
    return items


def fields(data: Any, where: str, **spec: Any) -> dict[str, Any]:
    """Read a JSON object with exactly these fields.

    Parameters
    ----------
    data : what json.loads gave
    where : the object's place in the document, for messages
    **spec : for each field its type (str, float, int, bool, list, dict), or a pair (type, default) if it may be
        missing; null stands for the default where that is None

    Returns
    -------
    dict
        All fields of `spec`, defaults filled in.

    Raises
    ------
    CounterfactError
        If `data` is no object, a field is missing, has another type, or is not in `spec`.

    Examples
    --------
    >>> fields({"source": "season"}, "edge 1", source=str, confidence=(float, 1.0))
    {'source': 'season', 'confidence': 1.0}
    """
    if not isinstance(data, dict):
        raise CounterfactError(f"{where} must be an object {{...}}, not {shorten(data)}")
    for key in data:
        if key not in spec:
            raise unknown(f"field in {where}:", key, spec, "fields")
    result = {}
    for key, kind in spec.items():
        kind, *default = kind if isinstance(kind, tuple) else (kind,)
        if key not in data:
            if not default:
                raise CounterfactError(f"{where} lacks the field {key!r}")
            result[key] = default[0]
            continue
        value = data[key]
        if value is None and default == [None]:
            result[key] = None
            continue
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise CounterfactError(f"{where}: {key!r} must be {_WORDS[kind]}, not {shorten(value)}")
        result[key] = finite(value, f"{where}: {key!r}") if kind is float else value
    return result


def check_schema(data: Any, kind: str, version: int) -> None:
    """Check that `data` is a document of this kind and of the one schema version that is read.

    Raises
    ------
    CounterfactError
        If `data` is no object, another kind of document, or has an older or newer `schema_version`.

    Examples
    --------
    >>> document = {"kind": "counterfact.plan", "schema_version": 2}
    >>> check_schema(document, "counterfact.plan", 2)
    >>> check_schema(document, "counterfact.plan", 1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: the schema_version 2 of this counterfact.plan JSON is newer: this pack ...
    """
    if not isinstance(data, dict):
        raise CounterfactError(f"expected a {kind} JSON object, got {shorten(data)}")
    if data.get("kind") != kind:
        found = shorten(data["kind"]) if "kind" in data else 'no "kind" field'
        raise CounterfactError(
            f"expected a JSON document of kind {kind!r}, found {found}: connect or load a {kind} file"
        )
    found = data.get("schema_version")
    if isinstance(found, bool) or not isinstance(found, int):
        problem, remedy = "is no version", "save it again from this pack"
    elif found > version:
        problem, remedy = "is newer", "update the Counterfact pack, or save it again from this version"
    elif found < version:
        problem, remedy = "is older", "save it again from this version of the pack"
    else:
        return
    raise CounterfactError(
        f"the schema_version {shorten(found)} of this {kind} JSON {problem}: this pack reads {version}; {remedy}"
    )


def read_document(document: str, kind: str, version: int) -> dict[str, Any]:
    """Parse an untrusted JSON document, check its kind and version, and return its other fields.

    Not accepted: NaN and Infinity, a key given twice in one object, more than 8 million characters, deep nesting.
    """
    if not isinstance(document, str):
        raise CounterfactError(f"expected a {kind} JSON text, got {shorten(document)}")
    if len(document) > MAX_DOCUMENT:
        raise CounterfactError(f"this {kind} JSON has more than {MAX_DOCUMENT} characters: it is not one of ours")
    try:
        data = json.loads(document, parse_constant=_no_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise CounterfactError(
            f"the {kind} text is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise CounterfactError(f"the {kind} JSON is nested too deeply") from None
    except CounterfactError as error:
        raise CounterfactError(f"the {kind} JSON is not valid: {error}") from None
    except ValueError:
        raise CounterfactError(
            f"the {kind} JSON has a whole number of thousands of digits: write a smaller one"
        ) from None
    check_schema(data, kind, version)
    return {key: value for key, value in data.items() if key not in ("kind", "schema_version")}


def write_document(kind: str, version: int, body: dict[str, Any]) -> str:
    """Write a document so that the same content always gives the same text: sorted keys, two spaces, no NaN."""
    return json.dumps(
        {"kind": kind, "schema_version": version, **body}, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False
    )


def shorten(x: Any, limit: int = 60) -> str:
    """`repr(x)` cut to a length fit for a message."""
    try:
        words = repr(x[:limit] if isinstance(x, (str, bytes, list, tuple)) else x)
    except (ValueError, RecursionError):  # a huge whole number, a deep structure
        words = f"a {type(x).__name__}"
    return words if len(words) <= limit else words[: limit - 3] + "..."


def _no_constant(name: str) -> None:
    raise CounterfactError(f"it has the number {name}, numbers must be finite")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise CounterfactError(f"the key {shorten(twice)} is given twice in one object")
    return data
