"""Denoising several captions at once with a model in ComfyUI, and a look at its attention to the text in passing.

Everything lives in one run: captions become the conditionings of a guider, ComfyUI loads the models and prepares the
conditionings as for any sampler, and then calls a function of ours in place of the sampling loop. What differs from
family to family is in :mod:`nodes.attention`.
"""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ..causal_core.attention.capture import AttentionMaps
from ..causal_core.errors import CounterfactError
from .attention import Adapter, adapter
from .memory import Savings, ran_out

Conditioning = list[list[Any]]

# The finest layers that are looked at when memory is short: a quarter of the latent's sides.
COARSE = 4


def captures(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether attention maps can be had from a MODEL; without, regions come from directions and masks alone."""
    return adapter(model) is not None


def is_flow(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether a MODEL was trained by flow matching: x = (1 - sigma) x0 + sigma n, sigma from 0 to 1.

    All others take x = x0 + sigma n.

    Raises
    ------
    CounterfactError
        If the model was trained in neither way, so that ComfyUI's noise levels mean something else.
    """
    sampling = model.get_model_object("model_sampling")
    flow = isinstance(sampling, comfy.model_sampling.CONST)
    # Trained to turn one picture into another, not noise into a picture.
    translates = isinstance(sampling, (comfy.model_sampling.IMG_TO_IMG, comfy.model_sampling.IMG_TO_IMG_FLOW))
    scaled = flow and getattr(sampling, "noise_scale", 1.0) != 1.0
    if not (flow or isinstance(sampling, comfy.model_sampling.EPS)) or translates or scaled:
        raise CounterfactError(
            f"model: {type(model.model.model_config).__name__} does not predict noise, velocity or flow as "
            "text-to-image models do; connect Load Demo Model, or a Stable Diffusion, SDXL, Flux, Qwen-Image, Z-Image "
            "or Wan checkpoint"
        )
    return flow


def encode(clip: Any, captions: Iterable[str]) -> list[Conditioning]:
    """The conditioning of each caption."""
    return [clip.encode_from_tokens_scheduled(clip.tokenize(caption)) for caption in captions]


def token_ids(clip: Any, text: str, encoder: str | None = None) -> list[int]:
    """Token ids of a text, sections of the text encoder one after the other, special tokens and padding included.

    Parameters
    ----------
    encoder : name of one of several text encoders; the first if not given
    """
    tokens = clip.tokenize(text)
    sections = tokens[encoder] if encoder else next(iter(tokens.values()))
    # Textual inversion embeddings stand among the ids as tensors.
    return [int(t) if isinstance(t, numbers.Integral) else -1 for section in sections for t, *_ in section]


class Captions(comfy.samplers.CFGGuider):
    """A guider with one conditioning a caption.

    Attributes
    ----------
    flow : whether the model was trained by flow matching
    attention : the adapter of the model's family, None where attention cannot be captured
    lengths : tokens of each conditioning

    Raises
    ------
    CounterfactError
        If the model's predictions are of another kind, or the conditionings are not made for it.
    """

    def __init__(self, model: comfy.model_patcher.ModelPatcher, conditionings: Sequence[Conditioning]) -> None:
        super().__init__(model)
        self.flow = is_flow(model)
        self.inner_set_conds({str(row): conditioning for row, conditioning in enumerate(conditionings)})
        self.attention: Adapter | None = adapter(model)
        self.lengths = [conditioning[0][0].shape[1] for conditioning in conditionings]
        given, wanted = conditionings[0][0][0].shape[2], self.attention and self.attention.width
        if wanted and given != wanted:
            raise CounterfactError(
                f"clip: it makes {given} numbers a token, but the model reads {wanted}; connect the CLIP of its "
                "checkpoint"
            )


class Rows:
    """Denoised estimates for rows of captions; a :class:`causal_core.guidance.csg.Rows` while a guider samples.

    Attributes
    ----------
    notes : what had to be done without because memory ran out, in words for the report
    """

    def __init__(self, guider: Captions, options: dict[str, Any]) -> None:
        self.guider, self.options = guider, options
        self.video = _is_video(guider.model_patcher)
        self.savings = Savings()
        self.notes = self.savings.notes

    def __call__(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None = None
    ) -> torch.Tensor:
        """[len(rows), B, C, h, w] for x [B, C, h, w]; shows attention to `maps` if given.

        Models of video take x as their single frame; given [B, C, 1, h, w] they return [len(rows), B, C, 1, h, w].

        Raises
        ------
        OutOfMemory
            If memory does not even suffice for one caption at a time without attention.
        """
        family = self.guider.attention
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            shown = maps if maps is not None and maps.watched and family and not self.savings.maps else None
            try:
                return self._estimates(x, sigma, rows, shown)
            except Exception as error:
                if not ran_out(error):
                    raise
            # Only out here, without the error and its traceback, is the memory of the failed attempt free.
            self.savings.more(shown is not None, family is not None and family.several_sizes)

    def _estimates(
        self, x: torch.Tensor, sigma: float, rows: Sequence[int], maps: AttentionMaps | None
    ) -> torch.Tensor:
        frame = self.video and x.ndim == 4
        x = x.unsqueeze(2) if frame else x
        level = x.new_full((len(x),), sigma)
        if maps is not None and self.savings.layers:
            maps.finest = COARSE
        found = []
        with maps.all_or_nothing() if maps is not None else nullcontext():
            for part in [[row] for row in rows] if self.savings.rows else [rows]:
                options = self.options
                if maps is not None:
                    options = self.guider.attention.capturing(options, maps, part, self.guider.lengths)
                conditionings = [self.guider.conds[str(row)] for row in part]
                found += comfy.samplers.calc_cond_batch(self.guider.inner_model, conditionings, x, level, options)
            return torch.stack([one.squeeze(2) for one in found] if frame else found)


class _Instead(comfy.samplers.Sampler):
    """A sampler that calls a function once."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        self.function = function

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ) -> torch.Tensor:
        rows = Rows(model_wrap, extra_args["model_options"])
        if not rows.video:
            return self.function(rows, latent_image, denoise_mask)
        mask = None if denoise_mask is None else denoise_mask.squeeze(2)
        return self.function(rows, latent_image.squeeze(2), mask).unsqueeze(2)


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
    latent : ComfyUI's LATENT, [B, C, h, w], or [B, C, 1, h, w] for models of video
    sigmas : noise levels that the function is going to use, for patches that want to know them
    function : called with the denoiser, the latent [B, C, h, w] in the model's own scale and the noise mask
        [B, C, h, w] if there is one; returns a latent

    Returns
    -------
    the latent that the function returned, float32, in ComfyUI's scale, [B, C, 1, h, w] for models of video

    Raises
    ------
    CounterfactError
        If latent or mask do not fit the model or each other.
    """
    samples = latent["samples"]
    model = guider.model_patcher
    video = _is_video(model)
    if video and samples.ndim == 4:
        samples = samples.unsqueeze(2)
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 + video or samples.shape[1] != channels:
        raise CounterfactError(
            f"latent: it has the shape {list(samples.shape)}, but the model works on pictures with {channels} "
            "channels; encode the picture with the VAE of the model's checkpoint"
        )
    if video and samples.shape[2] != 1:
        raise CounterfactError(
            f"latent: it is a video of {samples.shape[2]} frames, but single pictures are edited; encode one picture "
            "at a time (the VAE of a video model takes a batch of pictures for a video)"
        )
    if not torch.isfinite(samples).all():
        raise CounterfactError("latent: it has numbers that are not finite; encode the picture again")
    mask = latent.get("noise_mask")
    if video and mask is not None:
        # ComfyUI would take the masks of several pictures for the frames of one.
        mask = mask.reshape(-1, 1, 1, *mask.shape[-2:])
    return guider.sample(torch.zeros_like(samples), samples, _Instead(function), sigmas, denoise_mask=mask, seed=seed)


def _is_video(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether a model's latents have a dimension for frames: Wan, and Qwen-Image, which shares its VAE."""
    return model.get_model_object("latent_format").latent_dimensions == 3


def progress_bar(model: comfy.model_patcher.ModelPatcher, steps: int) -> Callable[..., None]:
    """A function that shows one more step on the page; its last argument is the denoised latent, for the preview."""
    show = latent_preview.prepare_callback(model, steps)
    done = itertools.count()
    video = _is_video(model)

    def step(*shown: Any) -> None:
        latent = shown[-1].unsqueeze(2) if video and shown[-1].ndim == 4 else shown[-1]
        show(min(next(done), steps - 1), latent, latent, steps)

    return step


def noise_levels(model: comfy.model_patcher.ModelPatcher, steps: int, skip: float) -> torch.Tensor:
    """Falling noise levels of the model's own schedule, evenly spaced in time, and a final 0: [steps + 1].

    Parameters
    ----------
    skip : share of the schedule, 0 to below 1, to leave out at its noisy end
    """
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", max(steps, round(steps / (1 - skip))))[-(steps + 1) :]
