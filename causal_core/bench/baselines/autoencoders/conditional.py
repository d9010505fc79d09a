"""A label-conditional diffusion model: no encoder, the true labels of a picture are its latent.

Its causal model is that of ours, learnt from the labels; x_T is encoded under the factual labels, or drawn.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ....autoencoder.coding import Coding
from ....autoencoder.config import AutoencoderConfig
from ....autoencoder.diffusion import Denoiser, decode, encode, levels
from ....autoencoder.mechanisms import Mechanisms
from ....autoencoder.model import CausalLatent
from ....autoencoder.networks import Context, Decoder
from ....autoencoder.objective import Batch, diffusion_loss, known, mechanism_loss
from .method import Do, Method, noise


class ConditionalDDPM(Method):
    """A denoiser given labels (Ho and Salimans 2022 without guidance), and the DDIM inversion of ours."""

    name = "conditional_ddpm"

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        super().__init__(replace(config, drawing=0.0), coding)
        self.mechanisms = Mechanisms(coding)
        self.decoder = Decoder(self.config, coding)

    def context(self, labels: torch.Tensor, given: torch.Tensor) -> Context:
        """What the decoder is told of labels [B, width], of which some are given [B, variables]: never the residual."""
        none = labels.new_zeros(len(labels), 1)
        return self.decoder.context(labels, none.expand(-1, self.config.residual), torch.cat([given, none], 1))

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        there = known(self.coding, batch.labels)
        labels = batch.labels.nan_to_num()
        # Without parents or the effect itself there is nothing to learn of a mechanism.
        free = batch.free & there
        for i, parents in enumerate(self.coding.parents):
            for parent in parents:
                free[:, i] &= there[:, parent]
        dropped = torch.rand(len(labels), 1, generator=rng, device=labels.device) < self.config.drop_all
        terms = {
            "diffusion": diffusion_loss(self, batch.images, self.context(labels, (there & ~dropped).float()), rng),
            "mechanism": mechanism_loss(self, labels, free),
        }
        terms["loss"] = terms["diffusion"] + self.config.mechanism * terms["mechanism"]
        return terms

    def denoiser(self, labels: torch.Tensor) -> Denoiser:
        """The denoiser under labels [B, width]."""
        context = self.context(labels, labels.new_ones(len(labels), len(self.coding.variables)))
        return lambda x, sigma: self.decoder.denoised(x, sigma, context)

    @torch.no_grad()
    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        rising = levels(steps, self.config.schedule)
        x = encode(self.denoiser(labels), images, rising)
        return self._latent(images, labels, x / rising[-1], steps)

    def _latent(self, images: torch.Tensor, labels: torch.Tensor, x: torch.Tensor, steps: int) -> CausalLatent:
        return CausalLatent(labels, self.mechanisms.abduct(labels), images.new_zeros(len(images), 0), x, steps)

    @torch.no_grad()
    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        z = self.mechanisms.counterfactual(latent.z, do)
        return replace(latent, z=z, u=self.mechanisms.abduct(z))

    @torch.no_grad()
    def decode(self, latent: CausalLatent) -> torch.Tensor:
        rising = levels(latent.steps, self.config.schedule)
        return decode(self.denoiser(latent.z), latent.noise * rising[-1], rising).clamp(-1, 1)


class ConditionalRandom(ConditionalDDPM):
    """The same weights with x_T drawn: what labels alone keep of a picture."""

    @torch.no_grad()
    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        return self._latent(images, labels, noise(images, rng), steps)
