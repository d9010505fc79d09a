"""Image metrics against closed forms and a reference."""

import math

import numpy as np
import pytest

from causal_core.metrics import CAP, psnr, ssim, unchanged


def noisy(seed, shape=(32, 32, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_psnr_of_a_constant_offset_and_of_parts():
    a = np.full((8, 8, 3), 100, np.uint8)
    b = a.copy()
    b[:, 4:] += 10
    assert psnr(a, a) == CAP
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / 50))
    left = np.zeros((8, 8), bool)
    left[:, :4] = True
    assert psnr(a, b, left) == CAP and psnr(a, b, ~left) == pytest.approx(10 * math.log10(255**2 / 100))
    assert math.isnan(psnr(a, b, np.zeros((8, 8), bool)))


def test_ssim_is_one_for_equals_falls_with_noise_and_matches_the_formula_on_flat_images():
    a = noisy(0)
    blend = (0.8 * a + 0.2 * noisy(1)).astype(np.uint8)
    assert ssim(a, a) == pytest.approx(1.0)
    assert abs(ssim(a, noisy(1))) < 0.1 < ssim(a, blend) < 1
    x, y = np.full((16, 16, 3), 50, np.uint8), np.full((16, 16, 3), 80, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(x, y) == pytest.approx((2 * 50 * 80 + c1) / (50**2 + 80**2 + c1))


def test_unchanged_leaves_a_margin_around_the_change():
    a = np.zeros((9, 9, 3), np.uint8)
    b = a.copy()
    b[4, 4, 1] = 3
    kept = unchanged(a, b)
    assert (~kept).sum() == 9 and not kept[3:6, 3:6].any()
    b[4, 4, 1] = 2
    assert unchanged(a, b).all()
