"""Did it work? The model itself says which value an edited picture shows, and a failed edit may be tried again.

A caption explains a picture the better, the better it lets the model restore the picture from noise (diffusion
classifier, Li et al., ICCV 2023, equation 4): here old and new value of one concept, inside its region.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from .captions import Edit
from .csg import Result, Rows, Settings
from .steps import noised

MOST_RETRIES = 2
STRONGER, WIDER = 1.3, 0.75


def margins(
    denoise: Rows,
    latent: torch.Tensor,
    changes: Sequence[Edit],
    regions: Mapping[str, torch.Tensor],
    sigmas: Sequence[float],
    seed: int,
    flow: bool = False,
) -> dict[str, float]:
    """How much better than the old value each concept's new value explains an edited picture.

    Parameters
    ----------
    latent : the edited picture, [B, C, h, w]
    sigmas : noise levels to compare at; one evaluation of each caption in question at each
    seed : of the noise, the same for both values

    Returns
    -------
    dict of -1 to 1 by concept: (error of old - error of new) / (their sum); above 0 the new value shows. NaN where the
    region is empty.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    rows = sorted({row for c in changes for row in (c.before, c.after)})
    errors = {c.name: [0.0, 0.0] for c in changes}
    for sigma in sigmas if changes else ():
        noise = torch.randn(latent.shape, generator=generator, dtype=torch.float32).to(latent)
        found = dict(zip(rows, denoise(noised(latent, noise, sigma, flow), sigma, rows)))
        for c in changes:
            weight = regions[c.name].to(latent)
            for side, row in enumerate((c.before, c.after)):
                errors[c.name][side] += float((weight * (found[row] - latent).pow(2)).sum()) / max(sigma, 1e-6) ** 2
    return {name: (old - new) / (old + new) if old + new > 0.0 else float("nan") for name, (old, new) in errors.items()}


def with_retries(
    edit: Callable[[Settings], Result],
    judge: Callable[[Result], Mapping[str, float]],
    settings: Settings,
    retries: int,
) -> tuple[Result, list[dict]]:
    """Edit, and edit again with more strength and wider regions while a concept does not show its new value.

    Parameters
    ----------
    edit : makes an edit with given settings
    judge : margins of an edit, see :func:`margins`
    retries : 0 to 2

    Returns
    -------
    (best edit, what was tried)
        The best is the one whose lowest margin is largest. Each try tells strength, threshold and margins.
    """
    best, highest, tried = None, float("-inf"), []
    for _ in range(1 + min(retries, MOST_RETRIES)):
        result = edit(settings)
        found = dict(judge(result))
        known = [margin for margin in found.values() if margin == margin]
        lowest = min(known, default=1.0)
        tried.append({"strength": settings.strength, "threshold": settings.threshold, "margins": found})
        if best is None or lowest > highest:
            best, highest = result, lowest
        if lowest > 0.0:
            break
        settings = replace(settings, strength=STRONGER * settings.strength, threshold=WIDER * settings.threshold)
    return best, tried
