"""Transformers that ComfyUI lets watch through its attention override: joint attention of text and picture, and Wan.

Joint attention runs one softmax over text and picture tokens, text first; a phrase's probability is its share of all
of it. Of every layer only the rows of picture queries are looked at, and only where the sizes say that the layer is one
of these: refiners, self-attention and layouts that other nodes have changed are passed over. Layers all have the same
resolution, one position a patch of the latent. Where the network says how deep a layer is, its first and last quarter
are left out, which halves the cost.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_base
import torch
from comfy.ldm.chroma.model import Chroma as ChromaNetwork
from comfy.ldm.flux.model import Flux as FluxNetwork
from comfy.ldm.lumina.model import NextDiT
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel
from comfy.ldm.wan.model import WanModel

from ...causal_core.attention.capture import AttentionMaps

OVERRIDE = "optimized_attention_override"


class Transformer(ABC):
    """What these families share; see :class:`nodes.attention.Adapter`."""

    networks: tuple[type[torch.nn.Module], ...] = ()
    cuts_template = False
    several_sizes = False

    def __init__(self, base: comfy.model_base.BaseModel) -> None:
        self.network = base.diffusion_model
        self.width = self.text_width()
        size = self.network.patch_size
        self.patch = size if isinstance(size, int) else size[-1]

    @classmethod
    def fits(cls, network: torch.nn.Module) -> bool:
        return isinstance(network, cls.networks)

    @abstractmethod
    def text_width(self) -> int | None:
        """Numbers a token of the conditioning has; None where the network does not say."""

    def encoders(self, clip: Any, names: Sequence[str]) -> Sequence[str]:
        # Flux lists the tokens of CLIP, which makes its pooled output, before those of its text encoder.
        return names[-1:]

    def capturing(
        self, options: Mapping[str, Any], maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int]
    ) -> dict[str, Any]:
        inner = options["transformer_options"]
        before = inner.get(OVERRIDE)
        look = self.looking(maps, rows, lengths)

        def attend(attention: Callable, *args: Any, **kwargs: Any) -> torch.Tensor:
            look(*args, **kwargs)
            return attention(*args, **kwargs) if before is None else before(attention, *args, **kwargs)

        return {**options, "transformer_options": {**inner, OVERRIDE: attend}}

    def looking(self, maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int]) -> Callable[..., None]:
        """A function with the arguments of ComfyUI's attention that shows it to the maps."""
        shape = tuple(math.ceil(side / self.patch) for side in maps.grid)
        picture = math.prod(shape)

        def look(
            q: torch.Tensor,
            k: torch.Tensor,
            v: torch.Tensor,
            heads: int,
            mask: torch.Tensor | None = None,
            *_: Any,
            transformer_options: Mapping[str, Any] | None = None,
            **__: Any,
        ) -> None:
            options = transformer_options or {}
            present = [rows[i] for i in options.get("cond_or_uncond", ())]
            if not maps.watched.keys() & set(present) or not _in_the_middle(options):
                return
            # Texts come in one batch only if they have the same length once they are filled up.
            texts = [lengths[row] for row in present]
            start = self.picture_start(q.shape[-2], k.shape[-2], picture, texts[0], options)
            if start is not None:
                firsts = [self.first_text(text) for text in texts]
                queries, shown = q.narrow(-2, start, picture), _picture_rows(mask, start, picture)
                maps.add(queries, k, heads, present, shape, firsts, shown, fine=True)

        return look

    def picture_start(self, queries: int, keys: int, picture: int, text: int, options: Mapping[str, Any]) -> int | None:
        """Position of the first picture token among the queries; None where the layer is of another kind.

        Parameters
        ----------
        queries, keys : tokens in this layer
        picture, text : tokens of the latent and of the conditioning
        """
        padded = self.padded_text(text)
        # Reference pictures come after the picture itself.
        others = sum(options.get("reference_image_num_tokens", ()))
        return padded if queries == keys == padded + self.padded_picture(picture) + others else None

    def padded_text(self, text: int) -> int:
        """Text tokens in the joint sequence."""
        return text

    def padded_picture(self, picture: int) -> int:
        """Picture tokens in the joint sequence."""
        return picture

    def first_text(self, text: int) -> int:
        """Position of the first token of the conditioning among the keys."""
        return 0


class Flux(Transformer):
    """Flux 1 and 2, Chroma and Radiance."""

    networks = (FluxNetwork, ChromaNetwork)

    def __init__(self, base: comfy.model_base.BaseModel) -> None:
        super().__init__(base)
        # ComfyUI pads texts of Flux 2 on the left.
        self.shortest = 512 if isinstance(base, comfy.model_base.Flux2) else 0

    def text_width(self) -> int:
        return self.network.params.context_in_dim

    def padded_text(self, text: int) -> int:
        return max(text, self.shortest)

    def first_text(self, text: int) -> int:
        return self.padded_text(text) - text


class StableDiffusion3(Transformer):
    """Stable Diffusion 3 and 3.5."""

    networks = (MMDiT,)

    def text_width(self) -> int | None:
        return getattr(self.network.context_embedder, "in_features", None)

    def encoders(self, clip: Any, names: Sequence[str]) -> Sequence[str]:
        clip_l, clip_g, t5 = (getattr(clip.cond_stage_model, part, None) for part in ("clip_l", "clip_g", "t5xxl"))
        # The two CLIPs stand side by side and cut a text into the same tokens.
        return [*(names[:1] if clip_l or clip_g else ()), *(names[-1:] if t5 else ())]


class QwenImage(Transformer):
    """Qwen-Image."""

    networks = (QwenImageTransformer2DModel,)
    cuts_template = True

    def text_width(self) -> int:
        return self.network.txt_in.in_features


class Lumina(Transformer):
    """Lumina 2 and Z-Image, which fill up text and picture on the right."""

    networks = (NextDiT,)

    def text_width(self) -> int:
        return self.network.cap_embedder[1].in_features

    def padded_text(self, text: int) -> int:
        multiple = self.network.pad_tokens_multiple or 1
        return math.ceil(text / multiple) * multiple

    padded_picture = padded_text


class Wan(Transformer):
    """Wan 2.x: cross-attention to the text after each self-attention."""

    networks = (WanModel,)

    def text_width(self) -> int:
        return self.network.text_dim

    def looking(self, maps: AttentionMaps, rows: Sequence[int], lengths: Sequence[int]) -> Callable[..., None]:
        # With as many picture as text tokens both kinds of attention look alike, and only their order tells.
        self.turn = 0
        return super().looking(maps, rows, lengths)

    def picture_start(self, queries: int, keys: int, picture: int, text: int, options: Mapping[str, Any]) -> int | None:
        if (queries, keys) != (picture, text):
            return None
        self.turn += 1
        return None if picture == text and self.turn % 2 else 0


FAMILIES = (Flux, StableDiffusion3, QwenImage, Lumina, Wan)


def _in_the_middle(options: Mapping[str, Any]) -> bool:
    depth, blocks = options.get("block_index"), options.get("total_blocks")
    return depth is None or blocks is None or blocks // 4 <= depth < blocks - blocks // 4


def _picture_rows(mask: torch.Tensor | None, start: int, picture: int) -> torch.Tensor | None:
    """A mask in ComfyUI's forms as [batch, heads, queries, keys], for the queries of the picture alone."""
    if mask is None:
        return None
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim == 3:
        mask = mask[:, None]
    return mask if mask.shape[-2] == 1 else mask.narrow(-2, start, picture)
