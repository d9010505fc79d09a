"""The CSG sampler inside ComfyUI: what it must leave alone, and what it must do."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

STEPS = 6


@pytest.fixture
def sample(pack, comfy_model, scene):
    """Run the node; returns its latent, masks, report and image."""

    def run(model=None, clip=None, latent=None, plan=None, seed=3, steps=STEPS, strength=1.0, **options):
        node = pack("nodes.csg").CSGSampler
        output = node.execute(
            model or comfy_model.model, clip or comfy_model.clip, latent or scene.latent, plan or scene.plan, seed,
            steps, strength, **options,
        )  # fmt: skip
        latent, masks, report, image = output.args
        assert output.ui == {"counterfact_report": [report]}
        return SimpleNamespace(latent=latent["samples"], masks=masks, report=json.loads(report), image=image)

    return run


@pytest.fixture
def progress(monkeypatch):
    """What the page is told of progress: (step, denoised latent, latent, number of steps)."""
    import latent_preview

    seen = []
    monkeypatch.setattr(latent_preview, "prepare_callback", lambda model, steps: lambda *args: seen.append(args))
    return seen


def untouched(pack, comfy_model, scene, seed):
    """The same sampler through ComfyUI's own guider and sampler objects, without anything of ours in the model."""
    import comfy.samplers

    csg = pack("causal_core.guidance.csg")
    text = comfy_model.clip.encode_from_tokens_scheduled(comfy_model.clip.tokenize(scene.plan.caption_factual))
    sigmas = pack("nodes.denoise").noise_levels(comfy_model.model, STEPS, pack("nodes.options").SKIP)

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
    found = sample(strength=0.0)
    assert torch.equal(found.latent, untouched(pack, comfy_model, scene, seed=3))
    assert found.report["evaluations_per_step"] == 2
    assert found.masks.shape == (len(scene.plan.affected), 64, 64) and not found.masks.any()


def test_null_plan_returns_the_source_and_says_so(scene, sample):
    found = sample(plan=scene.null, steps=20)
    assert (found.latent - scene.latent["samples"]).abs().max() < 1e-4
    assert found.report["max_latent_error_outside"] < 1e-4
    assert found.report["affected"] == [] and found.masks.shape == (1, 64, 64)
    assert "nothing changes" in found.report["notes"][0]


def test_same_seed_same_bytes_and_nothing_left_behind(comfy_model, scene, sample):
    before = comfy_model.model.model_options["transformer_options"].copy()
    source = scene.latent["samples"].clone()
    first, second, other = sample().latent, sample().latent, sample(seed=4).latent
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert comfy_model.model.model_options["transformer_options"] == before
    assert torch.equal(scene.latent["samples"], source)


def test_equals_the_diffusers_path(pack, comfy_model, reference, scene, sample):
    captions, csg = pack("causal_core.guidance.captions"), pack("causal_core.guidance.csg")
    rows = pack("causal_core.guidance.rows").DiffusersRows(reference, captions.captions(scene.plan))
    watched = captions.watched_spans(reference.tokenizer.encode, scene.plan)
    sigmas = pack("nodes.denoise").noise_levels(comfy_model.model, STEPS, pack("nodes.options").SKIP).tolist()
    expected = csg.counterfactual(
        rows, scene.latent["samples"], sigmas, scene.plan, watched, 3, csg.Settings(strength=1.0)
    )
    found = sample()
    assert torch.allclose(found.latent, expected.latent, atol=1e-4)
    for mask, item, region in zip(found.masks, found.report["affected"], expected.regions.values()):
        assert item["area"] == pytest.approx(float(region.mean()), abs=1e-3)
        assert mask.shape == (64, 64) and 0 <= mask.min() and mask.max() <= 1


def test_report_names_everything(scene, sample):
    report = sample(strength=0.5, skip=0.5, threshold=0.4).report
    assert report["kind"] == "counterfact.report" and report["schema_version"] == 1
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
    assert report["settings"]["mode"] == "per concept" and report["settings"]["trajectory"] is False
    assert report["seconds"] > 0 and report["notes"] == []
    assert not {"tries", "composition", "reversibility"} & set(report)


def test_skip_leaves_out_the_noisy_end(pack, comfy_model):
    levels = pack("nodes.denoise").noise_levels
    whole, part = levels(comfy_model.model, 10, 0.0), levels(comfy_model.model, 10, 0.5)
    assert len(whole) == len(part) == 11 and part[-1] == 0
    assert part[0] < 3 < whole[0]


def test_fused_mode_takes_two_rows_a_step(scene, sample):
    found, separate = sample(mode="fused"), sample()
    assert found.report["rows_per_step"] == 2
    assert separate.report["rows_per_step"] == 1 + len(scene.plan.affected)
    assert len(found.masks) == len(separate.masks) and not torch.equal(found.latent, separate.latent)
    assert (found.latent - scene.latent["samples"]).abs().max() > 0.1


def test_patches_of_other_nodes_stay_in_force(comfy_model, sample):
    from comfy.ldm.modules.attention import optimized_attention

    seen = []

    def other(q, k, v, options):
        seen.append(len(options["cond_or_uncond"]))
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    plain = sample()
    model = comfy_model.model.clone()
    model.set_model_attn2_replace(other, "middle", 0)
    model.set_model_attn2_replace(lambda q, k, v, options: other(q, k, v, options), "input", 1, 0)
    assert torch.equal(sample(model).latent, plain.latent)
    assert sum(seen) == 2 * plain.report["evaluations_per_step"] * STEPS
    zeros = comfy_model.model.clone()
    zeros.set_model_attn2_replace(lambda q, k, v, options: torch.zeros_like(q), "middle", 0)
    assert not torch.equal(sample(zeros).latent, plain.latent)


def test_pictures_of_a_batch_do_not_mix(scene, sample):
    both = sample(latent=scene.batch)
    first, second = ({"samples": one} for one in scene.batch["samples"].split(1))
    assert torch.equal(both.latent[:1], sample(latent=first).latent)
    assert torch.equal(both.latent[1:], sample(latent=second, seed=4).latent)
    assert both.report["images"] == 2 and len(both.masks) == 2 * len(scene.plan.affected)


def test_noise_mask_bounds_the_change(scene, sample):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    found = sample(latent={**scene.latent, "noise_mask": mask})
    change = (found.latent - scene.latent["samples"]).abs().amax((0, 1))
    assert change[:, :8].max() < 1e-4 < change[:, 9:].max()
    assert not found.masks[..., :24].any()


class TestRegions:
    """Masks that the user gives take the place of what the model finds."""

    def left(self, count=1):
        mask = torch.zeros(count, 64, 64)
        mask[..., :32] = 1
        return mask

    def test_one_mask_is_for_all_concepts(self, scene, sample):
        found = sample(regions=self.left())
        change = (found.latent - scene.latent["samples"]).abs().amax((0, 1))
        assert change[:, 8:].max() < 1e-4 < change[:, :8].max()
        assert (found.masks[:, :, :28] == 1).all() and not found.masks[:, :, 36:].any()
        assert found.report["settings"]["regions"] is True
        # One evaluation a caption and step: nothing is looked for any more.
        assert found.report["evaluations_per_step"] == 2 + len(scene.plan.affected)

    def test_one_mask_a_concept(self, scene, sample):
        masks = torch.zeros(len(scene.plan.affected), 64, 64)
        masks[0], masks[1] = self.left(), 1 - self.left()
        found = sample(regions=masks)
        assert torch.equal(found.masks > 0.5, masks > 0.5)

    def test_one_mask_a_concept_and_picture(self, scene, sample):
        count = len(scene.plan.affected)
        masks = torch.cat([self.left(count), 1 - self.left(count)])
        found = sample(latent=scene.batch, regions=masks)
        change = (found.latent - scene.batch["samples"]).abs().amax(1)
        assert change[0, :, 8:].max() < 1e-4 < change[0, :, :8].max()
        assert change[1, :, :8].max() < 1e-4 < change[1, :, 8:].max()

    @pytest.mark.parametrize("shape, fill, message", [
        ((2, 64, 64), 1, "regions: there are 2 masks for 6 affected concepts .season, temperature.*one for all"),
        ((1, 128, 64), 1, "regions: the masks are 64 x 128 pixels, but the picture is 64 x 64"),
        ((1, 64, 64), 0, "regions: the masks are empty; paint"),
    ])  # fmt: skip
    def test_masks_that_do_not_fit_are_refused(self, sample, error, shape, fill, message):
        with pytest.raises(error, match=message):
            sample(regions=torch.full(shape, float(fill)))

    def test_regions_do_not_matter_where_nothing_changes(self, scene, sample):
        found = sample(plan=scene.null, regions=self.left(5))
        assert (found.latent - scene.latent["samples"]).abs().max() < 1e-4


class TestImage:
    """The image output."""

    @pytest.fixture
    def decoded(self, comfy_model, scene):
        """A region in the middle, and what the sampler is given for an image."""
        mask = torch.zeros(1, 64, 64)
        mask[:, 24:40, 24:40] = 1
        return {"vae": comfy_model.vae, "image": scene.images[:1], "regions": mask}

    def test_outside_the_border_it_is_the_source(self, scene, sample, decoded):
        found = sample(**decoded, composite_feather=0.5)
        change = (found.image != scene.images[:1]).any(-1)[0]
        assert found.image.shape == (1, 64, 64, 3) and change[26:38, 26:38].float().mean() > 0.9
        # The border: half a latent pixel of four pixels.
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[22:42, 22:42] = True
        assert not change[~inside].any()
        wide = (sample(**decoded, composite_feather=2.0).image != scene.images[:1]).any(-1)[0]
        assert wide[~inside].any()

    def test_composite_is_a_switch(self, comfy_model, sample, decoded):
        for off in ({"composite": False}, {"preserve": False}, {"image": None}):
            found = sample(**{**decoded, **off})
            assert torch.equal(found.image, comfy_model.vae.decode(found.latent))

    def test_nothing_changes_nothing(self, scene, sample, decoded):
        assert torch.equal(sample(plan=scene.null, **decoded).image, scene.images[:1])

    def test_sides_that_are_no_multiples_of_the_ratio(self, comfy_model, scene, sample):
        picture = torch.nn.functional.pad(scene.images[:1].movedim(-1, 1), (3, 3, 1, 1), mode="reflect").movedim(1, -1)
        latent = {"samples": comfy_model.vae.encode(picture)}
        assert picture.shape == (1, 66, 70, 3) and latent["samples"].shape[-2:] == (16, 17)
        mask = torch.zeros(1, 66, 70)
        mask[:, 20:40, 20:40] = 1
        found = sample(latent=latent, vae=comfy_model.vae, image=picture, regions=mask)
        assert found.image.shape == picture.shape and found.masks.shape[-2:] == (64, 68)
        change = (found.image != picture).any(-1)[0]
        assert change[24:36, 24:36].any() and not change[:14].any() and not change[46:].any()
        assert not change[:, :14].any() and not change[:, 46:].any()

    def test_pictures_of_a_batch(self, comfy_model, scene, sample):
        found = sample(latent=scene.batch, vae=comfy_model.vae, image=scene.images)
        first = sample(vae=comfy_model.vae, image=scene.images[:1])
        assert found.image.shape == scene.images.shape and torch.equal(found.image[:1], first.image)

    def test_without_a_vae_what_comes_after_is_blocked(self, sample):
        from comfy_execution.graph import ExecutionBlocker

        blocker = sample().image
        assert isinstance(blocker, ExecutionBlocker) and blocker.message.startswith("vae: connect it")

    def test_what_does_not_fit_is_refused(self, comfy_model, scene, sample, error):
        with pytest.raises(error, match="vae: connect the VAE"):
            sample(image=scene.images[:1])
        with pytest.raises(error, match="image: it has 2 pictures, the latent 1"):
            sample(vae=comfy_model.vae, image=scene.images)
        with pytest.raises(error, match="image: it is 32 x 64 pixels, but the latent is of a picture of 64 x 64"):
            sample(vae=comfy_model.vae, image=scene.images[:1, :, :32])


class TestChecks:
    """Retries and measures."""

    def test_measures_are_in_the_report(self, scene, sample):
        report = sample(measure=True).report
        assert 0 <= report["composition"]["max_latent_error"] < 1e-4
        assert 0 < report["reversibility"]["mean_latent_error"] < 10
        assert len(report["tries"]) == 1 and len(report["tries"][0]) == 1
        assert set(report["tries"][0][0]["margins"]) == {item.name for item in scene.plan.affected}

    def test_measuring_changes_nothing(self, sample):
        assert torch.equal(sample(measure=True).latent, sample().latent)

    def test_retries_push_further(self, pack, monkeypatch, sample):
        monkeypatch.setattr(pack("nodes.edit"), "margins", lambda *args: {"season": -0.5, "ground": float("nan")})
        report, once = sample(retries=2, strength=1.0, threshold=0.2).report, sample(strength=1.0, threshold=0.2).report
        tries = report["tries"][0]
        assert [one["strength"] for one in tries] == pytest.approx([1.0, 1.3, 1.69])
        assert [one["threshold"] for one in tries] == pytest.approx([0.2, 0.15, 0.1125])
        assert tries[0]["margins"] == {"season": -0.5, "ground": None}
        # The picture is inverted once.
        assert report["evaluations_per_step"] == pytest.approx(3 * once["evaluations_per_step"] - 2)

    def test_what_shows_is_not_tried_again(self, pack, monkeypatch, sample):
        monkeypatch.setattr(pack("nodes.edit"), "margins", lambda *args: {"season": 0.1})
        found = sample(retries=2)
        assert len(found.report["tries"][0]) == 1 and torch.equal(found.latent, sample().latent)

    def test_a_batch_is_tried_one_by_one(self, scene, sample):
        report = sample(latent=scene.batch, measure=True).report
        assert len(report["tries"]) == 2

    def test_what_cannot_be_undone_is_said(self, pack, scene, sample):
        plans = pack("causal_core.plan")
        concepts = scene.graph.concepts.replace("season", value=None)
        graph = pack("causal_core.graph").CausalGraph(concepts)
        report = sample(plan=plans.propagate(graph, plans.Intervention({"season": "winter"})), measure=True).report
        assert "reversibility" not in report and "composition" in report
        assert any("reversibility is not known: 'season' has no factual value" in note for note in report["notes"])


def test_empty_region_is_noted(pack, comfy_model, scene, sample):
    regions = torch.ones(len(scene.plan.affected), 64, 64)
    regions[2] = 0
    name = scene.plan.affected[2].name
    notes = sample(regions=regions).report["notes"]
    assert len(notes) == 1 and f"the region of {name} is empty" in notes[0]


@pytest.mark.parametrize("options, count", [
    ({}, lambda probes: 2 * STEPS + probes),
    ({"strength": 0.0}, lambda probes: 2 * STEPS),
    ({"regions": torch.ones(1, 64, 64)}, lambda probes: 2 * STEPS),
    ({"measure": True}, lambda probes: 5 * STEPS + 2 * probes),
])  # fmt: skip
def test_progress_counts_all_steps_with_previews(pack, scene, sample, progress, options, count):
    sample(**options)
    probes = len(pack("causal_core.guidance.csg").probe_steps(STEPS, 8))
    assert [step for step, *_ in progress] == list(range(count(probes)))
    assert all(total == count(probes) for *_, total in progress)
    assert all(x0.shape == scene.latent["samples"].shape for _, x0, *_ in progress)


def test_progress_has_room_for_retries(pack, monkeypatch, sample, progress):
    monkeypatch.setattr(pack("nodes.edit"), "margins", lambda *args: {"season": -0.5})
    sample(retries=1)
    assert [step for step, *_ in progress] == list(range(progress[0][-1]))


def test_interrupted_run_leaves_comfyui_usable(monkeypatch, sample):
    import comfy.model_management as memory
    import latent_preview

    expected = sample().latent
    with monkeypatch.context() as patched:
        stop = lambda step, *_: memory.interrupt_current_processing(step == STEPS)  # noqa: E731
        patched.setattr(latent_preview, "prepare_callback", lambda model, steps: stop)
        with pytest.raises(memory.InterruptProcessingException):
            sample()
    assert torch.equal(sample().latent, expected)


def test_a_model_that_breaks_down_names_the_step(comfy_model, sample, error):
    levels = []

    def broken(apply, options):
        level = float(options["timestep"].max())
        levels.append(level)
        found = apply(options["input"], options["timestep"], **options["c"])
        return found * float("nan") if level < 1.0 else found

    model = comfy_model.model.clone()
    model.set_model_unet_function_wrapper(broken)
    with pytest.raises(error, match=rf"step \d of {STEPS} .*gave numbers that are not finite"):
        sample(model)
    assert min(levels) < 1.0


def test_words_that_the_model_does_not_know_cannot_change_anything(pack, scene, sample, error, caplog):
    parse, plans = pack("causal_core.concepts").parse_concepts, pack("causal_core.plan")
    concepts = pack("causal_core.concepts").Concepts((*scene.graph.concepts, *parse("ghost: qua, zim = qua")))
    graph = pack("causal_core.graph").CausalGraph(concepts)
    with pytest.raises(error, match='plan: words cannot change ghost: phrase "qua ghost" has no token'):
        sample(plan=plans.propagate(graph, plans.Intervention({"ghost": "zim"})))
    # Only what does not change is unknown.
    assert sample(plan=plans.propagate(graph, plans.Intervention({"season": "winter"}))).masks.any()
    assert "Attention protects only what the text encoder reads" in caplog.text


def test_attention_that_cannot_be_followed_is_noted(pack, monkeypatch, sample):
    monkeypatch.setattr(pack("nodes.edit"), "watched_tokens", lambda *args: {})
    found = sample()
    assert "words cannot be followed" in found.report["notes"][0] and found.masks.any()


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


NUMBERS = ("strength", "threshold", "attention_weight", "protect", "feather", "eta", "skip", "delay", "stop", "project",
           "clamp", "momentum")  # fmt: skip


@pytest.mark.parametrize("name", [*NUMBERS, "grow", "steps"])
def test_numbers_must_be_finite_and_within_limits(sample, error, name):
    with pytest.raises(error, match=f"{name} must be a finite number"):
        sample(**{name: float("nan")})
    with pytest.raises(error, match=f"{name} must be a number from"):
        sample(**{name: -1 if name != "threshold" else 0})


def test_mode_must_be_known(sample, error):
    with pytest.raises(error, match="unknown mode 'both'. Known modes: per concept, fused"):
        sample(mode="both")
