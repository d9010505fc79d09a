"""Bounds: against the closed forms of the literature, and what is told of questions without them."""

import itertools
import sys

import numpy as np
import pytest

from causal_core.concepts import Concept, Concepts
from causal_core.errors import CounterfactError
from causal_core.exact import ExactSCM
from causal_core.graph import CausalGraph
from causal_core.identify import identify
from causal_core.modular.bounds import bounds
from causal_core.query import Query, Term, parse_query
from causal_core.scm import SCM, Variable

from ..helpers.questions import BACK_DOOR, BOW, INSTRUMENT, MEDIATION, NAPKIN, graph
from ..helpers.random_scm import random_scm

ALONE = graph("x -> y")
OPEN = graph("v0 -> v1 -> v2; v0 -> v2")


class Known:
    """A table of probabilities, as data would give it."""

    def __init__(self, table, names="zxy", domain=("0", "1")):
        self.names, self.table = list(names), np.asarray(table, float)
        self.domains = dict.fromkeys(names, domain)

    def joint(self, names, do):
        assert not do
        kept = [self.names.index(name) for name in names]
        table = self.table.sum(tuple(i for i in range(self.table.ndim) if i not in kept))
        return np.moveaxis(table, [sorted(kept).index(i) for i in kept], range(len(kept)))


def models(model, count, seed=0):
    rng = np.random.default_rng(seed)
    return [ExactSCM(random_scm(rng, model)) for _ in range(count)]


def ask(model, truth, typed, **options):
    """Lowest and highest answer to a question without symbols that has sharp bounds."""
    found = bounds(model, truth, typed, **options)
    assert found.sharp and found.slack == 0.0 and found.query == parse_query(typed, model.concepts)
    return np.array([found.low, found.high])


def test_the_bow_has_the_natural_bounds():
    for truth in models(BOW, 3):
        found, p = bounds(BOW, truth, "P(y | do(x=1))"), truth.joint(["y", "x"], {})
        np.testing.assert_allclose(found.low, p[:, 1], atol=1e-8)
        np.testing.assert_allclose(found.high, p[:, 1] + p[:, 0].sum(), atol=1e-8)
        assert found.sharp and found.slack == 0.0


def test_the_instrument_has_the_bounds_of_balke_and_pearl():
    for truth in models(INSTRUMENT, 6):
        p = truth.joint(["z", "y", "x"], {})
        # Balke and Pearl 1997: the digits are y, x and z.
        (p000, p010, p100, p110), (p001, p011, p101, p111) = (q.ravel() for q in p / p.sum((1, 2), keepdims=True))
        unset = [
            max(p101, p100, p100 + p110 - p001 - p111, p010 + p100 - p001 - p011),
            min(1 - p001, 1 - p000, p010 + p100 + p101 + p111, p100 + p110 + p011 + p101),
        ]
        done = [
            max(p110, p111, -p000 - p010 + p001 + p111, -p010 - p100 + p101 + p111),
            min(1 - p011, 1 - p010, p000 + p110 + p101 + p111, p100 + p110 + p001 + p111),
        ]
        low, high = ask(INSTRUMENT, truth, "P(y=1 | do(x=1))")
        np.testing.assert_allclose([low, high], done, atol=1e-8)
        least, most = ask(INSTRUMENT, truth, "P(y=1 | do(x=0))")
        np.testing.assert_allclose([least, most], unset, atol=1e-8)
        effect = [
            max(p111 + p000 - 1, p110 + p001 - 1, p110 - p111 - p101 - p010 - p100, p111 - p110 - p100 - p011 - p101,
                -p011 - p101, -p010 - p100, p001 - p011 - p101 - p010 - p000, p000 - p010 - p100 - p011 - p001),
            min(1 - p011 - p100, 1 - p010 - p101, -p010 + p011 + p001 + p110 + p000, -p011 + p111 + p001 + p010 + p000,
                p111 + p001, p110 + p000, -p101 + p111 + p001 + p110 + p100, -p100 + p110 + p000 + p111 + p101),
        ]  # fmt: skip
        np.testing.assert_allclose([low - most, high - least], effect, atol=1e-8)


def test_necessity_and_sufficiency_have_the_bounds_of_tian_and_pearl():
    both = "P(y_{x=1}=1, y_{x=0}=0)"
    for truth in models(ALONE, 3):
        p = truth.joint(["x", "y"], {})
        (y00, _), (_, y11) = p / p.sum(1, keepdims=True)
        expected = max(0.0, y11 + y00 - 1), min(y11, y00)
        np.testing.assert_allclose(ask(ALONE, truth, both), expected, atol=1e-8)
    for truth in models(BOW, 3):
        # Without experiments (Tian and Pearl 2000, section 4.2.1).
        p = truth.joint(["x", "y"], {})
        np.testing.assert_allclose(ask(BOW, truth, both), [0.0, p[0, 0] + p[1, 1]], atol=1e-8)


def test_a_condition_of_unknown_probability():
    for truth in models(BOW, 3):
        # y_{x=0} is known to be 0 where x and y are, and may be 0 wherever x is 1.
        p = truth.joint(["x", "y"], {})
        known = p[0, 0] / (p[0, 0] + p[1].sum())
        np.testing.assert_allclose(ask(BOW, truth, "P(x=0 | y_{x=0}=0)"), [known, 1.0], atol=1e-8)
        np.testing.assert_allclose(ask(BOW, truth, "P(x=1 | y_{x=0}=0)"), [0.0, 1 - known], atol=1e-8)


def test_what_is_no_cause_narrows_bounds():
    model = graph("z -> x; x <-> w")
    for truth in models(model, 3):
        p = truth.joint(["w", "z", "x"], {})
        x0, x1 = p[:, 0, 0] / p[:, 0].sum(1), p[:, 1, 1] / p[:, 1].sum(1)
        weights = p.sum((1, 2))
        expected = weights @ np.maximum(0, x0 + x1 - 1), weights @ np.minimum(x0, x1)
        np.testing.assert_allclose(ask(model, truth, "P(x_{z=1}=1, x_{z=0}=0)"), expected, atol=1e-8)


def test_what_is_identified_elsewhere_narrows_bounds():
    for truth in models(NAPKIN, 3):
        y = identify(NAPKIN, "P(y | do(x))").evaluate(truth)
        found = bounds(NAPKIN, truth, "P(y_{x=1}=1, y_{x=0}=0)")
        # Not sharp, since not all of w, x and y have one hidden cause; but not worse than without w.
        assert max(0.0, y[1, 1] + y[0, 0] - 1) - 1e-8 <= found.low and found.high <= min(y[1, 1], y[0, 0]) + 1e-8


def test_two_unknown_components():
    for truth in models(MEDIATION, 3):
        m = truth.joint(["x", "m"], {})
        m = m / m.sum(1, keepdims=True)
        y = truth.joint(["x", "m", "y"], {})
        y = y / y.sum(2, keepdims=True)
        ends = {-1: [], 1: []}
        # Both values of m at once: one number is free, and all of y can be as helpful as possible at the same time.
        for m11 in (max(0.0, m[1, 1] + m[0, 1] - 1), min(m[1, 1], m[0, 1])):
            both = np.array([[1 - m[1, 1] - m[0, 1] + m11, m[0, 1] - m11], [m[1, 1] - m11, m11]])
            for sign, best in ((-1, lambda a, b: np.maximum(0.0, a + b - 1)), (1, np.minimum)):
                ends[sign].append((both * best(y[1, :, None, 1], y[0, None, :, 0])).sum())
        found = ask(MEDIATION, truth, "P(y_{x=1}=1, y_{x=0}=0)", restarts=10)
        np.testing.assert_allclose(found, [min(ends[-1]), max(ends[1])], atol=1e-8)


def test_two_unknown_components_and_a_condition():
    for truth in models(OPEN, 4):
        p = truth.joint(["v0", "v1", "v2"], {})
        v0, v1, v2 = p.sum((1, 2)), p.sum(2) / p.sum((1, 2))[:, None], p / p.sum(2, keepdims=True)
        low, high = [], []
        for both in (max(0.0, v1[0, 0] + v1[1, 0] - 1), min(v1[0, 0], v1[1, 0])):  # v1 is 0 whatever v0 is
            weights = np.array([v0[0] * both, v0[1] * v1[1, 0]])
            weights /= weights.sum()
            low.append(weights @ np.maximum(0.0, v2[:, 1, 0] + v2[:, 0, 1] - 1))
            high.append(weights @ np.minimum(v2[:, 1, 0], v2[:, 0, 1]))
        found = ask(OPEN, truth, "P(v2_{v1=1}=0, v2=1 | v1=0, v1_{v0=1}=0)", restarts=10)
        np.testing.assert_allclose(found, [min(low), max(high)], atol=1e-7)


def test_every_symbol_has_an_axis():
    truth = models(BOW, 1)[0]
    found = bounds(BOW, truth, "P(y_{x} | x', y')")
    assert list(map(str, found.query.symbols)) == ["y", "x'", "y'", "x"] and found.low.shape == (2, 2, 2, 2)
    for y, seen, before, x in itertools.product("01", repeat=4):
        low, high = ask(BOW, truth, f"P(y_{{x={x}}}={y} | x={seen}, y={before})")
        at = tuple(map(int, (y, seen, before, x)))
        np.testing.assert_allclose([found.low[at], found.high[at]], [low, high], atol=1e-9)
        if x == seen:
            assert low == high == (y == before)
        else:
            np.testing.assert_allclose([low, high], [0.0, 1.0], atol=1e-9)


def test_more_than_two_values():
    domain = ("a", "b", "c")
    model = CausalGraph.from_edges(
        [("z", "x"), ("x", "y")], [("x", "y")], Concepts(tuple(Concept(name, domain) for name in "zxy"))
    )
    rng = np.random.default_rng(3)
    # An instrument that does nothing leaves the bounds of the bow.
    p = rng.dirichlet(np.ones(9)).reshape(3, 3)
    found = bounds(model, Known(np.multiply.outer([0.2, 0.3, 0.5], p), domain=domain), "P(y | do(x=b))")
    np.testing.assert_allclose([found.low, found.high], [p[1], p[1] + 1 - p[1].sum()], atol=1e-8)


def test_what_never_occurs_is_not_known():
    never = {("0",): (1.0, 0.0), ("1",): (0.5, 0.5)}
    row = {key: (0.3, 0.7) for key in itertools.product("01", "01")}
    parts = (Variable("z", ("0", "1"), (), {(): (0.4, 0.6)}), Variable("x", ("0", "1"), ("z",), never))
    truth = ExactSCM(SCM((*parts, Variable("y", ("0", "1"), ("z", "x"), row))))
    np.testing.assert_allclose(ask(BACK_DOOR, truth, "P(y=1 | do(x=1))"), [0.6 * 0.7, 0.6 * 0.7 + 0.4], atol=1e-8)


def test_data_that_contradict_the_graph():
    # Pearl 1995: the instrument forbids P(x, y | z) + P(x, not y | not z) > 1; here it is 1.6.
    table = np.full((2, 2, 2), 0.2 / 3)
    table[0, 1, 1] = table[1, 1, 0] = 0.8
    found = bounds(INSTRUMENT, Known(table / 2), "P(y | do(x=1))")
    # Of each 0.3 that is too much 0.3 is taken away in one cell and added in another.
    np.testing.assert_allclose(found.slack, 1.2, atol=1e-6)
    assert (0 <= found.low).all() and (found.low <= found.high + 1e-7).all() and (found.high <= 1).all()
    assert 0.3 < found.high[1] - found.low[1] < 0.8
    # What the graph need not be right for is as it was.
    alone = bounds(INSTRUMENT, Known(table / 2), "P(x=1 | do(z=1))")
    assert alone.slack == 0.0 and alone.low == alone.high == pytest.approx(0.8 + 0.2 / 3)
    # A condition of unknown probability, and few rows of a model at the limit of what the graph allows.
    assert bounds(INSTRUMENT, Known(table / 2), "P(x=0 | y_{x=1}=0)").slack == pytest.approx(1.2)
    rng, slack = np.random.default_rng(4), []
    for _ in range(5):
        counts = np.stack([rng.multinomial(20, [0.02, 0.02, 0.48, 0.48]) for _ in range(2)]).reshape(2, 2, 2)
        found = bounds(INSTRUMENT, Known(counts / counts.sum()), "P(y=1 | do(x=1))")
        assert 0 <= found.low <= found.high <= 1
        slack.append(found.slack)
    assert 0.0 in slack and max(slack) > 0.01


def test_the_largest_components_are_answered_with_less():
    # w tells of x and y, but the ways in which it may answer four causes are too many.
    model = graph("z -> x -> y; x <-> y; x <-> w; y <-> w; a -> w; b -> w; c -> w; d -> w")
    p = np.random.default_rng(5).dirichlet(np.ones(4), 2).reshape(2, 2, 2) / 2
    # 0.3 * P(z, x) + 0.7 * P(z) / 2 of y is a model of the instrument.
    whole = Known(np.multiply.outer(0.3 * p + 0.35 * p.sum(2, keepdims=True), np.full((2,) * 5, 1 / 32)), "zxywabcd")
    found = bounds(model, whole, "P(y | do(x=1))")
    alone = bounds(INSTRUMENT, Known(whole.table.sum((3, 4, 5, 6, 7))), "P(y | do(x=1))")
    np.testing.assert_allclose([found.low, found.high], [alone.low, alone.high], atol=1e-8)
    assert alone.sharp and not found.sharp
    # Without z, w cannot tell more.
    model = graph("x -> y; x <-> y; x <-> w; y <-> w; a -> w; b -> w; c -> w; d -> w")
    found = bounds(model, Known(whole.table.sum(0), "xywabcd"), "P(y | do(x=1))")
    assert found.sharp


def test_no_certainty_without_one_hidden_cause_of_all():
    model = graph("x -> y; x <-> y; y <-> w")
    assert not bounds(model, models(model, 1)[0], "P(y=1 | do(x=1))").sharp


def test_what_is_certain():
    truth = models(BOW, 1)[0]
    np.testing.assert_array_equal(ask(BOW, truth, "P(y=1, y=0)"), [0.0, 0.0])
    np.testing.assert_array_equal(ask(BOW, truth, "P(y=1 | y=0)"), [0.0, 0.0])
    np.testing.assert_array_equal(ask(BOW, truth, "P(y=1 | y=1)"), [1.0, 1.0])
    # The same causes have the same effect.
    np.testing.assert_allclose(ask(BOW, truth, "P(y_{x=1}=1 | x=1, y=0)"), [0.0, 0.0])


@pytest.mark.parametrize(
    "typed, words",
    [
        ("P(y | do(x=1)", "at character 14"),
        ("P(y_{x=1} | x=0, x=1)", "x=0, x=1 never happens in the data, or cannot"),
        ("P(y_{x=1} | y_{x=0}=1, y=0, x=0)", "never happens"),
    ],
)
def test_errors_of_the_question(typed, words):
    with pytest.raises(CounterfactError, match=words):
        bounds(BOW, models(BOW, 1)[0], typed)


def test_conditions_that_never_happen():
    never = Known([[0.5, 0.0], [0.5, 0.0]], "xy")
    for typed in ("P(x | y=1)", "P(y_{x=0} | y=1)", "P(x=1 | y=1, y_{x=0}=0)"):
        with pytest.raises(CounterfactError, match="never happens"):
            bounds(BOW, never, typed)
    # By the graph x=1 and y_{x=0}=1 could go together, but not where y is known to be 0 whatever x is.
    with pytest.raises(CounterfactError, match="never happens"):
        bounds(ALONE, never, "P(y_{x=1}=1 | y_{x=0}=1)")


def test_errors_of_graph_and_data(monkeypatch):
    many = graph("a -> y; b -> y; c -> y; d -> y; e -> y")
    p = Known(np.full((2,) * 6, 1 / 64), "abcdey")
    with pytest.raises(CounterfactError, match=r"10\^10 ways in which y can answer .* fewer values"):
        bounds(many, p, "P(y_{a=1}=1, y_{a=0}=0)")
    assert bounds(many, p, "P(y=1 | do(a=1))").low == pytest.approx(0.5)
    wide = Known(np.full((600, 2, 600), 1 / 720_000))
    wide.domains = {"z": tuple(map(str, range(600))), "x": ("0", "1"), "y": tuple(map(str, range(600)))}
    with pytest.raises(CounterfactError, match="table over y, z, x of 720000 cells"):
        bounds(graph("z -> y; x -> y"), wide, Query((Term("y", "1", (("x", "1"),)),)))
    truth = models(BOW, 1)[0]
    with pytest.raises(CounterfactError, match="x is never '2' in the data; take one of 0, 1"):
        bounds(BOW, truth, Query((Term("y", "1", (("x", "2"),)),)))
    truth.domains = {"x": ("0", "1"), "y": ()}
    with pytest.raises(CounterfactError, match="y has no list of values.*give it a few values"):
        bounds(BOW, truth, "P(x | y=1)")
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(CounterfactError, match="pip install scipy"):
        bounds(BOW, models(BOW, 1)[0], "P(y | do(x=1))")


def test_a_sum_of_too_many_terms():
    chain = graph(" -> ".join(f"m{i}" for i in range(20)))
    row = {("0",): (0.9, 0.1), ("1",): (0.2, 0.8)}

    class Links(Known):
        def __init__(self):
            self.domains = dict.fromkeys(chain.concepts.names, ("0", "1"))

        def joint(self, names, do):
            return np.array([0.5, 0.5])[:, None] * np.array(list(row.values())) if len(names) == 2 else np.full(2, 0.5)

    with pytest.raises(CounterfactError, match="sum of .* terms"):
        bounds(chain, Links(), "P(m19 | do(m0=1))")


def test_it_can_be_interrupted():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bounds(BOW, models(BOW, 1)[0], "P(y | do(x=1))", check=stop)
