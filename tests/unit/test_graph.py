"""Concepts and graphs: reading, checking, walking and writing them."""

from __future__ import annotations

import dataclasses
import json
import random

import networkx as nx
import pytest

from causal_core.concepts import Concept, Concepts, caption, parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, Edge, parse_edges
from causal_core.scm import SCM, Variable

TYPED = """
season: spring, summer, autumn, winter = Summer   # the first cause
temperature: warm, cold = warm
foliage: green, bare = green
time: day, night
car = red
"""


@pytest.fixture
def concepts():
    return parse_concepts(TYPED)


def random_graph(seed: int) -> CausalGraph:
    """A random graph with every optional part sometimes present."""
    rng = random.Random(seed)
    names = [f"concept {i}" for i in range(rng.randint(1, 12))]
    concepts = []
    for name in names:
        domain = tuple(f"v{i}" for i in range(rng.randint(0, 4)))
        phrases = {value: (f"{value} of {name}", f"{name}, {value}") for value in domain if rng.random() < 0.5}
        value = rng.choice(domain) if domain and rng.random() < 0.7 else None
        interval = (-rng.random(), rng.random() + 0.1) if not domain and rng.random() < 0.5 else None
        if interval:
            value = repr(rng.uniform(*interval))
        concepts.append(Concept(name, domain, value, phrases, rng.choice([None, rng.random()]), interval))
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    rng.shuffle(pairs)
    cut = rng.randint(0, len(pairs))
    edges = tuple(Edge(a, b, rng.random(), rng.choice(["", "b\u00e9cause \u2192 so"])) for a, b in pairs[:cut])
    return CausalGraph(Concepts(tuple(concepts)), edges, tuple(pairs[cut : cut + 3]))


class TestConcepts:
    def test_typed_list(self, concepts):
        assert concepts.names == ("season", "temperature", "foliage", "time", "car")
        assert concepts["season"].domain == ("spring", "summer", "autumn", "winter")
        assert concepts.values() == {"season": "summer", "temperature": "warm", "foliage": "green", "car": "red"}
        assert [c.name for c in concepts] == list(concepts.names) and len(concepts) == 5

    def test_spelling_of_the_list_wins(self, concepts):
        assert "SEASON" in concepts and "sky" not in concepts and 3 not in concepts
        assert concepts.replace(" Season ", value="WINTER").values()["season"] == "winter"

    @pytest.mark.parametrize("limits", ["0 .. nan", "low .. high", "0 .. inf", "9 .. 1"])
    def test_interval_of_no_numbers_is_refused(self, limits):
        with pytest.raises(CounterfactError, match="angle"):
            parse_concepts(f"angle: {limits}")

    def test_continuous(self):
        angle = parse_concepts("angle: -45 .. 45 = 3")["angle"]
        assert (angle.interval, angle.value) == ((-45.0, 45.0), "3.0")
        for bad in ("50", "nan", "inf", "steep"):
            with pytest.raises(CounterfactError, match="angle"):
                angle.match(bad)

    def test_phrases(self):
        season = Concept("season", ("summer", "winter"), "winter", {"winter": ("in winter", "wintertime")})
        assert season.phrase() == "in winter"
        assert season.phrase("summer") == "summer season"
        concepts = Concepts((season, Concept("door"), Concept("car", (), "red")))
        assert caption(concepts) == "in winter, red car"
        assert caption(concepts, {"Season": "summer", "door": "open"}) == "summer season, open door, red car"
        with pytest.raises(CounterfactError, match="no value yet"):
            concepts["door"].phrase()

    @pytest.mark.parametrize(
        ("typed", "words"),
        [
            ("", "list is empty"),
            ("# nothing", "list is empty"),
            ("season: a\nSeason: b", "listed twice"),
            ("season: summer, winter = snow", "Known values: summer, winter"),
            ("season: summer, winter = wintr", "(?i)did you mean 'winter'"),
            ("season: summer, Summer", "twice"),
            ("season: summer =", "is empty"),
            (": summer", "concept name is empty"),
            ("a: 3 .. 1", "must rise"),
            ("a: 1e .. 2", "no interval"),
            ("a: 0 .. 1e999", "finite"),
            ("x" * 81, "too long"),
            ("\n".join(f"c{i}" for i in range(501)), "501 items"),
            ("a: " + ", ".join(map(str, range(501))), "501 items"),
        ],
    )
    def test_mistakes(self, typed, words):
        with pytest.raises(CounterfactError, match=words):
            parse_concepts(typed)

    def test_unknown_concept_lists_the_known(self, concepts):
        with pytest.raises(CounterfactError, match="(?i)unknown concept 'saeson'.*did you mean 'season'.*foliage"):
            concepts["saeson"]

    def test_hashable_and_frozen(self, concepts):
        assert hash(concepts) == hash(parse_concepts(TYPED))
        with pytest.raises(dataclasses.FrozenInstanceError):
            concepts["season"].value = "winter"

    def test_json(self, concepts):
        assert Concepts.from_json(concepts.to_json()) == concepts


class TestTypedEdges:
    def test_chains_confounders_comments(self, concepts):
        edges, confounded = parse_edges(
            "Season -> temperature -> foliage # why\n\n time <-> Season\nseason \u2192 foliage"
        )
        graph = CausalGraph.from_edges(edges, confounded, concepts)
        assert [(e.source, e.target) for e in graph.edges] == [
            ("season", "temperature"), ("temperature", "foliage"), ("season", "foliage"),
        ]  # fmt: skip
        assert graph.confounded == (("season", "time"),)

    def test_typed_twice_counts_once(self):
        edges, confounded = parse_edges("a -> b -> c\nb -> c\na <-> c\nc <-> a")
        assert len(edges) == 2 and confounded == [("a", "c")]

    @pytest.mark.parametrize("line", ["season", "season ->", "-> season", "a => b", "a <- b", "a -> b, c", "a -> (b)"])
    def test_unreadable(self, line):
        with pytest.raises(CounterfactError, match="edge"):
            parse_edges(line)


class TestGraph:
    def test_walks(self):
        graph = CausalGraph.from_edges([("a", "b"), ("b", "d"), ("c", "d"), ("d", "e"), ("a", "e")], [("a", "c")])
        assert graph.parents("d") == ("b", "c") and graph.children("A") == ("b", "e")
        assert graph.ancestors("d") == ("a", "b", "c") and graph.descendants("b") == ("d", "e")
        assert graph.topological_order() == ("a", "b", "c", "d", "e")
        assert graph.depth_from(["b", "c"]) == {"b": 0, "c": 0, "d": 1, "e": 2}
        assert graph.depth_from([]) == {}
        with pytest.raises(CounterfactError, match="unknown concept 'z'"):
            graph.parents("z")

    def test_topological_order_follows_the_concepts(self):
        concepts = parse_concepts("z\ny\nx")
        assert CausalGraph.from_edges([], concepts=concepts).topological_order() == ("z", "y", "x")
        assert CausalGraph.from_edges([("x", "z")], concepts=concepts).topological_order() == ("y", "x", "z")

    def test_cycle_is_named(self):
        with pytest.raises(CounterfactError, match="cycle: b -> c -> d -> b"):
            CausalGraph.from_edges([("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])
        with pytest.raises(CounterfactError, match="cycle: a -> a"):
            CausalGraph.from_edges([("a", "a")])

    @pytest.mark.parametrize(
        ("edges", "confounded", "words"),
        [
            ([("season", "sky")], [], "unknown concept 'sky'.*Known concepts: season, temperature"),
            ([("season", "foliage"), ("Season", "foliage")], [], "season -> foliage is given twice"),
            ([], [("time", "car"), ("car", "time")], "time <-> car is given twice"),
            ([], [("time", "time")], "with itself"),
            ([], ["ab"], "two concepts|unknown concept"),
            ([("season", "foliage", 2.0)], [], "from 0 to 1"),
            ([("season", "foliage", float("nan"))], [], "finite"),
        ],
    )
    def test_mistakes(self, concepts, edges, confounded, words):
        with pytest.raises(CounterfactError, match=words):
            CausalGraph.from_edges(edges, confounded, concepts)

    def test_networkx_bridge(self):
        for seed in range(10):
            graph = random_graph(seed)
            bridged = graph.to_networkx()
            back = CausalGraph.from_networkx(bridged)
            assert back.concepts == graph.concepts and set(back.edges) == set(graph.edges)
            assert back.confounded == graph.confounded
            assert nx.is_directed_acyclic_graph(bridged)
        with pytest.raises(CounterfactError, match="DiGraph"):
            CausalGraph.from_networkx(nx.Graph())

    def test_500_concepts(self):
        names = [f"c{i}" for i in range(500)]
        graph = CausalGraph.from_edges(zip(names, names[1:]))
        assert graph.descendants("c0") == tuple(names[1:])


class TestJson:
    @pytest.mark.parametrize("seed", range(40))
    def test_round_trip(self, seed):
        graph = random_graph(seed)
        written = graph.to_json()
        assert CausalGraph.from_json(written) == graph
        assert CausalGraph.from_json(written).to_json() == written

    def test_mechanisms_and_noise(self):
        graph = with_mechanisms()
        back = CausalGraph.from_json(graph.to_json())
        assert back == graph and back.scm == graph.scm and back.noise == graph.noise

    @pytest.mark.parametrize(
        "change",
        [
            {"concepts": []},
            {"concepts": {}},
            {"concepts": [{"name": "a"}, {"name": "A"}]},
            {"concepts": [{"name": 3}]},
            {"concepts": [{"name": "a", "phrases": {"x": "no list"}}]},
            {"concepts": [{"name": "a", "phrases": {"x": [1]}}]},
            {"concepts": [{"name": "a", "domain": [["x"]]}]},
            {"concepts": [{"name": "a", "interval": [0]}]},
            {"concepts": [{"name": "a", "interval": [0, {}]}]},
            {"concepts": [{"name": "a", "confidence": 7}]},
            {"concepts": [{"name": f"c{i}"} for i in range(501)]},
            {"edges": [{"source": "a", "target": "nowhere"}]},
            {"edges": [["a", "b"]]},
            {"edges": [{"source": "a", "target": "b", "reason": "x" * 501}]},
            {"edges": [{"source": "a", "target": "b", "confidence": "high"}]},
            {"edges": [{"source": "a"}]},
            {"confounded": ["ab"]},
            {"confounded": [["a"]]},
            {"confounded": [["a", 1]]},
            {"scm": {}},
            {"scm": {"variables": [{"name": "a"}]}},
            {"noise": {"a": 0.5}},
            {"kind": "counterfact.plan"},
            {"schema_version": 2},
            {"surprise": 1},
        ],
    )
    def test_refused(self, change):
        document = {**json.loads(CausalGraph.from_edges([("a", "b")]).to_json()), **change}
        with pytest.raises(CounterfactError):
            CausalGraph.from_json(json.dumps(document))

    def test_huge_number(self):
        written = CausalGraph.from_edges([("a", "b")]).to_json().replace('"confidence": 1.0', '"confidence": 1e999')
        with pytest.raises(CounterfactError, match="edge 1: 'confidence' must be a finite number"):
            CausalGraph.from_json(written)


def with_mechanisms() -> CausalGraph:
    """A hidden front behind time and weather, and a lamp that both decide."""
    front = Variable("front", ("calm", "storm"), (), {(): (0.6, 0.4)}, hidden=True)
    time = Variable("time", ("day", "night"), ("front",), {("calm",): (0.8, 0.2), ("storm",): (0.5, 0.5)})
    weather = Variable("weather", ("clear", "grey"), ("front",), {("calm",): (0.9, 0.1), ("storm",): (0.2, 0.8)})
    lamp = Variable(
        "lamp", ("off", "on"), ("time", "weather"),
        {(t, w): (0.9, 0.1) if t == "day" else (0.1, 0.9) for t in time.domain for w in weather.domain},
    )  # fmt: skip
    concepts = parse_concepts("time: day, night = day\nweather: clear, grey = clear\nlamp: off, on = off\ncar = red")
    plain = CausalGraph.from_edges([("time", "lamp"), ("weather", "lamp")], [("time", "weather")], concepts)
    noise = {"front": 0.1, "time": 0.2, "weather": 0.3, "lamp": 0.4}
    return dataclasses.replace(plain, scm=SCM((front, time, weather, lamp)), noise=noise)


class TestMechanisms:
    def test_must_have_the_edges_of_the_graph(self):
        graph = with_mechanisms()
        with pytest.raises(CounterfactError, match="'lamp' has the causes time, weather, but the graph has time"):
            dataclasses.replace(graph, edges=graph.edges[:1])
        with pytest.raises(CounterfactError, match="'weather' has the causes none, but the graph has time"):
            dataclasses.replace(graph, edges=(*graph.edges, Edge("time", "weather")))

    def test_must_have_the_values_of_the_concepts(self):
        graph = with_mechanisms()
        with pytest.raises(
            CounterfactError, match="'lamp' is for the values off, on, but the concept has dark, bright"
        ):
            changed = graph.concepts.replace("lamp", domain=("dark", "bright"), value="dark")
            dataclasses.replace(graph, concepts=changed)

    def test_noise_must_be_complete(self):
        graph = with_mechanisms()
        for noise, words in [({"time": 0.1}, "one number for each"), ({**graph.noise, "lamp": 2.0}, "from 0 to 1")]:
            with pytest.raises(CounterfactError, match=words):
                dataclasses.replace(graph, noise=noise)
        with pytest.raises(CounterfactError, match="no mechanisms"):
            dataclasses.replace(graph, scm=None)
