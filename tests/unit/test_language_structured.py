"""JSON out of answers of language models: what is found, what is refused, and how the model is asked again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from causal_core.errors import CounterfactError
from causal_core.language.model import Prompt, Request
from causal_core.language.structured import MAX_ANSWER, ask_json, read_answer

from ..helpers.json_readers import edges


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
