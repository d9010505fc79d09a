"""A transformers model under ComfyUI's memory management: moved to the graphics card before use, and off it when
other models need the room.
"""

from __future__ import annotations

import comfy.model_management as memory
import comfy.model_patcher
import torch

# What a question takes beside the weights: keys and values of its tokens, and the logits of some.
WORKING_BYTES = 512 * 2**20


def device() -> torch.device:
    """Where ComfyUI runs text models."""
    return memory.text_encoder_device()


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """A patcher whose model goes on and off the graphics card as a whole: its layers do not know how to compute with
    weights that lie elsewhere.
    """

    def partially_unload(
        self, device_to: torch.device, memory_to_free: int = 0, force_patch_weights: bool = False
    ) -> int:
        return 0


class Managed:
    """Called with a module before each use; keeps it under ComfyUI's memory management from then on."""

    def __init__(self) -> None:
        self.patcher: WholePatcher | None = None

    def __call__(self, module: torch.nn.Module) -> None:
        if self.patcher is None:
            # ComfyUI notes things on the outermost module, which transformers does not allow on its own.
            self.patcher = WholePatcher(
                torch.nn.ModuleDict({"language": module}), device(), memory.text_encoder_offload_device()
            )
        memory.load_models_gpu([self.patcher], memory_required=WORKING_BYTES, force_full_load=True)
