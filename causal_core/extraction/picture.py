"""Reading a picture with the bundled model, in one call and without ComfyUI.

>>> from causal_core.demo import weights_path
>>> from causal_core.demo.model import DemoModel
>>> from causal_core.worlds import get_world
>>> world, model = get_world("cottage"), DemoModel.load(weights_path("micro"))
>>> scene = world.sample(302)
>>> known = world.concepts(scene.values)
>>> found = read_picture(model, world.render(scene), known.replace("house", value=None))
>>> found.concepts["house"].value == scene.values["house"]
True
>>> regions_in_picture(model, world.render(scene), known, ["house"])["house"].shape
torch.Size([64, 64])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..attention.capture import AttentionMaps
from ..concepts import Concepts
from ..demo.model import DemoModel, from_uint8
from ..errors import CounterfactError
from ..guidance.rows import DiffusersRows
from .captions import caption_spans
from .classifier import DEFAULTS, Reading, Settings, read, residuals
from .regions import Alternatives, concept_regions, shown

# Captions a call of the network.
BATCH = 64


class _Parts(DiffusersRows):
    """Denoises many captions a few at a time."""

    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        parts = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return torch.cat([super(_Parts, self).__call__(x, sigma, part, maps) for part in parts])


def read_picture(
    model: DemoModel,
    picture: np.ndarray,
    concepts: Concepts,
    seed: int = 0,
    settings: Settings = DEFAULTS,
    check: Callable[[], None] = lambda: None,
) -> Reading:
    """Read the values of concepts that have none.

    Parameters
    ----------
    picture : uint8 [H, W, 3]
    concepts : see :func:`causal_core.extraction.classifier.read`
    seed : of the noise
    check : called before each noise level; what it raises ends the reading

    Raises
    ------
    CounterfactError
        If the picture does not fit the model, or no concept has values to choose from.
    """
    x0 = _latent(model, picture)

    def compare(captions: Sequence[str], sigma: float, number: int) -> torch.Tensor:
        check()
        return residuals(_Parts(model, captions), x0, range(len(captions)), sigma, seed, number)

    return read(concepts, compare, settings)


def regions_in_picture(
    model: DemoModel, picture: np.ndarray, concepts: Concepts, wanted: Sequence[str] | None = None, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The regions of concepts that have a value, float32 [H, W] each, 0 to 1.

    Parameters
    ----------
    picture : uint8 [H, W, 3]
    wanted : names; all if not given
    seed : of the noise
    """
    alternatives = Alternatives.of(concepts, wanted)
    _, spans = caption_spans(model.tokenizer.encode, concepts)
    watched = {name: span for name, span in spans.items() if name in alternatives.rows}
    denoise = _Parts(model, alternatives.captions)
    seen = shown(denoise, _latent(model, picture), alternatives, watched, seed)
    return concept_regions(model.latents.decode(seen.estimates).clamp(-1.0, 1.0), alternatives, seen.attention)


def _latent(model: DemoModel, picture: np.ndarray) -> torch.Tensor:
    """The latent [1, C, h, w] of a picture."""
    multiple = model.config.patch * 2 ** (len(model.config.widths) - 1)
    colour = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size
    if not colour or any(side % multiple for side in picture.shape[:2]):
        raise CounterfactError(
            f"image: it has the shape {list(picture.shape)}; the model reads pictures in colour whose sides are "
            f"multiples of {multiple} pixels, best {model.config.size}"
        )
    return model.latents.encode(from_uint8(picture[None], model.device))
