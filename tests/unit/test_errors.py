"""Untrusted input: what is refused, and that the message says what to do."""

from __future__ import annotations

import json
import math

import pytest

from causal_core.errors import (
    CounterfactError,
    check_schema,
    fields,
    finite,
    identifier,
    read_document,
    text,
    unknown,
    write_document,
)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "1", None, True, [1], 10**400])
def test_finite_refuses(bad):
    with pytest.raises(CounterfactError, match="strength must be a finite number"):
        finite(bad, "strength")


def test_finite_limits():
    assert finite(1, "x", 0.0, 1.0) == 1.0
    with pytest.raises(CounterfactError, match="x must be a number from 0 to 1, not 1.5"):
        finite(1.5, "x", 0.0, 1.0)
    with pytest.raises(CounterfactError, match="x must be a number of at least 0, not -2"):
        finite(-2, "x", 0.0)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a" * 81, "too long"),
        ("a\x00b", "control"),
        ("a\u202eb", "control"),
        (3, "be text"),
    ],
)
def test_text_refuses(bad, why):
    with pytest.raises(CounterfactError, match=why):
        text(bad, "value")


@pytest.mark.parametrize(
    "name",
    [
        "season",
        "time of day",
        "sky_2",
        "well-lit",
        "\u00e9t\u00e9",
        "\u5b63\u7bc0",
        "\u092e\u094c\u0938\u092e",
        "2nd door",
    ],
)
def test_names_of_any_script(name):
    assert identifier(f"  {name} ", "name") == name


@pytest.mark.parametrize("bad", ["a,b", "a->b", "a=b", "_a", "-a", "a-", "a(b)", "<b>", "a\nb", "a/b"])
def test_names_without_punctuation(bad):
    with pytest.raises(CounterfactError):
        identifier(bad, "name")


def test_unknown_lists_and_suggests():
    message = str(unknown("concept", "Saeson", ["season", "car"]))
    assert "did you mean 'season'" in message.lower() and "season, car" in message
    assert "and 60 more" in str(unknown("concept", "x", [f"name {i}" for i in range(100)]))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (2, "newer.*reads 1.*update"),
        (0, "older.*reads 1.*save it again"),
        ("1", "save it again"),
        (None, "save"),
        (True, "save"),
    ],
)
def test_schema_version(found, words):
    with pytest.raises(CounterfactError, match=words):
        check_schema({"kind": "k", "schema_version": found}, "k", 1)


def test_schema_kind():
    with pytest.raises(CounterfactError, match="counterfact.plan.*found 'counterfact.graph'"):
        check_schema({"kind": "counterfact.graph", "schema_version": 1}, "counterfact.plan", 1)
    with pytest.raises(CounterfactError, match='no "kind" field'):
        check_schema({}, "counterfact.plan", 1)
    with pytest.raises(CounterfactError):
        check_schema([], "counterfact.plan", 1)


@pytest.mark.parametrize(
    "bad",
    [
        "", "{", "null", "[]", "3", '"k"', '{"kind": NaN}', '{"kind": "k", "schema_version": 1, "x": -Infinity}',
        '{"kind": "k", "kind": "k", "schema_version": 1}', "[" * 100_000, '{"a":' * 100_000, "9" * 5000, None, b"{}",
        '{"kind": "k", "schema_version": ' + "1" * 4000 + "}", "\x00", " " * 8_000_001,
    ],
)  # fmt: skip
def test_documents_refused(bad):
    with pytest.raises(CounterfactError) as caught:
        read_document(bad, "k", 1)
    assert len(str(caught.value)) < 400


def test_documents_are_the_same_text_each_time():
    written = write_document("k", 1, {"b": 1, "a": {"y": "\u00e9", "x": 0.1}})
    assert written == write_document("k", 1, {"a": {"x": 0.1, "y": "\u00e9"}, "b": 1})
    assert read_document(written, "k", 1) == {"a": {"x": 0.1, "y": "\u00e9"}, "b": 1}
    assert list(json.loads(written)) == ["a", "b", "kind", "schema_version"]


def test_fields():
    spec = {"name": str, "share": (float, 1.0), "depth": (int, None)}
    assert fields({"name": "a", "depth": None}, "item", **spec) == {"name": "a", "share": 1.0, "depth": None}
    for bad, words in [
        ([], "must be an object"),
        ({}, "lacks the field 'name'"),
        ({"name": 1}, "'name' must be text"),
        ({"name": "a", "depth": 1.5}, "whole number"),
        ({"name": "a", "depth": True}, "whole number"),
        ({"name": "a", "share": None}, "a number"),
        ({"name": "a", "share": 10**400}, "finite"),
        ({"name": "a", "shaer": 1}, "(?i)did you mean 'share'"),
    ]:
        with pytest.raises(CounterfactError, match=words):
            fields(bad, "item", **spec)
