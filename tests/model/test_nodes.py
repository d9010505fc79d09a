"""The other nodes: what they make of good input, and what they say to bad input."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
import torch


@pytest.fixture
def error(pack):
    return pack("causal_core.errors").CounterfactError


@pytest.fixture(scope="module")
def nodes(pack):
    """Node classes by id."""
    pack("nodes.demo").register_folder()
    extension = asyncio.run(pack("nodes").CounterfactExtension().get_node_list())
    return {node.GET_SCHEMA().node_id: node for node in extension}


@pytest.fixture
def run(nodes):
    """Run a node by id; returns its outputs."""
    return lambda name, *args, **inputs: nodes[name].execute(*args, **inputs).args


@pytest.fixture
def scene(run):
    """Image, caption, concepts and graph of a summer scene."""
    return run("CausalDemoScene", "cottage", 302, 64)


def test_every_node_explains_itself(nodes):
    assert len(nodes) == 33
    for name, node in nodes.items():
        schema = node.GET_SCHEMA()
        assert name.startswith("Causal") and "." not in name
        assert schema.category.startswith("causal/") and schema.display_name and schema.description.endswith(".")
        assert "counterfactual" in schema.search_aliases
        for slot in (*schema.inputs, *schema.outputs):
            assert slot.tooltip and slot.tooltip.endswith("."), f"{name}.{slot.id}"


def test_scene_and_its_true_counterfactual(run, scene, pack):
    image, caption, concepts, graph = scene
    assert image.shape == (1, 64, 64, 3) and 0 <= image.min() and image.max() <= 1
    assert caption.startswith("in summer") and concepts.values() == graph.concepts.values()
    do = run("CausalDoIntervention", graph, "season = winter")[0]
    other, other_caption, *_ = run("CausalDemoScene", "cottage", 302, 64, do)
    world = pack("causal_core.worlds").get_world("cottage")
    truth = world.render(world.counterfactual(world.sample(302), {"season": "winter"}), 64)
    assert torch.equal((other[0] * 255).round().byte(), torch.from_numpy(truth))
    assert other_caption.startswith("in winter")
    same = run("CausalDemoScene", "cottage", 302, 64, run("CausalDoIntervention", graph, "")[0])[0]
    assert torch.equal(same, image)


def test_scene_rejects_what_its_world_does_not_know(pack, run, error):
    with pytest.raises(error, match="intervention: unknown concept 'dragon'.*Known concepts: season"):
        run("CausalDemoScene", "cottage", 1, 64, pack("causal_core.plan").Intervention({"dragon": "red"}))


def test_weights_can_be_picked_by_name(pack, run, weights, monkeypatch, tmp_path, error):
    import folder_paths

    demo = pack("nodes.demo")
    monkeypatch.setattr(demo, "BUNDLED", tmp_path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, demo.FOLDER, ([str(weights.parent)], set()))
    assert demo.presets() == ["micro", "test.safetensors"]
    assert len(run("CausalLoadDemoModel", "test.safetensors")) == 3
    with pytest.raises(error, match="preset: there is no file .*micro.safetensors"):
        run("CausalLoadDemoModel", "micro")
    (tmp_path / "micro.safetensors").write_bytes(weights.read_bytes()[:5000])
    assert demo.presets() == ["micro", "test.safetensors"]
    with pytest.raises(error, match="preset: .*micro.safetensors is damaged"):
        run("CausalLoadDemoModel", "micro")


def test_concepts_are_typed_or_connected(run, scene):
    keep = "keep given values"
    concepts, document, *_ = run("CausalConceptExtractor", keep, typed="season: summer, winter = summer\ncar = red")
    assert concepts.values() == {"season": "summer", "car": "red"}
    assert json.loads(document)["kind"] == "counterfact.concepts"
    assert run("CausalConceptExtractor", keep, concepts=scene[2])[0] == scene[2]
    assert run("CausalConceptExtractor", keep, concepts=scene[2], typed="a: b, c = b")[0].names == ("a",)


def test_model_reads_values(run, scene, comfy_model):
    parts = {"model": comfy_model.model, "clip": comfy_model.clip, "vae": comfy_model.vae, "image": scene[0]}
    typed = "house: red house, yellow house\npond = open\nangle: 0 .. 90 = 30"
    first = run("CausalConceptExtractor", "score with the model", **parts, typed=typed, levels=3, seed=1)[0]
    assert first["house"].value in first["house"].domain and 0.5 <= first["house"].confidence <= 1
    assert first.values() == {**first.values(), "pond": "open", "angle": "30.0"} and first["pond"].confidence is None
    assert run("CausalConceptExtractor", "score with the model", **parts, typed=typed, levels=3, seed=1)[0] == first


def test_model_is_only_asked_for_when_it_reads(nodes):
    needed = nodes["CausalConceptExtractor"].check_lazy_status
    assert needed(mode="keep given values", model=None, image=None, typed="") == []
    assert needed(mode="score with the model", model=None, image=None, typed="") == ["model", "image"]


@pytest.mark.parametrize("typed, message", [
    ("", "typed: the concept list is empty"),
    ("# nothing", "typed: the concept list is empty"),
    ("car: red\ncar: blue", "typed: .*listed twice"),
    ("car: red, blue = green", "typed: .*known values: red, blue"),
    ("angle: 0 .. 1e999", "typed: .*finite number"),
])  # fmt: skip
def test_bad_concepts(run, error, typed, message):
    with pytest.raises(error, match=f"(?i){message}"):
        run("CausalConceptExtractor", "keep given values", typed=typed)


def test_reading_needs_a_model_and_one_picture(run, scene, comfy_model, error):
    with pytest.raises(error, match="model, clip, vae: connect them"):
        run("CausalConceptExtractor", "score with the model", image=scene[0], concepts=scene[2])
    parts = {"model": comfy_model.model, "clip": comfy_model.clip, "vae": comfy_model.vae}
    with pytest.raises(error, match="image: .*batch of 2"):
        run(
            "CausalConceptExtractor",
            "score with the model",
            **parts,
            image=scene[0].repeat(2, 1, 1, 1),
            concepts=scene[2],
        )
    with pytest.raises(error, match="none has values to choose from"):
        run("CausalConceptExtractor", "score with the model", **parts, image=scene[0], typed="car")
    # What is given by hand is never asked of a model.
    assert run("CausalConceptExtractor", "score with the model", image=scene[0], typed="car = red")[0].values() == {
        "car": "red"
    }


def test_graph_is_typed_or_connected(run, scene):
    graph, document, set_by_hand = run("CausalGraphBuilder", edges="season -> foliage\ntime <-> weather")
    assert graph.children("season") == ("foliage",) and graph.confounded == (("time", "weather"),)
    assert not set_by_hand.do
    assert run("CausalGraphBuilder", edges=document)[0] == graph
    assert run("CausalGraphBuilder", graph=scene[3])[0] == scene[3]
    typed = run("CausalGraphBuilder", concepts=scene[2], graph=scene[3], edges="season -> car")[0]
    assert typed.children("season") == ("car",) and typed.scm is None and typed.concepts == scene[2]


def test_values_of_the_picture_replace_those_of_the_graph(run, scene):
    concepts, graph = scene[2].replace("car", confidence=0.7), scene[3]
    seen = run("CausalGraphBuilder", concepts=concepts, graph=graph)[0]
    assert seen.noise == graph.noise and seen.concepts["car"].confidence == 0.7
    other = run("CausalGraphBuilder", concepts=concepts.replace("house", value="white"), graph=graph)[0]
    assert other.concepts["house"].value == "white" and other.noise is None and other.scm == graph.scm
    assert run("CausalGraphBuilder", concepts=concepts, edges=graph.to_json())[0] == seen


@pytest.mark.parametrize("edges, message", [
    ("", "edges: type what causes what"),
    ("a -> b -> a", "edges: the graph has a cycle: a -> b -> a"),
    ("season foliage", "edges: cannot read the edge"),
    ('{"kind": "counterfact.graph", "schema_version": 99}', "edges: the schema_version 99 .*newer"),
    ('{"kind": "counterfact.graph", "schema_version": 0}', "edges: the schema_version 0 .*older"),
    ('{"kind": "counterfact.plan", "schema_version": 1}', "edges: expected .*counterfact.graph"),
    ('{"kind": ', "edges: .*is not JSON"),
])  # fmt: skip
def test_bad_graphs(run, error, edges, message):
    with pytest.raises(error, match=message):
        run("CausalGraphBuilder", edges=edges)


def test_edges_may_only_name_known_concepts(run, scene, error):
    with pytest.raises(error, match="edges: unknown concept 'dragon'.*Known concepts: season, time"):
        run("CausalGraphBuilder", concepts=scene[2], edges="season -> dragon")
    with pytest.raises(error, match="concepts: unknown concept 'season'"):
        run("CausalGraphBuilder", concepts=scene[2], edges='{"kind": "counterfact.graph", "schema_version": 1, '
            '"concepts": [{"name": "egg"}], "edges": []}')  # fmt: skip


def test_interventions_chain(run, scene):
    graph = scene[3]
    first = run("CausalDoIntervention", graph, "season = winter")[0]
    both = run("CausalDoIntervention", graph, "Time = Night\nhouse = blue", first)[0]
    assert both.do == {"season": "winter", "time": "night", "house": "blue"}


@pytest.mark.parametrize("do, message", [
    ("weather front = calm", "do: unknown concept 'weather front'.*Known concepts: season"),
    ("season = monsoon", "do: unknown value .*'monsoon'.*spring, summer, autumn, winter"),
    ("season winter", "do: cannot read the intervention"),
    ("season = winter, season = spring", "do: .*contradicts"),
])  # fmt: skip
def test_bad_interventions(run, scene, error, do, message):
    with pytest.raises(error, match=message):
        run("CausalDoIntervention", scene[3], do)


def test_interventions_must_not_contradict(run, scene, error):
    first = run("CausalDoIntervention", scene[3], "season = winter")[0]
    with pytest.raises(error, match="previous: .*season = spring.* contradicts .*season = winter"):
        run("CausalDoIntervention", scene[3], "season = spring", first)
    other = run("CausalGraphBuilder", edges="egg -> hen")[0]
    with pytest.raises(error, match="previous: unknown concept 'season'"):
        run("CausalDoIntervention", other, "egg = fresh", first)


def test_consequences_follow(nodes, run, scene):
    do = run("CausalDoIntervention", scene[3], "season = winter")[0]
    output = nodes["CausalPropagate"].execute(scene[3], do)
    plan, before, after, document = output.args
    assert before.startswith("in summer") and after.startswith("in winter")
    assert output.ui["counterfact_plan"] == [document] and json.loads(document)["do"] == {"season": "winter"}
    assert "do(season = winter)" in output.ui["text"][0] and "stays:" in output.ui["text"][0]
    fixed = run("CausalPropagate", scene[3], do, "foliage = golden")[0]
    assert {item.name: item.counterfactual for item in fixed.items}["foliage"] == "golden"


@pytest.mark.parametrize("consequences, message", [
    ("car = none", "'car' does not follow from do.* not as a consequence"),
    ("foliage = purple", "consequences: unknown value"),
    ("season = spring", "both set by the intervention and fixed as a consequence"),
])  # fmt: skip
def test_bad_consequences(run, scene, error, consequences, message):
    do = run("CausalDoIntervention", scene[3], "season = winter")[0]
    with pytest.raises(error, match=message):
        run("CausalPropagate", scene[3], do, consequences)


def test_impossible_values_are_named(run, scene, error):
    concepts = scene[2].replace("foliage", value="bare")
    graph = run("CausalGraphBuilder", concepts=concepts, graph=scene[3])[0]
    do = run("CausalDoIntervention", graph, "season = winter")[0]
    with pytest.raises(error, match="graph: .*probability 0"):
        run("CausalPropagate", graph, do)


def test_decay_must_be_finite(run, scene, error):
    do = run("CausalDoIntervention", scene[3], "season = winter")[0]
    with pytest.raises(error, match="decay must be a finite number"):
        run("CausalPropagate", scene[3], do, "", float("nan"))


def test_plan_of_another_graph_is_refused(run, scene, error):
    do = run("CausalDoIntervention", scene[3], "season = winter")[0]
    plan = run("CausalPropagate", scene[3], do)[0]
    with pytest.raises(error, match="plan: .*other concepts"):
        run("CausalPreviewGraph", run("CausalGraphBuilder", edges="egg -> hen")[0], plan)


def test_log_stays_plain_for_mistakes_only(pack, error, caplog):
    mistakes = pack("nodes.mistakes")
    mistakes.keep_log_plain()
    try:
        for problem in (error("typed: mistaken"), RuntimeError("broken")):
            try:
                raise problem
            except ValueError:
                logging.exception("a message with a traceback of its own")
                logging.error("Traceback (most recent call last):\n ...")
            except RuntimeError:
                logging.error("Traceback (most recent call last):\n of something broken")
    finally:
        logging.getLogger().removeFilter(mistakes._tells_something)
    assert [record.message.split("\n")[-1] for record in caplog.records] == [
        "a message with a traceback of its own", " of something broken"
    ]  # fmt: skip
