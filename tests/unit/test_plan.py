"""Interventions and propagation, checked against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, Edge
from causal_core.plan import (
    Consequence,
    CounterfactualPlan,
    Intervention,
    PlanItem,
    parse_intervention,
    propagate,
    unexplained,
)
from causal_core.scm import SCM, Variable

SEASON = Variable("season", ("summer", "winter"), (), {(): (0.5, 0.5)})
TEMPERATURE = Variable("temperature", ("warm", "cold"), ("season",), {("summer",): (0.8, 0.2), ("winter",): (0.1, 0.9)})
SMOKE = Variable("smoke", ("none", "smoke"), ("temperature",), {("warm",): (0.9, 0.1), ("cold",): (0.2, 0.8)})
WINTER = Intervention({"season": "winter"})


def village(season="summer", temperature="warm", smoke="none", noise=None) -> CausalGraph:
    """season -> temperature -> smoke with mechanisms, smoke -> smell without, and a car."""
    concepts = parse_concepts(
        f"season: summer, winter = {season}\ntemperature: warm, cold = {temperature}\nsmoke: none, smoke = {smoke}\n"
        "smell: fresh, burnt = fresh\ncar: red, blue = red"
    )
    edges = tuple(Edge(*pair) for pair in (("season", "temperature"), ("temperature", "smoke"), ("smoke", "smell")))
    return CausalGraph(concepts, edges, (), SCM((SEASON, TEMPERATURE, SMOKE)), noise)


def by_name(plan: CounterfactualPlan) -> dict[str, PlanItem]:
    return {item.name: item for item in plan.items}


class TestIntervention:
    def test_typed(self):
        concepts = village().concepts
        expected = Intervention({"season": "winter", "car": "blue"})
        for typed in (
            "season = winter, car = blue", "Season=WINTER\ncar = Blue", "do(season = winter; car = blue)",
            "do(season = winter), do(car = blue)", "do(season = winter)\ndo (car = blue), # both\n",
        ):  # fmt: skip
            assert parse_intervention(typed, concepts) == expected
        assert parse_intervention(" ", concepts) == Intervention({})

    @pytest.mark.parametrize(
        ("typed", "words"),
        [
            ("winter", "write 'concept = value'"),
            ("saeson = winter", "(?i)did you mean 'season'.*known concepts: season, temperature"),
            ("season = autumn", "unknown value.*Known values: summer, winter"),
            ("season = ", "empty"),
            ("season = winter, season = summer", r"do\(season = summer\) contradicts do\(season = winter\)"),
        ],
    )
    def test_mistakes(self, typed, words):
        with pytest.raises(CounterfactError, match=words):
            parse_intervention(typed, village().concepts)

    def test_merge(self):
        assert WINTER.merge(Intervention({"car": "red"})).merge(WINTER).do == {"season": "winter", "car": "red"}
        with pytest.raises(CounterfactError, match=r"do\(Season = summer\) contradicts do\(season = winter\)"):
            WINTER.merge(Intervention({"Season": "summer"}))
        with pytest.raises(CounterfactError, match="twice"):
            Intervention({"season": "winter", "SEASON": "winter"})

    def test_json(self):
        assert Intervention.from_json(WINTER.to_json()) == WINTER
        for change in (
            {"do": []},
            {"do": {"season": 1}},
            {"do": {"a(b)": "x"}},
            {"do": {f"c{i}": "x" for i in range(501)}},
        ):
            with pytest.raises(CounterfactError):
                Intervention.from_json(json.dumps({**json.loads(WINTER.to_json()), **change}))


class TestPrediction:
    def test_abduction_by_hand(self):
        # Noise of temperature lies in [0, 0.8): under winter 7/8 of it gives cold. Noise of smoke lies in [0, 0.9):
        # under cold 7/9 of it gives smoke. So cold has 7/8, smoke 7/8 * 7/9.
        items = by_name(propagate(village(), WINTER))
        assert (items["temperature"].counterfactual, items["smoke"].counterfactual) == ("cold", "smoke")
        assert items["temperature"].probability == pytest.approx(7 / 8)
        assert items["smoke"].probability == pytest.approx(49 / 72)
        assert items["temperature"].reason == "cold because season = winter (p = 0.88)"
        assert items["smoke"].reason == "smoke because temperature = cold (p = 0.68)"

    def test_value_is_kept_if_its_noise_explains_it(self):
        # Smoke on a warm day means noise in [0.9, 1), which gives smoke on a cold day, too.
        item = by_name(propagate(village(smoke="smoke"), WINTER))["smoke"]
        assert (item.role, item.counterfactual, item.changed) == ("descendant", "smoke", False)
        assert item.probability == pytest.approx(1.0)
        assert item.reason.startswith("stays smoke even with temperature = cold")

    def test_known_noise_is_exact(self):
        noise = {"season": 0.1, "temperature": 0.05, "smoke": 0.5}
        items = by_name(propagate(village(noise=noise), WINTER))
        assert items["temperature"].counterfactual == "warm" and items["temperature"].probability == 1.0
        assert items["smoke"].reason == "stays none because none of its causes changes"

    def test_noise_that_does_not_fit_is_abducted(self):
        noise = {"season": 0.1, "temperature": 0.95, "smoke": 0.5}  # would be cold in this summer, but it is warm
        assert propagate(village(noise=noise), WINTER) == propagate(village(), WINTER)

    def test_middle_node_leaves_its_ancestors_alone(self):
        plan = propagate(village(), Intervention({"temperature": "cold"}))
        roles = {item.name: item.role for item in plan.items}
        assert roles == {
            "season": "invariant", "temperature": "intervened", "smoke": "descendant", "smell": "descendant",
            "car": "invariant",
        }  # fmt: skip
        season = by_name(plan)["season"]
        assert (season.counterfactual, season.depth, season.strength) == ("summer", None, 0.0)
        assert "season" in [item.name for item in plan.invariant]

    def test_overrides_act_on_what_follows(self):
        items = by_name(propagate(village(), WINTER, {"Temperature": "warm"}))
        assert (items["temperature"].role, items["temperature"].counterfactual) == ("descendant", "warm")
        assert items["temperature"].reason == "warm, fixed by hand"
        assert (items["smoke"].counterfactual, items["smoke"].probability) == ("none", 1.0)

    def test_without_mechanism_the_value_stays(self):
        smell = by_name(propagate(village(), WINTER))["smell"]
        assert (smell.role, smell.counterfactual, smell.probability, smell.depth) == ("descendant", "fresh", None, 3)
        assert smell.reason == "keeps its value: no mechanism says how it follows from smoke"
        bare = dataclasses.replace(village(), scm=None)
        assert [item.name for item in propagate(bare, WINTER).affected] == ["season"]
        assert by_name(propagate(bare, WINTER, {"smoke": "smoke"}))["smoke"].changed

    def test_null_intervention(self):
        for intervention in (Intervention({}), Intervention({"season": "summer"})):
            plan = propagate(village(), intervention)
            assert plan.affected == () and len(plan.invariant) == 5
            assert plan.caption_counterfactual == plan.caption_factual

    @pytest.mark.parametrize(
        ("do", "overrides", "words"),
        [
            ({"sky": "blue"}, {}, "unknown concept 'sky'"),
            ({"season": "autumn"}, {}, "Known values: summer, winter"),
            ({"season": "winter"}, {"car": "blue"}, r"'car' does not follow from do\(season = winter\)"),
            ({"season": "winter"}, {"season": "summer"}, "both set by the intervention and fixed"),
            ({"season": "winter"}, {"smoke": "fire"}, "Known values: none, smoke"),
        ],
    )
    def test_mistakes(self, do, overrides, words):
        with pytest.raises(CounterfactError, match=words):
            propagate(village(), Intervention(do), overrides)

    def test_missing_factual_value(self):
        graph = village()
        graph = dataclasses.replace(graph, concepts=graph.concepts.replace("smoke", value=None))
        with pytest.raises(CounterfactError, match="factual value of smoke"):
            propagate(graph, WINTER)
        assert propagate(dataclasses.replace(graph, scm=None), WINTER).affected[0].name == "season"

    def test_decay_is_a_share(self):
        with pytest.raises(CounterfactError, match="decay"):
            propagate(village(), WINTER, decay=1.5)


class TestOtherMechanisms:
    """What the graph's own mechanisms leave open is asked elsewhere."""

    def test_only_what_is_open_is_asked_and_values_go_on(self):
        graph = village()
        edges = (*graph.edges, Edge("smell", "car"))
        graph = dataclasses.replace(graph, edges=edges)
        asked = []

        def mechanism(names, after):
            asked.append((names, after["smoke"], after["smell"], after["car"]))
            return {"smell": Consequence("burnt", 0.75, "it smokes"), "car": Consequence(None, None, "who knows")}

        items = by_name(propagate(graph, WINTER, mechanism=mechanism))
        assert asked == [(("smell",), "smoke", "fresh", "red"), (("car",), "smoke", "burnt", "red")]
        assert (items["smell"].counterfactual, items["smell"].probability) == ("burnt", 0.75)
        assert (items["smell"].reason, items["smoke"].reason[:5]) == ("it smokes", "smoke")
        assert not items["car"].changed and items["car"].reason == "who knows" and items["car"].probability is None

    def test_nothing_is_asked_if_no_cause_changes(self):
        def mechanism(names, after):
            raise AssertionError

        for do, fixed in ((WINTER, {"smoke": "none"}), (WINTER, {"smell": "burnt"}), (Intervention({}), {})):
            plan = propagate(village(), do, fixed, mechanism=mechanism)
        kept = by_name(propagate(village(), WINTER, {"smoke": "none"}, mechanism=mechanism))["smell"]
        assert kept.reason == "keeps its value: none of its causes changes" and plan.affected == ()

    def test_independent_concepts_are_asked_at_once(self):
        graph = CausalGraph.from_edges([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("a", "d")])
        asked = []

        def mechanism(names, after):
            asked.append(names)
            return {name: Consequence("1", 1.0, "so") for name in names}

        propagate(graph, Intervention({"a": "1"}), mechanism=mechanism)
        assert asked == [("b", "c"), ("d",)]

    def test_values_are_checked(self):
        with pytest.raises(CounterfactError, match="Known values: fresh, burnt"):
            propagate(village(), WINTER, mechanism=lambda names, after: {"smell": Consequence("odd", 1.0, "")})

    def test_open_concepts(self):
        assert unexplained(village(), WINTER) == ("smell",)
        assert unexplained(dataclasses.replace(village(), scm=None), WINTER) == ("temperature", "smoke", "smell")
        assert unexplained(village(), WINTER, {"smell": "burnt"}) == ()
        with pytest.raises(CounterfactError, match="unknown concept 'sky'"):
            unexplained(village(), Intervention({"sky": "blue"}))

    def test_mechanisms_are_left_alone_if_nothing_follows_from_them(self):
        graph = village()
        graph = dataclasses.replace(graph, concepts=graph.concepts.replace("smoke", value=None))
        assert propagate(graph, Intervention({"smell": "burnt"})).affected[0].name == "smell"


def test_depth_and_strength_by_hand():
    edges = [Edge("a", "b", 0.5), Edge("b", "c", 0.8), Edge("a", "c", 0.3), Edge("c", "d"), Edge("e", "d", 0.9)]
    graph = CausalGraph.from_edges(edges, concepts=Concepts(tuple(Concept(n, ("0", "1"), "0") for n in "abcde")))
    items = by_name(propagate(graph, Intervention({"a": "1"}), decay=0.9))
    assert {name: (item.depth, item.strength) for name, item in items.items()} == {
        "a": (0, 1.0),
        "b": (1, 0.5),
        "c": (1, pytest.approx(0.4)),  # by way of b: 0.5 * 0.8 > 0.3
        "d": (2, pytest.approx(0.36)),
        "e": (None, 0.0),
    }
    both = by_name(propagate(graph, Intervention({"a": "1", "c": "1"}), decay=0.9))
    assert (both["c"].role, both["d"].depth, both["d"].strength) == ("intervened", 1, 1.0)


class TestPlan:
    def test_captions(self):
        plan = propagate(village(), WINTER)
        assert plan.caption_factual == "summer season, warm temperature, none smoke, fresh smell, red car"
        assert plan.caption_counterfactual == "winter season, cold temperature, smoke smoke, fresh smell, red car"

    def test_items_come_causes_first(self):
        graph = CausalGraph.from_edges([("b", "a")], concepts=parse_concepts("a: 0, 1 = 0\nb: 0, 1 = 0"))
        assert [item.name for item in propagate(graph, Intervention({"b": "1"})).items] == ["b", "a"]

    @pytest.mark.parametrize("seed", range(20))
    def test_json_round_trip(self, seed):
        rng = random.Random(seed)
        names = [f"c{i}" for i in range(rng.randint(1, 10))]
        edges = [Edge(a, b, rng.random()) for i, a in enumerate(names) for b in names[i + 1 :] if rng.random() < 0.3]
        concepts = Concepts(tuple(Concept(n, ("0", "1", "2"), rng.choice([None, "0"])) for n in names))
        graph = CausalGraph.from_edges(edges, concepts=concepts)
        do = {name: rng.choice("012") for name in rng.sample(names, rng.randint(0, len(names) // 2))}
        plan = propagate(graph, Intervention(do), decay=rng.random())
        assert CounterfactualPlan.from_json(plan.to_json()) == plan
        assert CounterfactualPlan.from_json(plan.to_json()).to_json() == plan.to_json()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"role": "victim"}, "must be one of intervened, descendant, invariant"),
            ({"depth": 0}, "does not fit its role"),
            ({"depth": None}, "does not fit its role"),
            ({"strength": 2}, "strength"),
            ({"probability": -1}, "probability"),
            ({"counterfactual": "hot"}, "Known values: warm, cold"),
            ({"factual": "cold"}, "says 'cold' before, the concept says 'warm'"),
            ({"role": "invariant", "depth": None}, "must keep its value"),
            ({"role": "intervened", "depth": 0}, "does not agree with the intervention"),
            ({"name": "season"}, "one item for each concept"),
            ({"name": "sky"}, "one item for each concept: look at sky"),
            ({"colour": "red"}, "unknown field"),
            ({"reason": "x" * 5000}, "too long"),
        ],
    )
    def test_edited_by_hand(self, change, words):
        document = json.loads(propagate(village(), WINTER).to_json())
        document["items"][1].update(change)
        with pytest.raises(CounterfactError, match=words):
            CounterfactualPlan.from_json(json.dumps(document))

    def test_other_intervention_than_items(self):
        document = json.loads(propagate(village(), WINTER).to_json())
        for do in ({}, {"season": "summer"}, {"season": "winter", "car": "blue"}):
            with pytest.raises(CounterfactError, match="does not agree with the intervention"):
                CounterfactualPlan.from_json(json.dumps({**document, "do": do}))

    def test_many_causes_keep_the_reason_short(self):
        names = [f"{i:03d}" + "x" * 77 for i in range(40)]
        graph = CausalGraph.from_edges([(name, "end") for name in names])
        plan = propagate(graph, Intervention({name: "y" * 80 for name in names}))
        assert by_name(plan)["end"].reason.endswith("and 32 more")
        assert CounterfactualPlan.from_json(plan.to_json()) == plan
