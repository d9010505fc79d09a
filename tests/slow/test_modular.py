"""Modular models that are fitted long enough to answer: by likelihood, adversarially and sampler by sampler."""

import math

import numpy as np
import pytest
import torch

from causal_core.autoencoder.coding import Coding
from causal_core.bench.modular_problems import QUESTIONS, as_graph, distance, problem
from causal_core.concepts import Concept, Concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.identify import identify
from causal_core.modular import fit as fitting
from causal_core.modular.fit import AdversarialTraining, Effort, LikelihoodTraining, fit, matched
from causal_core.modular.hgraph import Part, parts
from causal_core.modular.idgen import Sampler
from causal_core.modular.model import ModularModel
from causal_core.modular.records import Records
from causal_core.modular.sample import answer, ask, draw
from causal_core.query import parse_query
from causal_core.training import Watch, run

QUICK = Effort(steps=250, batch=256, learning_rate=0.05, restarts=1)


@pytest.fixture(scope="module")
def front_door():
    p = problem(QUESTIONS["frontdoor"], 3)
    return p, p.records(20_000, 3)


def test_a_fitted_model_answers_what_conditioning_gets_wrong(front_door):
    p, data = front_door
    model = fit(p.graph, data, effort=QUICK)
    assert distance(p.query, ask(model, p.graph, p.query), p.truth) < 0.02
    assert distance(p.query, p.naive, p.truth) > 0.1
    treated = parse_query("P(y_{x=1} | x=0)", p.graph.concepts)
    assert distance(treated, answer(model, treated), p.exact.answer(treated)) < 0.03


def test_experiments_are_learnt_from():
    p = problem(QUESTIONS["frontdoor"], 5)
    graph = as_graph("x -> y; x <-> y")
    exact = p.exact
    rng = np.random.default_rng(0)
    seen = rng.choice(len(exact.weights), 4000, p=exact.weights / exact.weights.sum())

    def records(do, rows):
        values = exact.values(do)
        columns = {name: [("0", "1")[values[name][s]] for s in rows] for name in ("x", "y")}
        return Records.of(Coding.of(graph), columns, list(do))

    data = records({}, seen) + records({"x": "0"}, seen[:2000]) + records({"x": "1"}, seen[2000:])
    fitted = fit(graph, data, effort=QUICK)
    query = parse_query("P(y | do(x))", graph.concepts)
    assert identify(graph, query, [["x"]]).identifiable and not identify(graph, query).identifiable
    assert distance(query, answer(fitted, query), exact.answer(query)) < 0.04


def test_numbers_are_fitted_and_drawn():
    concepts = Concepts((Concept("k", ("a", "b")), Concept("v", interval=(0.0, 10.0))))
    graph = CausalGraph.from_edges([("k", "v")], concepts=concepts)
    rng = np.random.default_rng(0)
    k = rng.integers(2, size=2000)
    v = np.clip(rng.normal(np.where(k, 7.0, 2.0), 0.5), 0, 10)
    data = Records.of(Coding.of(graph), {"k": ["ab"[i] for i in k], "v": [repr(float(x)) for x in v]})
    for kind in ("mixture", "flow"):
        found = fit(graph, data, effort=Effort(200, 128, 0.01, 1), kinds={"v": kind})
        for value, mean in (("a", 2.0), ("b", 7.0)):
            query = parse_query(f"P(v | do(k={value}))", concepts)
            drawn = draw(found, query, 4000).worlds[(("k", value),)]["v"][:, 0] * 5 + 5
            assert drawn.mean().item() == pytest.approx(mean, abs=0.15)
            assert drawn.std().item() == pytest.approx(0.5, abs=0.15)
    with pytest.raises(CounterfactError, match="has no list of values, and so no table"):
        answer(found, parse_query("P(v | do(k))", concepts))


def test_adversarial_fitting_matches_a_distribution():
    p = problem(QUESTIONS["frontdoor"], 3)
    data = p.records(5000, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ModularModel(data.coding, p.graph.confounded)
    found = matched(model, Part(("x",), (), ()), data, Effort(200, 128, 4e-3, 1))
    query = parse_query("P(x)", p.graph.concepts)
    assert distance(query, answer(found, query), data.joint(["x"], {})) < 0.05
    # Nothing else has moved.
    assert found.mechanism("y") is model.mechanism("y") and found.mechanism("z") is model.mechanism("z")


def test_the_critic_and_the_maker_have_aims_of_their_own(front_door):
    p, data = front_door
    model = ModularModel(data.coding, p.graph.confounded)
    training = AdversarialTraining(model, parts(p.graph)[1], data, QUICK, 0)
    maker, critic = training.model["maker"], training.model["critic"]
    training.losses()["loss"].backward()
    for network in (maker, critic):
        assert sum(q.grad.abs().sum() for q in network.parameters()) > 0
    # What was fitted before, the context, gets none.
    assert model.mechanism("z").scores.grad is None
    # Left alone, the critic learns to tell what is made from what is real, and then the maker not to let it.
    for network, better in ((critic, 1), (maker, -1)):
        optimizer, found = torch.optim.Adam(network.parameters(), 5e-3), []
        for _ in range(80):
            training.model.zero_grad()
            terms = training.losses()
            terms["loss"].backward()
            optimizer.step()
            found.append(terms["distance"].item())
        assert better * (np.mean(found[-20:]) - np.mean(found[:20])) > 0.01, found


@pytest.mark.parametrize("name, limit", [("napkin", 0.05), ("treated", 0.03), ("mediation", 0.03)])
def test_wired_samplers_answer(name, limit):
    p = problem(QUESTIONS[name], 2)
    data = p.records(20_000, 2)
    sampler = Sampler(p.graph, p.query, data, QUICK)
    assert distance(p.query, sampler.answer(20_000), p.truth) < limit < distance(p.query, p.naive, p.truth)


class Stops(Watch):
    """Says stop after some steps."""

    def __init__(self, steps):
        self.left = steps

    def stopped(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("method", ["likelihood", "adversarial"])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(front_door, tmp_path, method):
    p, data = front_door
    effort = Effort(12, 64, 0.01, 1)
    whole = fit(p.graph, data, tmp_path / "whole", method, effort)
    stops = Stops(7 if method == "likelihood" else 17)
    with pytest.raises(KeyboardInterrupt):
        fit(p.graph, data, tmp_path / "run", method, effort, watch=lambda told: stops)
    resumed = fit(p.graph, data, tmp_path / "run", method, effort)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


def test_divergence_keeps_the_last_good_weights(front_door, tmp_path, monkeypatch):
    p, data = front_door
    honest = LikelihoodTraining.losses

    def poisoned(self):
        found = honest(self)
        return {"loss": found["loss"] * (math.nan if self.step > 20 else 1.0)}

    monkeypatch.setattr(LikelihoodTraining, "losses", poisoned)
    monkeypatch.setattr("causal_core.training.LOG_SECONDS", 0.0)
    monkeypatch.setattr(fitting, "train", lambda *args: run(*args, 0.0))
    with pytest.raises(CounterfactError, match="diverged"):
        fit(p.graph, data, tmp_path, effort=QUICK)
    monkeypatch.setattr(LikelihoodTraining, "losses", honest)
    training = LikelihoodTraining(ModularModel(data.coding, p.graph.confounded), ("x", "y"), data, QUICK, 0)
    assert training.resume(tmp_path / "part-0" / "0") and 0 < training.step <= 21
    assert all(v.isfinite().all() for v in training.model.state_dict().values())
