"""Language models from files on this machine, with exact log-probabilities of any continuation.

A model is loaded when it is first asked something. Requests that are asked together are computed together.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import torch

from ..errors import CounterfactError
from .files import Loaded, find_files, load
from .model import TEXT, Answer, Check, Progress, Prompt, Request, Together, ignore
from .scoring import Continuation, continuations, log_probabilities

# Texts that are written side by side: a step takes hardly longer for eight than for one.
MAX_TEXTS = 8


class LocalModel(Together):
    """A language model in this process; the log-probability of a choice is the sum over its tokens.

    Parameters
    ----------
    name : see `LanguageModel.name`
    load : loads it, for a device, when it is first asked something
    sees : whether it takes pictures
    device : where it computes; by default a graphics card if there is one
    ready : called with the module before each use; by default puts it on `device`
    """

    scores = TEXT

    def __init__(
        self,
        name: str,
        load: Callable[[torch.device], Loaded],
        sees: bool = False,
        device: torch.device | None = None,
        ready: Callable[[torch.nn.Module], None] | None = None,
    ) -> None:
        self.name, self.sees = name, sees
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._load, self._ready = load, ready or (lambda module: module.to(self.device))
        self._loaded: Loaded | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        device: torch.device | None = None,
        ready: Callable[[torch.nn.Module], None] | None = None,
    ) -> LocalModel:
        """The model in a transformers folder or a .gguf file; `device` and `ready` as above.

        Raises
        ------
        CounterfactError
            If there is none that can be loaded safely.
        """
        files = find_files(path)
        return cls(files.name, partial(load, files), files.sees, device, ready)

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r})"

    def batch(self, requests: Sequence[Request], progress: Progress = ignore, check: Check = ignore) -> list[Answer]:
        """See `LanguageModel.batch`; what is alike in requests is computed once."""
        check()
        if not requests:
            return []
        if not self.sees and any(request.prompt.images for request in requests):
            raise CounterfactError(f"model: {self.name} takes no pictures; choose a vision-language model")
        if self._loaded is None:
            self._loaded = self._load(self.device)
            check()
        loaded = self._loaded
        self._ready(loaded.module)
        answers: dict[int, Answer] = {}
        scored = [n for n, request in enumerate(requests) if request.choices and not request.prompt.images]
        written = [n for n, request in enumerate(requests) if not request.choices and not request.prompt.images]
        with torch.inference_mode():
            if scored:
                found = _score(loaded, [requests[n] for n in scored], check, lambda done: progress(done, len(requests)))
                answers.update(zip(scored, found, strict=True))
            for group in _alike(requests, written):
                texts = _write(loaded, [requests[n] for n in group], check)
                answers.update(zip(group, texts, strict=True))
                progress(len(answers), len(requests))
            for n, request in enumerate(requests):
                if request.prompt.images:
                    answers[n] = _look(loaded, request, check)
                    progress(len(answers), len(requests))
        return [answers[n] for n in range(len(requests))]


def render(loaded: Loaded, prompt: Prompt) -> str:
    """The text that a model continues: the prompt in its chat template, up to where the answer begins."""
    if not prompt.chat:
        return prompt.text
    # Markers in words that come from elsewhere would end the user's turn.
    markers = loaded.tokenizer.all_special_tokens
    text, system = _without(prompt.text, markers), _without(prompt.system, markers)
    template = getattr(loaded.processor, "chat_template", None) or loaded.tokenizer.chat_template
    if not template:
        return "".join(f"{part}\n\n" for part in (system, text) if part)

    def turn(role: str, words: str) -> dict[str, Any]:
        if loaded.processor is None:
            return {"role": role, "content": words}
        pictures = [{"type": "image"} for _ in prompt.images if role == "user"]
        return {"role": role, "content": [*pictures, {"type": "text", "text": words}]}

    def fill(*turns: dict[str, Any]) -> str:
        # Models that can think first are asked not to; templates without that option ignore it.
        return loaded.tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )

    if system:
        try:
            return fill(turn("system", system), turn("user", text))
        except jinja2.TemplateError:  # so templates say that they have no place for it
            text = f"{system}\n\n{text}"
    return fill(turn("user", text))


def _without(text: str, markers: Sequence[str]) -> str:
    for marker in markers:
        text = text.replace(marker, " ")
    return text


def _tokens(loaded: Loaded, text: str, chat: bool) -> list[int]:
    """The tokens of a text; a chat template has written all markers that are needed."""
    tokenizer = loaded.tokenizer
    ids = list(tokenizer(text, add_special_tokens=not chat)["input_ids"])
    return ids[:-1] if not chat and ids[-1:] == [tokenizer.eos_token_id] else ids


def _start(loaded: Loaded) -> list[int]:
    """What stands before a text of which nothing is known."""
    tokenizer = loaded.tokenizer
    return [next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), 0)]


def _fitting(loaded: Loaded, length: int) -> None:
    limit = getattr(loaded.module.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise CounterfactError(
            f"model: the question and its answer have {length} tokens, more than the {limit} that this model reads; "
            "shorten it, or choose a model with a longer context"
        )


def _score(
    loaded: Loaded, requests: Sequence[Request], check: Check, done: Callable[[int], None]
) -> list[tuple[float, ...]]:
    """Log-probabilities of the choices of each request."""
    items: list[Continuation] = []
    for request in requests:
        text, chat = render(loaded, request.prompt), request.prompt.chat
        endings = [_tokens(loaded, text + choice, chat) for choice in _choices(request)]
        items += continuations(_tokens(loaded, text, chat), endings, _start(loaded))
    _fitting(loaded, max(len(head) + len(tail) for head, tail in items))
    numbers = iter(
        log_probabilities(loaded.module, items, check, lambda count: done(count * len(requests) // len(items)))
    )
    return [tuple(next(numbers) for _ in request.choices) for request in requests]


def _choices(request: Request) -> tuple[str, ...]:
    if not all(request.choices):
        raise CounterfactError("choices: one of them is empty; write at least one character")
    return request.choices


def _alike(requests: Sequence[Request], which: Sequence[int]) -> list[list[int]]:
    """Groups of requests that can be written side by side: of about the same length, and with the same limit."""
    order = sorted(which, key=lambda n: (requests[n].max_tokens, len(requests[n].prompt.text)))
    alike = [list(group) for _, group in groupby(order, key=lambda n: requests[n].max_tokens)]
    return [group[start : start + MAX_TEXTS] for group in alike for start in range(0, len(group), MAX_TEXTS)]


def _write(loaded: Loaded, requests: Sequence[Request], check: Check) -> list[str]:
    """Texts of several requests, padded on the left, where they begin together."""
    rows = [
        _tokens(loaded, render(loaded, request.prompt), request.prompt.chat) or _start(loaded) for request in requests
    ]
    longest = max(map(len, rows))
    pad = loaded.module.generation_config.pad_token_id
    inputs = {
        "input_ids": torch.tensor([[pad] * (longest - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
    }
    return _generate(loaded, inputs, requests, check)


def _generate(loaded: Loaded, inputs: dict[str, Any], requests: Sequence[Request], check: Check) -> list[str]:
    length = inputs["input_ids"].shape[1]
    _fitting(loaded, length + 1)

    def cancel(ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        check()
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    limit = getattr(loaded.module.config.get_text_config(), "max_position_embeddings", None) or math.inf
    ids = loaded.module.generate(
        **{name: value.to(loaded.module.device) for name, value in inputs.items()},
        max_new_tokens=int(min(requests[0].max_tokens, limit - length)), do_sample=False,
        logits_processor=[Draws(requests)], stopping_criteria=[cancel],
    )  # fmt: skip
    return [loaded.tokenizer.decode(row[length:], skip_special_tokens=True) for row in ids]


class Draws:
    """Draws each text's next token at its own temperature and seed, the same whatever is written beside it."""

    def __init__(self, requests: Sequence[Request]) -> None:
        # Drawn on the CPU, so that a seed means the same on every machine.
        self.temperatures = [request.temperature for request in requests]
        self.generators = [torch.Generator().manual_seed(request.seed % 2**63) for request in requests]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, temperature, generator in zip(scores, self.temperatures, self.generators):
            if temperature > 0:
                chances = torch.softmax(row.float().cpu() / temperature, -1)
                token = int(torch.multinomial(chances, 1, generator=generator))
                row.fill_(-math.inf)
                row[token] = 0.0
        return scores


def _look(loaded: Loaded, request: Request, check: Check) -> Answer:
    """The answer to a request with pictures."""
    from PIL import Image

    text = render(loaded, request.prompt)
    pictures = [Image.fromarray(image) for image in request.prompt.images]
    inputs = dict(loaded.processor(text=[text], images=pictures, return_tensors="pt", add_special_tokens=False))
    if "token_type_ids" not in inspect.signature(loaded.module.forward).parameters:
        # Tokenizers make them by default, but few models know what they are.
        inputs.pop("token_type_ids", None)
    if not request.choices:
        return _generate(loaded, inputs, [request], check)[0]
    numbers = []
    for choice in _choices(request):
        check()
        tail = _tokens(loaded, choice, chat=True)
        longer = _extended(inputs, tail)
        _fitting(loaded, longer["input_ids"].shape[1])
        logits = loaded.module(**{name: value.to(loaded.module.device) for name, value in longer.items()}).logits
        steps = torch.log_softmax(logits[0, -len(tail) - 1 : -1].float(), -1)
        numbers.append(float(steps[range(len(tail)), tail].sum()))
    return tuple(numbers)


def _extended(inputs: dict[str, torch.Tensor], tail: Sequence[int]) -> dict[str, torch.Tensor]:
    """The inputs of a model with more tokens of text at the end, in everything that goes by tokens."""
    shape, longer = inputs["input_ids"].shape, {}
    for name, value in inputs.items():
        fill = {"input_ids": list(tail), "attention_mask": [1] * len(tail)}.get(name, [0] * len(tail))
        by_token = value.shape == shape
        longer[name] = torch.cat([value, torch.tensor([fill], dtype=value.dtype)], 1) if by_token else value
    return longer
