"""Encoder and decoder of the autoencoder.

The encoder is a stack of strided convolutions, read by a head a variable and one for the residual code. The decoder is
diffusers' `UNet2DModel` on pixels folded into patches, conditioned through an identity class embedding with scale and
shift in every block (as CausalDiffAE and DiffAE condition theirs), and by a drawing of what the latents say (as in
DiffuseVAE, Pandey et al. 2022): a vector alone says badly where things are. What is diffused is the difference of
picture and drawing, and the drawing lies beside it: an intervention changes the picture where it changes the drawing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .coding import Coding
from .config import AutoencoderConfig
from .diffusion import timestep
from .features import Waves


class Encoder(nn.Module):
    """Pictures [B, C, H, W] in -1..1 to readings of all variables and a residual code."""

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        super().__init__()
        self.coding, self.residual = coding, config.residual
        layers: list[nn.Module] = []
        widths = (config.channels, *config.encoder_widths)
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(8, after), nn.SiLU()]
        side = -(-config.size // 2 ** len(config.encoder_widths))
        # Flattened, not pooled: where a thing is says what it is.
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(widths[-1] * side * side, config.encoder_hidden), nn.SiLU()
        )
        self.head = nn.Linear(config.encoder_hidden, coding.width + 2 * config.residual)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Readings [B, width] (of discrete variables: logits), mean and log-variance [B, residual] of the residual."""
        found = self.head(self.body(images))
        readings, mean, log_variance = found.split([self.coding.width, self.residual, self.residual], 1)
        return readings, mean, log_variance.clamp(-8, 4)

    def latents(self, readings: torch.Tensor) -> torch.Tensor:
        """Latents z [B, width] of readings: probabilities of discrete variables, continuous ones as they are."""
        return torch.cat(
            [
                readings[:, where].softmax(1) if variable.domain else readings[:, where]
                for variable, where in zip(self.coding.variables, self.coding.places)
            ],
            1,
        )


def drawn(mean: torch.Tensor, log_variance: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Residual codes [B, R] from normal distributions with these means and log-variances [B, R]."""
    return mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=rng, device=mean.device)


class Drawing(nn.Sequential):
    """Pictures [B, C, H, W] from features [B, features]: convolutions and upsampling up to patches.

    Parameters
    ----------
    features, hidden : numbers in, and units of the first layer
    config : sizes, with the levels of the decoder
    wider : factor on the levels' widths
    """

    def __init__(self, features: int, hidden: int, config: AutoencoderConfig, wider: int = 1) -> None:
        widths = [wider * width for width in config.widths[::-1]]
        side = config.size // (config.patch << (len(widths) - 1))
        layers: list[nn.Module] = [
            nn.Linear(features, hidden), nn.SiLU(),
            nn.Linear(hidden, widths[0] * side * side), nn.Unflatten(1, (widths[0], side, side)),
        ]  # fmt: skip
        for level, (before, after) in enumerate(zip((widths[0], *widths), widths)):
            layers += [nn.Upsample(scale_factor=2)] if level else []
            for width in (before, after):
                layers += [nn.Conv2d(width, after, 3, 1, 1), nn.GroupNorm(8, after), nn.SiLU()]
        out = config.channels * config.patch**2
        super().__init__(*layers, nn.Conv2d(widths[-1], out, 3, 1, 1), nn.PixelShuffle(config.patch))


class Context(NamedTuple):
    """What the decoder is told: a vector [B, W], and a drawing [B, C, H, W] unless the config has none."""

    vector: torch.Tensor
    drawing: torch.Tensor | None = None


class Decoder(nn.Module):
    """The denoiser D(x, sigma | z, r) of pictures [B, C, H, W], or of what is not in their drawing."""

    def __init__(self, config: AutoencoderConfig, coding: Coding) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        self.config, self.coding = config, coding
        inside = config.channels * config.patch**2
        width = 4 * config.widths[0]
        self.waves = Waves(coding.variables)
        # Behind each variable and the residual a place that says whether it is given.
        given = len(coding.variables) + 1
        told = self.waves.width + config.residual + given
        self.condition = nn.Sequential(nn.Linear(told, width), nn.SiLU(), nn.Linear(width, width))
        self.drawing = Drawing(told, width, config) if config.drawing else None
        levels = len(config.widths)
        attention = [level >= levels - config.attention_levels for level in range(levels)]
        self.unet = UNet2DModel(
            in_channels=inside * (2 if config.drawing else 1) + 2,
            out_channels=inside,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            block_out_channels=config.widths,
            layers_per_block=config.layers,
            attention_head_dim=32,
            norm_num_groups=16,
            class_embed_type="identity",
            resnet_time_scale_shift="scale_shift",
        )

    def rest(self, images: torch.Tensor, context: Context) -> torch.Tensor:
        """What of pictures [B, C, H, W] is not in their drawing, times the gain: what is diffused."""
        return images if context.drawing is None else self.config.gain * (images - context.drawing)

    def picture(self, rest: torch.Tensor, context: Context) -> torch.Tensor:
        """The inverse of :meth:`rest`."""
        return rest if context.drawing is None else context.drawing + rest / self.config.gain

    def context(self, z: torch.Tensor, r: torch.Tensor, given: torch.Tensor | None = None) -> Context:
        """What latents [B, width] and residual [B, R] say, of which some are given [B, variables + 1]."""
        if given is None:
            given = z.new_ones(len(z), len(self.coding.variables) + 1)
        # A missing latent is zero before the waves, whose cosines are then constants that its flag explains.
        told = torch.cat([self.waves(z * self.coding.by_place(given)), r * given[:, -1:], given], 1)
        return Context(self.condition(told), None if self.drawing is None else self.drawing(told))

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, context: Context) -> torch.Tensor:
        """The network's own prediction (v or noise) [B, C, H, W] for x = x0 + sigma * noise, sigma [B]."""
        scaled = F.pixel_unshuffle(x / (sigma[:, None, None, None] ** 2 + 1).sqrt(), self.config.patch)
        drawn = [] if context.drawing is None else [F.pixel_unshuffle(context.drawing, self.config.patch)]
        h, w = scaled.shape[-2:]
        rows = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(h, w)
        columns = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(h, w)
        # Where a patch lies: the condition says where things are, and convolutions alone can hardly tell.
        place = torch.stack([rows, columns]).expand(len(x), -1, -1, -1)
        t = timestep(sigma, self.config.schedule)
        inputs = torch.cat([scaled, place, *drawn], 1)
        found = self.unet(inputs, t, class_labels=context.vector, return_dict=False)[0]
        return F.pixel_shuffle(found, self.config.patch)

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor, context: Context) -> torch.Tensor:
        """The estimate of x0 [B, C, H, W]."""
        found, s = self(x, sigma, context), sigma[:, None, None, None]
        if self.config.prediction == "epsilon":
            return x - s * found
        return x / (s**2 + 1) - found * s / (s**2 + 1).sqrt()
