"""Sizes of the bundled text-to-image model.

One description serves both runtimes: diffusers' `UNet2DConditionModel` and ComfyUI's core `UNetModel` are built from it
and compute the same function with the same weights (under ComfyUI's own renaming of diffusers' keys).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import CounterfactError, unknown


@dataclass(frozen=True)
class DemoConfig:
    """Everything that fixes the shapes of the weights.

    Attributes
    ----------
    name : name of the preset
    size : side of the training pictures in pixels; other multiples of `patch` work, less well
    patch : side in pixels of the square that becomes one latent position
    latent_channels : principal components kept of a patch
    widths : channels of each UNet level, whole multiples of the first and of `head_channels`
    head_channels : channels of an attention head
    text_width, text_layers, text_heads, max_length : the text encoder's, max_length counting start and end
    """

    name: str
    size: int
    patch: int
    latent_channels: int
    widths: tuple[int, ...]
    head_channels: int = 32
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    max_length: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        numbers = [v for k, v in asdict(self).items() if k not in ("name", "widths")] + list(self.widths)
        if not self.widths or not all(isinstance(n, int) and 0 < n <= 4096 for n in numbers):
            raise CounterfactError("model config: sizes must be whole numbers from 1 to 4096")
        if any(w % self.widths[0] or w % self.head_channels or w % 32 for w in self.widths):
            raise CounterfactError(f"model config: widths {self.widths} must be multiples of 32 and of the first")

    @property
    def latent_size(self) -> int:
        """Side of the latent grid."""
        return self.size // self.patch

    def unet_config(self) -> dict[str, Any]:
        """Arguments of `diffusers.UNet2DConditionModel`."""
        levels = len(self.widths)
        return {
            "sample_size": self.latent_size,
            "in_channels": self.latent_channels,
            "out_channels": self.latent_channels,
            "down_block_types": ("CrossAttnDownBlock2D",) * levels,
            "up_block_types": ("CrossAttnUpBlock2D",) * levels,
            "block_out_channels": self.widths,
            "layers_per_block": 1,
            "cross_attention_dim": self.text_width,
            # diffusers reads this as the number of heads of each level.
            "attention_head_dim": tuple(w // self.head_channels for w in self.widths),
            "use_linear_projection": True,
        }

    def comfy_unet_config(self) -> dict[str, Any]:
        """Arguments of ComfyUI's `UNetModel`; fresh lists, since ComfyUI pops from them."""
        levels = len(self.widths)
        return {
            "image_size": 32,
            "in_channels": self.latent_channels,
            "out_channels": self.latent_channels,
            "model_channels": self.widths[0],
            "num_res_blocks": [1] * levels,
            "channel_mult": [w // self.widths[0] for w in self.widths],
            "transformer_depth": [1] * levels,
            "transformer_depth_output": [1] * (2 * levels),
            "transformer_depth_middle": 1,
            "context_dim": self.text_width,
            "num_heads": -1,
            "num_head_channels": self.head_channels,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": True,
            "legacy": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "use_temporal_resblock": False,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DemoConfig:
        """The inverse of :meth:`to_dict`; raises CounterfactError for missing, extra or impossible entries."""
        try:
            return cls(**data)
        except TypeError as error:
            raise CounterfactError(f"model config: {error}") from None


PRESETS = {
    "micro": DemoConfig("micro", size=64, patch=4, latent_channels=24, widths=(64, 128, 128)),
    "small": DemoConfig("small", size=128, patch=4, latent_channels=24, widths=(96, 192, 192), text_width=192,
                        text_heads=6),
}


def get_config(name: str) -> DemoConfig:
    """The preset of that name; raises CounterfactError that lists the known ones."""
    if name not in PRESETS:
        raise unknown("model config", name, PRESETS)
    return PRESETS[name]
