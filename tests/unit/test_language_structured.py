"""JSON out of answers of language models: what is found, what is refused, and how the model is asked again."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_core.errors import CounterfactError
from causal_core.language.model import Prompt, Request
from causal_core.language.structured import MAX_ANSWER, CutShort, ask_json, documents, read_answer

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


def anything(data):
    return data


def edges(data):
    """A reader as they are: a list of objects with a name each."""
    if not isinstance(data, list) or not all(isinstance(item, dict) and "name" in item for item in data):
        raise CounterfactError('write a list [{"name": "..."}]')
    return [item["name"] for item in data]


class Scripted:
    """Answers one after the other, and keeps what it was asked."""

    name, scores, sees = "scripted", "nothing", False

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), []

    def complete(self, request, check=lambda: None):
        check()
        self.asked.append(request)
        return self.answers.pop(0)


class TestDocuments:
    @FUZZ
    @given(CONTAINERS, PROSE, PROSE, st.sampled_from([None, 1]))
    def test_finds_what_is_written_in_prose(self, data, before, after, indent):
        answer = f"{before}\n```json\n{json.dumps(data, indent=indent)}\n```\n{after}"
        assert read_answer(answer, anything) == data

    @FUZZ
    @given(CONTAINERS, st.booleans())
    def test_a_part_never_stands_for_the_whole(self, data, ascii_only):
        answer = json.dumps(data, ensure_ascii=ascii_only)
        for length in range(1, len(answer)):
            assert [type(found) for found, _ in documents(answer[:length])] == [CutShort], answer[:length]

    @settings(FUZZ, max_examples=600)
    @given(SCRAPS | st.text(max_size=40))
    def test_scraps_give_data_or_an_error(self, pieces):
        for start in range(len(pieces)):
            for read in (anything, edges):
                with contextlib.suppress(CounterfactError):
                    found = read_answer("".join(pieces[start:]), read)
                    # What is read can be written again, as files and other programs need it.
                    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()

    @pytest.mark.parametrize(
        "answer, found",
        [
            ('Edges [1], as said: [{"name": "rain"}]', ["rain"]),
            ('<think>[{"name": "snow"}]</think> [{"name": "rain"}]', ["rain"]),
            ('{"name": "no"} {x: [{"name": "rain"}]}', ["rain"]),
            ('[{"name": "a\nb"}]', ["a\nb"]),
            ('[{"name": "\\ud800"}]', ["?"]),
            ('[{"name": "rain", "name": "rain"}]', ["rain"]),
            ("[]", []),
        ],
    )
    def test_takes(self, answer, found):
        assert read_answer(answer, edges) == found

    @pytest.mark.parametrize(
        "answer, message",
        [
            ("", "empty"),
            (" \n", "empty"),
            ("<think>hm</think>", "empty"),
            ("It rains.", "no JSON"),
            ('"rain"', "no JSON"),
            ("[{'name': 'rain'}]", "double quotes"),
            ('[{"name": "rain"}, {"name": "sn', "cut short"),
            ('[{"name": "rain", "name": "snow"}]', "'name' two values"),
            ('[{"name": NaN}]', "NaN"),
            ('[{"name": -Infinity}]', "Infinity"),
            ('[{"name": 1e999}]', "1e999"),
            (f'[{{"name": {"7" * 5000}}}]', "number"),
            ("[" * 100_000, "nested too deeply"),
            ("[" * 60 + "]" * 60, "nested too deeply"),
            ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
            ('[{"name": "' + "x" * 2 * MAX_ANSWER, "cut short"),
            ("[x" * MAX_ANSWER, "no JSON"),
            ('{"rain": 1}', "write a list"),
        ],
    )
    def test_refuses(self, answer, message):
        with pytest.raises(CounterfactError, match=message):
            read_answer(answer, edges)


class TestAsking:
    request = Request(Prompt("List {things}.", system="Be brief."), max_tokens=50)

    def test_once_if_the_answer_is_good(self):
        model = Scripted('Sure: [{"name": "rain"}]')
        assert ask_json(model, self.request, edges) == ["rain"]
        assert model.asked == [self.request]

    def test_a_second_time_with_the_mistake(self):
        model = Scripted('{"name": "rain"}', '[{"name": "rain"}]')
        assert ask_json(model, self.request, edges) == ["rain"]
        again = model.asked[1]
        for part in ("List {things}.", '{"name": "rain"}', 'write a list [{"name": "..."}]'):
            assert part in again.prompt.text
        assert replace(again, prompt=self.request.prompt) == self.request and again.prompt.system == "Be brief."

    def test_with_more_room_if_it_was_cut_short(self):
        model = Scripted('[{"name": "ra', '[{"name": "rain"}]')
        assert ask_json(model, self.request, edges) == ["rain"]
        assert model.asked[1].max_tokens == 100

    def test_twice_and_no_more(self):
        model = Scripted("x" * 10_000_000, "I cannot do that.")
        with pytest.raises(
            CounterfactError, match="scripted gave no usable answer, twice.*no JSON.*'I cannot do that.'"
        ):
            ask_json(model, self.request, edges)
        assert len(model.asked[1].prompt.text) < 2000

    def test_can_be_cancelled(self):
        def cancel():
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ask_json(Scripted("[]"), self.request, edges, cancel)
