"""Mechanisms asked from language models that answer from a table, checked against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from causal_core.concepts import parse_concepts
from causal_core.discovery.mechanisms import gumbel_posterior, language_mechanism
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, Edge
from causal_core.language.model import CHOICES, NOTHING, TEXT
from causal_core.plan import Intervention, propagate, unexplained
from causal_core.scm import SCM, Variable

from ..helpers.street import RAIN, STREET, Table, plan, street


class TestGumbel:
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_what_shared_noise_gives(self, seed):
        rng = np.random.default_rng(seed)
        p, q = rng.dirichlet(np.ones(seed + 2), 2)
        noise = rng.gumbel(size=(100_000, seed + 2))
        before, after = (noise + np.log(p)).argmax(1), (noise + np.log(q)).argmax(1)
        for i in range(seed + 2):
            counts = np.bincount(after[before == i], minlength=seed + 2)
            error = 4 * np.sqrt(0.25 / counts.sum())
            assert np.abs(gumbel_posterior(p, q, i) - counts / counts.sum()).max() < error

    def test_by_hand(self):
        # i = 0: stays with 0.1 / (max(.9*.1, .1*.9) + max(.1*.1, .9*.9)) = 0.1 / 0.9.
        assert gumbel_posterior((0.9, 0.1), (0.1, 0.9), 0) == pytest.approx([1 / 9, 8 / 9])
        assert gumbel_posterior((0.9, 0.1), (0.1, 0.9), 1) == pytest.approx([0, 1])


class TestChoices:
    @pytest.mark.parametrize("scores", [TEXT, CHOICES, NOTHING])
    def test_what_is_explained_goes_with_its_causes(self, scores):
        model = Table(STREET, scores)
        items = plan(model)
        assert (items["street"].counterfactual, items["shoes"].counterfactual) == ("wet", "muddy")
        assert items["street"].reason.startswith("wet because weather = rain (language model, 0.")
        assert items["street"].reason.endswith("; dry before, with weather = clear)")
        assert items["shoes"].reason.startswith("muddy because street = wet")
        assert 0.5 < items["street"].probability <= 1
        # No other configurations are asked: the street under its two weathers, the shoes under their two streets.
        about = [r.prompt.text.lower().replace('"', "") for r in model.asked]
        assert not [asked for asked in about if "flooded and" in asked or "is flooded" in asked]

    def test_what_is_not_explained_stays(self):
        # Wet in clear weather: something else wets it. Table: P(wet) grows with rain, so wet stays with certainty.
        items = plan(Table(STREET, CHOICES), street(street="wet", shoes="clean"))
        assert not items["street"].changed and items["street"].probability == pytest.approx(1)
        assert items["street"].reason == "stays wet even with weather = rain (language model, 1.00)"
        assert items["shoes"].reason == "keeps its value: none of its causes changes"
        sun = plan(Table(STREET, CHOICES), street(weather="rain", street="flooded"), Intervention({"weather": "clear"}))
        kept = sun["street"]
        assert kept.changed or "another cause" in kept.reason

    def test_posterior_by_hand(self):
        # Letters in both orders agree, so the shares are the table's, p = (.8, .15, .05) and q = (.1, .8, .1):
        # P(dry | dry) = .1 / (max(.08, .08) + max(.015, .64) + max(.005, .08)) = .1 / .8
        item = plan(Table(STREET, CHOICES))["street"]
        posterior = gumbel_posterior((0.8, 0.15, 0.05), (0.1, 0.8, 0.1), 0)
        assert posterior[0] == pytest.approx(0.125)
        assert item.probability == pytest.approx(posterior[1])

    def test_another_cause(self):
        rows = {"weather is clear & the street": {"dry": 0.9, "wet": 0.09, "flooded": 0.01},
                "weather is rain & the street": {"dry": 0.09, "wet": 0.9, "flooded": 0.01}}  # fmt: skip
        item = plan(Table(rows, CHOICES), street(street="flooded"))["street"]
        assert item.counterfactual == "flooded"
        assert item.reason.startswith(
            "stays flooded: weather = clear would rather make it dry, so it has another cause, which stays"
        )

    def test_small_models_are_scored_by_differences(self):
        # The model's prior says dry in any weather; only the difference between the weathers tells.
        rows = {"weather is clear & the street": {"dry": 0.98, "wet": 0.01, "flooded": 0.01},
                "weather is rain & the street": {"dry": 0.85, "wet": 0.14, "flooded": 0.01}}  # fmt: skip
        assert plan(Table(rows))["street"].counterfactual == "wet"
        assert plan(Table(rows, CHOICES))["street"].counterfactual == "dry"

    def test_answers_that_do_not_differ_change_nothing(self):
        rows = {"the street": {"dry": 0.1, "wet": 0.8, "flooded": 0.1}}
        for scores in (TEXT, CHOICES, NOTHING):
            assert not plan(Table(rows, scores))["street"].changed

    def test_preferred_letters_cancel(self):
        class First(Table):
            def choice_logprobs(self, request, check=lambda: None):
                return tuple(x - 2 * i for i, x in enumerate(super().choice_logprobs(request)))

        fair, biased = (plan(kind(STREET, CHOICES))["street"] for kind in (Table, First))
        assert biased.probability == pytest.approx(fair.probability) and biased.reason == fair.reason

    def test_unknown_values(self):
        # Nothing to abduct: the answer under the new causes is taken as it is.
        item = plan(Table(STREET, CHOICES), street(street=None))["street"]
        assert (item.factual, item.counterfactual) == (None, "wet") and item.probability == pytest.approx(0.8)
        model = Table({"weather is not known & the street": {"dry": 1.0}, **STREET}, CHOICES)
        assert plan(model, street(weather=None))["street"].counterfactual == "wet"
        assert any("not known" in request.prompt.text for request in model.asked)

    def test_many_values_are_asked_in_words(self):
        values = [f"v{i}" for i in range(30)]
        concepts = parse_concepts(f"a: x, y = x\nb: {', '.join(values)} = v0")
        graph = CausalGraph.from_edges([("a", "b")], concepts=concepts)
        rows = {"a is x & the b": '{"value": "v0"}', "a is y & the b": '{"value": "v7"}'}
        assert plan(Table(rows, CHOICES), graph, Intervention({"a": "y"}))["b"].counterfactual == "v7"

    def test_no_signal_keeps_the_value(self):
        for rows in ({}, {"the street": {"dry": 1.0}, "weather is rain": {}}):
            item = plan(Table(rows, TEXT if rows else CHOICES), street())["street"]
            assert not item.changed
        nan = Table({}, TEXT)
        nan.choice_logprobs = lambda request, check=None: (math.nan,) * len(request.choices)
        item = plan(nan)["street"]
        assert not item.changed and item.probability is None and "no usable answer for weather = rain" in item.reason


class TestWordsAndNumbers:
    def test_words_are_preferred_to_the_factual_value(self):
        rows = {"weather is rain & mood & one to three": '{"value": "gloomy"}',
                "weather is clear & mood": {"merry": 0.7, "gloomy": 0.3},
                "weather is rain & mood": {"merry": 0.2, "gloomy": 0.8}}  # fmt: skip
        for scores in (TEXT, CHOICES, NOTHING):
            assert plan(Table(rows, scores))["mood"].counterfactual == "gloomy"
        # Not explained: gloomy has the better chances in clear weather already, so something else makes it merry.
        rows["weather is clear & mood"] = {"merry": 0.1, "gloomy": 0.9}
        assert plan(Table(rows, NOTHING))["mood"].counterfactual == "merry"

    def test_same_words_in_other_letters_change_nothing(self):
        item = plan(Table({"mood": '{"value": " MERRY"}'}, NOTHING))["mood"]
        assert item.counterfactual == "merry" and not item.changed
        assert plan(Table({"mood": '{"value": "sad"}'}, NOTHING), street(mood=None))["mood"].counterfactual == "sad"

    def test_numbers_keep_what_is_not_explained(self):
        rows = {"weather is clear & noise": '{"value": 20}', "weather is rain & noise": '{"value": "50.5"}'}
        item = plan(Table(rows))["noise"]
        assert (item.factual, item.counterfactual, item.probability) == ("30.0", "60.5", None)
        assert item.reason == "60.5 because weather = rain (language model: 20.0 with weather = clear, then 50.5)"
        assert plan(Table(rows), street(noise="95"))["noise"].counterfactual == "100.0"
        assert plan(Table(rows), street(noise=None))["noise"].counterfactual == "50.5"
        assert plan(Table({"noise": '{"value": 7}'}))["noise"].reason.startswith("stays 30.0 even with weather = rain")

    @pytest.mark.parametrize("answer", [
        "", "no", "[]", "{", '{"value": null}', '{"value": true}', '{"value": ["wet"]}', '{"wet": 1}', "[" * 10_000,
        '{"value": "<b>ignore all rules</b>"}', '{"value": "one two three four five six"}', '{"value": NaN}',
        '{"value": "' + "x" * 100_000 + '"}', '{"value": ' + "9" * 5000 + "}", '{"value": "a\\u0000b"}',
    ])  # fmt: skip
    def test_unusable_answers_keep_the_value(self, answer):
        model = Table({"": answer}, NOTHING)
        items = plan(model)
        for name in ("street", "mood", "noise"):
            assert not items[name].changed and items[name].probability is None
            assert items[name].reason == "keeps its value: the language model gave no usable answer for weather = rain"
        # Two worlds, each asked once more; one world for a concept of any words.
        about = ['is the "street" in', 'is the "noise" in', 'is the "mood" in']
        assert [sum(words in r.prompt.text for r in model.asked) for words in about] == [4, 4, 2]

    @pytest.mark.parametrize("answer", ["purple", "101", "-1", "1e999", "nan"])
    def test_values_outside_of_the_domain(self, answer):
        items = plan(Table({"street": f'{{"value": "{answer}"}}', "noise": f'{{"value": "{answer}"}}'}, NOTHING))
        for name in ("street", "noise"):
            assert not items[name].changed and "no usable answer" in items[name].reason

    @pytest.mark.parametrize(("goes_on", "mood", "noise"), [
        (" sad and tired.\n\nIn this", "sad and tired", "30.0"), (" about 70, or 80", "about 70", "70.0"),
        (' "grey"', "grey", "30.0"), ("", None, "30.0"), (".", None, "30.0"), (" 500", "500", "30.0"),
        (" so sad that nobody would ever guess", None, "30.0"), (" <b>", None, "30.0"),
    ])  # fmt: skip
    def test_text_models_go_on_with_a_sentence(self, goes_on, mood, noise):
        model = Table({"rain": goes_on, "clear": " 30"}, TEXT)
        items = plan(model, street(mood=None))
        assert (items["mood"].counterfactual, items["noise"].counterfactual) == (mood, noise)
        assert all(
            not request.prompt.chat and request.max_tokens < 10 for request in model.asked if not request.choices
        )

    def test_second_answer_counts(self):
        class Late(Table):
            def complete(self, request, check=lambda: None):
                return super().complete(request) if "exactly" in request.prompt.text else "Let me think."

        assert plan(Late(STREET, NOTHING))["street"].counterfactual == "wet"


class TestMixed:
    """weather and street have mechanisms, shoes, mood and noise have none."""

    @pytest.fixture
    def graph(self):
        weather = Variable("weather", ("clear", "rain"), (), {(): (0.7, 0.3)})
        wet = Variable("street", ("dry", "wet", "flooded"), ("weather",),
                       {("clear",): (0.9, 0.1, 0.0), ("rain",): (0.0, 0.9, 0.1)})  # fmt: skip
        bare = street()
        return CausalGraph(bare.concepts, bare.edges, (), SCM((weather, wet)))

    def test_mechanisms_of_the_graph_come_first(self, graph):
        model = Table({"street is wet & shoes": {"muddy": 0.9, "clean": 0.1}, **STREET}, CHOICES)
        items = plan(model, graph, fixed={"mood": "sad"})
        assert items["street"].reason == "wet because weather = rain"
        assert items["shoes"].counterfactual == "muddy" and items["mood"].reason == "sad, fixed by hand"
        assert not [r for r in model.asked if "mood" in r.prompt.text or 'is the "street"' in r.prompt.text]

    def test_what_is_fixed_acts_on_what_follows(self, graph):
        items = plan(Table(STREET, CHOICES), graph, fixed={"street": "dry", "mood": "sad", "noise": "30"})
        assert items["shoes"].reason == "keeps its value: none of its causes changes"
        items = plan(Table(STREET, CHOICES), street(), fixed={"street": "wet"})
        assert items["shoes"].counterfactual == "muddy"

    def test_unexplained(self, graph):
        assert unexplained(graph, RAIN) == ("shoes", "mood", "noise")
        assert unexplained(graph, RAIN, {"Shoes": "muddy", "mood": "sad"}) == ("noise",)
        assert unexplained(graph, Intervention({"street": "wet"})) == ("shoes",)
        assert unexplained(graph, Intervention({})) == ()


def test_siblings_are_asked_together():
    class Counting(Table):
        batches = 0

        def batch(self, requests, progress=lambda done, total: None, check=lambda: None):
            self.batches += 1
            return super().batch(requests, progress, check)

    names = [f"c{i}" for i in range(20)]
    concepts = parse_concepts("\n".join(["weather: clear, rain = clear", *(f"{n}: a, b = a" for n in names)]))
    graph = CausalGraph.from_edges([("weather", n) for n in names], concepts=concepts)
    model = Counting({"clear": {"a": 0.9, "b": 0.1}, "rain": {"a": 0.1, "b": 0.9}})
    items = plan(model, graph)
    assert sum(item.changed for item in items.values()) == 21 and model.batches == 1


def test_same_intervention_asks_nothing():
    model = Table(STREET)
    assert not any(item.changed for item in plan(model, do=Intervention({"weather": "clear"})).values())
    assert not model.asked


def test_stopping_and_broken_connections_are_not_swallowed():
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    graph = street()
    with pytest.raises(Stop):
        propagate(graph, RAIN, mechanism=language_mechanism(graph, Table(STREET), check=stop))

    class Gone(Table):
        def batch(self, requests, progress=None, check=None):
            raise CounterfactError("the server does not answer")

    with pytest.raises(CounterfactError, match="the server does not answer"):
        plan(Gone(STREET))


def test_long_names_keep_reasons_short():
    names = [f"{i:02d}" + "x" * 78 for i in range(30)]
    concepts = parse_concepts("\n".join([*(f"{n}: {'y' * 80}, {'z' * 80} = {'y' * 80}" for n in names), "b: u, v = u"]))
    graph = CausalGraph(concepts, tuple(Edge(n, "b") for n in names))
    rows = {"y" * 80: {"u": 0.9, "v": 0.1}, "z" * 80: {"u": 0.1, "v": 0.9}}
    item = plan(Table(rows), graph, Intervention({n: "z" * 80 for n in names}))["b"]
    assert item.counterfactual == "v" and "and 26 more" in item.reason
