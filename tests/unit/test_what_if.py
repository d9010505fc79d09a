"""Questions in plain words: what is clear from the words alone, what a model chooses, and what is an error."""

from __future__ import annotations

import json

import pytest

from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.discovery.what_if import read_words, what_if
from causal_core.errors import CounterfactError
from causal_core.language.model import CHOICES, NOTHING, TEXT
from causal_core.plan import Intervention

from ..helpers.what_if import Fake, summer


@pytest.fixture(scope="module")
def cottage() -> Concepts:
    return summer()


@pytest.mark.parametrize(("sentence", "do"), [
    ("What if it were winter?", {"season": "winter"}),
    ("what if it had rained", {"precipitation": "rain"}),
    ("WHAT IF IT WAS RAINING?!", {"precipitation": "rain"}),
    ("What if it were winter and night?", {"season": "winter", "time": "night"}),
    ("Suppose it was autumn, with lit windows", {"season": "autumn", "windows": "lit"}),
    ("What if the yellow house were blue?", {"house": "blue"}),
    ("What if the house were yellow?", {"house": "yellow"}),
    ("What if the red house were blue and the car, too, were blue?", None),
    ("What if it were spring instead of winter?", {"season": "spring"}),
    ("Instead of rain, what if it snowed on the ground?", {"ground": "snow"}),
    ("What if there was no car?", {"car": "none"}),
    ("What if it happened without the umbrella?", {"umbrella": "none"}),
    ("What if there were an umbrella?", {"umbrella": "open"}),
    ("What if the lamp hadn't been on?", {"lamp": "off"}),
    ("What if the lamp wasn\u2019t off?", {"lamp": "on"}),
    ("What if the pond were not frozen?", {"pond": "water"}),
    ("What if the door and the house were white?", None),
    ("What if the house were white and the door were green?", {"house": "white", "door": "green"}),
    ("What if there were long shadows", {"shadow": "long"}),
    ("What if the weather was hotter?", {"temperature": "warm"}),
    ("season = winter, time = Night", {"season": "winter", "time": "night"}),
    ("What if season = winter?", {"season": "winter"}),
    ("What would it be like after dark?", {"time": "night"}),
])  # fmt: skip
def test_words_alone(cottage, sentence, do):
    if do is None:
        with pytest.raises(CounterfactError):
            what_if(sentence, cottage)
    else:
        assert what_if(sentence, cottage) == Intervention(do)


@pytest.mark.parametrize(("sentence", "words"), [
    ("What if it had snowed?", "precipitation = snow, ground = snow.*Write the one that you mean"),
    ("What if it were dark?", "time = night, windows = dark"),
    ("What if it were white?", "house = white, door = white"),
    ("What if it were not winter?", "season = spring, season = summer, season = autumn"),
    ("What if the car were different?", "car = none, car = red, car = blue"),
    ("What if nobody had lit the lamp?", "lamp = off"),
    ("What if a dragon attacked?", r"about nothing in the graph.*season \(spring, summer, autumn, winter\); time"),
    ("What if?", "about nothing in the graph"),
    ("", "the question is empty"),
    ("what if " * 100, "the question is too long"),
    ("what\x00if", "control characters"),
    ("season = monsoon", "Known values: spring, summer"),
    (" = ", "."),
    (None, "must be text"),
])  # fmt: skip
def test_what_is_not_clear_is_an_error(cottage, sentence, words):
    with pytest.raises(CounterfactError, match=f"(?s){words}"):
        what_if(sentence, cottage)


def test_words_and_numbers_without_a_list():
    concepts = parse_concepts("car = red\nangle: -10 .. 90 = 30\nchimney smoke: none, thick\nsky = clear")
    for sentence, do in (
        ("What if the car were dark green?", {"car": "dark green"}),
        ("What if the red car had been Blue", {"car": "Blue"}),
        ("What if the car was red?", {"car": "red"}),
        ("What if the angle were 45.5 degrees?", {"angle": "45.5"}),
        ("angle is -5", {"angle": "-5.0"}),
        ("What if there were chimney smoke?", {"chimney smoke": "thick"}),
        ("What if there were no smoke from the chimney?", {"chimney smoke": "none"}),
    ):
        assert what_if(sentence, concepts) == Intervention(do), sentence
    with pytest.raises(CounterfactError, match="from -10 to 90"):
        what_if("What if the angle were 91?", concepts)
    for sentence in ("What if the car were not blue?", "What if the sky were as blue as it ever was that day",
                     "What if the angle went from 20 to 30?"):  # fmt: skip
        with pytest.raises(CounterfactError):
            what_if(sentence, concepts)


def test_values_without_letters_can_only_be_typed():
    concepts = parse_concepts("sign: +, -, ?\nlight: yes, no")
    assert what_if("sign = +", concepts).do == {"sign": "+"}
    assert what_if("What if there were no light?", concepts).do == {"light": "no"}
    assert what_if("What if there were light?", concepts).do == {"light": "yes"}
    with pytest.raises(CounterfactError, match="sign = "):
        what_if("What if there were no sign?", concepts)


def test_model_is_only_asked_for_what_the_words_leave_open(cottage):
    model = Fake('{"season": "winter"}')
    assert what_if("What if it were night?", cottage, model) == Intervention({"time": "night"}) and not model.asked
    assert what_if("What if Santa came?", cottage, model) == Intervention({"season": "winter"})
    assert '"season": spring, summer, autumn, winter' in model.asked[0].prompt.text


@pytest.mark.parametrize("scores", [CHOICES, NOTHING])
def test_model_answers_in_json(cottage, scores):
    ask = lambda answer: what_if("What if Santa came?", cottage, Fake(answer, scores)).do  # noqa: E731
    assert ask('Well: ```json\n{"Season": "Winter", "ground": "snow"}\n```') == {"season": "winter", "ground": "snow"}
    with pytest.raises(CounterfactError, match="about nothing in the graph"):
        ask("{}")
    for answer in ("", "I cannot.", '{"santa": "here"}', '{"season": "monsoon"}', '{"season": null}', '["winter"]',
                   '{"season": {"a": 1}}', "{" * 9999, json.dumps(cottage.values()), "x" * 300_000):  # fmt: skip
        with pytest.raises(CounterfactError, match="no usable answer"):
            ask(answer)


def test_answer_is_repaired_once(cottage):
    class Learns(Fake):
        def complete(self, request, check=lambda: None):
            self.asked.append(request)
            return '{"season": "winter"}' if len(self.asked) == 2 else '{"season": "cold"}'

    model = Learns()
    assert what_if("What if Santa came?", cottage, model).do == {"season": "winter"}
    assert "Known values: spring, summer, autumn, winter" in model.asked[1].prompt.text


def test_scored_choices(cottage):
    def score(prompt, choice):
        # A strong prior for rain, which the sentence does not change.
        return 9.0 * ("rain" in choice) + 5.0 * ("Santa" in prompt) * ("winter" in choice)

    model = Fake(scores=TEXT, score=score)
    assert what_if("What if Santa came?", cottage, model).do == {"season": "winter"}
    with pytest.raises(CounterfactError, match="about nothing in the graph"):
        what_if("What if a dragon came?", cottage, model)


def test_scores_that_are_close_are_no_answer(cottage):
    score = lambda prompt, choice: 5.0 * ("Santa" in prompt) * (("winter" in choice) + 0.9 * ("night" in choice))  # noqa: E731
    with pytest.raises(CounterfactError, match="can mean several things: season = winter, time = night, "):
        what_if("What if Santa came?", cottage, Fake(scores=TEXT, score=score))


def test_scores_choose_among_what_the_words_can_mean(cottage):
    score = lambda prompt, choice: 2.0 * ("snowed" in prompt) * ("winter" in choice) + ("ground" in choice)  # noqa: E731
    model = Fake(scores=TEXT, score=lambda p, c: score(p, c) + 3.0 * ("snowed" in p) * ("precipitation" in c))
    assert what_if("What if it had snowed at night?", cottage, model).do == {"time": "night", "precipitation": "snow"}
    assert {choice for request in model.asked for choice in request.choices} == {
        " the precipitation is snow.", " snow falling.", " the ground is snow.", " snowy ground."
    }  # fmt: skip


def test_stopping_is_not_swallowed(cottage):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    for model in (Fake("{}"), Fake(scores=TEXT)):
        with pytest.raises(Stop):
            what_if("What if Santa came?", cottage, model, stop)


def test_long_sentences_and_large_graphs_take_no_time():
    concepts = Concepts(tuple(Concept(f"c{i}", ("none", "red", "blue"), "red") for i in range(200)))
    reading = read_words("red blue none " * 33, concepts)
    assert not reading.do
    with pytest.raises(CounterfactError) as error:
        what_if("red " * 100, concepts)
    assert len(str(error.value)) < 3000
