"""The recipe of CausalDiffAE as it was released (Komanduri et al. 2024), at the size of ours.

Kept from the released code, since they are its method: parents' noises and not their latents enter a mechanism; all
dimensions of a variable's block regress its label; divergences are sums over dimensions, with a weight that rises
linearly; noise prediction on linear betas without weights; x_T is drawn and not encoded; an intervention on a variable
that has parents leaves its descendants as they are. Left out, to its advantage, since they are slips: pictures in 0..1
for a sampler of -1..1, a mean that is sampled around, and averaged weights without the normalisations' statistics. The
optimizer is that of ours: its own, with rate 1e-4 and average 0.9999, is made for tens of times the pictures.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ....autoencoder.coding import Coding
from ....autoencoder.config import AutoencoderConfig
from ....autoencoder.diffusion import decode, levels
from ....autoencoder.model import CausalLatent
from ....autoencoder.networks import Context, Decoder
from ....autoencoder.objective import Batch, diffusion_loss, known
from ...disentanglement import Code
from .method import Do, Method, noise, nothing

DIMS = 16
# The published pendulum weights are those of step 35,000, where a ramp over 50,000 steps has come to this.
FINAL_WEIGHT = 0.7
# Share of the encoder's variance that latents are drawn with in training.
NARROW = 1e-3
# The paper takes 250 steps. What ours spends on encoding x_T, this one may spend on a finer solution.
LEAST_STEPS = 50


class Replica(Method):
    """A causal diffusion autoencoder by the released recipe."""

    name = "replica"

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        config = replace(config, prediction="epsilon", schedule="linear", weighting="uniform", shift=1.0, drawing=0.0)
        super().__init__(config, coding)
        widths, dims = (config.channels, *config.encoder_widths), DIMS * len(coding.variables)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU()]
        side = -(-config.size // 2 ** len(config.encoder_widths))
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.mean, self.spread = (nn.Linear(widths[-1] * side * side, dims) for _ in range(2))
        self.mechanisms = nn.ModuleList(
            nn.Sequential(nn.Linear(DIMS, dims), nn.LeakyReLU(), nn.Linear(dims, DIMS)) for _ in coding.variables
        )
        self.decoder = Decoder(config, coding)
        self.decoder.condition = nn.Linear(dims, 4 * config.widths[0])

    def read(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of the noise u, [B, variables, DIMS] each."""
        found, shape = self.body(images), (len(images), -1, DIMS)
        return self.mean(found).view(shape), F.softplus(self.spread(found)).view(shape) + 1e-8

    def latents(self, u: torch.Tensor) -> torch.Tensor:
        """z_i = f_i(sum of u over the parents of i) + u_i, for u [B, variables, DIMS]."""
        blocks = []
        for i, parents in enumerate(self.coding.parents):
            before = sum((u[:, p] for p in parents), torch.zeros_like(u[:, i]))
            blocks.append(self.mechanisms[i](before) + u[:, i])
        return torch.stack(blocks, 1)

    def numbers(self, labels: torch.Tensor) -> torch.Tensor:
        """One number in -1..1 a variable, [B, variables], for labels [B, width]; the rank of a discrete value."""
        return torch.stack([self.number(i, labels[:, where]) for i, where in enumerate(self.coding.places)], 1)

    def number(self, i: int, places: torch.Tensor) -> torch.Tensor:
        """The number [B] of one variable's places [B, width of i]."""
        if not self.coding.variables[i].domain:
            return places[:, 0]
        return 2 * places.argmax(1).to(places) / (places.shape[1] - 1) - 1

    def losses(self, batch: Batch, rng: torch.Generator, progress: torch.Tensor) -> dict[str, torch.Tensor]:
        mean, variance = self.read(batch.images)
        post = self.latents(mean)
        z = post + (NARROW * variance).sqrt() * torch.randn(post.shape, generator=rng, device=post.device)
        there = known(self.coding, batch.labels)
        off = (post - self.numbers(batch.labels.nan_to_num())[..., None]).square().sum(2) / 2
        terms = {
            "diffusion": diffusion_loss(self, batch.images, Context(self.decoder.condition(z.flatten(1))), rng),
            "prior": (mean.square() + variance - 1 - variance.log()).sum((1, 2)).mean() / 2,
            "alignment": (off * there).sum(1).mean(),
        }
        weight = FINAL_WEIGHT * progress
        terms["loss"] = terms["diffusion"] + weight * (terms["prior"] + terms["alignment"])
        return terms

    @torch.no_grad()
    def encode(self, images: torch.Tensor, labels: torch.Tensor, steps: int, rng: torch.Generator) -> CausalLatent:
        u, _ = self.read(images)
        return CausalLatent(self.latents(u), u, nothing(images), noise(images, rng), max(steps, LEAST_STEPS))

    @torch.no_grad()
    def intervened(self, latent: CausalLatent, do: Do) -> CausalLatent:
        u, z = latent.u.clone(), latent.z
        roots = [i for i in do if not self.coding.parents[i]]
        if roots:
            for i in roots:
                u[:, i] = self.number(i, do[i])[:, None]
            z = self.latents(u)
        z = z.clone()
        for i in set(do) - set(roots):
            z[:, i] = self.number(i, do[i])[:, None]
        return replace(latent, u=u, z=z)

    @torch.no_grad()
    def decode(self, latent: CausalLatent) -> torch.Tensor:
        context = Context(self.decoder.condition(latent.z.flatten(1)))
        rising = levels(latent.steps, self.config.schedule)

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.decoder.denoised(x, sigma, context).clamp(-1, 1)

        return decode(denoise, latent.noise * rising[-1], rising).clamp(-1, 1)

    @torch.no_grad()
    def code(self, images: torch.Tensor) -> Code:
        z = self.latents(self.read(images)[0])
        groups = tuple(slice(DIMS * i, DIMS * (i + 1)) for i in range(z.shape[1]))
        return Code(z.flatten(1).cpu().numpy().astype(np.float64), groups)
