"""The baselines in whole runs: exact where they promise it, confined where they have masks, counted one by one."""

from dataclasses import replace

import pytest
import torch

from causal_core.bench.baselines import BASELINES, edited
from causal_core.bench.baselines.caption_swap import edit_friendly
from causal_core.bench.baselines.inpaint import inpaint_true_mask
from causal_core.bench.baselines.prompt_to_prompt import p2p
from causal_core.bench.baselines.semantic import leditspp, sega
from causal_core.demo.schedule import denoised

from ..helpers.winter import NOTHING, NULL, STEPS, setting


@pytest.fixture(scope="module")
def settings(model):
    """The same twice, which share nothing; what inverts the picture is computed once for all methods."""
    return setting(model), setting(model)


@pytest.mark.parametrize("name", list(BASELINES))
def test_methods_are_deterministic_and_finite(settings, name):
    first, second = (edited(BASELINES[name], one).latent for one in settings)
    assert torch.equal(first, second) and torch.isfinite(first).all() and first.shape == (1, 8, 8, 8)


def test_evaluations_are_counted_as_if_each_method_did_its_own_inversion(model):
    seen = []

    def rows(texts):
        denoise = setting(model).denoiser(texts)

        def counted(x, sigma, chosen, maps=None):
            seen.append(len(chosen))
            return denoise(x, sigma, chosen, maps)

        return counted

    shared = setting(model, rows=rows)
    # Two changed concepts: four edits, each with a row, beside the base and, for sega, the empty caption.
    expected = {"img2img": (2, 6), "ddim": (2, 15), "p2p": (3, 20), "sega": (6, 35), "leditspp": (5, 30)}
    expected |= {"edit_friendly": (2, 15), "inpaint_true_mask": (1, 5)}
    for name, method in BASELINES.items():
        outcome = edited(method, shared)
        assert (outcome.rows_per_step, outcome.evaluations) == expected[name], name
    # The factual and the empty inversion once each; p2p reads attention from the model itself.
    shares = {"img2img": 6, "ddim": 15, "sega": 30, "leditspp": 25, "edit_friendly": 10, "inpaint_true_mask": 5}
    assert sum(seen) == 2 * STEPS + sum(shares.values())


@pytest.fixture(scope="module")
def changed(model):
    """A changed season; what inverts the picture is computed once for all who take this setting."""
    return setting(model)


@pytest.fixture(scope="module")
def null(model):
    """Nothing is changed."""
    return setting(model, NULL, NOTHING)


def far(found, x0):
    return (found - x0).abs().max()


@pytest.mark.parametrize("name", ["p2p", "sega", "leditspp", "inpaint_true_mask"])
def test_a_plan_without_changes_returns_the_source(changed, null, name):
    assert far(edited(BASELINES[name], null).latent, null.x0) < 1e-5
    assert far(edited(BASELINES[name], changed).latent, changed.x0) > 1e-3


def test_edit_friendly_is_exact_at_the_guidance_of_its_inversion(null):
    assert far(edit_friendly(null, scale=1.0), null.x0) < 1e-5 < 1e-3 < far(edit_friendly(null), null.x0)


@pytest.mark.parametrize("method", [sega, leditspp])
def test_semantic_guidance_of_scale_0_returns_the_source(changed, method):
    assert far(method(changed, scale=0.0), changed.x0) < 1e-5 < 1e-3 < far(method(changed, scale=3.0), changed.x0)


def test_p2p_with_the_same_caption_returns_the_source_without_any_blend(null):
    assert far(p2p(null, scale=1.0, blend_from=1.0), null.x0) < 1e-5
    assert far(p2p(null, scale=3.0, blend_from=1.0), null.x0) > 1e-3


def test_p2p_takes_its_attention_from_the_inverted_source(changed, monkeypatch):
    seen = []

    def recording(unet, x, sigma, context):
        seen.append(x)
        return denoised(unet, x, sigma, context)

    monkeypatch.setattr("causal_core.bench.baselines.prompt_to_prompt.denoised", recording)
    p2p(changed)
    latents = changed.trajectory(changed.factual).latents
    assert len(seen) == STEPS and all(torch.equal(x[0], latents[i][0]) for i, x in enumerate(seen))
    assert far(seen[-1][1], seen[-1][0]) > 1e-3 and torch.equal(seen[-1][1], seen[-1][2])


def test_p2p_replaces_attention_for_its_share_of_the_steps(changed):
    free = dict(scale=1.0, cross_replace=0.0, self_replace=0.0, blend_from=1.0)
    without = edit_friendly(changed, scale=1.0)
    assert torch.allclose(p2p(changed, **free), without, atol=1e-5)
    for one in ("cross_replace", "self_replace"):
        assert far(p2p(changed, **{**free, one: 0.4}), without) > 1e-4


def test_outside_its_blend_p2p_keeps_the_source_exactly(changed, monkeypatch):
    half = torch.zeros(8, 8).index_fill(0, torch.tensor([0, 1]), 1.0)
    monkeypatch.setattr("causal_core.bench.baselines.prompt_to_prompt.blend_mask", lambda maps, threshold: half)
    found, x0 = p2p(changed), changed.x0
    assert torch.equal(found[..., 2:, :], x0[..., 2:, :]) and far(found[..., :2, :], x0[..., :2, :]) > 1e-3


def test_inpainting_keeps_the_outside_exactly(model):
    s = setting(model)
    found = inpaint_true_mask(s)
    assert torch.equal(found[..., 3:], s.x0[..., 3:]) and far(found[..., :3], s.x0[..., :3]) > 0.1


def test_inpainting_keeps_nothing_of_the_picture_inside_its_mask(model):
    s = setting(model, changed=torch.ones(8, 8))
    assert torch.equal(inpaint_true_mask(s), inpaint_true_mask(replace(s, x0=-s.x0)))
