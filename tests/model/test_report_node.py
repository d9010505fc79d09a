"""Counterfactual Report: what it says about edits that are known to be right or wrong."""

from __future__ import annotations

import json

import pytest
import torch

STEPS = 6
pytestmark = pytest.mark.usefixtures("previews")


@pytest.fixture(scope="module")
def edit(pack, scene):
    """A true counterfactual: source, edited picture, and one mask a concept over what changed."""
    before = scene.world.sample(302)
    after = scene.world.counterfactual(before, {"season": "winter"})
    with torch.inference_mode():
        source, edited = (torch.from_numpy(scene.world.render(one, 64)).float()[None] / 255 for one in (before, after))
        mask = (source != edited).any(-1).float().expand(len(scene.plan.affected), -1, -1)
    return source, edited, mask


@pytest.fixture
def concepts(pack, scene):
    """The values of the true counterfactual."""
    graph = scene.world.scene_graph(scene.world.counterfactual(scene.world.sample(302), {"season": "winter"}))
    return graph.concepts


@pytest.fixture
def report(pack, scene, edit):
    """Run the node; returns picture, report and table."""

    def run(plan=None, source=None, edited=None, masks=None, **options):
        given = [mine if mine is not None else known for mine, known in zip((source, edited, masks), edit)]
        node = pack("nodes.report").CounterfactualReport
        output = node.execute(plan or scene.plan, *given, **options)
        picture, document, table = output.args
        assert output.ui["counterfact_report"] == [document] and output.ui["text"] == [table]
        return picture, json.loads(document), table

    return run


def test_a_true_counterfactual_is_right_in_everything(scene, report, concepts):
    picture, found, table = report(concepts=concepts)
    assert picture.shape[0] == 1 and picture.shape[2:] == (1024, 3) and 0 <= picture.min() and picture.max() <= 1
    assert found["kind"] == "counterfact.report" and found["schema_version"] == 1
    assert found["effectiveness"] == {"intervened": 1.0, "descendants": 1.0}
    assert found["invariant_drift"] == 0.0 and found["drifted"] == []
    assert found["outside"]["psnr"] == 99 and found["outside"]["mean_change"] == 0
    assert 0 < found["outside"]["share"] < 1
    assert set(found["areas"]) == {item.name for item in scene.plan.affected}
    assert "| season | intervened | summer | winter |" in table and "winter (right)" in table
    assert "- effectiveness: 100 % of what was set, 100 % of what follows" in table


def test_the_source_is_wrong_in_what_should_have_changed(scene, report, edit):
    found = report(edited=edit[0], concepts=scene.graph.concepts)[1]
    assert found["effectiveness"] == {"intervened": 0.0, "descendants": 0.0} and found["invariant_drift"] == 0.0


def test_drift_is_named(report, concepts):
    _, found, table = report(concepts=concepts.replace("car", value="none").replace("house", value="blue"))
    assert sorted(found["drifted"]) == ["car", "house"] and 0 < found["invariant_drift"] < 1
    assert "blue (wrong)" in table and "show another value" in table


def test_without_values_there_is_no_effectiveness(report):
    picture, found, table = report()
    assert not {"effectiveness", "invariant_drift", "read"} & set(found) and "right" not in table
    assert "PSNR 99.0 dB" in table


def test_change_outside_of_the_regions_shows(report, edit):
    edited = edit[1].clone()
    edited[:, :4] += 0.1
    found = report(edited=edited.clamp(0, 1))[1]
    assert found["outside"]["psnr"] < 40 and found["outside"]["mean_change"] > 0.001
    mask = torch.zeros(1, 64, 64)
    mask[:, :2] = 1
    change = edit[0].clone()
    change[:, :4] += 0.1
    rim = [report(edited=change.clamp(0, 1), masks=mask, margin=margin)[1]["outside"]["psnr"] for margin in (0, 1, 2)]
    assert rim[0] < rim[1] < rim[2] == 99


def test_what_the_sampler_says_is_taken_over(pack, comfy_model, scene, report):
    sampled = pack("nodes.csg").CSGSampler.execute(
        comfy_model.model, comfy_model.clip, scene.latent, scene.plan, 3, STEPS, 1.0, vae=comfy_model.vae,
        image=scene.images[:1], measure=True,
    ).args  # fmt: skip
    _, found, table = report(source=scene.images[:1], edited=sampled[3], masks=sampled[1], report=sampled[2])
    own = json.loads(sampled[2])
    assert {name: found[name] for name in own} == own
    assert found["areas"] == pytest.approx({item["name"]: item["area"] for item in own["affected"]}, abs=0.02)
    # The sampler's own border is as wide as the margin at most.
    assert found["outside"]["share"] == 0 or found["outside"]["psnr"] == 99
    assert "- composition: " in table and "- reversibility: " in table and "evaluations a step" in table


def test_report_of_another_edit_is_refused(report, scene, error):
    document = '{"kind": "counterfact.report", "schema_version": 1, "do": {"season": "spring"}}'
    with pytest.raises(
        error, match=r"report: it is about do\(season = spring\), but the plan is about do\(season = win"
    ):
        report(report=document)
    with pytest.raises(error, match="report: .*counterfact.report"):
        report(report='{"kind": "counterfact.plan", "schema_version": 1}')
    with pytest.raises(error, match="report: .*is not JSON"):
        report(report="nonsense")
    with pytest.raises(error, match="report: it is about nothing known"):
        report(report='{"kind": "counterfact.report", "schema_version": 1}')


def test_one_picture_of_a_batch(scene, report, edit):
    source, edited, masks = edit
    both = torch.cat([edited, source])
    first = report(edited=both)[1]
    second = report(edited=both, masks=torch.cat([masks, 1 - masks]), picture=1)[1]
    assert first["outside"] == report()[1]["outside"]
    assert second["areas"]["season"] == pytest.approx(1 - first["areas"]["season"])


def test_a_rim_that_the_vae_cut_off_does_not_count(report, edit):
    wide = torch.nn.functional.pad(edit[0].movedim(-1, 1), (3, 3, 1, 1), mode="reflect").movedim(1, -1)
    assert report(source=wide)[1]["outside"] == report()[1]["outside"]


def test_nothing_affected(scene, report, edit):
    picture, found, table = report(plan=scene.null, edited=edit[0], masks=torch.zeros(1, 64, 64))
    assert found["areas"] == {} and found["outside"]["share"] == 1 and found["outside"]["psnr"] == 99


def test_nothing_outside(report):
    found = report(masks=torch.ones(1, 64, 64))[1]
    assert found["outside"] == {"share": 0.0, "psnr": None, "mean_change": None, "margin": 4}


def test_what_does_not_fit_is_refused(pack, report, edit, error):
    with pytest.raises(error, match="edited: it is 32 x 64 pixels, but the source is 64 x 64"):
        report(edited=edit[1][:, :, :32])
    with pytest.raises(error, match="edited: it is 64 x 128 pixels, but the source"):
        report(edited=edit[1].repeat(1, 2, 1, 1))
    with pytest.raises(error, match="masks: there are 2 masks for 6 affected concepts"):
        report(masks=torch.ones(2, 64, 64))
    with pytest.raises(error, match="picture: there is no number 2 in edited, which has 2"):
        report(edited=edit[1].repeat(2, 1, 1, 1), picture=2)
    with pytest.raises(error, match="concepts: they have no value for any concept of the plan"):
        report(concepts=pack("causal_core.concepts").parse_concepts("egg: raw, boiled = raw"))
