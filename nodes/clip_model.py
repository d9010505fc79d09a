"""ComfyUI's own text models as language models: what Load CLIP has loaded writes, sees pictures and scores choices.

ComfyUI writes a text token by token, and asks the model's `sample_token` for each. We answer instead: with a draw of
our own, or with the tokens of a choice whose probability is wanted.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import comfy.sd
import numpy as np
import torch
from comfy.text_encoders.llama import BaseGenerate

from ..causal_core.errors import CounterfactError
from ..causal_core.language.model import TEXT, Check, OneByOne, Prompt, Request, ignore
from ..causal_core.language.scoring import continuations

Tokens = dict[str, Any]
# The next token for the logits of all tokens.
Pick = Callable[[torch.Tensor], int]

FINGERPRINT_VALUES = 64


class ClipModel(OneByOne):
    """A language model inside a CLIP.

    Parameters
    ----------
    clip : from Load CLIP, with a text model that can write

    Raises
    ------
    CounterfactError
        If it cannot.
    """

    scores = TEXT

    def __init__(self, clip: comfy.sd.CLIP) -> None:
        writers = [module for module in clip.cond_stage_model.modules() if isinstance(module, BaseGenerate)]
        if not writers or not hasattr(clip.cond_stage_model, "generate"):
            raise CounterfactError(
                "clip: this text encoder cannot write; connect a language model from Load CLIP, such as Qwen3-VL, "
                "Qwen3.5 or Gemma 4"
            )
        self.clip, self.writer = clip, writers[0]

    @cached_property
    def name(self) -> str:
        """The model's class, and a fingerprint of its weights and of what patches them."""
        digest = hashlib.sha256()
        for key, weight in self.writer.state_dict().items():
            digest.update(f"{key} {tuple(weight.shape)}".encode())
            if weight.is_floating_point() and not weight.is_meta:
                digest.update(weight.flatten()[:FINGERPRINT_VALUES].float().cpu().numpy().tobytes())
        if self.clip.patcher.patches:
            digest.update(str(self.clip.patcher.patches_uuid).encode())
        return f"clip:{type(self.writer).__name__}@{digest.hexdigest()[:12]}"

    @cached_property
    def sees(self) -> bool:
        """Whether the model has an eye, and its tokenizer a place for a picture."""
        picture = np.zeros((64, 64, 3), np.uint8)
        return hasattr(self.writer, "preprocess_embed") and _pictures(self._chat(Prompt("", images=(picture,)))) == 1

    def complete(self, request: Request, check: Check = ignore) -> str:
        """See `LanguageModel.complete`."""
        check()
        generator = torch.Generator().manual_seed(request.seed % 2**63)

        def pick(logits: torch.Tensor) -> int:
            check()
            if request.temperature == 0:
                return int(logits.argmax())
            chances = torch.softmax(logits.cpu() / request.temperature, -1)
            return int(torch.multinomial(chances, 1, generator=generator))

        prompt = request.prompt
        tokens = self._chat(prompt) if prompt.chat else self._raw(self._ids(prompt.text))
        return self.clip.decode(self._generate(tokens, pick, request.max_tokens))

    def choice_logprobs(self, request: Request, check: Check = ignore) -> tuple[float, ...]:
        """See `LanguageModel.choice_logprobs`; the sum over the tokens of each choice."""
        check()
        prompt = request.prompt
        if not all(request.choices):
            raise CounterfactError("choices: one of them is empty; write at least one character")
        if prompt.chat:
            # A template ends with a marker or a line break, which no token of a choice becomes one with.
            head, tails = None, [tuple(self._ids(choice)) for choice in request.choices]
        else:
            endings = [self._ids(prompt.text + choice) for choice in request.choices]
            split = continuations(self._ids(prompt.text), endings)
            head, tails = split[0].head, [item.tail for item in split]
        # Log-probabilities of all tokens after each beginning of a tail: choices share what they can.
        known: dict[tuple[int, ...], torch.Tensor] = {}
        for tail in tails:
            if not all(tail[:n] in known for n in range(len(tail))):
                # ComfyUI's models take some tokens apart when they read them: each time anew.
                self._follow(self._chat(prompt) if head is None else self._raw(head), tail, known, check)
        # After a marker for the end of the text, nothing comes any more.
        return tuple(
            sum(float(known[tail[:n]][token]) if tail[:n] in known else -math.inf for n, token in enumerate(tail))
            for tail in tails
        )

    def _follow(
        self, tokens: Tokens, tail: tuple[int, ...], known: dict[tuple[int, ...], torch.Tensor], check: Check
    ) -> None:
        """Have the model write a tail, and note before each of its tokens how probable all tokens were."""
        written = 0

        def pick(logits: torch.Tensor) -> int:
            nonlocal written
            check()
            known[tail[:written]] = torch.log_softmax(logits, -1).cpu()
            written += 1
            return tail[written - 1]

        self._generate(tokens, pick, len(tail))

    def _generate(self, tokens: Tokens, pick: Pick, length: int) -> list[int]:
        """Write tokens as `pick` says, up to the end of the text or so many."""

        def sample(logits: torch.Tensor, *settings: Any, **more: Any) -> torch.Tensor:
            return torch.tensor([[pick(logits[0].float())]], device=logits.device)

        with _instead(self.writer, "sample_token", sample):
            return self.clip.generate(tokens, do_sample=False, max_length=length)

    def _chat(self, prompt: Prompt) -> Tokens:
        """The tokens of a prompt in the model's own template, as ComfyUI's Generate Text makes them."""
        words = _harmless("\n\n".join(filter(None, (prompt.system, prompt.text))))
        image = _image(prompt.images) if prompt.images else None
        tokens = self.clip.tokenize(
            words, image=image, skip_template=False, min_length=1, thinking=False, video=None, audio=None
        )
        if words and _pictures(tokens) != len(prompt.images):
            raise CounterfactError(
                f"clip: this text model takes {_pictures(tokens)} of the {len(prompt.images)} pictures; connect a "
                "vision-language model, such as Qwen3-VL"
            )
        return tokens

    def _ids(self, text: str) -> list[int]:
        """The tokens of a text alone."""
        tokenizer = self._tokenizer()
        end = -1 if tokenizer.tokenizer_adds_end_token else None
        return list(tokenizer.tokenizer(text)["input_ids"][tokenizer.tokens_start : end])

    def _raw(self, ids: Sequence[int]) -> Tokens:
        """Tokens without a template, with what the model expects at the start of a text."""
        start = self._tokenizer().start_token
        row = [(token, 1.0) for token in ([] if start is None else [start]) + list(ids)]
        if not row:
            raise CounterfactError("prompt: it is empty; write at least one character")
        return {self.clip.tokenizer.clip_name: [row]}

    def _tokenizer(self) -> Any:
        outer = self.clip.tokenizer
        return getattr(outer, outer.clip)


def _pictures(tokens: Tokens) -> int:
    """How many pictures there are among tokens."""
    return sum(isinstance(token[0], dict) for rows in tokens.values() for row in rows for token in row)


def _image(images: Sequence[np.ndarray]) -> torch.Tensor:
    """Pictures as ComfyUI's IMAGE, [pictures, height, width, 3] from 0 to 1."""
    if len({image.shape for image in images}) > 1:
        raise CounterfactError("image: the pictures differ in size; scale them to one size first")
    return torch.from_numpy(np.stack(images)).float() / 255


def _harmless(text: str) -> str:
    """Words without markers such as <|im_end|>, which would end the user's turn."""
    return re.sub(r"<(?=\|?\w+\|?>)", "< ", text)


@contextmanager
def _instead(owner: torch.nn.Module, name: str, method: Callable) -> Iterator[None]:
    """Another method in the place of a method of one object."""
    setattr(owner, name, method)
    try:
        yield
    finally:
        delattr(owner, name)
