"""Manual edits: what they make of a graph, that they survive another graph, and that mistakes are named."""

from __future__ import annotations

import json
import random

import pytest
from graph_edits import CASES, document, graph_of, pairs, short_form

from causal_core.apply_edits import apply_edits
from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.edits import ConceptEdit, GraphEdits
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, Edge
from causal_core.plan import Intervention, propagate
from causal_core.worlds import get_world


def drawn(*edges: str, **edits) -> GraphEdits:
    """Edits that draw edges, each 'a b', and erase those that begin with a '-'."""
    links = {tuple(edge.removeprefix("-").split()): not edge.startswith("-") for edge in edges}
    return GraphEdits(edges=links, **edits)


class TestDocument:
    @pytest.mark.parametrize("case", CASES["valid"], ids=lambda case: case["name"])
    def test_case(self, case):
        edits = GraphEdits.from_json(document(case["edits"]))
        assert short_form(apply_edits(graph_of(case["graph"]), edits)) == case["expected"]
        assert GraphEdits.from_json(edits.to_json()) == edits

    @pytest.mark.parametrize("case", CASES["nonsense"], ids=lambda case: case["name"])
    def test_nonsense(self, case):
        with pytest.raises(CounterfactError):
            GraphEdits.from_json(case.get("text") or document(case["edits"]))

    def test_empty_text_holds_no_edits(self):
        assert GraphEdits.from_json(" \n") == GraphEdits() and not GraphEdits()
        graph = CausalGraph.from_edges([("a", "b")])
        assert apply_edits(graph, GraphEdits()).graph is graph
        assert not GraphEdits(positions={"a": (1, 2)}) and GraphEdits(removed=("a",))

    def test_mistakes_name_what_is_wrong(self):
        forth, back = ({"source": a, "target": b, "present": True} for a, b in ("ab", "ba"))
        for edits, words in [
            ({"edges": [forth, back]}, "cycle: a -> b -> a"),
            ({"do": {"season": ""}}, "the value of concept 'season' is empty"),
            ({"removed": ["a<b"]}, "the removed concept 'a<b' may only have letters"),
            ({"edgse": []}, "Did you mean 'edges'"),
            ({"positions": {"a": [1e6, 0]}}, "the position of 'a' must be a number from -100000 to 100000"),
        ]:  # fmt: skip
            with pytest.raises(CounterfactError, match=words):
                GraphEdits.from_json(document(edits))

    def test_same_edits_give_the_same_text(self):
        one, other = GraphEdits(do={"b": "1", "a": "2"}), GraphEdits(do={"a": "2", "b": "1"})
        assert one.to_json() == other.to_json() and list(one.do) == ["a", "b"]


class TestApply:
    def test_manual_edits_survive_another_graph(self):
        edits = drawn("season foliage", "-car house", do={"season": "winter"}, renamed={"temp": "temperature"})
        concepts = parse_concepts("season: summer, winter\nfoliage\ncar\nhouse\ntemp")
        for told in ([], [("foliage", "season"), ("car", "house")], [("house", "car"), ("temp", "foliage")]):
            graph, intervention, notes = apply_edits(CausalGraph.from_edges(told, (), concepts), edits)
            assert ("season", "foliage") in pairs(graph)
            assert not pairs(graph) & {("foliage", "season"), ("car", "house")}
            assert "temperature" in graph.concepts and str(intervention) == "do(season = winter)" and not notes

    def test_sizes(self):
        one = apply_edits(CausalGraph.from_edges([("a", "b")]), GraphEdits(removed=("a",)))
        assert one.graph.concepts.names == ("b",) and not one.graph.edges
        many = Concepts(tuple(Concept(f"c{i}") for i in range(200)))
        told = CausalGraph(many, tuple(Edge(f"c{i}", f"c{i + 1}", 0.5) for i in range(199)))
        edited = apply_edits(told, drawn("c199 c0"))
        assert len(edited.graph.edges) == 199 and edited.notes == (
            "c198 -> c199 is left out: it makes a cycle with the edges drawn by hand",
        )
        for nothing in (None, CausalGraph.from_edges([("a", "b")])):
            with pytest.raises(CounterfactError, match="no concept is left"):
                apply_edits(nothing, GraphEdits(removed=("a", "b")))
        with pytest.raises(CounterfactError, match="more than the 500 allowed"):
            apply_edits(told, GraphEdits(added=tuple(Concept(f"d{i}") for i in range(301))))

    def test_phrases_and_confidence_go_with_what_they_belong_to(self):
        car = Concept("car", ("red", "blue"), "red", {"red": ("a red car",)}, 0.6)
        graph = CausalGraph(Concepts((car,)))
        moved = apply_edits(graph, GraphEdits(renamed={"car": "van"})).graph.concepts["van"]
        assert (moved.phrases, moved.confidence) == (car.phrases, 0.6)
        wider = apply_edits(graph, GraphEdits(values={"car": ConceptEdit(("green", "red"))})).graph.concepts["car"]
        assert (wider.value, wider.phrases, wider.confidence) == ("red", car.phrases, 0.6)
        other = apply_edits(graph, GraphEdits(values={"car": ConceptEdit(("green",), "green")})).graph.concepts["car"]
        assert (other.value, other.phrases, other.confidence) == ("green", {}, None)


class TestMechanisms:
    """The cottage world has mechanisms for every concept, and a hidden cause of time and weather."""

    @pytest.fixture
    def told(self) -> CausalGraph:
        world = get_world("cottage")
        return world.scene_graph(world.sample(302))

    def test_they_stay_where_nothing_around_them_changes(self, told):
        edits = GraphEdits(added=(Concept("moon"),), positions={"season": (0, 0)}, do={"season": "winter"})
        graph, intervention, notes = apply_edits(told, edits)
        assert graph.scm == told.scm and graph.noise == told.noise and not notes
        before = propagate(told, Intervention({"season": "winter"}))
        after = propagate(graph, intervention)
        assert [(i.name, i.counterfactual) for i in after.items if i.name != "moon"] == [
            (i.name, i.counterfactual) for i in before.items
        ]

    def test_renamed_concepts_keep_theirs(self, told):
        graph, _, notes = apply_edits(told, GraphEdits(renamed={"season": "time of year", "time": "hour"}))
        assert not notes and set(graph.noise.values()) == set(told.noise.values())
        before = propagate(told, Intervention({"season": "winter"}))
        after = propagate(graph, Intervention({"time of year": "winter"}))
        assert {i.counterfactual for i in after.affected} == {i.counterfactual for i in before.affected}

    def test_what_a_changed_cause_feeds_loses_them(self, told):
        child = next(e.target for e in told.edges if told.children(e.target))
        parent = told.parents(child)[0]
        graph, _, notes = apply_edits(told, drawn(f"-{parent} {child}"))
        lost = {child, *told.descendants(child)}
        assert {v.name for v in graph.scm.variables if not v.hidden} == set(told.concepts.names) - lost
        assert len(notes) == 1 and notes[0].startswith("the mechanisms of ") and child in notes[0]
        assert set(graph.noise) == {v.name for v in graph.scm.variables}
        propagate(graph, Intervention({parent: told.concepts[parent].domain[0]}))

    def test_confounders_count_as_structure(self, told):
        (a, b), *_ = told.confounded
        graph = apply_edits(told, GraphEdits(confounded={(b, a): False})).graph
        assert not {a, b, *(v.name for v in told.scm.variables if v.hidden)} & {v.name for v in graph.scm.variables}
        cause, effect = (name for name in ("house", "car"))
        graph = apply_edits(told, GraphEdits(confounded={(cause, effect): True})).graph
        assert not {cause, effect} & {v.name for v in graph.scm.variables}

    def test_values_by_hand_are_not_explained_by_the_known_noise(self, told):
        house = told.concepts["house"]
        other = next(value for value in house.domain if value != house.value)
        graph = apply_edits(told, GraphEdits(values={"house": ConceptEdit(None, other)})).graph
        assert graph.scm == told.scm and graph.noise is None

    def test_a_concept_may_take_the_name_of_a_hidden_cause(self, told):
        hidden = next(v.name for v in told.scm.variables if v.hidden)
        graph, _, notes = apply_edits(told, GraphEdits(renamed={"car": hidden}))
        assert not notes and not graph.scm[hidden].hidden and graph.noise[hidden] == told.noise["car"]
        assert sum(v.hidden for v in graph.scm.variables) == 1
        assert graph.noise[next(v.name for v in graph.scm.variables if v.hidden)] == told.noise[hidden]

    def test_none_are_left_without_their_concepts(self, told):
        graph = apply_edits(told, GraphEdits(removed=told.concepts.names[1:])).graph
        assert graph.scm is None or {v.name for v in graph.scm.variables} == {told.concepts.names[0]}


def test_cases_cover_every_part_of_the_document():
    parts = {part for case in CASES["valid"] for part in case["edits"]}
    assert parts == set(json.loads(GraphEdits().to_json())) - {"kind", "schema_version"}


def test_a_large_graph_takes_no_time_to_speak_of():
    """500 concepts and 5000 edges that all lie on cycles with one manual edge."""
    rng = random.Random(1)
    names = [f"c{i}" for i in range(500)]
    chosen = {tuple(sorted(rng.sample(range(500), 2))) for _ in range(4500)} | {(i, i + 1) for i in range(499)}
    edges = tuple(Edge(names[a], names[b], rng.random()) for a, b in sorted(chosen))
    told = CausalGraph(Concepts(tuple(map(Concept, names))), edges)
    edited = apply_edits(told, drawn("c499 c0"))
    assert ("c499", "c0") in pairs(edited.graph) and len(edited.notes) + len(edited.graph.edges) == len(edges) + 1
