"""The bundled text-to-image model: UNet, text encoder and latents in one weights file.

The file is safetensors with the prefixes "unet." (diffusers' names), "text." and "latents."; its metadata holds one
JSON document with the config, the vocabulary and the provenance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CounterfactError
from ..weights import read_tensors, write_tensors
from .config import DemoConfig
from .latents import PatchPCA
from .schedule import denoised, sampling_sigmas, solve
from .text_encoder import TextEncoder
from .tokenizer import WordTokenizer

KIND, SCHEMA_VERSION = "counterfact.demo-model", 1


class DemoModel(torch.nn.Module):
    """UNet, text encoder, latents and tokenizer with one config.

    Parameters
    ----------
    config : sizes
    vocabulary : words of the tokenizer
    provenance : where the weights come from (images seen, steps, data), JSON values
    """

    def __init__(
        self, config: DemoConfig, vocabulary: Iterable[str], provenance: Mapping[str, Any] | None = None
    ) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__()
        self.config = config
        self.tokenizer = WordTokenizer(vocabulary, config.max_length)
        self.provenance = dict(provenance or {})
        self.unet = UNet2DConditionModel(**config.unet_config())
        self.text = TextEncoder(
            len(self.tokenizer), config.text_width, config.text_layers, config.text_heads, config.max_length
        )
        self.latents = PatchPCA(config.patch, config.latent_channels)

    @property
    def device(self) -> torch.device:
        return self.latents.scale.device

    def context(self, captions: Sequence[str]) -> torch.Tensor:
        """What the UNet attends to: [len(captions), max_length, text_width]."""
        ids = [self.tokenizer.encode(caption) for caption in captions]
        return self.text(torch.tensor(ids, device=self.device))

    def save(self, path: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the one weights file; the latents' fixed transform stays float32, so that it stays orthonormal."""
        tensors = {
            name: t if name.startswith("latents.") else t.to(dtype) for name, t in self.state_dict().items()
        }
        document = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "config": self.config.to_dict(),
            "vocabulary": list(self.tokenizer.vocabulary),
            "provenance": self.provenance,
        }
        write_tensors(path, tensors, document)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> DemoModel:
        """Read a weights file into a float32 model in evaluation mode.

        Raises
        ------
        CounterfactError
            If the file is missing, damaged, of another kind, or its tensors do not fit its config.
        """
        tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
        try:
            config = DemoConfig.from_dict(document["config"])
            model = cls(config, document["vocabulary"], document["provenance"])
            model.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CounterfactError(f"{path} is no usable demo model ({error}); download or export it again") from None
        return model.float().to(device).eval().requires_grad_(False)


@torch.no_grad()
def sample(
    model: DemoModel, captions: Sequence[str], seed: int = 0, steps: int = 20, cfg: float = 2.0, batch: int = 32
) -> torch.Tensor:
    """Latents [N, C, h, w] for captions, deterministic in the seed and independent of the batch size and device.

    `cfg` is the scale of classifier-free guidance: 1 is the conditional prediction alone.
    """
    config, levels = model.config, sampling_sigmas(steps)
    shape = (len(captions), config.latent_channels, config.latent_size, config.latent_size)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(model.device)
    done = []
    for start in range(0, len(captions), batch):
        texts = list(captions[start : start + batch])
        context = model.context(texts)
        if cfg != 1:
            context = torch.cat([context, model.context([""]).expand_as(context)])

        def denoise(x: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor = context) -> torch.Tensor:
            if cfg == 1:
                return denoised(model.unet, x, sigma, context)
            with_text, without = denoised(model.unet, x.repeat(2, 1, 1, 1), sigma.repeat(2), context).chunk(2)
            return without + cfg * (with_text - without)

        x = noise[start : start + batch]
        # Pure noise at the first level, as ComfyUI starts when nothing of a picture is kept.
        done.append(solve(denoise, x * (1 + levels[0] ** 2).sqrt(), levels))
    return torch.cat(done) if done else noise


def generate(
    model: DemoModel, captions: Sequence[str], seed: int = 0, steps: int = 20, cfg: float = 2.0, batch: int = 32
) -> np.ndarray:
    """Pictures for captions, uint8 [N, size, size, 3]; see :func:`sample`."""
    return to_uint8(model.latents.decode(sample(model, captions, seed, steps, cfg, batch)))


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """[B, 3, H, W] in -1..1 to uint8 [B, H, W, 3]."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu().numpy()


def from_uint8(images: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).movedim(-1, 1).float() / 127.5 - 1
