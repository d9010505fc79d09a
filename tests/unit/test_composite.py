"""Putting the source back: what is exact, and how sizes are treated."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from causal_core.errors import CounterfactError
from causal_core.guidance.composite import (
    best_fit,
    composite,
    feathered,
    fitted,
    mask_fitted,
    pixel_mask,
    within,
)
from causal_core.worlds import get_world


@pytest.fixture
def noise():
    torch.manual_seed(1)
    return torch.rand(2, 40, 48, 3), torch.rand(2, 40, 48, 3)


@pytest.fixture
def drawn():
    """A summer scene, the same in winter, and a mask of all that differs."""
    world = get_world("cottage")
    scene = world.sample(302)
    scenes = scene, world.counterfactual(scene, {"season": "winter"})
    source, edited = (torch.from_numpy(world.render(one, 128)).float()[None, :126, :118] / 255 for one in scenes)
    return source, edited, feathered((source != edited).any(-1).float(), 1, 2)


def block(height: int = 40, width: int = 48) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, 15:25, 10:30] = 1
    return mask


def scaled(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    planes = F.interpolate(picture.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True)
    return planes.movedim(1, -1).clamp(0, 1)


class TestComposite:
    def test_exact_where_the_mask_is_0_or_1(self, noise):
        source, edited = noise
        mask = feathered(block(), 2, 6)
        found = composite(source, edited, mask)
        zero, one = (mask[0] == 0), (mask[0] == 1)
        assert zero.any() and one.any() and not (zero | one).all()
        assert torch.equal(found[:, zero], source[:, zero]) and torch.equal(found[:, one], edited[:, one])
        expected = mask[..., None] * edited + (1 - mask[..., None]) * source
        assert torch.allclose(found, expected, atol=1e-6)

    def test_the_other_picture_may_hold_anything(self, noise):
        source, edited = (picture.clone() for picture in noise)
        mask = block()
        source[:, mask[0] == 1] = torch.nan
        edited[:, mask[0] == 0] = torch.inf
        found = composite(source, edited, mask)
        assert found.isfinite().all()

    def test_nothing_changes_where_both_agree(self, noise):
        source = noise[0]
        mask = torch.rand(1, 40, 48)
        assert torch.equal(composite(source, source.clone(), mask), source)

    def test_one_of_the_pictures_may_be_alone(self, noise):
        source, edited = noise
        assert torch.equal(composite(source[:1], edited, block())[1:], composite(source[:1], edited[1:], block()))
        assert composite(source, edited[:1], block().repeat(2, 1, 1)).shape == source.shape

    def test_type_of_the_source(self, noise):
        source, edited = noise
        assert composite(source.half(), edited, block()).dtype == torch.float16

    @pytest.mark.parametrize("change, message", [
        ({"edited": torch.zeros(2, 40, 40, 3)}, "edited: it is 40 x 40 pixels .*, but the source is 48 x 40"),
        ({"edited": torch.zeros(3, 40, 48, 3)}, "source: it has 2 items for 3 pictures"),
        ({"source": torch.zeros(40, 48, 3)}, r"source: a picture has the shape \[B, H, W, C\]"),
        ({"mask": torch.zeros(1, 20, 24)}, "mask: it is 24 x 20 pixels, but the source is 48 x 40"),
        ({"mask": torch.zeros(40, 48)}, r"mask: a mask has the shape \[B, H, W\]"),
        ({"mask": torch.zeros(5, 40, 48)}, "mask: it has 5 items for 2 pictures"),
        ({"mask": torch.full((1, 40, 48), torch.nan)}, "mask: .* not from 0 to 1"),
        ({"mask": torch.full((1, 40, 48), 1.5)}, "mask: .* not from 0 to 1"),
    ])  # fmt: skip
    def test_bad_input_is_named(self, noise, change, message):
        given = {"source": noise[0], "edited": noise[1], "mask": block(), **change}
        with pytest.raises(CounterfactError, match=message):
            composite(**given)


class TestFeathered:
    @pytest.mark.parametrize("grow, feather", [(0, 0), (3, 0), (0, 6), (2, 5), (1, 12)])
    def test_border_has_the_width_it_should(self, grow, feather):
        found = feathered(block(), grow, feather)[0]
        rows, columns = torch.arange(40)[:, None], torch.arange(48)[None]
        beyond = [torch.clamp(torch.maximum(low - at, at - high), min=0)
                  for at, low, high in ((rows, 15, 24), (columns, 10, 29))]  # fmt: skip
        distance = torch.maximum(beyond[0].expand(40, 48), beyond[1].expand(40, 48))
        assert (found[distance <= grow] == 1).all()
        assert (found[distance > grow + feather] == 0).all()
        between = (distance > grow) & (distance < grow + feather)
        assert (found[between] > 0).all() and found.max() == 1 and found.min() == 0
        middle = found[20, 29:]
        assert (middle[1:] <= middle[:-1]).all()

    def test_slope_begins_and_ends_gently(self):
        steps = feathered(block(), 0, 16)[0, 20, 29:47].diff().abs()
        assert steps[:2].sum() < steps[8] and steps[-3:].sum() < steps[8]

    def test_nothing_asked_nothing_changed(self):
        mask = torch.rand(2, 12, 9)
        assert torch.equal(feathered(mask, 0, 0), mask)

    def test_grey_is_kept(self):
        found = feathered(0.4 * block(), 2, 6)
        assert found.max() == pytest.approx(0.4) and ((found - 0.4 * block()) > -1e-6).all()

    def test_no_fading_at_the_edge_of_the_picture(self):
        mask = torch.zeros(1, 20, 20)
        mask[:, :, :5] = 1
        found = feathered(mask, 0, 8)
        assert torch.allclose(found[0, 0], found[0, 10]) and (found[:, :, :5] == 1).all()

    def test_masks_smaller_than_the_border(self):
        assert torch.equal(feathered(torch.ones(1, 2, 3), 40, 50), torch.ones(1, 2, 3))


class TestPixelMask:
    def test_union_and_exact_outside(self):
        left, right = torch.zeros(8, 10), torch.zeros(8, 10)
        left[2:4, 1:3], right[5:7, 6:9] = 1.0, 0.9
        found = pixel_mask([left, right], (64, 80), 6)
        assert found[20, 16] == 1 and found[48, 60] == 1 and found.max() <= 1
        # Where the border of a region is exactly is a matter of half a latent pixel.
        assert (found[: 2 * 8 - 10] == 0).all() and (found[:, 9 * 8 + 10 :] == 0).all()

    def test_soft_values_count_from_the_level_on(self):
        region = torch.full((4, 4), 0.4)
        assert not pixel_mask([region], (16, 16), 2).any()
        assert (pixel_mask([region], (16, 16), 2, level=0.3) == 1).all()

    def test_rims_that_the_vae_crops_stay_black(self):
        found = pixel_mask([torch.ones(4, 4)], (39, 35), feather=0, ratio=8)
        rows, columns = found.amax(1).nonzero(), found.amax(0).nonzero()
        # ComfyUI: offset = (side % 8) // 2.
        assert (int(rows.min()), int(rows.max())) == (3, 34) and (int(columns.min()), int(columns.max())) == (1, 32)
        soft = pixel_mask([torch.ones(4, 4)], (39, 35), feather=6, ratio=8)
        assert (soft[found == 0] == 0).all() and 0 < soft[3, 16] < 1 and soft[18, 16] == 1

    def test_no_regions_no_mask(self):
        assert torch.equal(pixel_mask([], (6, 7), 3), torch.zeros(6, 7))

    @pytest.mark.parametrize("regions, size, ratio, message", [
        ([torch.zeros(4, 4), torch.zeros(4, 5)], (32, 32), None, "regions: .* of one size"),
        ([torch.zeros(1, 4, 4)], (32, 32), None, "regions: they must all be"),
        ([torch.zeros(4, 4)], (39, 32), None, "regions: 4 x 4 latent pixels of 9 pixels each do not make .* 32 x 39"),
        ([torch.zeros(4, 4)], (39, 39), None, "regions: 4 x 4 latent pixels of 9 pixels each do not make"),
        ([torch.zeros(4, 4)], (32, 48), 8, "give the ratio of the VAE"),
        ([torch.full((4, 4), 2.0)], (32, 32), 8, "regions: .* not from 0 to 1"),
    ])  # fmt: skip
    def test_bad_input_is_named(self, regions, size, ratio, message):
        with pytest.raises(CounterfactError, match=message):
            pixel_mask(regions, size, 2, ratio)


class TestFit:
    def test_same_size_is_left_alone(self, noise):
        for way in ("stretch", "centred crop", "same scale"):
            picture, covered = fitted(noise[0], (40, 48), way)
            assert torch.equal(picture, noise[0]) and covered.all()

    def test_vae_rim(self):
        source = torch.rand(1, 39, 35, 3)
        cropped = source[:, 3:35, 1:33]
        picture, covered = fitted(cropped, (39, 35), "same scale")
        assert torch.equal(picture[:, covered], source[:, covered]) and covered.sum() == 32 * 32
        larger, covered = fitted(source, (32, 32), "same scale")
        assert torch.equal(larger, cropped) and covered.all()

    def test_crop_covers_the_middle(self):
        picture, covered = fitted(torch.ones(1, 50, 100, 3), (100, 100), "centred crop")
        assert covered[25:75].all() and not covered[:25].any() and not covered[75:].any()
        assert (picture[:, covered] > 0.999).all() and not picture[:, ~covered].any()

    def test_unknown_way(self):
        with pytest.raises(CounterfactError, match="unknown fit 'squeeze'.*Known ways to fit: stretch"):
            fitted(torch.ones(1, 5, 5, 3), (6, 6), "squeeze")

    def test_what_the_editor_did_is_found_out(self, drawn):
        source, edited, mask = drawn
        # Editors change colours a little everywhere.
        drifted = 0.95 * edited + 0.02
        assert best_fit(source, scaled(drifted, 112, 128), mask) == "stretch"
        assert best_fit(source, scaled(drifted[:, 13:-13], 128, 150), mask) == "centred crop"
        assert best_fit(source, drifted[:, 3:123, 3:115], mask) == "same scale"

    def test_too_little_is_left_to_tell(self):
        source, mask = torch.rand(1, 64, 64, 3), torch.ones(1, 64, 64)
        cut = source[:, 8:56]
        assert best_fit(source, cut, torch.zeros_like(mask)) == "centred crop"
        mask[:, 30:33, 10:13] = 0
        assert best_fit(source, cut, mask) == "stretch" == best_fit(source, cut, torch.ones_like(mask))

    def test_scaling_stays_within_0_and_1(self):
        picture = fitted((torch.rand(1, 20, 20, 3) > 0.5).float(), (33, 47))[0]
        assert picture.min() == 0 and picture.max() == 1

    def test_masks(self):
        assert torch.equal(mask_fitted(block(), (40, 48)), block())
        assert torch.equal(mask_fitted(torch.ones(2, 64, 64), (33, 41)), torch.ones(2, 33, 41))
        half = mask_fitted(block()[:, ::2, ::2], (40, 48))
        assert half.shape == (1, 40, 48) and (half == 0)[0, :12].all() and (half == 1)[0, 18:22, 13:27].all()
        rims = mask_fitted(block(), (43, 55))
        assert torch.equal(rims[:, 1:41, 3:51], block()) and torch.equal(rims[:, 0], rims[:, 1])

    def test_fading_towards_what_is_not_covered(self):
        covered = torch.zeros(20, 20, dtype=torch.bool)
        covered[:, 4:] = True
        found = within(torch.ones(1, 20, 20), covered, 6)
        assert (found[..., :4] == 0).all() and (found[..., 10:] == 1).all()
        assert (found[0, 0, 4:9] < found[0, 0, 5:10]).all()
