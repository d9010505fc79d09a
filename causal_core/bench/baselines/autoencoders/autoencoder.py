"""Ours behind the interface of the benchmark, and DiffAE: the same diffusion autoencoder without a causal model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ....autoencoder.coding import Coding
from ....autoencoder.config import AutoencoderConfig
from ....autoencoder.model import CausalAutoencoder, CausalLatent
from ....autoencoder.networks import Encoder, drawn
from ....autoencoder.objective import Batch, objective
from ...disentanglement import Code
from .method import Do, Method


class Ours(Method):
    """The causal autoencoder of this pack."""

    name = "ours"

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        super().__init__(config, coding)
        self.model = CausalAutoencoder(config, coding)

    def save(self, path: Path) -> None:
        """Write the weights as those of any autoencoder of this pack."""
        self.model.provenance = self.provenance
        self.model.save(path, torch.float32)

    @classmethod
    def load(cls, path: Path) -> Ours:
        """Of any weights file of an autoencoder of this pack."""
        model = CausalAutoencoder.load(path)
        method = cls(model.config, model.coding)
        method.model, method.provenance = model, model.provenance
        return method.eval().requires_grad_(False)

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        steps = math.ceil(self.config.images / self.config.batch)
        return objective(self.model, batch, rng, progress * steps)

    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        return self.model.encode(images, steps)

    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        return self.model.held(latent, do)

    def decode(self, latent: CausalLatent) -> torch.Tensor:
        return self.model.decode(latent)

    @torch.no_grad()
    def code(self, images: torch.Tensor) -> Code:
        return residual_code(self.model.encoder, images)


class Inversion(Ours):
    """Ours with all of x_T kept, also where the picture changes: DDIM inversion as it is published."""

    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        return self.model.held(latent, do, kept=1.0)


class DiffAE(Ours):
    """A diffusion autoencoder (Preechakul et al., CVPR 2022) whose latents are aligned with labels as ours are.

    It has no mechanisms: an intervention changes its own variable, and descendants stay as they are. Its weights are
    those of ours: no gradient of the mechanisms reaches encoder or decoder, unless the config has the paper's sums.
    """

    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        z = latent.z.clone()
        for i, value in do.items():
            z[:, self.coding.places[i]] = value.to(z)
        return replace(latent, z=z)


def residual_code(encoder: Encoder, images: torch.Tensor) -> Code:
    """A group a variable, and one for each number of the residual code of pictures [B, C, H, W].

    The residual code is drawn, as decoders get it: the mean of a number that is all noise still tells of pictures.
    """
    readings, mean, log_variance = encoder(images)
    residual = drawn(mean, log_variance, torch.Generator(images.device).manual_seed(0))
    coding, values = encoder.coding, torch.cat([encoder.latents(readings), residual], 1)
    groups = [*coding.places, *(slice(d, d + 1) for d in range(coding.width, values.shape[1]))]
    discrete = [*(bool(v.domain) for v in coding.variables), *[False] * residual.shape[1]]
    return Code(values.cpu().numpy().astype(np.float64), tuple(groups), tuple(discrete))
