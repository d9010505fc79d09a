"""A variational autoencoder with the encoder and causal model of ours, and no diffusion.

After CausalVAE (Yang et al., CVPR 2021): latents aligned with labels by a causal layer, a convolutional decoder,
squared error of pixels and a divergence. Its causal layer is that of ours, which also abducts exactly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ....autoencoder.coding import Coding
from ....autoencoder.config import AutoencoderConfig
from ....autoencoder.features import Waves
from ....autoencoder.mechanisms import Mechanisms
from ....autoencoder.model import CausalLatent
from ....autoencoder.networks import Drawing, Encoder, drawn
from ....autoencoder.objective import Batch, alignment, independence, known, mechanism_loss
from ...disentanglement import Code
from .autoencoder import residual_code
from .method import Do, Method, nothing

# So that it has about as many weights as ours.
WIDER = 2


class CausalVAE(Method):
    """Encoder, mechanisms, and a decoder of upsampling convolutions with the levels of ours, twice as wide."""

    name = "causal_vae"

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        super().__init__(config, coding)
        self.encoder, self.mechanisms = Encoder(config, coding), Mechanisms(coding)
        self.waves = Waves(coding.variables)
        self.decoder = Drawing(self.waves.width + config.residual, config.encoder_hidden, config, WIDER)

    def draw(self, z: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Pictures [B, C, H, W] of latents [B, width] and residual codes [B, R]."""
        return self.decoder(torch.cat([self.waves(z), residual], 1))

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        readings, mean, log_variance = self.encoder(batch.images)
        z, there = self.encoder.latents(readings), known(self.coding, batch.labels)
        labels = torch.where(self.coding.by_place(there), batch.labels.nan_to_num(), z.detach())
        r = drawn(mean, log_variance, rng)
        terms = {
            "pixels": F.mse_loss(self.draw(z, r), batch.images),
            "alignment": alignment(self.coding, readings, batch.labels),
            "mechanism": mechanism_loss(self, labels, batch.free),
            "prior": (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2,
            "independence": independence(mean, self.waves(labels)),
        }
        terms["loss"] = sum(term * getattr(self.config, name, 1.0) for name, term in terms.items())
        return terms

    @torch.no_grad()
    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        readings, r, _ = self.encoder(images)
        z = self.encoder.latents(readings)
        return CausalLatent(z, self.mechanisms.abduct(z), r, nothing(images), steps)

    @torch.no_grad()
    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        z = self.mechanisms.counterfactual(latent.z, do)
        return replace(latent, z=z, u=self.mechanisms.abduct(z))

    @torch.no_grad()
    def decode(self, latent: CausalLatent) -> torch.Tensor:
        return self.draw(latent.z, latent.residual).clamp(-1, 1)

    @torch.no_grad()
    def code(self, images: torch.Tensor) -> Code:
        return residual_code(self.encoder, images)
