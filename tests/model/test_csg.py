"""The CSG sampler inside ComfyUI: what it must leave alone, and what it must do."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

STEPS = 6


@pytest.fixture(scope="module")
def scene(pack, comfy_model):
    """A scene, its latent and a plan for do(season = winter)."""
    import numpy as np

    world, plans = pack("causal_core.worlds").get_world("cottage"), pack("causal_core.plan")
    with torch.inference_mode():
        drawn = [world.sample(seed) for seed in (302, 71)]
        images = torch.from_numpy(np.stack([world.render(one, 64) for one in drawn])).float() / 255
        latents = comfy_model.vae.encode(images)
    graph = world.scene_graph(drawn[0])
    return SimpleNamespace(
        latent={"samples": latents[:1]}, batch={"samples": latents}, graph=graph, world=world,
        plan=plans.propagate(graph, plans.Intervention({"season": "winter"})),
        null=plans.propagate(graph, plans.Intervention({})),
    )  # fmt: skip


@pytest.fixture
def sample(pack, comfy_model, scene):
    """Run the node; returns latent, masks and report."""

    def run(model=None, clip=None, latent=None, plan=None, seed=3, steps=STEPS, strength=1.0, **options):
        node = pack("nodes.csg").CSGSampler
        output = node.execute(
            model or comfy_model.model, clip or comfy_model.clip, latent or scene.latent, plan or scene.plan, seed,
            steps, strength, **options,
        )  # fmt: skip
        latent, masks, report = output.args
        assert output.ui == {"counterfact_report": [report]}
        return latent["samples"], masks, json.loads(report)

    return run


@pytest.fixture
def error(pack):
    return pack("causal_core.errors").CounterfactError


def untouched(pack, comfy_model, scene, seed):
    """The same sampler through ComfyUI's own guider and sampler objects, without anything of ours in the model."""
    import comfy.samplers

    csg = pack("causal_core.guidance.csg")
    text = comfy_model.clip.encode_from_tokens_scheduled(comfy_model.clip.tokenize(scene.plan.caption_factual))
    sigmas = pack("nodes.denoise").noise_levels(comfy_model.model, STEPS, pack("nodes.csg").SKIP)

    def loop(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def denoise(x, sigma, rows, maps=None):
            assert list(rows) == [0] and maps is None
            return model(x, x.new_full((len(x),), sigma), **extra_args)[None]

        settings = csg.Settings(strength=0.0)
        return csg.counterfactual(
            denoise, scene.latent["samples"], sigmas.tolist(), scene.plan, {}, seed, settings
        ).latent

    guider = comfy.samplers.CFGGuider(comfy_model.model)
    guider.set_conds(text, text)
    latent = scene.latent["samples"]
    return guider.sample(torch.zeros_like(latent), latent, comfy.samplers.KSAMPLER(loop), sigmas, seed=seed)


def test_strength_0_is_the_untouched_sampler_bit_for_bit(pack, comfy_model, scene, sample):
    found, masks, report = sample(strength=0.0)
    assert torch.equal(found, untouched(pack, comfy_model, scene, seed=3))
    assert report["evaluations_per_step"] == 2
    assert masks.shape == (len(scene.plan.affected), 64, 64) and not masks.any()


def test_null_plan_returns_the_source(scene, sample):
    found, masks, report = sample(plan=scene.null, steps=20)
    assert (found - scene.latent["samples"]).abs().max() < 1e-3
    assert report["max_latent_error_outside"] < 1e-3
    assert report["affected"] == [] and masks.shape == (1, 64, 64)


def test_same_seed_same_bytes_and_nothing_left_behind(comfy_model, scene, sample):
    before = comfy_model.model.model_options["transformer_options"].copy()
    source = scene.latent["samples"].clone()
    first, second, other = sample()[0], sample()[0], sample(seed=4)[0]
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert comfy_model.model.model_options["transformer_options"] == before
    assert torch.equal(scene.latent["samples"], source)


def test_equals_the_diffusers_path(pack, comfy_model, reference, scene, sample):
    captions, csg = pack("causal_core.guidance.captions"), pack("causal_core.guidance.csg")
    rows = pack("causal_core.guidance.rows").DiffusersRows(reference, captions.captions(scene.plan))
    watched = captions.watched_spans(reference.tokenizer.encode, scene.plan)
    sigmas = pack("nodes.denoise").noise_levels(comfy_model.model, STEPS, pack("nodes.csg").SKIP).tolist()
    expected = csg.counterfactual(
        rows, scene.latent["samples"], sigmas, scene.plan, watched, 3, csg.Settings(strength=1.0)
    )
    found, masks, report = sample()
    assert torch.allclose(found, expected.latent, atol=1e-3)
    for mask, item, region in zip(masks, report["affected"], expected.regions.values()):
        assert item["area"] == pytest.approx(float(region.mean()), abs=1e-3)
        assert mask.shape == (64, 64) and 0 <= mask.min() and mask.max() <= 1


def test_report_names_everything(scene, sample):
    report = sample(strength=0.5, skip=0.5, threshold=0.4)[2]
    assert report["do"] == {"season": "winter"}
    assert [item["name"] for item in report["affected"]] == [item.name for item in scene.plan.affected]
    assert report["affected"][0] == {
        **report["affected"][0],
        "factual": "summer",
        "counterfactual": "winter",
        "strength": 0.5,
    }
    assert set(report["invariant"]) == {item.name for item in scene.plan.invariant}
    assert report["seed"] == 3 and report["settings"]["skip"] == 0.5 and report["settings"]["threshold"] == 0.4
    assert report["seconds"] > 0


def test_skip_leaves_out_the_noisy_end(pack, comfy_model):
    levels = pack("nodes.denoise").noise_levels
    whole, part = levels(comfy_model.model, 10, 0.0), levels(comfy_model.model, 10, 0.5)
    assert len(whole) == len(part) == 11 and part[-1] == 0
    assert part[0] < 3 < whole[0]


def test_patches_of_other_nodes_stay_in_force(comfy_model, sample):
    from comfy.ldm.modules.attention import optimized_attention

    seen = []

    def other(q, k, v, options):
        seen.append(len(options["cond_or_uncond"]))
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    plain, _, report = sample()
    model = comfy_model.model.clone()
    model.set_model_attn2_replace(other, "middle", 0)
    model.set_model_attn2_replace(lambda q, k, v, options: other(q, k, v, options), "input", 1, 0)
    assert torch.equal(sample(model)[0], plain)
    assert sum(seen) == 2 * report["evaluations_per_step"] * STEPS
    zeros = comfy_model.model.clone()
    zeros.set_model_attn2_replace(lambda q, k, v, options: torch.zeros_like(q), "middle", 0)
    assert not torch.equal(sample(zeros)[0], plain)


def test_pictures_of_a_batch_do_not_mix(scene, sample):
    both, masks, report = sample(latent=scene.batch)
    first, second = ({"samples": one} for one in scene.batch["samples"].split(1))
    assert torch.equal(both[:1], sample(latent=first)[0])
    assert torch.equal(both[1:], sample(latent=second, seed=4)[0])
    assert report["images"] == 2 and len(masks) == 2 * len(scene.plan.affected)


def test_noise_mask_bounds_the_change(scene, sample):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    found, masks, _ = sample(latent={**scene.latent, "noise_mask": mask})
    change = (found - scene.latent["samples"]).abs().amax((0, 1))
    assert change[:, :7].max() < 1e-3 < change[:, 9:].max()
    assert not masks[..., :24].any()


def test_progress_counts_all_steps_with_previews(monkeypatch, scene, sample):
    import latent_preview

    seen = []
    monkeypatch.setattr(latent_preview, "prepare_callback", lambda model, steps: lambda *args: seen.append(args))
    sample()
    probes = len(seen) - 2 * STEPS
    assert 1 <= probes <= STEPS
    assert [step for step, *_ in seen] == sorted(step for step, *_ in seen)
    assert all(total > step and x0.shape == scene.latent["samples"].shape for step, x0, _, total in seen)


def test_interrupted_run_leaves_comfyui_usable(monkeypatch, sample):
    import comfy.model_management as memory
    import latent_preview

    expected = sample()[0]
    with monkeypatch.context() as patched:
        stop = lambda step, *_: memory.interrupt_current_processing(step == STEPS)  # noqa: E731
        patched.setattr(latent_preview, "prepare_callback", lambda model, steps: stop)
        with pytest.raises(memory.InterruptProcessingException):
            sample()
    assert torch.equal(sample()[0], expected)


def test_captions_longer_than_the_text_encoder_do_without_attention(pack, scene, sample, caplog):
    concepts, plans = pack("causal_core.concepts"), pack("causal_core.plan")
    rest = concepts.Concept("rest", ("much",), "much", {"much": ("red house " * 19,)})
    graph = pack("causal_core.graph").CausalGraph(concepts.Concepts((rest, *scene.graph.concepts)))
    found, masks, _ = sample(plan=plans.propagate(graph, plans.Intervention({"season": "winter"})))
    assert found.isfinite().all() and len(masks) == 1
    assert "Regions are found without attention" in caplog.text


def test_wrong_family_is_refused(pack, comfy_model, sample, error):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    flow = ModelSamplingSD3().patch(comfy_model.model, 3.0)[0]
    with pytest.raises(error, match="model: DemoBase .* Stable Diffusion 1.x, 2.x or SDXL"):
        sample(flow)
    without = SimpleNamespace(model=SimpleNamespace(diffusion_model=torch.nn.Linear(2, 2), model_config=object()))
    with pytest.raises(error, match="model: object"):
        pack("nodes.denoise").attention_sites(without)


def test_text_of_another_checkpoint_is_refused(comfy_model, sample, error):
    class Other:
        tokenize = comfy_model.clip.tokenize

        def encode_from_tokens_scheduled(self, tokens):
            return [[torch.zeros(1, 77, 768), {}]]

    with pytest.raises(error, match="clip: it makes 768 numbers a token, but the model reads 64"):
        sample(clip=Other())


def test_latent_of_another_checkpoint_is_refused(sample, error):
    with pytest.raises(error, match="latent: .* 24 channels"):
        sample(latent={"samples": torch.zeros(1, 4, 16, 16)})
    with pytest.raises(error, match="latent: .* not finite"):
        sample(latent={"samples": torch.full((1, 24, 16, 16), torch.nan)})


@pytest.mark.parametrize("shape", [(1, 1, 64, 48), (1, 1, 512, 512), (3, 1, 64, 64)])
def test_mask_of_another_size_is_refused(scene, sample, error, shape):
    with pytest.raises(error, match="latent: .*mask"):
        sample(latent={**scene.latent, "noise_mask": torch.ones(shape)})


@pytest.mark.parametrize("name", ["strength", "threshold", "attention_weight", "feather", "eta", "skip"])
def test_numbers_must_be_finite(sample, error, name):
    with pytest.raises(error, match=f"{name} must be a finite number"):
        sample(**{name: float("nan")})
