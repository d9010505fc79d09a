"""A causal autoencoder as ComfyUI runs networks: on the graphics card while it computes, off it when other models need
the room, half on it where there is no more; with progress on the page, and an end when the run is cancelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import comfy.model_management as memory
import comfy.model_patcher
import comfy.ops
import comfy.utils
import numpy as np
import torch
from comfy.cli_args import LatentPreviewMethod, args
from PIL import Image
from torch import nn

from ..causal_core.autoencoder.config import AutoencoderConfig
from ..causal_core.autoencoder.diffusion import ROUNDS
from ..causal_core.autoencoder.model import CausalAutoencoder, CausalLatent
from ..causal_core.errors import CounterfactError

# Layers that bring their weights to where the pictures are, whatever part of the networks is on the graphics card.
LAYERS = {
    nn.Linear: comfy.ops.manual_cast.Linear,
    nn.Conv2d: comfy.ops.manual_cast.Conv2d,
    nn.GroupNorm: comfy.ops.manual_cast.GroupNorm,
}
MOST_AT_ONCE = 32
TENSORS = "z", "u", "residual", "noise"
SHOWN, PREVIEW_SIDE = 8, 512


@dataclass(frozen=True)
class Encoded(CausalLatent):
    """A CAUSAL_LATENT: latents on ComfyUI's intermediate device, and the identity of the autoencoder they belong to."""

    made_by: str = ""


class ManagedAutoencoder:
    """A CAUSAL_AUTOENCODER: the networks with a patcher that ComfyUI's memory management knows.

    Parameters
    ----------
    model : on the CPU; its layers become ComfyUI's

    Attributes
    ----------
    identity : the same for the same weights
    """

    def __init__(self, model: CausalAutoencoder) -> None:
        self.model = model
        self.identity = hashlib.sha256(model.encoder.head.weight.numpy().tobytes()).hexdigest()
        for module in model.modules():
            module.__class__ = LAYERS.get(type(module), type(module))
        # ComfyUI notes things on the outermost module, among them its device, which the autoencoder tells itself.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            nn.ModuleDict({"autoencoder": model}),
            load_device=memory.get_torch_device(),
            offload_device=memory.unet_offload_device(),
        )

    def encode(self, images: torch.Tensor, steps: int) -> Encoded:
        """Latents of pictures [B, C, H, W] in -1..1."""
        parts = self._parts(len(images))
        count = Progress(len(parts) * steps * ROUNDS)
        device = self.patcher.load_device
        found = [self.model.encode(images[part].to(device), steps, on_estimate=count) for part in parts]
        return joined([Encoded(**vars(part), made_by=self.identity) for part in found])

    def intervened(self, latent: Encoded, do: dict[str, str], kept: float | None = None) -> Encoded:
        """The latents as they would have been; ``kept`` as :meth:`CausalAutoencoder.held` has it."""
        parts = self._parts(len(latent.z))
        return joined([self.model.intervened(self._there(latent, part), do, kept=kept) for part in parts])

    def decode(self, latent: Encoded, new: Encoded | None = None, strength: float = 1.0) -> torch.Tensor:
        """Pictures [B, H, W, 3] in 0..1."""
        parts = self._parts(len(latent.z))
        show = Progress(len(parts) * latent.steps, preview=True)
        found = []
        for part in parts:
            changed = None if new is None else self._there(new, part)
            images = self.model.decode(self._there(latent, part), changed, strength, on_estimate=show)
            found.append(coloured(images).to(memory.intermediate_device(), memory.intermediate_dtype()))
        return torch.cat(found)

    def require(self, latent: Encoded) -> None:
        """Raise CounterfactError for latents of another autoencoder."""
        if latent.made_by != self.identity:
            raise CounterfactError(
                "latent: it was encoded by another autoencoder; connect the one that CausalDiffAE Encode has"
            )

    def _there(self, latent: Encoded, part: slice) -> Encoded:
        """Some of the latents, where the networks compute."""
        return replace(latent, **{name: getattr(latent, name)[part].to(self.patcher.load_device) for name in TENSORS})

    def loaded(self, pictures: int) -> int:
        """Load the networks; how many of so many pictures go through them at once."""
        device, each = self.patcher.load_device, working_bytes(self.model.config)
        memory.load_models_gpu([self.patcher], memory_required=each * min(pictures, MOST_AT_ONCE))
        # A model that is loaded in part has its buffers left behind.
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        room = int(self.patcher.get_free_memory(device) // each)
        return max(1, min(MOST_AT_ONCE, room))

    def _parts(self, pictures: int) -> list[slice]:
        size = self.loaded(pictures)
        return [slice(first, first + size) for first in range(0, pictures, size)]


def working_bytes(config: AutoencoderConfig) -> int:
    """What one picture takes beside the weights: about twice the activations measured at 256 and 512 pixels."""
    decoder, encoder = 12 * max(config.widths) // config.patch**2, config.encoder_widths[0]
    return 4 * config.size**2 * (decoder + encoder + 12 * config.channels)


class Progress:
    """Counts evaluations on the page, with the pictures so far as preview, and ends the run when it is cancelled.

    ``preview`` is whether there are pictures to show; ComfyUI's settings may forbid it.
    """

    def __init__(self, total: int, preview: bool = False) -> None:
        self.bar = comfy.utils.ProgressBar(total)
        self.preview = preview and args.preview_method != LatentPreviewMethod.NoPreviews

    def __call__(self, estimate: torch.Tensor) -> None:
        memory.throw_exception_if_processing_interrupted()
        shown = strip(coloured(estimate[:SHOWN])) if self.preview else None
        self.bar.update_absolute(self.bar.current + 1, preview=shown)


def coloured(images: torch.Tensor) -> torch.Tensor:
    """Pictures [B, H, W, 3] in 0..1 of pictures [B, C, H, W] in -1..1; grey ones get three channels."""
    found = ((images.float() + 1) / 2).clamp(0, 1).movedim(1, -1)
    return found[..., :3] if found.shape[-1] >= 3 else found[..., :1].expand(-1, -1, -1, 3)


def strip(images: torch.Tensor) -> tuple[str, Image.Image, int]:
    """Pictures [B, H, W, 3] in 0..1 side by side, as ComfyUI sends previews."""
    pixels = np.concatenate(list((images * 255).round().byte().cpu().numpy()), axis=1)
    return "JPEG", Image.fromarray(pixels), PREVIEW_SIDE


def joined(latents: Sequence[Encoded]) -> Encoded:
    """Latents of several batches as one, on ComfyUI's intermediate device."""
    home = memory.intermediate_device()
    tensors = {name: torch.cat([getattr(latent, name).to(home) for latent in latents]) for name in TENSORS}
    return replace(latents[0], **tensors)
