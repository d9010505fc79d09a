"""The baselines one by one in whole runs: the same every time, and counted as if each did all of its own work."""

import pytest
import torch

from causal_core.bench.baselines import BASELINES, edited

from ..helpers.winter import STEPS, setting


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
