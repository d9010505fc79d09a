"""Modular models: the h-graph, mechanisms, rows to learn from, plans of samplers."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch

from causal_core.admg import ADMG, members
from causal_core.autoencoder.coding import Coding
from causal_core.bench.modular_problems import QUESTIONS, as_graph, problem
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.identify import identify
from causal_core.modular.fit import Effort, fit, fitted
from causal_core.modular.hgraph import exchangeable, parts
from causal_core.modular.idgen import Sampler, plan
from causal_core.modular.mechanisms import KINDS, Shape
from causal_core.modular.model import ModularModel
from causal_core.modular.records import Records
from causal_core.modular.sample import answer, ask, draw
from causal_core.query import parse_query

from ..helpers.random_scm import random_graph

FRONT_DOOR = as_graph("x -> z -> y; x <-> y")
QUICK = Effort(steps=25, batch=256, learning_rate=0.05, restarts=1)


@pytest.fixture(scope="module")
def front_door():
    p = problem(QUESTIONS["frontdoor"], 3)
    return p, p.records(20_000, 3)


@pytest.fixture(scope="module")
def model(front_door):
    p, data = front_door
    return fit(p.graph, data, effort=QUICK)


@pytest.mark.parametrize(
    "edges, wanted",
    [
        ("x -> z -> y; x <-> y", [(("z",), (), ("x",)), (("x", "y"), ("z",), ())]),
        ("x -> y; x <-> y", [(("x", "y"), (), ())]),
        ("w -> v -> x -> y; w <-> x; w <-> y", [(("v",), (), ("w",)), (("w", "x", "y"), ("v",), ())]),
        ("x -> m -> y; x -> y", [(("x",), (), ()), (("m",), (), ("x",)), (("y",), (), ("x", "m"))]),
        # Each of the two components needs the other: they are one part.
        ("a -> b -> c -> d; a <-> c; b <-> d", [(("a", "b", "c", "d"), (), ())]),
    ],
)
def test_parts_of_known_graphs(edges, wanted):
    assert [(part.names, part.context, part.causes) for part in parts(as_graph(edges))] == wanted


def test_rule_two_is_d_separation_with_the_hidden_causes_drawn():
    rng = np.random.default_rng(0)
    for _ in range(400):
        g = ADMG.of(random_graph(rng, int(rng.integers(3, 7)), 0.4, 0.3))
        n = len(g.names)
        roles = rng.integers(0, 4, n)
        acting, acted, given = (sum(1 << i for i in range(n) if roles[i] == role) for role in range(3))
        if not acting or not acted:
            continue
        drawn = nx.DiGraph()
        drawn.add_nodes_from(range(n))
        for v in (v for v in range(n) if not given >> v & 1):
            drawn.add_edges_from((p, v) for p in members(g.parents[v] & ~acting))
            drawn.add_edges_from((("hidden", *sorted((v, s))), v) for s in members(g.siblings[v]))
        separated = nx.is_d_separator if hasattr(nx, "is_d_separator") else nx.d_separated
        wanted = separated(drawn, set(members(acting)), set(members(acted)), set(members(given)))
        assert exchangeable(g, acting, acted, given) == wanted


CODING = Coding.of(as_graph("x -> y"))


def rows(x, y, done=()):
    return Records.of(CODING, {"x": list(x), "y": list(y)}, done)


def test_records_count_what_was_seen_and_what_was_done():
    data = rows("0011", "0101") + rows("111", "110", ["x"])
    np.testing.assert_allclose(data.joint(["x", "y"], {}), np.full((2, 2), 0.25))
    np.testing.assert_allclose(data.joint(["y"], {"x": "1"}), [1 / 3, 2 / 3])
    with pytest.raises(CounterfactError, match="no row in which x=0 was set"):
        data.joint(["y"], {"x": "0"})
    smooth = Records(data.coding, data.places, data.free, 1.0)
    np.testing.assert_allclose(smooth.joint(["y"], {"x": "0"}), [0.5, 0.5])
    np.testing.assert_allclose(smooth.joint(["y"], {"x": "1"}), [2 / 5, 3 / 5])
    unknown = Records(data.coding, data.places.clone(), data.free)
    unknown.places[0, CODING.places[1]] = math.nan
    np.testing.assert_allclose(unknown.joint(["y"], {}), [1 / 3, 2 / 3])
    np.testing.assert_allclose(unknown.joint(["x"], {}), [0.5, 0.5])


def test_records_are_read_from_a_table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("y,x,note,do\n0,1,,\n1,0,,x\n1,,,\n")
    data = Records.read(path, CausalGraph.from_edges([("x", "y")]))
    assert data.domains == {"x": ("0", "1"), "y": ("0", "1")} and data.codes.tolist() == [[1, 0], [0, 1], [-1, 1]]
    assert data.free.tolist() == [[True, True], [False, True], [True, True]]
    path.write_text("x\n0\n1\n")
    with pytest.raises(CounterfactError, match="has no column for 'y'"):
        Records.read(path, CausalGraph.from_edges([("x", "y")]))
    path.write_text("x,y\n0,0\n1,2\n")
    with pytest.raises(CounterfactError, match="line 3: '2', known|line 3.*'2'"):
        Records.read(path, as_graph("x -> y"))


@pytest.mark.parametrize("kind", ["mixture", "flow"])
def test_numbers_are_drawn_as_their_density_says(kind):
    torch.manual_seed(0)
    mechanism = KINDS[kind](Shape((1, 2), (3,), 1))
    causes, hidden = torch.tensor([[0.3, 1.0, 0.0]]), torch.eye(3)
    at = torch.linspace(-4, 4, 8001)[:, None]
    inside = at if kind == "mixture" else at[(at.abs() < 1)[:, 0]]
    density = mechanism.log_prob(inside, causes.expand(len(inside), -1), hidden).exp()
    assert density.shape == (len(inside), 3)
    torch.testing.assert_close(density.sum(0) * 0.001, torch.ones(3), atol=2e-2, rtol=0)
    u = torch.linspace(0.05, 0.95, 7)
    for h in range(3):
        drawn = mechanism.draw(causes.expand(7, -1), hidden[h].expand(7, -1), torch.stack([u, u], 1))[:, 0]
        below = torch.stack([density[inside[:, 0] < x, h].sum() * 0.001 for x in drawn])
        torch.testing.assert_close(below, u, atol=2e-2, rtol=0)
        assert (drawn.diff() > 0).all()


@pytest.mark.parametrize("kind", ["table", "network"])
def test_values_are_drawn_as_their_probabilities_say(kind):
    torch.manual_seed(0)
    mechanism = KINDS[kind](Shape((2, 3), (2,), 4))
    causes = torch.cat([torch.eye(2)[[1, 0]], torch.eye(3)[[2, 1]]], 1)
    log_prob = torch.stack([mechanism.log_prob(torch.eye(4)[[k, k]], causes, torch.eye(2)) for k in range(4)], -1)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(2, 2))
    noise = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1))
    for n, h in itertools.product(range(2), range(2)):
        drawn = mechanism.draw(causes[n].expand(20_000, -1), torch.eye(2)[h].expand(20_000, -1), noise)
        torch.testing.assert_close(drawn.mean(0), log_prob[n, h].exp(), atol=0.015, rtol=0)


def test_the_likelihood_is_the_sum_over_what_is_hidden():
    graph = as_graph("x -> y -> z; x <-> y; y <-> z")
    torch.manual_seed(0)
    model = ModularModel.of(graph, states=3)
    assert [h.names for h in model.hidden] == [("x", "y"), ("y", "z")]
    places = torch.stack([model.coding.vector(dict(zip("xyz", v))) for v in itertools.product("01", repeat=3)])
    free = torch.ones(8, 3, dtype=torch.bool)
    found = model.log_likelihood(("x", "y", "z"), places, free).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    by_hand = torch.zeros(8)
    for a, b in itertools.product(range(3), repeat=2):
        one = torch.eye(3)[[a]], torch.eye(3)[[b]]
        term = model.priors[0].softmax(0)[a] * model.priors[1].softmax(0)[b]
        values = model.split(places)
        for name, hidden in (("x", one[0]), ("y", torch.cat(one, 1)), ("z", one[1])):
            term = (
                term
                * model.mechanism(name).log_prob(values[name], model.seen(name, values, places), hidden)[:, 0].exp()
            )
        by_hand = by_hand + term
    torch.testing.assert_close(found, by_hand)
    # A variable that was set has no part in it.
    free[:, 1] = False
    rest = model.log_likelihood(("x", "y", "z"), places, free).exp().reshape(2, 2, 2)
    torch.testing.assert_close(rest.sum((0, 2)), torch.ones(2))


def test_a_clique_has_one_hidden_cause():
    model = ModularModel.of(as_graph("x -> y -> z; x <-> y; y <-> z; x <-> z"))
    assert [h.names for h in model.hidden] == [("x", "y", "z")]


def test_what_is_not_identifiable_is_refused(model):
    with pytest.raises(CounterfactError, match="cannot be answered from data: .*hang together by hidden causes"):
        ask(model, as_graph("x -> z -> y; x <-> y; z <-> y; x <-> z"), "P(y | do(x=1))")


def test_the_same_noise_is_the_same_case_in_every_world(model):
    query = parse_query("P(y_{x=1}, y_{x=0} | x=0, z=1)", FRONT_DOOR.concepts)
    cases = draw(model, query, 300, seed=2)
    factual = cases.worlds[()]
    assert (factual["x"].argmax(1) == 0).all() and (factual["z"].argmax(1) == 1).all() and len(factual["x"]) == 300
    # Nothing changes for those for whom nothing is changed.
    assert torch.equal(cases.worlds[(("x", "0"),)]["y"], factual["y"])
    assert not torch.equal(cases.worlds[(("x", "1"),)]["y"], factual["y"])
    again = draw(model, query, 300, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(cases.noise.own.values(), again.noise.own.values()))


def test_evidence_that_never_happens_is_told(monkeypatch):
    monkeypatch.setattr("causal_core.modular.sample.MOST_TRIES", 2)
    torch.manual_seed(0)
    model = ModularModel.of(as_graph("x -> y")).requires_grad_(False)
    model.mechanism("x").scores.copy_(torch.tensor([[100.0, -100.0]]))
    with pytest.raises(CounterfactError, match="x=1 never happens"):
        draw(model, parse_query("P(y | x=1)", as_graph("x -> y").concepts), 10)
    with pytest.raises(CounterfactError, match="x needs a value"):
        draw(model, parse_query("P(y | do(x))", as_graph("x -> y").concepts), 10)


def test_wrong_kinds_are_told():
    with pytest.raises(CounterfactError, match="the mechanism of y cannot be a flow; choose table or network"):
        ModularModel.of(as_graph("x -> y"), kinds={"y": "flow"})
    with pytest.raises(CounterfactError, match="unknown variable in kinds: 'w'"):
        ModularModel.of(as_graph("x -> y"), kinds={"w": "table"})


def test_too_few_rows_are_told():
    data = rows("", "")
    with pytest.raises(CounterfactError, match="no row that knows x"):
        fit(as_graph("x -> y"), Records(data.coding, torch.zeros(0, 4), torch.ones(0, 2, dtype=torch.bool)))


def test_a_model_survives_its_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = ModularModel.load(path)
    query = parse_query("P(y | do(x))", FRONT_DOOR.concepts)
    assert np.array_equal(answer(model, query, 500), answer(loaded, query, 500))
    assert loaded.provenance == model.provenance and loaded.provenance["rows"] == 20_000
    whole = path.read_bytes()
    for damaged in (whole[:-9], b"", whole.replace(b'\\"states\\": 8', b'\\"states\\": 7')):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(CounterfactError):
            ModularModel.load(path)


def test_plans_of_samplers():
    napkin = as_graph(QUESTIONS["napkin"].edges)
    found = identify(napkin, "P(y | do(x=1))").factors
    assert [[str(step) for step in steps] for steps in plan(napkin, found[0])] == [
        ["learn P(w) from the data", "learn P(x | w, v) from the data", "learn P(y | w, v, x) from the data"],
        ["learn P(y | v, x) from made table 1"],
    ]


def test_wired_samplers_refuse(front_door):
    with pytest.raises(CounterfactError, match="cannot be answered"):
        Sampler(as_graph("x -> y; x <-> y"), "P(y | do(x))", rows("01", "01"))


def test_one_part_can_be_fitted_alone(front_door):
    p, data = front_door
    model = ModularModel(data.coding, p.graph.confounded)
    found = fitted(model, ["z"], data, QUICK)
    assert found.mechanism("x") is model.mechanism("x") and found.mechanism("z") is not model.mechanism("z")
    table = found.mechanism("z").scores.softmax(-1).detach().numpy()
    joint = data.joint(["x", "z"], {})
    np.testing.assert_allclose(table, joint / joint.sum(1, keepdims=True), atol=1e-5)


def test_cases_that_never_occur_are_told_and_smoothed_only_when_asked(caplog):
    data = rows("000", "001")
    found = fitted(ModularModel(CODING), ["x", "y"], data)
    assert "1 of 2 combinations of x never occur; y is taken to be anything there" in caplog.text
    table = found.mechanism("y").scores.softmax(-1)
    torch.testing.assert_close(table, torch.tensor([[2 / 3, 1 / 3], [0.5, 0.5]]))
    smooth = fitted(ModularModel(CODING), ["x", "y"], Records(data.coding, data.places, data.free, 1.0))
    torch.testing.assert_close(smooth.mechanism("y").scores.softmax(-1)[0], torch.tensor([3 / 5, 2 / 5]))
