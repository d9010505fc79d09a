"""One picture as a diffusion model in ComfyUI reads it: values of concepts, and where they are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

import comfy.model_management
import torch

from ..causal_core.concepts import Concepts
from ..causal_core.extraction.captions import caption_spans
from ..causal_core.extraction.classifier import Settings, level, read, residuals
from ..causal_core.extraction.regions import LEVELS, Alternatives, concept_regions, shown
from .denoise import Captions, Conditioning, encode, progress_bar, run
from .phrases import followed

log = logging.getLogger("counterfact")

# Captions of which the conditionings are held at once.
BATCH = 64


class Picture:
    """A picture, and the model that looks at it.

    Parameters
    ----------
    model, clip, vae : as they come from the sockets
    image : IMAGE with one picture
    seed : of the noise
    """

    def __init__(self, model: Any, clip: Any, vae: Any, image: torch.Tensor, seed: int) -> None:
        self.model, self.clip, self.vae, self.seed = model, clip, vae, seed
        self.latent = {"samples": vae.encode(image[..., :3])}
        # Of the captions that were compared last: the next noise level compares many of them again.
        self.encoded: dict[str, Conditioning] = {}

    def read(self, concepts: Concepts, levels: int) -> Concepts:
        """The concepts, those without a value read at `levels` noise levels a pass at most."""
        settings = Settings(levels=levels)
        bar = progress_bar(self.model, settings.rounds)

        def compare(captions: Sequence[str], sigma: float, number: int) -> torch.Tensor:
            self.encoded = {text: self.encoded.get(text) or self._encode(text) for text in captions}
            found: list[torch.Tensor] = []
            estimates: list[torch.Tensor] = []
            for start in range(0, len(captions), BATCH):
                guider = Captions(self.model, [self.encoded[text] for text in captions[start : start + BATCH]])

                def look(rows, x0, mask, guider=guider):
                    count = len(guider.lengths)
                    found.append(residuals(rows, x0, range(count), sigma, self.seed, number, guider.flow))
                    estimates.append(x0 + found[-1][:1].to(x0))
                    return x0

                run(guider, self.latent, torch.tensor([level(sigma, guider.flow), 0.0]), look, self.seed)
            bar(estimates[0])
            return torch.cat(found)

        found = read(concepts, compare, settings)
        spent = list(found.evaluations.values())
        log.info("Read %d concepts with %.1f evaluations of the model each", len(spent), mean(spent))
        return found.concepts

    def regions(self, concepts: Concepts, wanted: Sequence[str]) -> dict[str, torch.Tensor]:
        """The regions [H, W] of those wanted concepts that have a value, in the resolution that the VAE decodes to."""
        alternatives = Alternatives.of(concepts, wanted)
        if not alternatives.rows:
            return {}
        guider = Captions(self.model, [self._encode(text) for text in alternatives.captions])
        spans = followed(
            guider, self.clip, alternatives.captions, lambda tokenize: {0: caption_spans(tokenize, concepts)[1]}
        )
        watched = {name: span for name, span in spans.get(0, {}).items() if name in alternatives.rows}
        bar, seen = progress_bar(self.model, len(LEVELS)), []

        def look(rows, x0, mask):
            seen.append(shown(rows, x0, alternatives, watched, self.seed, guider.flow, bar))
            return seen[0].estimates.to(x0)

        sigmas = [level(sigma, guider.flow) for sigma in LEVELS]
        latents = run(guider, self.latent, torch.tensor([*sigmas, 0.0]), look, self.seed)
        pictures = torch.cat([part.movedim(-1, 1) for part in self._decoded(latents)])
        return concept_regions(2.0 * pictures - 1.0, alternatives, seen[0].attention)

    def _encode(self, text: str) -> Conditioning:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return encode(self.clip, [text])[0]

    def _decoded(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        for one in latents.split(1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            picture = self.vae.decode(one)
            yield picture.reshape(-1, *picture.shape[-3:])
