"""From a picture to its counterfactual with the bundled model, in one call and without ComfyUI.

>>> from causal_core.demo import weights_path
>>> from causal_core.demo.model import DemoModel
>>> from causal_core.guidance.picture import edit
>>> from causal_core.plan import Intervention, propagate
>>> from causal_core.worlds import get_world
>>> world = get_world("cottage")
>>> scene = world.sample(302)
>>> plan = propagate(world.scene_graph(scene), Intervention({"lamp": "on"}))
>>> found = edit(DemoModel.load(weights_path("micro")), world.render(scene, 64), plan, steps=4)
>>> found.picture.shape, list(found.regions)
((64, 64, 3), ['lamp'])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..demo.model import DemoModel, from_uint8, to_uint8
from ..demo.schedule import sampling_sigmas
from ..errors import CounterfactError
from ..plan import CounterfactualPlan
from .captions import captions, watched_spans
from .composite import composite, pixel_mask
from .csg import DEFAULTS, Progress, Result, Settings, counterfactual
from .rows import DiffusersRows

SKIP = 0.1
COMPOSITE_FEATHER = 0.5


@dataclass(frozen=True)
class EditedPicture:
    """A counterfactual picture.

    Attributes
    ----------
    picture : uint8 [H, W, 3]; outside the regions it is the source bit for bit
    regions : float32 [h, w] in latent pixels, 0 to 1, by affected concept
    result : latent, evaluations and trajectory
    """

    picture: np.ndarray
    regions: Mapping[str, torch.Tensor]
    result: Result


def edit(
    model: DemoModel,
    picture: np.ndarray,
    plan: CounterfactualPlan,
    seed: int = 0,
    steps: int = 30,
    settings: Settings = DEFAULTS,
    skip: float = SKIP,
    progress: Progress = lambda step, denoised: None,
) -> EditedPicture:
    """Draw the counterfactual of a picture.

    Parameters
    ----------
    picture : uint8 [H, W, 3] of the model's size, showing the plan's factual values
    seed : of the abducted noise
    steps : sampling steps, 2 and up
    skip : share of the noise schedule, 0 to below 1, that is left out at its noisy end
    progress : called with a running step number and the denoised latent

    Raises
    ------
    CounterfactError
        If the picture has another size, or a step gives numbers that are not finite.
    """
    size = model.config.size
    if picture.shape != (size, size, 3) or picture.dtype != np.uint8:
        raise CounterfactError(
            f"image: it is {picture.shape[1]} x {picture.shape[0]} pixels; the model draws pictures of {size} x {size} "
            "pixels in colour, so scale it to that size"
        )
    result = counterfactual(
        DiffusersRows(model, captions(plan, settings.fused)),
        model.latents.encode(from_uint8(picture[None])),
        sampling_sigmas(steps, skip).tolist(),
        plan,
        watched_spans(model.tokenizer.encode, plan, settings.fused),
        seed,
        settings,
        progress,
    )
    return EditedPicture(composited(model, result.latent, result.regions, picture), result.regions, result)


def composited(
    model: DemoModel,
    latent: torch.Tensor,
    regions: Mapping[str, torch.Tensor],
    source: np.ndarray,
    feather: float = COMPOSITE_FEATHER,
) -> np.ndarray:
    """The decoded edit with the source's pixels outside its regions, uint8 [H, W, 3].

    Parameters
    ----------
    latent : [1, C, h, w]
    source : uint8 [H, W, 3]
    feather : width of the soft border in latent pixels
    """
    patch = model.config.patch
    mask = pixel_mask(regions.values(), source.shape[:2], round(feather * patch), patch)[None]
    edited = to_uint8(model.latents.decode(latent))
    before, after = (torch.from_numpy(one).float() / 255 for one in (source[None], edited))
    return (composite(before, after, mask)[0] * 255).round().byte().numpy()
