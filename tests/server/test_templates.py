"""The template workflows: each fits the nodes of this ComfyUI and is laid out, and each runs on the bundled model."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILES = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))
NOTE = "MarkdownNote"
# Widgets that list files, of which there are others on every machine.
FILE_WIDGETS = {"ckpt_name", "unet_name", "clip_name1", "clip_name2", "vae_name", "image"}
# All other widgets of sampling nodes follow the defaults: they are left out of the files.
CHOSEN = {("compare_modes", "Fused", "mode"): "fused", ("your_own_mask", "Set Region", "concept"): "ground"}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request):
    """The file of each template."""
    return request.param


@pytest.fixture
def workflow(file):
    """A template as it was saved."""
    return json.loads(file.read_text(encoding="utf-8"))


def specs(info):
    """(name, kind, options, choices) of a node's inputs in the order of the editor."""
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, ()):
            kind, options = (*info["input"][group][name], {})[:2]
            choices = kind if isinstance(kind, list) else options.get("options")
            yield name, "COMBO" if isinstance(kind, list) else kind, options, choices


def widgets(info):
    """(name, kind, options, choices) of a node's widgets in the order of the editor; no name for those of the page."""
    for name, kind, options, choices in specs(info):
        if kind in ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO") and not options.get("forceInput"):
            yield name, kind, options, choices
            if options.get("control_after_generate", kind == "INT" and name in ("seed", "noise_seed")):
                yield None, "COMBO", {}, ["fixed", "increment", "decrement", "randomize"]
            if options.get("image_upload"):
                yield None, "STRING", {}, None


def settings(node, info):
    """Saved values of a node by the specs of its widgets."""
    known, values = list(widgets(info)), node["widgets_values"]
    assert len(values) <= len(known), node["type"]
    return list(zip(known, values))


def test_templates_are_in_the_browser_with_a_picture_each(client):
    names = {file.stem for file in FILES}
    assert set(client.get("/workflow_templates")["counterfact"]) == names >= {"quickstart", "stable_diffusion"}
    for file in FILES:
        with Image.open(file.with_suffix(".jpg")) as picture:
            assert picture.size == (512, 512)
    assert {picture.stem for picture in FILES[0].parent.glob("*.jpg")} == names


def test_links_join_slots_of_one_type(workflow, object_info):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    seen = set()
    for number, origin, output, target, slot, kind in workflow["links"]:
        source, sink = nodes[origin]["outputs"][output], nodes[target]["inputs"][slot]
        assert number in source["links"] and sink["link"] == number
        made = object_info[nodes[origin]["type"]]["output"][output]
        taken = {name: wanted for name, wanted, *_ in specs(object_info[nodes[target]["type"]])}[sink["name"]]
        assert made == kind == source["type"] and taken in (kind, "*"), (nodes[target]["type"], sink["name"])
        seen.add(number)
    ends = [slot["link"] for node in nodes.values() for slot in node["inputs"] if slot["link"] is not None]
    starts = [link for node in nodes.values() for slot in node["outputs"] for link in slot["links"]]
    assert sorted(ends) == sorted(starts) == sorted(seen)


def test_every_node_is_known_and_has_what_it_needs(file, workflow, object_info):
    for node in workflow["nodes"]:
        if node["type"] == NOTE:
            continue
        info = object_info[node["type"]]
        assert [slot["name"] for slot in node["outputs"]] == info["output_name"]
        given = {slot["name"] for slot in node["inputs"] if slot["link"] is not None}
        given |= {name for name, *_ in widgets(info)}
        assert set(info["input_order"].get("required", ())) <= given, node["type"]
        for (name, kind, options, choices), value in settings(node, info):
            where = f"{node['type']}.{name}: {value!r}"
            if kind == "COMBO":
                assert name in FILE_WIDGETS or value in choices, where
            elif kind in ("INT", "FLOAT"):
                assert isinstance(value, (int, float)) and not isinstance(value, bool), where
                assert options.get("min", value) <= value <= options.get("max", value), where
            else:
                assert isinstance(value, {"BOOLEAN": bool, "STRING": str}[kind]), where


def test_settings_of_samplers_are_the_defaults(file, workflow, object_info):
    chosen = {}
    for node in workflow["nodes"]:
        info = object_info.get(node["type"], {"category": "", "display_name": ""})
        if info["category"] == "causal/sampling":
            title = node.get("title") or info["display_name"]
            chosen |= {
                (file.stem, title, name): value
                for (name, _, options, choices), value in settings(node, info)
                if name and value != options.get("default", (choices or [None])[0])
            }
    assert chosen == {key: value for key, value in CHOSEN.items() if key[0] == file.stem}


def test_nothing_overlaps_and_groups_hold_their_nodes(workflow):
    def inside(inner, outer):
        return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]

    def apart(a, b):
        return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

    def box(x, y, width, height, title=0):
        return x, y - title, x + width, y + height

    boxes = {node["id"]: box(*node["pos"], *node["size"], title=30) for node in workflow["nodes"]}
    groups = [box(*group["bounding"]) for group in workflow["groups"]]
    assert all(apart(a, b) for pair in (boxes.values(), groups) for a, b in combinations(pair, 2))
    loose = {node["type"] for node in workflow["nodes"] if not any(inside(boxes[node["id"]], g) for g in groups)}
    assert loose <= {NOTE} and any(node["type"] == NOTE for node in workflow["nodes"])


def builder(workflow):
    """The node with the graph editor, unless it asks a language model, whose answer nobody knows before."""
    found = [node for node in workflow["nodes"] if node["type"] == "CausalGraphBuilder"]
    asks = any(slot["name"] == "llm" and slot["link"] is not None for node in found for slot in node["inputs"])
    return found[0] if found and not asks else None


def stand_in(run):
    """The checkpoint and the photograph, which are not here, make way for the bundled model and a scene."""
    for node in run.prompt.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="CausalLoadDemoModel", inputs={"preset": "micro"})
        if node["class_type"] == "LoadImage":
            node.update(class_type="CausalDemoScene", inputs={"world": "cottage", "seed": 302, "size": 64})


def without_confidences(graph):
    """The graph, and the confidences of its concepts, which may differ a little from one machine to another."""
    concepts = [{**concept, "confidence": None} for concept in graph["concepts"]]
    return {**graph, "concepts": concepts}, [concept["confidence"] for concept in graph["concepts"]]


@pytest.mark.parametrize(
    "file", [file for file in FILES if builder(json.loads(file.read_text("utf-8")))], ids=lambda file: file.stem
)
def test_editors_show_before_the_first_run_what_it_tells_them(file, workflow, template):
    shown = builder(workflow)["properties"]["counterfact_graph"]
    run = template(file.stem)
    stand_in(run)
    # Only what leads to the picture of the graph is run.
    needed = [run.node("CausalPreviewGraph")]
    for name in needed:
        needed += [value[0] for value in run.prompt[name]["inputs"].values() if isinstance(value, list)]
    run.prompt = {name: run.prompt[name] for name in needed}
    run.run()
    told = run.document("CausalGraphBuilder", "counterfact_base")
    found, sure = without_confidences({key: told[key] for key in ("concepts", "edges", "confounded")})
    remembered, was_sure = without_confidences(shown["graph"])
    assert remembered == found
    assert shown["notes"] == run.entry["outputs"][run.node("CausalGraphBuilder")]["counterfact_notes"]
    assert [value is None for value in sure] == [value is None for value in was_sure]
    assert all(a is None or abs(a - b) < 0.01 for a, b in zip(sure, was_sure))


def error(picture, truth):
    """Mean squared difference of two pictures."""
    return np.square(picture.astype(float) - truth).mean()


def closer(run, *titles):
    """Whether each of these pictures is much closer to the truth than the source is."""
    factual, truth = run.pictures("Factual")[0], run.pictures("True counterfactual")[0]
    return [error(run.pictures(title)[0], truth) < error(factual, truth) / 2 for title in titles]


def outside(masks):
    """Where no mask reaches."""
    return np.max(masks, 0)[..., 0] == 0


def test_two_interventions(template):
    run = template("two_interventions")
    run.set("CausalCSGSampler.steps=8")
    run.run()
    report = run.document("CausalCSGSampler", "counterfact_report")
    assert report["do"] == {"season": "winter", "time": "night"}
    assert {"ground", "lamp"} <= {item["name"] for item in report["affected"]}
    assert all(closer(run, "Counterfactual"))


def test_your_own_mask(template):
    run = template("your_own_mask")
    run.set("CausalRegions.steps=4", "CausalCSGSampler.steps=4")
    run.run()
    names = [item["name"] for item in run.document("CausalCSGSampler", "counterfact_report")["affected"]]
    factual, found = run.pictures("Factual")[0], run.pictures("Counterfactual")[0]
    masks, own = dict(zip(names, run.pictures("Masks"), strict=True)), run.pictures("Mask for the ground")[0]
    snow = masks["ground"][..., 0] / 255
    assert own[40, 20].all() and not own[20, 40].any()
    assert snow[40:].min() == 1 and snow[:32].max() == 0, "the region of the ground is the mask"
    still = outside(list(masks.values()))
    assert still[:32].sum() > 100 and np.array_equal(found[still], factual[still])
    assert error(found[36:, 36:], factual[36:, 36:]) > 1000
    overlay = run.pictures("CausalRegions")[0]
    assert min(overlay.shape[:2]) >= 512


def test_compare_modes(template):
    run = template("compare_modes")
    for node in ("CausalCSGInvert", "Per concept", "Fused", "KSampler"):
        run.set(f"{node}.steps=8")
    run.run()
    titles = "Counterfactual", "Fused counterfactual", "KSampler counterfactual"
    assert all(closer(run, *titles))
    for a, b in combinations(titles, 2):
        assert not np.array_equal(run.pictures(a)[0], run.pictures(b)[0])
    concepts, fused = (run.document(name, "counterfact_report") for name in ("Per concept", "Fused"))
    assert concepts["affected"] and concepts["rows_per_step"] > fused["rows_per_step"] == 2
    for name in ("Report: per concept", "Report: fused", "Report: KSampler"):
        assert run.pictures(name)[0].shape[1] == 1024
        assert run.document(name, "counterfact_report")["do"] == {"season": "winter"}


def test_custom_sampling(template):
    run = template("custom_sampling")
    run.set("BasicScheduler.steps=8")
    assert all(closer(run.run(), "Counterfactual"))


def test_instruction_editor(template):
    run = template("instruction_editor")
    run.set("CausalRegions.steps=4", "KSampler.steps=4")
    run.run()
    factual, edited, pasted = (run.pictures(title)[0] for title in ("Factual", "Edited", "Counterfactual"))
    still = outside(run.pictures("Mask"))
    # A mask of less than 1/255 is shown black, and moves a colour by less than one step.
    assert still.sum() > 1000 and np.abs(pasted[still].astype(int) - factual[still]).max() <= 1
    assert error(edited[still], factual[still]) > 10
    assert error(pasted[~still], factual[~still]) > 1000
    assert run.text("Instruction in words").startswith("Change the season from summer to autumn.")


def test_stable_diffusion(template):
    run = template("stable_diffusion")
    stand_in(run)
    run.prompt["show"] = {
        "class_type": "PreviewImage",
        "inputs": {"images": [run.node("Picture of the right size"), 0]},
        "_meta": {"title": "Source"},
    }
    run.set("Picture of the right size.megapixels=0.01", "CausalCSGSampler.steps=3")
    run.run()
    plan = run.document("CausalPropagate", "counterfact_plan")
    report = run.document("CausalCSGSampler", "counterfact_report")
    assert plan["do"] == report["do"] == {"season": "winter"}
    assert [item["name"] for item in report["affected"]] == ["season", "tree", "ground"]
    assert report["invariant"] == ["sky", "house"]
    source, found = run.pictures("Source")[0], run.pictures("Counterfactual")[0]
    masks = run.pictures("Masks")
    assert source.shape == found.shape and len(masks) == 3
    still = outside(masks)
    assert np.array_equal(found[still], source[still])


def test_language_model(template):
    """What the small model says is a weak guess: only what it was told, and the question, are checked."""
    from causal_core.language.smollm2 import converted

    converted(fetch=True)
    run = template("language_model")
    run.run()
    plan = run.document("CausalPreviewGraph", "counterfact_graph")
    edges = {(edge["source"], edge["target"]) for edge in plan["edges"]}
    assert edges and not edges & {("street", "weather"), ("weather", "house"), ("house", "weather")}
    assert run.text("Understood").splitlines() == ["do(weather = rainy)", "weather: sunny -> rainy"]
    assert run.text("Counterfactual caption").startswith("rainy weather")


def test_hidden_causes(template):
    run = template("hidden_causes")
    run.run()
    titles = "Expression", "Why it can be answered", "Why it cannot"
    expression, why, why_not = (run.entry["outputs"][run.node(title)]["text"][0] for title in titles)
    whole = "sum[season, weather] P(season) P(lamp | time=night, weather) sum[time] P(time) P(weather | season, time)"
    assert expression == whole
    assert why == "the hidden causes (time <-> weather) do not stand in the way"
    assert why_not.startswith("time, weather and lamp hang together by hidden causes (time <-> weather, time <-> lamp)")
    assert min(run.pictures("CausalPreviewGraph")[0].shape[:2]) > 300


def test_front_door(template):
    run = template("front_door")
    run.run()
    # By enumeration of the model that the pictures come from: 0.62 and 0.63.
    doing, seeing = (probabilities(run.text(title)) for title in ("Doing", "Seeing"))
    assert abs(doing["0", "1"] - 0.623) < 0.12 and abs(doing["1", "1"] - 0.634) < 0.12
    assert abs(seeing["0", "1"] - seeing["1", "1"]) > 0.15
    assert len(run.pictures("What was written")) == 8
    assert run.entry["outputs"][run.node("Expression")]["text"][0].count("picture") == 3


def test_confounded_cottage(template):
    run = template("confounded_cottage")
    run.run()
    doing, seeing = (probabilities(run.text(title)) for title in ("Doing", "Seeing"))
    assert abs(doing["clear", "on"] - 0.348) < 0.06 and abs(doing["cloudy", "on"] - 0.466) < 0.06
    assert seeing["cloudy", "on"] - seeing["clear", "on"] > 0.35
    assert len(run.pictures("Clouds and clear skies, set")) == 6


def probabilities(table):
    """Probability by what is set and asked in a table of Sample Query."""
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {(settled, asked): float(share) for settled, asked, share, _ in cells[2:]}
