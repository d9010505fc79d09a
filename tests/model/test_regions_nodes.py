"""Find Regions and Set Region: masks that can be looked at, corrected and given to the sampler."""

from __future__ import annotations

import pytest
import torch

STEPS = 6
pytestmark = pytest.mark.usefixtures("previews")


@pytest.fixture
def find(pack, comfy_model, scene):
    """Run Find Regions; returns masks and overlay."""

    def run(latent=None, plan=None, seed=3, **options):
        node = pack("nodes.regions").FindRegions
        output = node.execute(
            comfy_model.model, comfy_model.clip, latent or scene.latent, plan or scene.plan, seed, STEPS, **options
        )
        return output.args

    return run


@pytest.fixture
def sample(pack, comfy_model, scene):
    """Run Sample Counterfactual; returns latent and masks."""

    def run(**options):
        node = pack("nodes.csg").CSGSampler
        parts = comfy_model.model, comfy_model.clip, options.pop("latent", scene.latent), scene.plan
        latent, masks, *_ = node.execute(*parts, options.pop("seed", 3), STEPS, 1.0, **options).args
        return latent["samples"], masks

    return run


class TestFindRegions:
    def test_finds_what_the_sampler_finds(self, scene, find, sample):
        masks, overlay = find()
        assert torch.equal(masks, sample()[1]) and masks.any()
        assert masks.shape == (len(scene.plan.affected), 64, 64) and overlay.shape == (1, 512, 512, 3)
        assert torch.equal(masks, find()[0]) and not torch.equal(masks, find(seed=4)[0])

    def test_sampling_in_found_regions_is_the_same(self, find, sample):
        # The same up to the way to pixels and back.
        found, expected = sample(regions=find()[0])[0], sample()[0]
        assert (found - expected).abs().mean() < 0.2 * expected.abs().mean()

    def test_modes(self, scene, find):
        fused = find(mode="fused")[0]
        assert fused.shape == (len(scene.plan.affected), 64, 64) and not torch.equal(fused, find()[0])

    def test_a_batch_comes_picture_after_picture(self, scene, find):
        masks, overlay = find(latent=scene.batch, image=scene.images)
        assert len(masks) == 2 * len(scene.plan.affected) and overlay.shape == (2, 512, 512, 3)
        assert torch.equal(masks[: len(scene.plan.affected)], find()[0])
        assert not torch.equal(overlay[0], overlay[1])

    def test_noise_mask_bounds_them(self, scene, find):
        mask = torch.zeros(1, 1, 64, 64)
        mask[..., 32:] = 1
        masks = find(latent={**scene.latent, "noise_mask": mask})[0]
        assert masks.any() and not masks[..., :24].any()

    def test_a_trajectory_saves_the_inversion(self, pack, comfy_model, scene, find, monkeypatch):
        node = pack("nodes.abduct").CSGInvert
        made = node.execute(comfy_model.model, comfy_model.clip, scene.latent, scene.graph, 3, STEPS).args[0]
        expected, seen = find()[0], []
        import latent_preview

        monkeypatch.setattr(latent_preview, "prepare_callback", lambda model, steps: lambda *args: seen.append(args))
        assert torch.equal(find(trajectory=made, seed=9)[0], expected)
        with_it = len(seen)
        find()
        assert [step for step, *_ in seen[:with_it]] == list(range(with_it)) and seen[0][-1] == with_it
        assert len(seen) == 2 * with_it + STEPS

    def test_nothing_affected_gives_one_empty_mask(self, scene, find):
        masks, overlay = find(plan=scene.null)
        assert masks.shape == (1, 64, 64) and not masks.any() and overlay.shape == (1, 512, 512, 3)

    def test_the_overlay_is_of_the_picture(self, comfy_model, scene, find):
        picture = torch.nn.functional.pad(scene.images[:1].movedim(-1, 1), (3, 3, 1, 1), mode="reflect").movedim(1, -1)
        latent = {"samples": comfy_model.vae.encode(picture)}
        masks, overlay = find(latent=latent, image=picture)
        assert masks.shape[-2:] == (64, 68) and overlay.shape == (1, 483, 512, 3)
        assert not torch.equal(find(image=scene.images[:1])[1], find()[1])

    def test_what_does_not_fit_is_refused(self, scene, find, error):
        with pytest.raises(error, match="image: it has 2 pictures, the latent 1"):
            find(image=scene.images)
        with pytest.raises(error, match="threshold must be a number from 0.01 to 1"):
            find(threshold=0.0)


class TestSetRegion:
    @pytest.fixture
    def put(self, pack, scene):
        def run(*args, **inputs):
            return pack("nodes.regions").SetRegion.execute(*args, **inputs).args[0]

        return run

    @pytest.fixture
    def regions(self, scene):
        found = torch.zeros(len(scene.plan.affected), 8, 8)
        found[:, :, :4] = 0.8
        return found

    @pytest.fixture
    def mask(self):
        mask = torch.zeros(1, 8, 8)
        mask[:, :2] = 1.0
        return mask

    @pytest.mark.parametrize("how, expected", [
        ("replace", lambda old, new: new),
        ("widen", lambda old, new: torch.maximum(old, new)),
        ("narrow", lambda old, new: torch.minimum(old, new)),
    ])  # fmt: skip
    def test_changes_one_concept(self, scene, put, regions, mask, how, expected):
        before = regions.clone()
        found = put(regions, scene.plan, " Ground ", mask, how)
        number = [item.name for item in scene.plan.affected].index("ground")
        assert torch.equal(found[number], expected(regions[number], mask[0]))
        others = [i for i in range(len(regions)) if i != number]
        assert torch.equal(found[others], regions[others]) and torch.equal(regions, before)

    def test_masks_of_other_sizes_are_scaled(self, scene, put, regions):
        mask = torch.zeros(32, 32)
        mask[:8] = 1
        assert torch.equal(put(regions, scene.plan, "season", mask)[0, :, 0], torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0]))

    def test_a_batch_takes_one_mask_or_one_each(self, scene, put, regions, mask):
        both = torch.cat([regions, regions])
        count = len(regions)
        found = put(both, scene.plan, "season", mask)
        assert torch.equal(found[0], mask[0]) and torch.equal(found[count], mask[0])
        found = put(both, scene.plan, "season", torch.cat([mask, 1 - mask]))
        assert torch.equal(found[0], mask[0]) and torch.equal(found[count], 1 - mask[0])

    def test_what_does_not_fit_is_refused(self, scene, put, regions, mask, error):
        with pytest.raises(error, match="concept: unknown concept 'graund'. Did you mean 'ground'. Known affected"):
            put(regions, scene.plan, "graund", mask)
        with pytest.raises(error, match="concept: unknown concept 'house'"):
            put(regions, scene.plan, "house", mask)
        with pytest.raises(error, match="concept: .*Known affected concepts: none"):
            put(regions[:1], scene.null, "ground", mask)
        with pytest.raises(error, match="regions: there are 5 masks for 6 affected concepts"):
            put(regions[:5], scene.plan, "ground", mask)
        with pytest.raises(error, match="mask: there are 3 for 1 pictures"):
            put(regions, scene.plan, "ground", mask.repeat(3, 1, 1))
        right = torch.zeros(1, 8, 8)
        right[..., 6:] = 1
        with pytest.raises(error, match="mask: it lies outside the region of ground"):
            put(regions, scene.plan, "ground", right, "narrow")
