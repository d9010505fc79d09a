"""Image metrics: peak signal-to-noise ratio and structural similarity, over a picture or a part of it."""

from __future__ import annotations

import math

import numpy as np

CAP = 99.0


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images [H, W, 3]; at most 99, NaN if ``where`` selects nothing.

    Parameters
    ----------
    where : bool [H, W], the pixels to compare
    """
    difference = a.astype(np.float64) - b.astype(np.float64)
    if where is not None:
        difference = difference[where]
    if not difference.size:
        return math.nan
    error = float(np.mean(difference**2))
    return CAP if error == 0.0 else min(CAP, 10.0 * math.log10(255.0**2 / error))


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of uint8 images [H, W, 3], -1 to 1 (Wang et al. 2004, equation 13, 11-pixel Gaussian)."""
    x = np.arange(-5, 6, dtype=np.float64)
    kernel = np.exp(-0.5 * (x / 1.5) ** 2)
    kernel /= kernel.sum()

    def smooth(image: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            image = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, image)
        return image

    a, b = a.astype(np.float64), b.astype(np.float64)
    ma, mb = smooth(a), smooth(b)
    va, vb, cov = smooth(a * a) - ma**2, smooth(b * b) - mb**2, smooth(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def unchanged(factual: np.ndarray, truth: np.ndarray, tolerance: int = 2, margin: int = 1) -> np.ndarray:
    """Pixels that a true counterfactual leaves alone: bool [H, W].

    A pixel counts as changed if any channel differs by more than ``tolerance`` of 255, or if it lies within ``margin``
    pixels of one that does.
    """
    changed = (np.abs(factual.astype(int) - truth.astype(int)) > tolerance).any(-1)
    h, w = changed.shape
    padded = np.pad(changed, margin)
    near = np.zeros_like(changed)
    for dy in range(2 * margin + 1):
        for dx in range(2 * margin + 1):
            near |= padded[dy : dy + h, dx : dx + w]
    return ~near
