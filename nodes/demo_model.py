"""The bundled text-to-image model as ComfyUI's own MODEL, CLIP and VAE.

ComfyUI's classes do all the work: its core UNet under its own names for diffusers' weights, its text encoder machinery
around our word tokenizer (so that `(snow:1.3)` works), its VAE object around the fixed patch transform. The result
computes what `causal_core.demo` computes through diffusers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as memory
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch

from ..causal_core.demo.config import DemoConfig
from ..causal_core.demo.latents import PatchPCA
from ..causal_core.demo.model import KIND, SCHEMA_VERSION
from ..causal_core.demo.schedule import SAMPLING_SETTINGS
from ..causal_core.demo.text_encoder import TextEncoder
from ..causal_core.demo.tokenizer import END, PAD, START, UNKNOWN, WordTokenizer, words
from ..causal_core.errors import CounterfactError
from ..causal_core.weights import read_tensors

NAME = "counterfact"


def load(
    path: str | Path, disable_dynamic: bool = False
) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Build model, text encoder and VAE from a weights file.

    Parameters
    ----------
    path : file that `DemoModel.save` wrote
    disable_dynamic : True for a plain ModelPatcher, as ComfyUI asks of loaders

    Raises
    ------
    CounterfactError
        If the file is missing, damaged, of another kind, or its tensors do not fit its config.
    """
    tensors, document = read_tensors(path, KIND, SCHEMA_VERSION)
    try:
        config = DemoConfig.from_dict(document["config"])
        tokenizer = WordTokenizer(document["vocabulary"], config.max_length)
        # ComfyUI would load half a model with no more than a warning.
        latents = PatchPCA(config.patch, config.latent_channels).requires_grad_(False)
        latents.load_state_dict(_part(tensors, "latents."))
        model = _model(config, latents, _part(tensors, "unet."), disable_dynamic)
        clip = _clip(config, tokenizer, _part(tensors, "text."), disable_dynamic)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CounterfactError(f"{path} is no usable demo model ({error}); download or export it again") from None
    vae = _vae(config, latents)
    for patcher, name in ((model, "model"), (clip.patcher, "clip"), (vae.patcher, "vae")):
        patcher.cached_patcher_init = (_reload, (path, name))
    return model, clip, vae


def _reload(path: str | Path, name: str, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """A fresh patcher of one of the three, for ComfyUI when it needs a second copy."""
    model, clip, vae = load(path, disable_dynamic)
    return {"model": model, "clip": clip.patcher, "vae": vae.patcher}[name]


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}


def _checked(tensors: dict[str, torch.Tensor], module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors, once they are known to be exactly those of the module."""
    wanted = {name: t.shape for name, t in module.state_dict().items()}
    odd = sorted(set(tensors) ^ set(wanted)) or [name for name, shape in wanted.items() if tensors[name].shape != shape]
    if odd:
        raise ValueError(f"{len(odd)} tensors do not fit its config, such as {odd[0]}")
    return tensors


class DemoLatents(comfy.latent_formats.LatentFormat):
    """Latents of unit variance on a grid of patches; previews take the mean colour of each patch."""

    def __init__(self, latents: PatchPCA) -> None:
        self.latent_channels = latents.scale.numel()
        self.spacial_downscale_ratio = latents.patch
        # Pixel unshuffling keeps a colour's pixels together: rows of the matrix are (colour, y, x).
        colours = (latents.matrix * latents.scale).unflatten(0, (3, -1)).mean(1)
        self.latent_rgb_factors = colours.T.tolist()
        self.latent_rgb_factors_bias = latents.mean.unflatten(0, (3, -1)).mean(1).tolist()


class DemoBase(comfy.supported_models_base.BASE):
    """The model's config as ComfyUI reads it."""

    unet_extra_config: dict[str, Any] = {}
    sampling_settings = SAMPLING_SETTINGS
    # So small that half precision saves nothing, and so exact everywhere.
    supported_inference_dtypes = [torch.float32]
    memory_usage_factor = 0.5

    def __init__(self, config: DemoConfig, latents: PatchPCA) -> None:
        self.latent_format = partial(DemoLatents, latents)
        super().__init__(config.comfy_unet_config())
        self.set_inference_dtype(torch.float32, None)

    def model_type(self, state_dict: dict[str, torch.Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        return False


def _model(
    config: DemoConfig, latents: PatchPCA, tensors: dict[str, torch.Tensor], disable_dynamic: bool
) -> comfy.model_patcher.ModelPatcher:
    names = comfy.utils.unet_to_diffusers(config.comfy_unet_config())
    weights = {names[name]: t for name, t in tensors.items()}
    offload_device = memory.unet_offload_device()
    model = DemoBase(config, latents).get_model({}, device=offload_device)
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = kind(model, load_device=memory.get_torch_device(), offload_device=offload_device)
    model.load_model_weights(_checked(weights, model.diffusion_model), "", assign=patcher.is_dynamic())
    return patcher


class Words:
    """The word tokenizer, with what ComfyUI calls of a transformers tokenizer."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self.ids = tokenizer.ids

    @classmethod
    def from_pretrained(cls, path: str, tokenizer: WordTokenizer) -> Words:
        return cls(tokenizer)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [START, *(self.ids.get(word, UNKNOWN) for word in words(text)), END]}

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        known = {i: word for word, i in self.ids.items() if not (skip_special_tokens and i in (PAD, START, END))}
        return " ".join(known[int(i)] for i in ids if int(i) in known)


class DemoTokenizer(comfy.sd1_clip.SDTokenizer):
    """Words with weights, in sections of the encoder's length."""

    def __init__(
        self, tokenizer: WordTokenizer, width: int, embedding_directory: Any = None, tokenizer_data: dict | None = None
    ) -> None:
        super().__init__(
            "", max_length=tokenizer.max_length, pad_with_end=False, embedding_directory=embedding_directory,
            embedding_size=width, embedding_key=NAME, tokenizer_class=Words, tokenizer_data=tokenizer_data or {},
            tokenizer_args={"tokenizer": tokenizer},
        )  # fmt: skip


class DemoTextEncoder(TextEncoder):
    """The text encoder, with what ComfyUI calls of its own."""

    def __init__(self, config: dict[str, int], dtype: Any, device: Any, operations: Any) -> None:
        super().__init__(**config, operations=operations, dtype=dtype, device=device)
        self.num_layers = config["layers"]

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def forward(
        self, ids: None, attention_mask: torch.Tensor | None = None, embeds: torch.Tensor | None = None, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Last and intermediate layer (the same: no layer is ever skipped) and no pooled output."""
        context = self.forward_embeds(embeds, attention_mask)
        return context, context, None


class DemoClipModel(comfy.sd1_clip.SDClipModel):
    """ComfyUI's encoding of weighted tokens around our text encoder."""

    def __init__(
        self, config: dict[str, int], device: Any = "cpu", dtype: Any = None, model_options: dict | None = None
    ) -> None:
        super().__init__(
            device=device, dtype=dtype, max_length=config["max_length"], textmodel_json_config=dict(config),
            model_class=DemoTextEncoder, special_tokens={"start": START, "end": END, "pad": PAD},
            layer_norm_hidden_state=False, enable_attention_masks=True, return_projected_pooled=False,
            model_options=model_options or {},
        )  # fmt: skip


def _clip(
    config: DemoConfig, tokenizer: WordTokenizer, tensors: dict[str, torch.Tensor], disable_dynamic: bool
) -> comfy.sd.CLIP:
    sizes = {
        "vocab": len(tokenizer), "width": config.text_width, "layers": config.text_layers, "heads": config.text_heads,
        "max_length": config.max_length,
    }  # fmt: skip
    _checked(tensors, TextEncoder(**sizes, device="meta"))
    target = comfy.supported_models_base.ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, name=NAME, tokenizer=partial(DemoTokenizer, tokenizer, config.text_width)),
        partial(comfy.sd1_clip.SD1ClipModel, name=NAME, clip_model=partial(DemoClipModel, sizes)),
    )
    return comfy.sd.CLIP(
        target, parameters=sum(t.numel() for t in tensors.values()), state_dict=[tensors],
        model_options={"dtype": torch.float32}, disable_dynamic=disable_dynamic,
    )  # fmt: skip


def _vae(config: DemoConfig, latents: PatchPCA) -> comfy.sd.VAE:
    """ComfyUI's VAE object is made for a list of known networks; the simplest of them is put up, then ours put in."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = latents.eval()
    vae.latent_channels = config.latent_channels
    vae.downscale_ratio = vae.upscale_ratio = config.patch
    # Three copies of the picture, three colours each.
    vae.memory_used_encode = lambda shape, dtype: 9 * shape[2] * shape[3] * memory.dtype_size(dtype)
    vae.memory_used_decode = lambda shape, dtype: vae.memory_used_encode(shape, dtype) * config.patch**2
    vae.patcher = comfy.model_patcher.ModelPatcher(
        latents, load_device=vae.device, offload_device=memory.vae_offload_device()
    )
    return vae
