"""Counterfactuals of flow models: the demo network under a flow's noise levels, through every sampling node."""

from __future__ import annotations

import json

import pytest
import torch

STEPS = 6


@pytest.fixture(scope="module")
def flow(comfy_model):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    with torch.inference_mode():
        return ModelSamplingSD3().patch(comfy_model.model, 3.0)[0]


@pytest.fixture(scope="module")
def scene(pack, comfy_model):
    """The latent of a scene, its graph, and a function from an intervention to its plan."""
    world, plans = pack("causal_core.worlds").get_world("cottage"), pack("causal_core.plan")
    drawn = world.sample(302)
    with torch.inference_mode():
        latent = {"samples": comfy_model.vae.encode(torch.from_numpy(world.render(drawn, 64))[None].float() / 255)}
    graph = world.scene_graph(drawn)
    return latent, graph, lambda **do: plans.propagate(graph, plans.Intervention(do))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_null_returns_the_source_and_an_edit_changes_it_inside_its_regions(pack, comfy_model, flow, scene, eta):
    latent, _, plan = scene
    node = pack("nodes.csg").CSGSampler
    null = node.execute(flow, comfy_model.clip, latent, plan(), 3, STEPS, 1.0, eta=eta).args[0]["samples"]
    assert (null - latent["samples"]).abs().max() < 1e-4
    found, _, report, _ = node.execute(
        flow, comfy_model.clip, latent, plan(season="winter"), 3, STEPS, 1.0, eta=eta
    ).args
    assert (found["samples"] - latent["samples"]).abs().max() > 1e-3
    assert json.loads(report)["max_latent_error_outside"] < 1e-4


@pytest.mark.parametrize("method", ["edit-friendly", "ddim"])
def test_inverted_once_it_samples_the_same(pack, comfy_model, flow, scene, method):
    latent, graph, plan = scene
    eta = 0.0 if method == "ddim" else 1.0
    trajectory = (
        pack("nodes.abduct")
        .CSGInvert.execute(flow, comfy_model.clip, latent, graph, 3, STEPS, method=method, eta=eta)
        .args[0]
    )
    assert trajectory[0].flow and trajectory[0].sigmas[0] <= 1.0
    node = pack("nodes.csg").CSGSampler
    inputs = (flow, comfy_model.clip, latent)
    null = node.execute(*inputs, plan(), 3, STEPS, 1.0, eta=eta, trajectory=trajectory).args[0]["samples"]
    assert (null - latent["samples"]).abs().max() < 1e-4
    again = node.execute(*inputs, plan(season="winter"), 3, STEPS, 1.0, eta=eta, trajectory=trajectory).args[0]
    anew = node.execute(*inputs, plan(season="winter"), 3, STEPS, 1.0, eta=eta).args[0]
    assert torch.equal(again["samples"], anew["samples"]) == (method == "edit-friendly")


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
def test_comfyui_samplers_return_the_source_of_a_null_plan(pack, comfy_model, flow, scene, sampler):
    import comfy.sample

    latent, _, plan = scene
    source = latent["samples"]
    noise = comfy.sample.prepare_noise(source, 5)

    def drawn(intended):
        patched = pack("nodes.steer").ApplyCSG.execute(flow, comfy_model.clip, intended, 1.0).args[0]
        text = comfy_model.clip.encode_from_tokens_scheduled(comfy_model.clip.tokenize(intended.caption_factual))
        return comfy.sample.sample(
            patched, noise, STEPS, 1.0, sampler, "simple", text, text, source, denoise=0.9, disable_pbar=True, seed=5
        )

    assert (drawn(plan()) - source).abs().max() < 1e-4
    assert (drawn(plan(season="winter")) - source).abs().max() > 1e-3
