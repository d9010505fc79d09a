"""Reports in numbers."""

from __future__ import annotations

import pytest
import torch

from causal_core.concepts import parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.guidance.csg import Result
from causal_core.guidance.report import compared, measures, read_report, sampled, table, write_report
from causal_core.plan import Intervention, propagate

CONCEPTS = "season: summer, winter = summer\npond: water, ice = water\ncar: red, blue = red\nbird: one, two"


@pytest.fixture
def plan():
    graph = CausalGraph.from_edges([("season", "pond")], concepts=parse_concepts(CONCEPTS))
    return propagate(graph, Intervention({"season": "winter"}), {"pond": "ice"})


@pytest.fixture
def pictures():
    source = torch.full((8, 8, 3), 0.5)
    edited = source.clone()
    edited[:, :4] = 0.0
    return source, edited


def left(columns: int = 4) -> torch.Tensor:
    mask = torch.zeros(8, 8)
    mask[:, :columns] = 1.0
    return mask


def test_what_was_sampled(plan):
    results = [Result(torch.zeros(1), {"season": left()}, 10, 3.0), Result(torch.zeros(1), {"pond": left(2)}, 10, 1.0)]
    found = sampled(plan, results, 0.5)
    assert found["do"] == {"season": "winter"} and found["images"] == 2 and found["rows_per_step"] == 2.0
    assert {item["name"]: (item["area"], item["strength"]) for item in found["affected"]} == {
        "season": (0.25, 0.5), "pond": (0.125, 0.5)
    }  # fmt: skip
    assert sorted(found["invariant"]) == ["bird", "car"]


def test_outside_of_all_regions(plan, pictures):
    assert compared(plan, *pictures, {"season": left(), "pond": left(2)}) == {
        "areas": {"season": 0.5, "pond": 0.25},
        "outside": {"share": 0.5, "psnr": 99.0, "mean_change": 0.0, "margin": 0},
    }
    short = compared(plan, *pictures, {"season": left(2)})["outside"]
    assert short["share"] == 0.75 and short["mean_change"] == pytest.approx(0.5 / 3) and short["psnr"] < 20
    wide = compared(plan, *pictures, {"season": left(2)}, margin=2)["outside"]
    assert wide == {"share": 0.5, "psnr": 99.0, "mean_change": 0.0, "margin": 2}
    # A region reaches where it is weak, too.
    assert compared(plan, *pictures, {"season": 0.01 * left()})["outside"]["psnr"] == 99.0


@pytest.mark.parametrize("values, effectiveness, drift", [
    ("season: summer, winter = winter\npond: water, ice = ice\ncar: red, blue = red", (1.0, 1.0), (0.0, [])),
    ("season: summer, Winter = Winter\npond: water, ice = water\ncar: red, blue = blue", (1.0, 0.0), (1.0, ["car"])),
    ("season: summer, winter = summer", (0.0, None), (None, [])),
    ("car: red, blue = red\nbird: one, two = two", (None, None), (0.0, [])),
])  # fmt: skip
def test_values_that_were_read(plan, pictures, values, effectiveness, drift):
    found = compared(plan, *pictures, {}, parse_concepts(values))
    assert tuple(found["effectiveness"].values()) == effectiveness
    assert (found["invariant_drift"], found["drifted"]) == drift


def test_concepts_of_something_else_are_refused(plan, pictures):
    for values in ("egg = raw", "season: summer, winter"):
        with pytest.raises(CounterfactError, match="concepts: they have no value .*season, pond, car, bird"):
            compared(plan, *pictures, {}, parse_concepts(values))


def test_documents(plan, pictures):
    report = {"do": dict(plan.intervention.do), **compared(plan, *pictures, {})}
    document = write_report(report)
    assert read_report(document, plan) == report and write_report(read_report(document, plan)) == document
    with pytest.raises(CounterfactError, match="is about"):
        read_report(write_report({"do": {"season": "summer"}}), plan)


def test_table(plan, pictures):
    report = compared(
        plan, *pictures, {"season": left()}, parse_concepts("season: summer, winter = winter\ncar: red, a|b = a|b")
    )
    lines = table(plan, report).split("\n")
    assert lines[0] == "| concept | role | before | after | region | read again |"
    assert lines[2:6] == [
        "| season | intervened | summer | winter | 50.0 % | winter (right) |",
        "| pond | descendant | water | ice |  |  |",
        "| car | invariant | red | same |  | a\\|b (wrong) |",
        "| bird | invariant | ? | same |  |  |",
    ]
    assert "effectiveness: 100 % of what was set" in lines[7] and "100 % of the invariants" in lines[8]


def test_measures_take_numbers_alone():
    strange = {"composition": {"max_latent_error": "much"}, "outside": [], "evaluations_per_step": float("nan")}
    assert measures(strange) == [] and measures({"evaluations_per_step": 3, "seconds": None})[0].startswith("cost: 3.0")
