"""The nodes in a real server: what they tell about themselves, the quickstart from end to end, and mistakes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from causal_core.errors import CounterfactError

IDS = {
    "CausalLoadDemoModel", "CausalDemoScene", "CausalConceptExtractor", "CausalGraphBuilder", "CausalDoIntervention",
    "CausalPropagate", "CausalCSGSampler", "CausalPreviewGraph", "CausalCSGInvert", "CausalRegions", "CausalSetRegion",
    "CausalApplyCSG", "CausalCSGGuider", "CausalInstruction", "CausalPasteBack", "CausalCounterfactualReport",
    "CausalWhatIf", "CausalLoadLanguageModel", "CausalLanguageServer", "CausalLanguageFromCLIP",
    "CausalLoadAutoencoder", "CausalEncode", "CausalDecode", "CausalTraversal", "CausalTrainAutoencoder",
    "CausalMarkConfounder", "CausalIdentifyQuery", "CausalFitModular", "CausalLoadModular", "CausalSampleQuery",
    "CausalQueryBounds", "CausalModelGenerator", "CausalAutoencoderGenerator",
}  # fmt: skip
GOLDEN = Path(__file__).parents[1] / "data" / "object_info.json"


@pytest.fixture(scope="module")
def infos(object_info):
    """Definitions of our nodes as the server tells them."""
    return {name: node for name, node in object_info.items() if name.startswith("Causal")}


@pytest.fixture
def quickstart(template):
    """A fresh copy of the quickstart."""
    return template("quickstart")


@pytest.fixture
def short(quickstart):
    """The quickstart without reading, and with few steps."""
    quickstart.set("CausalConceptExtractor.mode=keep given values", "CausalCSGSampler.steps=4")
    return quickstart


def test_all_nodes_are_there_as_promised(infos):
    """Ids, inputs and outputs never change once published. COUNTERFACT_UPDATE_GOLDEN=1 takes what is added."""
    assert set(infos) == IDS
    found = json.dumps(infos, indent=1, sort_keys=True) + "\n"
    if os.environ.get("COUNTERFACT_UPDATE_GOLDEN"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert json.loads(found) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_input_and_output_has_a_tooltip(infos):
    for name, node in infos.items():
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert inputs and all(options["tooltip"] for _, options in inputs.values()), name
        assert node["output_tooltips"] and all(node["output_tooltips"]), name
        assert node["description"] and node["display_name"] and node["category"].startswith("causal/"), name


def test_every_node_has_a_help_page_of_all_its_slots_and_defaults(client, infos):
    for name, node in infos.items():
        page = client._call("GET", f"/extensions/counterfact/docs/{name}.md").text
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        for slot in [*inputs, *node["output_name"]]:
            assert re.search(rf"^\| {re.escape(slot)} \|", page, re.MULTILINE), f"{name}.md has no row for {slot}"
        for slot, (kind, options) in inputs.items():
            row = re.search(rf"^\| {re.escape(slot)} \|.*", page, re.MULTILINE)[0]
            if kind in ("INT", "FLOAT") and "default" in options:
                default = rf"default {options['default']:g}(?![.\d])"
                assert re.search(default, row), f"{name}.md: {slot} has another default"


def test_quickstart_from_end_to_end(quickstart):
    events = []
    quickstart.run(lambda kind, data: events.append((kind, data)), timeout=300)
    factual, found, truth = (
        quickstart.pictures(title)[0] for title in ("Factual", "Counterfactual", "True counterfactual")
    )
    assert factual.shape == found.shape == truth.shape == (64, 64, 3)
    before, after = (np.square(picture - truth.astype(float)).mean() for picture in (factual.astype(float), found))
    assert after < before / 2, "the counterfactual is much closer to the truth than the source is"
    report = quickstart.document("CausalCSGSampler", "counterfact_report")
    plan = quickstart.document("CausalPropagate", "counterfact_plan")
    assert report["do"] == plan["do"] == {"season": "winter"}
    assert {"season", "ground", "foliage"} <= {item["name"] for item in report["affected"]}
    assert {"house", "car", "layout"} <= set(report["invariant"])
    masks = quickstart.pictures("Masks")
    assert len(masks) == len(report["affected"])
    outside = np.max(masks, 0) == 0
    assert outside.any() and np.array_equal(found[outside], factual[outside])
    graph = quickstart.pictures("CausalPreviewGraph")[0]
    assert graph.shape[1] == 1024 and quickstart.document("CausalPreviewGraph", "counterfact_graph")["edges"]
    steps = [data["nodes"] for kind, data in events if kind == "progress_state"]
    sampler = quickstart.node("CausalCSGSampler")
    assert len({nodes[sampler]["value"] for nodes in steps if sampler in nodes}) > 5


def test_another_question_gives_another_picture_and_repeats_only_what_follows(short):
    titles = "Factual", "Counterfactual", "True counterfactual"
    events = []
    first = [short.run().pictures(title)[0] for title in titles]
    short.set("CausalDoIntervention.do=time = night")
    short.run(lambda kind, data: events.append((kind, data)))
    second = [short.pictures(title)[0] for title in titles]
    cached = next(data["nodes"] for kind, data in events if kind == "execution_cached")
    assert {short.node(name) for name in ("CausalLoadDemoModel", "CausalGraphBuilder", "VAEEncode")} <= set(cached)
    assert [np.array_equal(a, b) for a, b in zip(first, second)] == [True, False, False]
    assert short.document("CausalCSGSampler", "counterfact_report")["do"] == {"time": "night"}


def test_setting_nothing_gives_the_source(short):
    short.set("CausalDoIntervention.do=")
    short.run()
    report = short.document("CausalCSGSampler", "counterfact_report")
    assert report["affected"] == [] and report["max_latent_error_outside"] < 1e-3
    factual, found, truth = (short.pictures(title)[0] for title in ("Factual", "Counterfactual", "True counterfactual"))
    assert np.array_equal(factual, truth) and np.array_equal(factual, found)


def test_interrupted_run_leaves_the_server_usable_and_the_same_seed_gives_the_same_picture(client, short):
    first = short.run().pictures("Counterfactual")[0]
    client._call("POST", "/free", json={"unload_models": True, "free_memory": True})
    sampler = short.node("CausalCSGSampler")

    def stop(kind, data):
        if kind == "progress_state" and data["nodes"].get(sampler, {}).get("value", 0) >= 2:
            client.interrupt()

    short.set("CausalCSGSampler.steps=60")
    with pytest.raises(CounterfactError, match="the run was interrupted"):
        short.run(stop)
    short.set("CausalCSGSampler.steps=4")
    assert np.array_equal(short.run().pictures("Counterfactual")[0], first)
    assert sampler not in dict(short.entry["status"]["messages"])["execution_cached"]["nodes"]


def without_traceback(server):
    return "Traceback" not in server.log_file.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("change, message", [
    ("CausalDoIntervention.do=season = monsoon", r'"Do \(Set Concept\)" failed: do: unknown value .*spring, summer'),
    ("CausalGraphBuilder.edges=season -> time -> season", r"edges: the graph has a cycle: season -> time -> season"),
    ("CausalConceptExtractor.typed=car: red, red", r"typed: .*lists a value twice"),
    ("CausalPropagate.consequences=car = none", r"'car' does not follow from do\(season = winter\)"),
])  # fmt: skip
def test_mistakes_are_told_in_plain_words_every_time(server, short, change, message):
    short.set(change)
    for _ in range(2):  # nothing of a failed run may be taken for its result
        with pytest.raises(CounterfactError, match=message):
            short.run()
    assert without_traceback(server)


def test_mistake_of_an_output_node_is_told(client, server):
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}

    prompt = {
        "1": node("CausalGraphBuilder", edges="egg -> hen"),
        "2": node("CausalDemoScene", world="cottage", seed=1, size=64),
        "3": node("CausalDoIntervention", graph=["2", 3], do=""),
        "4": node("CausalPropagate", graph=["2", 3], intervention=["3", 0]),
        "5": node("CausalPreviewGraph", graph=["1", 0], plan=["4", 0]),
    }
    with pytest.raises(CounterfactError, match="CausalPreviewGraph.* failed: plan: "):
        client.run(prompt, timeout=60)
    assert without_traceback(server)


def test_wrong_kind_of_latent_is_told(server, short):
    empty = {"width": 64, "height": 64, "batch_size": 1}
    short.prompt["90"] = {"class_type": "EmptyLatentImage", "inputs": empty, "_meta": {"title": ""}}
    short.prompt[short.node("CausalCSGSampler")]["inputs"]["latent"] = ["90", 0]
    with pytest.raises(CounterfactError, match="failed: latent: .*24 channels"):
        short.run()
    assert without_traceback(server)
