"""The nodes in a real server: what they tell about themselves, the quickstart from end to end, and mistakes."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from causal_core.comfyui.convert import ui_to_api
from causal_core.comfyui.demo import set_input
from causal_core.errors import CounterfactError

IDS = {
    "CausalLoadDemoModel", "CausalDemoScene", "CausalConceptExtractor", "CausalGraphBuilder", "CausalDoIntervention",
    "CausalPropagate", "CausalCSGSampler", "CausalPreviewGraph",
}  # fmt: skip
GOLDEN = Path(__file__).parents[1] / "data" / "object_info.json"


@pytest.fixture(scope="module")
def infos(server):
    """Definitions of our nodes as the server tells them."""
    return {name: node for name, node in server.client().object_info().items() if name.startswith("Causal")}


@pytest.fixture
def quickstart(client, pack_root):
    """A fresh copy of the quickstart in API format."""
    workflow = json.loads((pack_root / "workflows" / "quickstart.json").read_text(encoding="utf-8"))
    return ui_to_api(workflow, client.object_info())


@pytest.fixture
def short(quickstart):
    """The quickstart without reading, and with few steps."""
    set_input(quickstart, "CausalConceptExtractor.mode=keep given values")
    set_input(quickstart, "CausalCSGSampler.steps=4")
    return quickstart


def node_id(prompt, name):
    """The id of the only node with this title or class."""
    titled = [key for key, node in prompt.items() if name in (node["_meta"]["title"], node["class_type"])]
    assert len(titled) == 1
    return titled[0]


def pictures(client, prompt, entry, title):
    """What a Save Image or Preview Image node shows, uint8 arrays."""
    found = entry["outputs"][node_id(prompt, title)]["images"]
    return [np.array(Image.open(io.BytesIO(client.view(**image))).convert("RGB")) for image in found]


def document(prompt, entry, name, key):
    """The JSON document that a node showed."""
    return json.loads(entry["outputs"][node_id(prompt, name)][key][0])


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


def test_workflows_are_in_the_template_browser(client, pack_root):
    ours = {file.stem for file in (pack_root / "workflows").glob("*.json")}
    assert "quickstart" in ours and set(client.get("/workflow_templates")["counterfact"]) == ours


def test_the_pack_hardly_delays_the_start(start_log):
    seconds = re.search(r"([\d.]+) seconds: \S*counterfact", start_log)
    assert seconds and float(seconds[1]) < 0.3
    assert "Traceback" not in start_log and "comfy_entrypoint" not in start_log


def test_quickstart_is_laid_out_and_has_default_settings(pack_root, infos, quickstart):
    nodes = json.loads((pack_root / "workflows" / "quickstart.json").read_text(encoding="utf-8"))["nodes"]
    boxes = [(x, y - 30, x + w, y + h) for x, y, w, h in ((*node["pos"], *node["size"]) for node in nodes)]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top, nodes[i]["type"]
    sampler = quickstart[node_id(quickstart, "CausalCSGSampler")]["inputs"]
    for specs in infos["CausalCSGSampler"]["input"].values():
        for name, (_, options) in specs.items():
            assert "default" not in options or sampler[name] == options["default"], name


def test_quickstart_from_end_to_end(client, quickstart):
    events = []
    entry = client.run(quickstart, lambda kind, data: events.append((kind, data)), timeout=300)
    factual, found, truth = (
        pictures(client, quickstart, entry, title)[0] for title in ("Factual", "Counterfactual", "True counterfactual")
    )
    assert factual.shape == found.shape == truth.shape == (64, 64, 3)
    before, after = (np.square(picture - truth.astype(float)).mean() for picture in (factual.astype(float), found))
    assert after < before / 2, "the counterfactual is much closer to the truth than the source is"
    report = document(quickstart, entry, "CausalCSGSampler", "counterfact_report")
    plan = document(quickstart, entry, "CausalPropagate", "counterfact_plan")
    assert report["do"] == plan["do"] == {"season": "winter"}
    assert {"season", "ground", "foliage"} <= {item["name"] for item in report["affected"]}
    assert {"house", "car", "layout"} <= set(report["invariant"])
    assert len(pictures(client, quickstart, entry, "Masks")) == len(report["affected"])
    graph = pictures(client, quickstart, entry, "CausalPreviewGraph")[0]
    assert graph.shape[1] == 1024 and document(quickstart, entry, "CausalPreviewGraph", "counterfact_graph")["edges"]
    steps = [data["nodes"] for kind, data in events if kind == "progress_state"]
    sampler = node_id(quickstart, "CausalCSGSampler")
    assert len({nodes[sampler]["value"] for nodes in steps if sampler in nodes}) > 5


def test_another_question_gives_another_picture_and_repeats_only_what_follows(client, short):
    first = client.run(short, timeout=120)
    events = []
    set_input(short, "CausalDoIntervention.do=time = night")
    second = client.run(short, lambda kind, data: events.append((kind, data)), timeout=120)
    cached = next(data["nodes"] for kind, data in events if kind == "execution_cached")
    assert {node_id(short, name) for name in ("CausalLoadDemoModel", "CausalGraphBuilder", "VAEEncode")} <= set(cached)
    images = [[pictures(client, short, entry, title)[0] for entry in (first, second)]
              for title in ("Factual", "Counterfactual", "True counterfactual")]  # fmt: skip
    (a, b), (c, d), (e, f) = images
    assert np.array_equal(a, b) and not np.array_equal(c, d) and not np.array_equal(e, f)
    assert document(short, second, "CausalCSGSampler", "counterfact_report")["do"] == {"time": "night"}


def test_setting_nothing_gives_the_source(client, short):
    set_input(short, "CausalDoIntervention.do=")
    entry = client.run(short, timeout=120)
    report = document(short, entry, "CausalCSGSampler", "counterfact_report")
    assert report["affected"] == [] and report["max_latent_error_outside"] < 1e-3
    factual, truth = (pictures(client, short, entry, title)[0] for title in ("Factual", "True counterfactual"))
    assert np.array_equal(factual, truth)


def test_interrupted_run_leaves_the_server_usable_and_the_same_seed_gives_the_same_picture(client, short):
    first = client.run(short, timeout=120)
    client._call("POST", "/free", json={"unload_models": True, "free_memory": True})
    sampler = node_id(short, "CausalCSGSampler")

    def stop(kind, data):
        if kind == "progress_state" and data["nodes"].get(sampler, {}).get("value", 0) >= 2:
            client.interrupt()

    set_input(short, "CausalCSGSampler.steps=60")
    with pytest.raises(CounterfactError, match="the run was interrupted"):
        client.run(short, stop, timeout=120)
    set_input(short, "CausalCSGSampler.steps=4")
    second = client.run(short, timeout=120)
    assert sampler not in dict(second["status"]["messages"])["execution_cached"]["nodes"]
    assert np.array_equal(*(pictures(client, short, entry, "Counterfactual")[0] for entry in (first, second)))


def without_traceback(server):
    return "Traceback" not in server.log_file.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("change, message", [
    ("CausalDoIntervention.do=season = monsoon", r'"Do \(Set Concept\)" failed: do: unknown value .*spring, summer'),
    ("CausalGraphBuilder.edges=season -> time -> season", r"edges: the graph has a cycle: season -> time -> season"),
    ("CausalConceptExtractor.typed=car: red, red", r"typed: .*lists a value twice"),
    ("CausalPropagate.consequences=car = none", r"'car' does not follow from do\(season = winter\)"),
])  # fmt: skip
def test_mistakes_are_told_in_plain_words_every_time(client, server, short, change, message):
    set_input(short, change)
    for _ in range(2):  # nothing of a failed run may be taken for its result
        with pytest.raises(CounterfactError, match=message):
            client.run(short, timeout=60)
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


def test_wrong_kind_of_latent_is_told(client, server, short):
    empty = {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1},
        "_meta": {"title": ""},
    }
    short["90"] = empty
    short[node_id(short, "CausalCSGSampler")]["inputs"]["latent"] = ["90", 0]
    with pytest.raises(CounterfactError, match="failed: latent: .*24 channels"):
        client.run(short, timeout=60)
    assert without_traceback(server)
