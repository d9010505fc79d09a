"""Denoising several captions at once with any UNet in ComfyUI, and a look at its cross-attention in passing.

Everything lives in one run: captions become the conditionings of a guider, ComfyUI loads the models and prepares the
conditionings as for any sampler, and then calls a function of ours in place of the sampling loop. Patches for the
attention are set on options of single calls, never on the MODEL, which other nodes and later runs share.
"""

from __future__ import annotations

import itertools
import numbers
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, optimized_attention

from ..causal_core.attention.capture import AttentionMaps
from ..causal_core.errors import CounterfactError

Site = tuple[str, int, int]
Conditioning = list[list[Any]]

_SITE = re.compile(r"(input|middle|output)_blocks?\.(\d+)\..*transformer_blocks\.(\d+)")


def attention_sites(model: comfy.model_patcher.ModelPatcher) -> dict[Site, torch.nn.Module]:
    """Cross-attention layers of a UNet by the key under which ComfyUI takes a replacement for them.

    Raises
    ------
    CounterfactError
        If the model has none, or is not trained to denoise (flow models).
    """
    sites: dict[Site, torch.nn.Module] = {}
    for name, module in model.model.diffusion_model.named_modules():
        place = _SITE.fullmatch(name)
        if place and isinstance(module, BasicTransformerBlock) and module.attn2 is not None:
            kind, number, index = place[1], int(place[2]), int(place[3])
            # The middle block's attention is its module 1, but ComfyUI's key for it has a 0.
            sites[kind, 0 if kind == "middle" else number, index] = module.attn2
    if not sites or not isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.EPS):
        raise CounterfactError(
            f"model: {type(model.model.model_config).__name__} is of a family without the cross-attention that this "
            "node works with; connect Load Demo Model, or a Stable Diffusion 1.x, 2.x or SDXL checkpoint"
        )
    return sites


def encode(clip: Any, captions: Iterable[str]) -> list[Conditioning]:
    """The conditioning of each caption."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(caption)) for caption in captions]


def token_ids(clip: Any, text: str) -> list[int]:
    """Token ids of a text, sections of the text encoder one after the other, special tokens and padding included."""
    sections = next(iter(clip.tokenize(text).values()))
    # Textual inversion embeddings stand among the ids as tensors.
    return [int(t) if isinstance(t, numbers.Integral) else -1 for section in sections for t, *_ in section]


class Captions(comfy.samplers.CFGGuider):
    """A guider with one conditioning a caption."""

    def __init__(self, model: comfy.model_patcher.ModelPatcher, conditionings: Sequence[Conditioning]) -> None:
        super().__init__(model)
        self.inner_set_conds({str(row): conditioning for row, conditioning in enumerate(conditionings)})
        self.sites = attention_sites(model)
        self.lengths = [conditioning[0][0].shape[1] for conditioning in conditionings]
        given, wanted = conditionings[0][0][0].shape[2], next(iter(self.sites.values())).to_k.in_features
        if given != wanted:
            raise CounterfactError(
                f"clip: it makes {given} numbers a token, but the model reads {wanted}; connect the CLIP of its "
                "checkpoint"
            )


class Rows:
    """Denoised estimates for rows of captions; a :class:`causal_core.guidance.csg.Rows` while a guider samples."""

    def __init__(self, guider: Captions, options: dict[str, Any]) -> None:
        self.guider, self.options = guider, options

    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        """[len(rows), B, C, h, w] for x [B, C, h, w]; shows attention to `maps` if given."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        options = self.options if maps is None else self._capturing(maps, rows)
        conditionings = [self.guider.conds[str(row)] for row in rows]
        level = x.new_full((len(x),), sigma)
        return torch.stack(comfy.samplers.calc_cond_batch(self.guider.inner_model, conditionings, x, level, options))

    def _capturing(self, maps: AttentionMaps, rows: Sequence[int]) -> dict[str, Any]:
        """The options of one call in which all cross-attention shows its queries and keys."""
        options = self.options.copy()
        present = options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        for kind, number, index in self.guider.sites:
            before = present.get((kind, number, index)) or present.get((kind, number))
            shown = _showing(maps, rows, self.guider.lengths, before)
            comfy.model_patcher.set_model_options_patch_replace(options, shown, "attn2", kind, number, index)
        return options


def _showing(maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int], before: Callable | None) -> Callable:
    """Cross-attention as it would be without this patch, shown to the maps in passing."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: Mapping[str, Any]) -> torch.Tensor:
        shape = tuple(options["activations_shape"][-2:])
        present = [rows[i] for i in options["cond_or_uncond"]]
        for row, q_row, k_row in zip(present, q.chunk(len(present)), k.chunk(len(present))):
            # Texts of different lengths come tiled to a common one: the first tile holds all there is to know.
            maps.add(q_row, k_row[:, : lengths[row]], options["n_heads"], [row], shape)
        if before is not None:
            return before(q, k, v, options)
        return optimized_attention(
            q, k, v, options["n_heads"], attn_precision=options["attn_precision"], transformer_options=options
        )

    return attend


class _Instead(comfy.samplers.Sampler):
    """A sampler that calls a function once."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function = function

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ) -> torch.Tensor:
        return self.function(Rows(model_wrap, extra_args["model_options"]), latent_image, denoise_mask)


def run(
    guider: Captions,
    latent: dict[str, Any],
    sigmas: torch.Tensor,
    function: Callable[[Rows, torch.Tensor, torch.Tensor | None], torch.Tensor],
    seed: int,
) -> torch.Tensor:
    """Let ComfyUI prepare a model for sampling, and call a function with it.

    Parameters
    ----------
    latent : ComfyUI's LATENT
    sigmas : noise levels that the function is going to use, for patches that want to know them
    function : called with the denoiser, the latent [B, C, h, w] in the model's own scale and the noise mask
        [B, C, h, w] if there is one; returns a latent

    Returns
    -------
    the latent that the function returned, float32 [B, C, h, w], in ComfyUI's scale

    Raises
    ------
    CounterfactError
        If latent or mask do not fit the model or each other.
    """
    samples = latent["samples"]
    model = guider.model_patcher
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels:
        raise CounterfactError(
            f"latent: it has the shape {list(samples.shape)}, but the model works on pictures with {channels} "
            "channels; encode the picture with the VAE of the model's checkpoint"
        )
    if not torch.isfinite(samples).all():
        raise CounterfactError("latent: it has numbers that are not finite; encode the picture again")
    mask = latent.get("noise_mask")
    return guider.sample(torch.zeros_like(samples), samples, _Instead(function), sigmas, denoise_mask=mask, seed=seed)


def progress_bar(model: comfy.model_patcher.ModelPatcher, steps: int) -> Callable[..., None]:
    """A function that shows one more step on the page; its last argument is the denoised latent, for the preview."""
    show = latent_preview.prepare_callback(model, steps)
    done = itertools.count()
    return lambda *shown: show(min(next(done), steps - 1), shown[-1], shown[-1], steps)


def noise_levels(model: comfy.model_patcher.ModelPatcher, steps: int, skip: float) -> torch.Tensor:
    """Falling noise levels of the model's own schedule, evenly spaced in time, and a final 0: [steps + 1].

    Parameters
    ----------
    skip : share of the schedule, 0 to below 1, to leave out at its noisy end
    """
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", max(steps, round(steps / (1 - skip))))[-(steps + 1) :]
