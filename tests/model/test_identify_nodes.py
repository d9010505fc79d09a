"""Mark Confounder and Identify Query: hidden causes, questions typed or put together, and what forbids an answer."""

from __future__ import annotations

import dataclasses

import pytest

FRONT_DOOR = "sum[road] P(road | rain=yes) sum[rain] P(rain) P(shoes | rain, road)"
TYPED = "P(shoes | do(rain=yes))"


@pytest.fixture
def mark(pack):
    """Run Mark Confounder; gives the graph and the text that the node shows."""

    def run(graph, first, second, **inputs):
        output = pack("nodes.identify").MarkConfounder.execute(graph, first, second, **inputs)
        return output.args[0], output.ui["text"][0]

    return run


@pytest.fixture
def ask(pack):
    """Run Identify Query; gives its outputs by name, and the text that the node shows as "shown"."""
    node = pack("nodes.identify").IdentifyQuery

    def run(graph, query="", **inputs):
        output = node.execute(graph, query, **inputs)
        names = [slot.id for slot in node.GET_SCHEMA().outputs]
        return {**dict(zip(names, output.args, strict=True)), "shown": output.ui["text"][0]}

    return run


@pytest.fixture
def do(pack):
    """An intervention."""
    return lambda **values: pack("causal_core.plan").Intervention(values)


@pytest.fixture
def drawn(pack):
    """Typed edges over rain, road, shoes and time."""
    concepts = pack("causal_core.concepts").parse_concepts(
        "rain: no, yes = no\nroad: dry, wet = dry\nshoes: clean, muddy\ntime: day, night\ncar: red, red (dark)"
    )
    graph = pack("causal_core.graph")
    return lambda typed: graph.CausalGraph.from_edges(*graph.parse_edges(typed.replace(";", "\n")), concepts)


@pytest.fixture
def front_door(drawn):
    """A hidden cause of rain and shoes, but rain acts through the road alone."""
    return drawn("rain -> road -> shoes; rain <-> shoes")


@pytest.fixture
def bow(drawn):
    """A hidden cause of rain and shoes, and rain acts on shoes."""
    return drawn("rain -> shoes; rain <-> shoes")


@pytest.fixture
def cottage(pack):
    """A demo scene, with mechanisms in which a hidden front acts on time and weather."""
    world = pack("causal_core.worlds").get_world("cottage")
    return world.scene_graph(world.sample(302))


def test_marking_and_unmarking(mark, drawn):
    plain = drawn("rain -> shoes; road <-> time")
    marked, shown = mark(plain, "shoes", " Rain ")
    assert marked.confounded == (("road", "time"), ("rain", "shoes")) and marked.edges == plain.edges
    assert shown == "shoes <-> rain: a hidden cause acts on both"
    assert mark(marked, "rain", "shoes")[0] == marked, "twice is once"
    taken, shown = mark(marked, "shoes", "rain", present=False)
    assert taken == plain and shown == "shoes <-> rain: no hidden cause acts on both"
    assert mark(plain, "rain", "shoes", present=False)[0] == plain


def test_mechanisms_stay_where_they_say_the_same(mark, cottage):
    for graph in (cottage, dataclasses.replace(cottage, confounded=())):
        marked, shown = mark(graph, "time", "weather")
        assert marked == cottage and marked.scm is cottage.scm and marked.noise == cottage.noise
        assert "mechanisms" not in shown
    assert mark(cottage, "time", "house", present=False)[0] == cottage


def test_mechanisms_that_say_otherwise_are_left_out_and_the_node_tells(mark, cottage):
    # The front reaches the lamp too, but only through time and weather, which can be seen.
    for other in ("house", "lamp"):
        marked, shown = mark(cottage, "time", other)
        assert marked.confounded == (("time", "weather"), ("time", other))
        assert marked.scm is None and marked.noise is None and marked.concepts == cottage.concepts
        assert shown.split("\n")[1] == "the mechanisms are left out: in them no hidden cause acts on both"
    taken, shown = mark(cottage, "time", "weather", present=False)
    assert taken.confounded == () and taken.scm is None and taken.noise is None
    assert shown.split("\n")[1] == "the mechanisms are left out: in them a hidden cause acts on both"


def test_a_hidden_cause_acts_through_other_hidden_ones(pack, mark):
    scm, graph = pack("causal_core.scm"), pack("causal_core.graph")
    coin, same = ("a", "b"), {("a",): (1.0, 0.0), ("b",): (0.2, 0.8)}
    far = scm.Variable("far", coin, (), {(): (0.5, 0.5)}, hidden=True)
    near = scm.Variable("near", coin, ("far",), same, hidden=True)
    left, right = scm.Variable("left", coin, ("near",), same), scm.Variable("right", coin, ("far",), same)
    alone = scm.Variable("alone", coin, (), {(): (0.5, 0.5)})
    concepts = pack("causal_core.concepts").parse_concepts("left: a, b\nright: a, b\nalone: a, b\nbare: a, b")
    told = graph.CausalGraph(concepts, scm=scm.SCM((far, near, left, right, alone)))
    assert mark(told, "left", "right")[0].scm is told.scm
    assert mark(told, "left", "alone")[0].scm is None and mark(told, "left", "bare")[0].scm is None


@pytest.mark.parametrize("first, second, message", [
    ("rian", "shoes", "first: unknown concept 'rian'. Did you mean 'rain'. Known concepts: rain, road, shoes"),
    ("", "shoes", "first: unknown concept ''. Known concepts: rain"),
    ("rain", "<b>", "second: unknown concept '<b>'. Known concepts: rain"),
    ("rain", "Rain", "second: this is rain again; name another concept than in first"),
])  # fmt: skip
def test_mistakes_in_marking_name_the_input(mark, error, front_door, first, second, message):
    with pytest.raises(error, match=message):
        mark(front_door, first, second)


def test_a_question_that_data_answer(ask, front_door):
    told = ask(front_door, " p( Shoes |\n do(rain = YES) )")
    assert told["identifiable"] is True and told["expression"] == FRONT_DOOR and told["query"] == TYPED
    assert told["latex"].startswith(r"\sum_{\text{road}}") and "do not stand in the way" in told["reason"]
    assert told["shown"].split("\n") == [
        f"query:      {TYPED}", "verdict:    identifiable", f"expression: {FRONT_DOOR}",
        f"reason:     {told['reason']}",
    ]  # fmt: skip


def test_a_question_that_data_cannot_answer_is_no_error(ask, bow):
    told = ask(bow, TYPED)
    assert told["identifiable"] is False and told["expression"] == "" and told["latex"] == ""
    assert told["reason"].startswith("rain and shoes share a hidden cause (rain <-> shoes) and rain acts on shoes")
    assert told["query"] == TYPED and "verdict:    not identifiable" in told["shown"]


def test_a_mark_takes_an_answer_away(ask, mark, cottage):
    query = "P(ground | do(temperature=cold))"
    assert ask(cottage, query)["identifiable"]
    assert not ask(mark(cottage, "temperature", "ground")[0], query)["identifiable"]


def test_experiments_answer_what_observations_cannot(ask, bow):
    told = ask(bow, TYPED, experiments="# a comment\n time, road\n Rain, \n")
    assert told["identifiable"] and told["expression"] == TYPED
    assert not ask(bow, TYPED, experiments="time, road\n\n,")["identifiable"]


@pytest.mark.parametrize("inputs, values, typed", [
    ({"outcome": "shoes"}, {"rain": "yes"}, TYPED),
    ({"outcome": "shoes, road = wet"}, {"rain": "yes"}, "P(shoes, road=wet | do(rain=yes))"),
    ({"outcome": " Shoes ", "given": "time = DAY"}, {"rain": "yes", "road": "dry"},
     "P(shoes | do(rain=yes, road=dry), time=day)"),
    ({"outcome": "shoes", "given": "time, road=wet"}, {}, "P(shoes | time, road=wet)"),
    ({"outcome": "shoes"}, {}, "P(shoes)"),
])  # fmt: skip
def test_a_question_put_together_is_the_one_that_is_typed(ask, do, front_door, inputs, values, typed):
    told = ask(front_door, " \n", **inputs, intervention=do(**values))
    assert told == ask(front_door, typed) and told["query"] == typed
    if not values:
        assert ask(front_door, **inputs) == told


def test_a_typed_question_comes_before_its_parts(ask, do, front_door):
    parts = {"outcome": "nonsense (", "intervention": do(dragon="red"), "given": "|"}
    assert ask(front_door, TYPED, **parts) == ask(front_door, TYPED)


def test_an_intervention_from_a_node_is_what_is_set(pack, ask, cottage):
    intervention = pack("nodes.intervention").DoIntervention.execute(cottage, "Season = Winter").args[0]
    told = ask(cottage, outcome="ground", intervention=intervention)
    assert told == ask(cottage, "P(ground | do(season=winter))") and told["identifiable"]


@pytest.mark.parametrize("value", [
    "a, shoes=muddy", "a), rain", "a | rain", "a_{rain=yes}", "a}", "a=b", "(a", "tree'", "tree''",
])  # fmt: skip
def test_values_cannot_break_out_of_an_intervention(pack, ask, do, error, value):
    graph = pack("causal_core.graph").CausalGraph.from_edges([("tree", "shoes"), ("rain", "shoes")])
    with pytest.raises(error, match="intervention: a question cannot hold the value .* of tree: rename it"):
        ask(graph, outcome="shoes", intervention=do(tree=value))


def test_values_that_look_odd_are_held(pack, ask, do):
    graph = pack("causal_core.graph").CausalGraph.from_edges([("tree", "shoes")])
    for value in ("tree", "a'", "_ a_", "do", "50 %", "<b>&amp;</b>", "\u96ea"):
        assert ask(graph, outcome="shoes", intervention=do(tree=value))["query"] == f"P(shoes | do(tree={value}))"


def test_numbers_are_set_as_the_concept_spells_them(pack, ask, do):
    concepts = pack("causal_core.concepts").parse_concepts("angle: -90 .. 90 = 3\nshadow")
    graph = pack("causal_core.graph").CausalGraph.from_edges([("angle", "shadow")], (), concepts)
    assert ask(graph, outcome="shadow", intervention=do(angle="-1e-7"))["query"] == "P(shadow | do(angle=-1e-07))"


@pytest.mark.parametrize("inputs, message", [
    ({}, r"^query: type a question, such as P\(ground . do\(season=winter\)\), or name an outcome$"),
    ({"given": "time=day"}, "^query: type a question"),
    ({"query": "shoes"}, "^query: a question begins with P"),
    ({"query": "P(shoes | do(rain=yes)"}, r"^query: expected '\)' or ',', at character 23\n  P\(shoes .*\n +\^$"),
    ({"query": "P(shoos)"}, r"^query: unknown concept 'shoos'. Did you mean 'shoes'.*character 3\n  P.shoos.\n    \^$"),
    ({"query": "P(" + "road, " * 600 + "road)"}, "^query: it has more than 2000 characters"),
    ({"query": "P(" + "c," * 900 + "car)"}, "^query: unknown concept 'c'"),
    ({"query": "P(rain | do(rain=yes))"}, "^query: .*where rain itself is set"),
    ({"outcome": "shoes, shoos"}, r"^outcome: unknown concept 'shoos'.*\n  P\(shoes, shoos\)\n"),
    ({"outcome": "shoes = wet"}, "^outcome: unknown value of concept 'shoes': 'wet'.*Known values: clean, muddy"),
    ({"outcome": "shoes,"}, "^outcome: expected a variable"),
    ({"outcome": "shoes | rain"}, r"^outcome: 'shoes \| rain' has the sign \| in it: .*type the whole question"),
    ({"outcome": "shoes_{rain=yes}"}, r"^outcome: .* has the sign \{ in it"),
    ({"outcome": "car = red (dark)"}, r"^outcome: .* has the sign \( in it"),
    ({"outcome": "shoes", "given": "time=dusk"}, "^given: unknown value of concept 'time': 'dusk'.*day, night"),
    ({"outcome": "shoes", "given": "do(rain=yes)"}, r"^given: .* has the sign \( in it"),
    ({"outcome": "shoes", "given": "time=day, time=night"},
     "^outcome, intervention, given: .*time=day and time=night in the same world, which cannot be; leave one out"),
    ({"outcome": "shoes=clean", "given": "shoes=clean"}, "^outcome, intervention, given: .*says already"),
    ({"query": TYPED, "experiments": "time\nrian"}, "^experiments: unknown concept 'rian'. Did you mean 'rain'"),
])  # fmt: skip
def test_mistakes_name_the_input_and_the_remedy(ask, error, front_door, inputs, message):
    with pytest.raises(error, match=message):
        ask(front_door, **inputs)


def test_interventions_that_do_not_fit_are_told(ask, do, error, front_door):
    with pytest.raises(error, match="^intervention: unknown concept 'dragon'.*Known concepts: rain"):
        ask(front_door, outcome="shoes", intervention=do(dragon="red"))
    with pytest.raises(error, match="^intervention: unknown value of concept 'rain': 'some'.*no, yes"):
        ask(front_door, outcome="shoes", intervention=do(rain="some"))
    with pytest.raises(error, match=r"^intervention: a question cannot hold the value 'red \(dark\)' of car"):
        ask(front_door, outcome="shoes", intervention=do(car="red (dark)"))
    for inputs in ({"outcome": "rain"}, {"outcome": "shoes", "given": "rain=no"}):
        with pytest.raises(error, match="^outcome, intervention, given: .*rain itself is set; leave one of them out"):
            ask(front_door, **inputs, intervention=do(rain="yes"))
