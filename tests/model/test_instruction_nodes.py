"""Causal Instruction and Paste Back Unchanged inside ComfyUI."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture(scope="module")
def nodes(pack):
    """Node classes by id."""
    return {node.GET_SCHEMA().node_id: node for node in pack("nodes.instruction").NODES}


@pytest.fixture
def error(pack):
    return pack("causal_core.errors").CounterfactError


@pytest.fixture(scope="module")
def scene(pack):
    """Pictures of summer and winter, the plan between them and the regions of all affected concepts."""
    world, plans = pack("causal_core.worlds").get_world("cottage"), pack("causal_core.plan")
    before = world.sample(302)
    after = world.counterfactual(before, {"season": "winter"})
    graph = world.scene_graph(before)
    plan = plans.propagate(graph, plans.Intervention({"season": "winter"}))
    source, edited = (torch.from_numpy(world.render(one, 64)).float()[None] / 255 for one in (before, after))
    changed = (source != edited).any(-1).float()
    regions = torch.zeros(len(plan.affected), 64, 64)
    regions[0], regions[1:, 40:] = changed[0], 1.0
    return SimpleNamespace(
        source=source, edited=edited, plan=plan, regions=regions, changed=changed,
        null=plans.propagate(graph, plans.Intervention({})),
    )  # fmt: skip


@pytest.fixture
def instruct(nodes):
    return lambda *args, **inputs: nodes["CausalInstruction"].execute(*args, **inputs)


@pytest.fixture
def paste(nodes):
    """Run the node; returns picture and mask."""
    return lambda *args, **inputs: nodes["CausalPasteBack"].execute(*args, **inputs).args


def test_every_input_explains_itself(nodes):
    assert set(nodes) == {"CausalInstruction", "CausalPasteBack"}
    for node in nodes.values():
        schema = node.GET_SCHEMA()
        assert schema.category == "causal/output" and schema.description.endswith(".")
        assert "counterfactual" in schema.search_aliases
        assert all(slot.tooltip.endswith(".") for slot in (*schema.inputs, *schema.outputs))


def test_help_pages_name_every_input(nodes, pack_root):
    for name, node in nodes.items():
        page = (pack_root / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        schema = node.GET_SCHEMA()
        assert page.startswith(f"# {schema.display_name}\n")
        for slot in (*schema.inputs, *schema.outputs):
            assert f"| {slot.id if slot.id and not slot.id.startswith('_') else slot.io_type} |" in page, slot.id


def test_instruction(instruct, scene):
    output = instruct(scene.plan)
    said, kept, mask = output.args
    assert said.startswith("Change the season from summer to winter. Because of that,") and said.endswith(kept)
    assert output.ui == {"text": [said]}
    assert torch.equal(mask, torch.ones(1, 64, 64))
    short = instruct(scene.plan, "short", 12).args[0]
    assert short.startswith("Change the season to winter") and len(short.split()) <= 12


def test_regions_become_one_mask_a_picture(instruct, scene):
    assert torch.equal(instruct(scene.plan, regions=scene.regions).args[2], scene.regions.amax(0, keepdim=True))
    two = torch.cat([scene.regions, torch.zeros_like(scene.regions)])
    mask = instruct(scene.plan, regions=two).args[2]
    assert mask.shape == (2, 64, 64) and mask[0].any() and not mask[1].any()
    own = torch.rand(20, 30)
    assert torch.equal(instruct(scene.plan, regions=own).args[2], own[None])


def test_null_plan(instruct, scene):
    said, kept, mask = instruct(scene.null, regions=scene.regions).args
    assert said == kept and said.startswith("Change nothing") and mask.shape == (1, 64, 64) and not mask.any()
    assert not instruct(scene.null).args[2].any()


def test_regions_of_another_plan(instruct, scene, error):
    with pytest.raises(error, match="regions: 5 masks do not fit 6 affected concepts"):
        instruct(scene.plan, regions=scene.regions[:5])


def test_source_outside_edit_inside(paste, scene):
    drifted = 0.9 * scene.edited + 0.05
    picture, mask = paste(scene.source, drifted, scene.changed, 0, 4)
    zero, one = mask[0] == 0, mask[0] == 1
    assert zero.any() and torch.equal(one | (scene.changed[0] == 1), one)
    assert torch.equal(picture[:, zero], scene.source[:, zero]) and torch.equal(picture[:, one], drifted[:, one])


@pytest.mark.parametrize("fit", ["auto", "stretch"])
def test_edits_of_another_size(paste, scene, fit):
    planes = scene.edited.movedim(-1, 1)
    edited = torch.nn.functional.interpolate(planes, size=(96, 112), mode="bicubic").movedim(1, -1).clamp(0, 1)
    picture, mask = paste(scene.source, edited, scene.changed, 1, 2, fit)
    assert picture.shape == scene.source.shape
    assert torch.equal(picture[:, mask[0] == 0], scene.source[:, mask[0] == 0])
    assert (picture - scene.edited).abs().mean() < 0.02 < (scene.source - scene.edited).abs().mean()


def test_what_the_editor_cut_off_stays(paste, scene):
    edited = 1 - scene.source[:, 16:48]
    picture, mask = paste(scene.source, edited, torch.ones(1, 64, 64), 0, 0, "centred crop")
    assert torch.equal(picture[:, :16], scene.source[:, :16]) and torch.equal(picture[:, 48:], scene.source[:, 48:])
    assert torch.equal(picture[:, 16:48], edited) and mask.sum() == 32 * 64


def test_masks_of_concepts_are_joined(paste, scene):
    black = torch.zeros_like(scene.source)
    picture, mask = paste(scene.source, black, scene.regions, 0, 0)
    assert torch.equal(mask, scene.regions.amax(0, keepdim=True)) and not picture[:, mask[0] == 1].any()


def test_batches(paste, scene):
    both = torch.cat([scene.source, scene.edited])
    assert paste(scene.source, both, scene.changed, 0, 0)[0].shape[0] == 2
    masks = torch.cat([scene.changed, torch.zeros_like(scene.changed)])
    assert torch.equal(paste(both, 1 - both, masks, 0, 0)[0][1], both[1])
    assert torch.equal(paste(both, 1 - both, masks[1:], 3, 3)[0], both)


@pytest.mark.parametrize("change, message", [
    ({"edited": torch.zeros(3, 64, 64, 3), "source": torch.zeros(2, 64, 64, 3)}, "source: it has 2 items for 3"),
    ({"mask": torch.zeros(3, 64, 64), "source": torch.zeros(2, 64, 64, 3)}, "mask: 3 masks do not fit 2 sources"),
    ({"mask": torch.full((1, 64, 64), torch.nan)}, "mask: .* not from 0 to 1"),
])  # fmt: skip
def test_bad_input_is_named(paste, scene, error, change, message):
    given = {"source": scene.source, "edited": scene.edited, "mask": scene.changed, "grow": 0, "feather": 0, **change}
    with pytest.raises(error, match=message):
        paste(**given)


def test_sources_are_left_alone(paste, scene):
    given = [scene.source.clone(), scene.edited.clone(), scene.changed.clone()]
    paste(scene.source, scene.edited, scene.changed, 2, 4)
    assert all(map(torch.equal, given, (scene.source, scene.edited, scene.changed)))
