"""JSON out of thousands of answers of language models: what is there is found, and no scrap is taken for it."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from causal_core.errors import CounterfactError
from causal_core.language.structured import CutShort, documents, read_answer

from ..helpers.json_readers import edges, everything

FUZZ = settings(max_examples=150, derandomize=True, deadline=None, database=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
CONTAINERS = st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=4), JSON, max_size=4)
PROSE = st.text(st.characters(exclude_characters='[]{}"<'), max_size=30)
# What goes wrong in JSON: its own characters in any order, odd numbers, halves of characters.
SCRAPS = st.lists(
    st.sampled_from(['{', '}', '[', ']', '"', ":", ",", "\\", "NaN", "1e999", "-", "9" * 400, "null", "\\ud800", "a",
                     "\n", "'", "</think>", "```", "\x00", "\u202e"]),
    max_size=60,
)  # fmt: skip


@FUZZ
@given(CONTAINERS, PROSE, PROSE, st.sampled_from([None, 1]))
def test_finds_what_is_written_in_prose(data, before, after, indent):
    answer = f"{before}\n```json\n{json.dumps(data, indent=indent)}\n```\n{after}"
    assert read_answer(answer, everything) == data


@FUZZ
@given(CONTAINERS, st.booleans())
def test_a_part_never_stands_for_the_whole(data, ascii_only):
    answer = json.dumps(data, ensure_ascii=ascii_only)
    for length in range(1, len(answer)):
        assert [type(found) for found, _ in documents(answer[:length])] == [CutShort], answer[:length]


@settings(FUZZ, max_examples=600)
@given(SCRAPS | st.text(max_size=40))
def test_scraps_give_data_or_an_error(pieces):
    for start in range(len(pieces)):
        for read in (everything, edges):
            with contextlib.suppress(CounterfactError):
                found = read_answer("".join(pieces[start:]), read)
                # What is read can be written again, as files and other programs need it.
                json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
