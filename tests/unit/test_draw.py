"""Layout and pictures of graphs."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from causal_core.arcs import arcs
from causal_core.brush import dashes, length
from causal_core.concepts import parse_concepts
from causal_core.draw import (
    ACTIVE,
    BLUE,
    CAUSE,
    CHANGED,
    CUT,
    INTERVENED,
    KEPT,
    LATENT,
    PURPLE,
    STEADY,
    VERMILLION,
    draw_graph,
)
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, parse_edges
from causal_core.layout import Box, Spacing, layered, spread, turned
from causal_core.plan import Intervention, propagate

SPACING = Spacing(120.0, 50.0, 60.0, 20.0, 10.0)


@pytest.fixture
def graph():
    concepts = parse_concepts(
        "season: summer, winter = summer\nfoliage: green, bare = green\npond: water, ice = water\ncar = red"
    )
    return CausalGraph.from_edges(
        *parse_edges("season -> foliage\nseason -> pond\nfoliage <-> pond"), concepts=concepts
    )


@pytest.fixture
def plan(graph):
    return propagate(graph, Intervention({"season": "winter"}), {"foliage": "bare"})


def share(picture, colour: str) -> float:
    """Share of pixels that have exactly this colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float((np.asarray(picture) == rgb).all(-1).mean())


def random_edges(seed: int, nodes: int = 20, count: int = 30):
    rng = random.Random(seed)
    names = [f"c{i}" for i in range(nodes)]
    return names, sorted({tuple(sorted(rng.sample(names, 2), key=names.index)) for _ in range(count)})


class TestLayout:
    @pytest.mark.parametrize("seed", range(8))
    def test_no_boxes_overlap_and_edges_run_forward(self, seed):
        names, edges = random_edges(seed)
        layout = layered(names, edges, SPACING)
        for a, b in itertools.combinations(layout.boxes.values(), 2):
            assert abs(a.x - b.x) >= SPACING.width or abs(a.y - b.y) >= SPACING.height
        for (source, target), route in layout.routes.items():
            assert layout.boxes[source].x < layout.boxes[target].x
            assert all(q[0] >= p[0] for p, q in zip(route, route[1:]))
            others = [box for name, box in layout.boxes.items() if name not in (source, target)]
            assert not any(box.holds(point) for box in others for point in route)

    def test_order_avoids_crossings(self):
        layout = layered("abxy", [("a", "y"), ("b", "x")], SPACING)
        assert layout.boxes["a"].y < layout.boxes["b"].y and layout.boxes["y"].y < layout.boxes["x"].y

    def test_single_chain_is_straight(self):
        layout = layered("abcd", list(zip("abc", "bcd")), SPACING)
        assert len({box.y for box in layout.boxes.values()}) == 1
        assert len({box.x for box in turned(layout).boxes.values()}) == 1

    def test_spread_is_the_nearest_order(self):
        placed = spread([5.0, 4.0, 4.0, 100.0], [10, 10, 10, 10], 0)
        assert placed == pytest.approx([13 / 3 - 10, 13 / 3, 13 / 3 + 10, 100.0])

    def test_arcs_go_around(self):
        boxes = {name: Box(0.0, 100.0 * i, 80.0, 40.0) for i, name in enumerate("abc")}
        path = arcs([("a", "c")], boxes, {})["a", "c"]
        assert not any(boxes["b"].holds(point) for point in path)


def test_dashes_begin_and_end_a_line():
    line = [(0.0, 0.0), (30.0, 0.0), (30.0, 41.0)]
    cut = list(dashes(line, 6.0, 4.0))
    assert cut[0][0] == line[0] and cut[-1][-1] == line[-1]
    assert 0.55 < sum(map(length, cut)) / length(line) < 0.7


class TestPicture:
    def test_same_bytes_every_time(self, graph, plan):
        assert draw_graph(graph, plan).tobytes() == draw_graph(graph, plan).tobytes()

    def test_plan_shows(self, graph, plan):
        plain, planned = draw_graph(graph), draw_graph(graph, plan)
        assert plain.mode == planned.mode == "RGB" and plain.width == planned.width == 1024
        assert share(plain, VERMILLION) == 0.0 < share(planned, VERMILLION)
        assert share(plain, BLUE) == 0.0 < share(planned, BLUE)
        assert share(plain, PURPLE) > 0.0

    def test_roles_differ_without_colour(self):
        looks = (INTERVENED, CHANGED, STEADY, KEPT)
        assert len({look.tag for look in looks}) == 4
        assert len({(look.width > 2, look.double, look.dashed) for look in looks}) == 4
        assert CUT.cut and CUT.dashed and LATENT.both_ends and ACTIVE.width > CAUSE.width

    def test_intervention_cuts_incoming_edges(self, graph):
        cut = draw_graph(graph, propagate(graph, Intervention({"foliage": "green"})))
        kept = draw_graph(graph, propagate(graph, Intervention({"season": "summer"})))
        assert cut.tobytes() != kept.tobytes() and share(cut, VERMILLION) > share(kept, VERMILLION)

    def test_confidence_shows(self):
        sure = CausalGraph.from_edges([("a", "b")])
        unsure = CausalGraph.from_edges([("a", "b", 0.7)])
        assert draw_graph(sure).tobytes() != draw_graph(unsure).tobytes()

    @pytest.mark.parametrize("width", [256, 640, 1500])
    def test_widths(self, graph, plan, width):
        assert draw_graph(graph, plan, width).width == width

    @pytest.mark.parametrize("width", [0, 100, 10_000, float("nan"), "wide"])
    def test_width_out_of_range(self, graph, width):
        with pytest.raises(CounterfactError, match="width"):
            draw_graph(graph, width=width)

    def test_plan_for_another_graph(self, plan):
        with pytest.raises(CounterfactError, match="other concepts"):
            draw_graph(CausalGraph.from_edges([("a", "b")]), plan)

    def test_long_and_foreign_names(self):
        name = "x" * 80
        concepts = parse_concepts(f"{name}: {'a' * 80}, {'b' * 80} = {'a' * 80}\n\u00e9t\u00e9 = \u5b63\u7bc0")
        graph = CausalGraph.from_edges([(name, "\u00e9t\u00e9")], concepts=concepts)
        draw_graph(graph, propagate(graph, Intervention({name: "b" * 80})))

    @pytest.mark.parametrize("shape", ["chain", "star", "none"])
    def test_500_concepts(self, shape):
        names = [f"c{i}" for i in range(500)]
        edges = {
            "chain": list(zip(names, names[1:])),
            "star": [(names[0], name) for name in names[1:]],
            "none": [],
        }[shape]
        picture = draw_graph(CausalGraph.from_edges(edges, concepts=parse_concepts("\n".join(names))), width=300)
        assert picture.width == 300 and picture.height <= 900
