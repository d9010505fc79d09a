"""Build Causal Graph: what comes from where, what the editor changes in it, and what a language model is asked."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def builder(pack):
    """The node class."""
    return pack("nodes.graph").GraphBuilder


@pytest.fixture
def build(builder):
    """Run the node; gives graph, json and intervention."""
    return lambda **inputs: builder.execute(**inputs).args


@pytest.fixture
def concepts(pack):
    return pack("causal_core.concepts").parse_concepts(
        "season: summer, winter = summer\nfoliage: green, bare = green\npond: water, ice = water\ncar = red"
    )


@pytest.fixture
def told(pack, concepts):
    """season -> foliage, season -> pond."""
    return pack("causal_core.graph").CausalGraph.from_edges([("season", "foliage"), ("season", "pond")], (), concepts)


@pytest.fixture
def editor(pack):
    """The text of an editor with some edits."""
    return lambda **edits: pack("causal_core.edits").GraphEdits(**edits).to_json()


@pytest.fixture
def oracle(pack, told, monkeypatch, tmp_path):
    """A language model that knows the graph and counts what it is asked; answers are kept in a folder of the test."""
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))

    class Counting(pack("causal_core.discovery").Oracle):
        asked = 0

        def complete(self, request, check=lambda: None):
            Counting.asked += 1
            return super().complete(request, check)

    return Counting(told)


def edges(graph):
    return [(edge.source, edge.target) for edge in graph.edges]


def test_strategies_are_those_of_the_core(pack):
    offered, known = pack("nodes.graph").STRATEGIES, pack("causal_core.discovery").STRATEGIES
    assert {*offered, "yes_no"} == set(known) and offered[0] == known[0]


def test_editor_wins_over_whatever_graph_comes(build, told, editor):
    text = editor(edges={("foliage", "season"): True, ("season", "pond"): False}, do={"season": "winter"})
    for inputs in (
        {"graph": told}, {"edges": "season -> foliage\nseason -> pond"}, {"edges": told.to_json()},
        {"graph": told, "concepts": told.concepts},
    ):  # fmt: skip
        graph, document, intervention = build(**inputs, editor=text)
        assert edges(graph) == [("foliage", "season")] and graph.edges[0].confidence == 1.0
        assert json.loads(document)["edges"][0]["reason"] == "drawn by hand"
        assert str(intervention) == "do(season = winter)"


def test_a_graph_can_be_drawn_from_nothing(pack, build, editor):
    concept = pack("causal_core.concepts").Concept
    text = editor(added=(concept("rain", ("no", "yes"), "no"), concept("road")), edges={("rain", "road"): True})
    graph, _, intervention = build(editor=text)
    assert graph.concepts.names == ("rain", "road") and edges(graph) == [("rain", "road")] and not intervention.do


def test_concepts_alone_are_a_graph_to_draw_edges_in(build, concepts, editor):
    assert build(concepts=concepts)[0].edges == ()
    assert edges(build(concepts=concepts, editor=editor(edges={("car", "pond"): True}))[0]) == [("car", "pond")]


def test_values_of_the_picture_come_before_the_edits(pack, build, told, editor):
    seen = told.concepts.replace("car", value="blue").replace("pond", value="ice", confidence=0.7)
    change = pack("causal_core.edits").ConceptEdit(None, "water")
    graph = build(graph=told, concepts=seen, editor=editor(values={"pond": change}))[0]
    assert graph.concepts.values() == {"season": "summer", "foliage": "green", "pond": "water", "car": "blue"}
    assert graph.concepts["pond"].confidence is None


def test_intervention_can_be_joined_with_a_do_node(pack, build, told, editor):
    intervention = build(graph=told, editor=editor(do={"season": "winter"}))[2]
    do = pack("nodes.intervention").DoIntervention.execute
    assert do(told, "car = green", intervention).args[0].do == {"season": "winter", "car": "green"}
    assert do(told, "", build(graph=told)[2]).args[0].do == {}


def test_the_page_gets_the_graph_below_the_edited_one_and_notes(pack, builder, editor):
    world = pack("causal_core.worlds").get_world("cottage")
    told = world.scene_graph(world.sample(302))
    text = editor(removed=("car",), edges={("season", "wind"): True, ("season", "house"): True})
    ui = builder.execute(graph=told, editor=text).ui
    base, result = (json.loads(ui[key][0]) for key in ("counterfact_base", "counterfact_graph"))
    assert "car" in [concept["name"] for concept in base["concepts"]] and base["scm"] is None
    assert "car" not in [concept["name"] for concept in result["concepts"]] and result["scm"]
    assert ui["counterfact_notes"][0] == "season -> wind is left out: there is no wind"
    assert "house" in ui["counterfact_notes"][1] and len(ui["counterfact_notes"]) == 2
    assert builder.execute(editor=editor(added=(pack("causal_core.concepts").Concept("a"),))).ui[
        "counterfact_base"
    ] == [""]


def test_a_language_model_is_asked_for_what_is_not_given(pack, build, oracle, concepts, told, editor):
    graph = build(concepts=concepts, llm=oracle)[0]
    assert edges(graph) == edges(told) and graph.concepts == concepts
    assert all(0 < edge.confidence <= 1 for edge in graph.edges)
    first = oracle.asked
    assert first and build(concepts=concepts, llm=oracle)[0] == graph and oracle.asked == first, "answers are kept"
    text = editor(edges={("pond", "season"): True})
    assert set(edges(build(concepts=concepts, llm=oracle, editor=text)[0])) == {
        ("season", "foliage"),
        ("pond", "season"),
    }
    assert build(edges="car -> pond", llm=oracle)[0].concepts.names == ("car", "pond")
    assert build(graph=told, llm=oracle)[0] == told
    assert oracle.asked == first


def test_strategy_and_constraints_reach_the_questions(build, oracle, concepts):
    build(concepts=concepts, llm=oracle)
    pairwise, oracle.__class__.asked = oracle.asked, 0
    known = "car -> pond\nnot season -> foliage"
    found = edges(build(concepts=concepts, llm=oracle, strategy="breadth_first", constraints=known)[0])
    assert ("car", "pond") in found and ("season", "foliage") not in found and 0 < oracle.asked < pairwise


def test_concepts_drawn_by_hand_can_be_linked_by_a_language_model(build, oracle, concepts, editor, told):
    graph = build(llm=oracle, editor=editor(added=concepts.items))[0]
    assert edges(graph) == edges(told)
    alone = build(llm=oracle, editor=editor(added=concepts.items[:1]))[0]
    assert alone.concepts.names == ("season",)


def test_edges_that_a_model_gives_up_are_told(pack, builder, monkeypatch, concepts):
    discovery = pack("causal_core.discovery")
    edge = pack("causal_core.graph").Edge(
        "pond", "season", 0.4, "given up for surer edges with which it closes a cycle"
    )

    def discover(concepts, model, **options):
        options["progress"](1, 2)
        graph = pack("causal_core.graph").CausalGraph(concepts)
        return discovery.Discovery(graph, (edge,), {}, options["strategy"], model.name, 1, 0, 0)

    monkeypatch.setattr(discovery, "discover", discover)
    ui = builder.execute(
        concepts=concepts, llm=type("Model", (), {"name": "m", "scores": "nothing", "sees": False})()
    ).ui
    assert ui["counterfact_notes"] == ["pond -> season: given up for surer edges with which it closes a cycle"]


def test_a_run_is_interrupted_between_questions(build, oracle, concepts):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    try:
        with pytest.raises(management.InterruptProcessingException):
            build(concepts=concepts, llm=oracle)
        assert oracle.asked <= 1
    finally:
        management.interrupt_current_processing(False)


@pytest.mark.parametrize("inputs, wanted", [
    ({}, []), ({"llm": None}, ["llm"]), ({"llm": "loaded"}, []), ({"llm": None, "edges": "a -> b"}, []),
    ({"llm": None, "graph": "a graph"}, []), ({"llm": None, "edges": " \n", "concepts": "some"}, ["llm"]),
])  # fmt: skip
def test_the_language_model_is_loaded_only_if_it_is_asked(builder, inputs, wanted):
    assert builder.check_lazy_status(**inputs) == wanted


@pytest.mark.parametrize("text, message", [
    ("{", "editor: the counterfact.graph_edits text is not JSON"),
    ('{"kind": "counterfact.graph_edits", "schema_version": 2}', "editor: the schema_version 2 .* newer"),
    ('{"kind": "counterfact.graph", "schema_version": 1}', "editor: expected a JSON document of kind"),
    ('{"kind": "counterfact.graph_edits", "schema_version": 1, "removed": ["season", "foliage", "pond", "car"]}',
     "editor: no concept is left"),
    ('{"kind": "counterfact.graph_edits", "schema_version": 1, "removed": ["<b>"]}', "editor: the removed concept"),
])  # fmt: skip
def test_nonsense_in_the_editor_is_told(build, error, told, text, message):
    with pytest.raises(error, match=message):
        build(graph=told, editor=text)


def test_mistakes_around_the_language_model_are_told(build, error, oracle, concepts):
    with pytest.raises(error, match="llm: connect concepts, or add some in the editor"):
        build(llm=oracle)
    with pytest.raises(error, match="constraints: .*unknown concept 'dragon'"):
        build(concepts=concepts, llm=oracle, constraints="dragon -> car")
    with pytest.raises(error, match="edges: type what causes what"):
        build()


def test_the_editor_is_the_last_input_and_takes_no_link(builder):
    inputs = builder.GET_SCHEMA().get_v1_info(builder).input["optional"]
    assert list(inputs) == [
        "concepts", "graph", "edges", "llm", "strategy", "constraints", "confounders", "editor",
    ]  # fmt: skip
    kind, options = inputs["editor"]
    assert kind == "STRING" and options["widgetType"] == "CAUSAL_GRAPH_EDITOR"
    assert options["socketless"] and options["default"] == ""
    assert [output.id for output in builder.GET_SCHEMA().outputs] == ["graph", "json", "intervention"]
