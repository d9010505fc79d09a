"""Apply CSG to Model and CSG Guider: the counterfactual through ComfyUI's own samplers."""

from __future__ import annotations

import pytest
import torch

STEPS = 6
SAMPLERS = ("euler", "dpmpp_2m", "euler_ancestral", "uni_pc", "heun")


def text(comfy_model, words):
    return comfy_model.clip.encode_from_tokens_scheduled(comfy_model.clip.tokenize(words))


@pytest.fixture
def apply(pack, comfy_model, scene):
    """Run Apply CSG to Model; returns the MODEL."""

    def run(model=None, plan=None, strength=1.0, **options):
        node = pack("nodes.steer").ApplyCSG
        return node.execute(model or comfy_model.model, comfy_model.clip, plan or scene.plan, strength, **options).args[
            0
        ]

    return run


@pytest.fixture
def ksample(comfy_model, scene):
    """What KSampler does with a MODEL and the source picture; returns the latent."""
    import comfy.sample

    def run(model, sampler="euler", latent=None, cfg=1.0, seed=5, positive=None, negative="", denoise=0.9, **options):
        latent = scene.latent["samples"] if latent is None else latent
        noise = options.pop("noise", None)
        noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
        return comfy.sample.sample(
            model, noise, STEPS, cfg, sampler, "normal",
            text(comfy_model, positive or scene.plan.caption_factual), text(comfy_model, negative), latent,
            denoise=denoise, seed=seed, disable_pbar=True, **options,
        )  # fmt: skip

    return run


def error_of(found, scene):
    return float((found - scene.latent["samples"]).abs().max())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_setting_nothing_returns_the_source(scene, apply, ksample, sampler):
    # UniPC stops at a noise level of 0.001 in place of 0.
    limit = 0.02 if sampler == "uni_pc" else 1e-4
    assert error_of(ksample(apply(plan=scene.null), sampler), scene) < limit
    assert error_of(ksample(apply(strength=0.0), sampler, cfg=4.0), scene) < limit


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_the_regions_change(scene, apply, ksample, sampler):
    regions = torch.zeros(1, 64, 64)
    regions[..., :32] = 1
    found = ksample(apply(regions=regions), sampler)
    change = (found - scene.latent["samples"]).abs().amax((0, 1))
    assert found.isfinite().all() and change[:, 8:].max() < (0.02 if sampler == "uni_pc" else 1e-4)
    assert change[:, :8].max() > 0.03


def test_regions_are_found_without_any_given(scene, apply, ksample):
    found = ksample(apply())
    assert error_of(found, scene) > 0.03
    assert torch.equal(found, ksample(apply())) and not torch.equal(found, ksample(apply(), seed=6))
    assert not torch.equal(found, ksample(apply(mode="fused")))


def test_the_given_model_is_left_alone(comfy_model, apply, ksample):
    plain = ksample(comfy_model.model)
    patched = apply()
    options = str(patched.model_options)
    assert not comfy_model.model.wrappers and patched.model is comfy_model.model.model
    changed = ksample(patched)
    assert torch.equal(ksample(comfy_model.model), plain) and not torch.equal(changed, plain)
    # Nothing of the run is left, so that the next one begins anew with another picture.
    assert str(patched.model_options) == options
    assert not [key for key in patched.model_options if key == "counterfact"]


def test_one_model_serves_several_pictures(scene, apply, ksample):
    patched, second = apply(), scene.batch["samples"][1:]
    expected = ksample(apply(), latent=second)
    ksample(patched)
    assert torch.equal(ksample(patched, latent=second), expected)


def test_preserve_off_lets_everything_adapt(scene, apply, ksample):
    regions = torch.zeros(1, 64, 64)
    regions[..., :32] = 1
    changes = [
        (ksample(apply(regions=regions, preserve=preserve)) - scene.latent["samples"]).abs()[..., 8:].max()
        for preserve in (True, False)
    ]
    assert changes[0] < 1e-6 < 1e-5 < changes[1]


def test_cfg_and_another_prompt(scene, apply, ksample):
    other = {"positive": "in winter, at night", "negative": "red house", "cfg": 5.0}
    assert error_of(ksample(apply(plan=scene.null), **other), scene) < 1e-4
    plain, strange = ksample(apply()), ksample(apply(), **other)
    assert strange.isfinite().all() and not torch.equal(plain, strange)


def test_directions_do_not_depend_on_the_prompt(pack, comfy_model, scene, apply, ksample):
    """With a base that is no caption at all, what is added to it is still the direction of the plan."""
    import comfy.patcher_extension

    added = []

    def zero(executor, x, *args):
        return torch.zeros_like(executor(x, *args))

    model = apply()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "zero", zero)
    source = pack("nodes.steer").Source
    estimate = source.estimate

    def watched(self, sigma, own=None):
        found = estimate(self, sigma, own)
        x = self.target + sigma * self.noise
        rows = self.guides[0].rows(0.0)
        ours = dict(zip(rows, self.rows(x, sigma, rows)))
        direction = self.guides[0](x, ours, 0.0) - ours[0]
        union = self.guides[0].union
        added.append(((found - self.latent) - union * direction).abs().max())
        return found

    source.estimate = watched
    try:
        ksample(model, denoise=0.9)
    finally:
        source.estimate = estimate
    # But for the last step, which leaves out what the model cannot draw.
    assert len(added) == STEPS and max(added[:-1]) < 1e-4


def test_patches_of_other_nodes_stay_in_force(comfy_model, scene, apply, ksample):
    import comfy.patcher_extension
    from comfy.ldm.modules.attention import optimized_attention

    plain, seen = ksample(apply()), []

    def attend(q, k, v, options):
        seen.append("attention")
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    def predict(executor, *args):
        seen.append("prediction")
        return executor(*args)

    model = comfy_model.model.clone()
    model.set_model_attn2_replace(attend, "middle", 0)
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "other", predict)
    assert torch.equal(ksample(apply(model)), plain)
    # This one is outside of ours and sees each step once.
    assert seen.count("prediction") == STEPS and seen.count("attention") >= 3 * STEPS
    after = apply()
    after.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "other", predict)
    seen.clear()
    assert torch.equal(ksample(after), plain)
    # This one is inside and sees the picture's path as well.
    assert seen.count("prediction") == 2 * STEPS


def test_pictures_of_a_batch_do_not_mix(scene, apply, ksample):
    import comfy.sample

    regions = torch.zeros(2 * len(scene.plan.affected), 64, 64)
    regions[: len(scene.plan.affected), :, :32] = 1
    regions[len(scene.plan.affected) :, :, 32:] = 1
    latent = scene.batch["samples"]
    noise = comfy.sample.prepare_noise(latent, 5)
    both = ksample(apply(regions=regions), latent=latent, noise=noise)
    for i in range(2):
        own = regions.unflatten(0, (2, -1))[i]
        one = ksample(apply(regions=own), latent=latent[i : i + 1], noise=noise[i : i + 1])
        assert torch.allclose(both[i : i + 1], one, atol=1e-4)
    change = (both - latent).abs().amax(1)
    assert change[0, :, 8:].max() < 1e-4 and change[1, :, :8].max() < 1e-4


def test_noise_mask_bounds_the_change(scene, apply, ksample):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    change = (ksample(apply(), noise_mask=mask) - scene.latent["samples"]).abs().amax((0, 1))
    assert change[:, :8].max() < 1e-4 < change[:, 9:].max()


def test_what_cannot_be_sampled_is_refused(comfy_model, scene, apply, ksample, error):
    latent = scene.latent["samples"]
    with pytest.raises(error, match="latent_image: it is empty; connect VAE Encode"):
        ksample(apply(), latent=torch.zeros_like(latent))
    with pytest.raises(error, match="noise: the sampler adds none"):
        ksample(apply(), noise=torch.zeros_like(latent))
    with pytest.raises(error, match="regions: the masks are empty"):
        ksample(apply(regions=torch.zeros(1, 64, 64)))
    with pytest.raises(error, match="model: it comes from Apply CSG to Model"):
        apply(apply())
    # A failed run leaves nothing behind.
    patched = apply()
    with pytest.raises(error):
        ksample(patched, latent=torch.zeros_like(latent))
    assert torch.equal(ksample(patched), ksample(apply()))


def test_other_nodes_of_ours_refuse_a_patched_model(pack, comfy_model, scene, apply, error):
    parts = apply(), comfy_model.clip, scene.latent
    with pytest.raises(error, match="model: it comes from Apply CSG to Model"):
        pack("nodes.csg").CSGSampler.execute(*parts, scene.plan, 0, STEPS, 1.0)
    with pytest.raises(error, match="model: it comes from Apply CSG to Model"):
        pack("nodes.abduct").CSGInvert.execute(*parts, scene.graph, 0, STEPS)


def test_a_model_that_breaks_down_names_the_step(comfy_model, apply, ksample, error):
    def broken(run, options):
        found = run(options["input"], options["timestep"], **options["c"])
        return found * float("nan") if float(options["timestep"].max()) < 1.0 else found

    model = comfy_model.model.clone()
    model.set_model_unet_function_wrapper(broken)
    with pytest.raises(error, match=rf"step [3-6] of {STEPS} gave numbers that are not finite"):
        ksample(apply(model, regions=torch.ones(1, 64, 64)))


def test_every_sampler_with_the_same_levels_draws_the_same(apply, ksample):
    found = [ksample(apply(), sampler) for sampler in ("euler", "euler_ancestral", "dpmpp_2m")]
    assert torch.allclose(found[0], found[1], atol=1e-4) and torch.allclose(found[0], found[2], atol=1e-4)


def test_leftover_noise_keeps_what_the_model_cannot_draw(scene, apply, ksample):
    """A run that stops early has not come to its last step: the source's residual stays in."""
    early = {"last_step": 3, "force_full_denoise": False}
    hardly = apply(regions=torch.ones(1, 64, 64), strength=1e-6)
    assert torch.allclose(ksample(hardly, **early), ksample(apply(plan=scene.null), **early), atol=1e-3)
    assert not torch.allclose(ksample(hardly), ksample(apply(plan=scene.null)), atol=1e-2)


class TestGuider:
    @pytest.fixture
    def guided(self, pack, comfy_model, scene):
        """CSG Guider and SamplerCustomAdvanced; returns the latent."""
        from comfy_extras.nodes_custom_sampler import (
            BasicScheduler,
            KSamplerSelect,
            RandomNoise,
            SamplerCustomAdvanced,
        )

        def run(plan=None, strength=1.0, sampler="euler", latent=None, noise=None, **options):
            node = pack("nodes.steer").CSGGuider
            guider = node.execute(
                comfy_model.model, comfy_model.clip, plan or scene.plan, strength, **options
            ).args[0]  # fmt: skip
            noise = noise or RandomNoise.execute(5).args[0]
            sigmas = BasicScheduler.execute(comfy_model.model, "normal", STEPS, 0.9).args[0]
            sampler = KSamplerSelect.execute(sampler).args[0]
            return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent or scene.latent).args[0][
                "samples"
            ]

        return run

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_setting_nothing_returns_the_source(self, scene, guided, sampler):
        assert error_of(guided(scene.null, sampler=sampler), scene) < (0.02 if sampler == "uni_pc" else 1e-4)

    def test_it_samples_what_a_patched_model_does(self, scene, guided, apply, ksample):
        found = guided()
        assert error_of(found, scene) > 0.03
        assert torch.allclose(found, ksample(apply()), atol=1e-3)

    def test_mistakes_are_named(self, scene, guided, error):
        from comfy_extras.nodes_custom_sampler import DisableNoise

        with pytest.raises(error, match="latent_image: it is empty"):
            guided(latent={"samples": torch.zeros(1, 24, 16, 16)})
        with pytest.raises(error, match="noise: the sampler adds none"):
            guided(noise=DisableNoise.execute().args[0])
        with pytest.raises(error, match="strength must be a finite number"):
            guided(strength=float("nan"))
