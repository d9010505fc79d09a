"""Answers of language models kept on disk, so that the same question costs nothing the second time.

One small file an answer, named by a hash of the model's name and the whole request. Any number of processes may read
and write at once; a file that cannot be read counts as missing. The folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..cache import cache_dir
from .model import Answer, Check, LanguageModel, Progress, Request, Together, ignore

log = logging.getLogger("counterfact")

VERSION = 1
# So many questions are asked before their answers are kept, at most: what a cancelled run has learnt is not lost.
CHUNK = 32


class Cached(Together):
    """A language model that asks another one only what it has not been asked before.

    Parameters
    ----------
    model : the model to ask
    folder : where answers are kept; "answers" in the cache folder if not given

    Attributes
    ----------
    asked : how many requests went to the model
    """

    def __init__(self, model: LanguageModel, folder: str | Path | None = None) -> None:
        self.model = model
        self.folder = Path(folder) if folder is not None else cache_dir() / "answers"
        self.asked = 0

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def scores(self) -> str:
        return self.model.scores

    @property
    def sees(self) -> bool:
        return self.model.sees

    def batch(self, requests: Sequence[Request], progress: Progress = ignore, check: Check = ignore) -> list[Answer]:
        """See `LanguageModel.batch`."""
        keys = [self._key(request) for request in requests]
        answers = {key: self._read(key, request) for key, request in zip(keys, requests)}
        missing = {key: request for key, request in zip(keys, requests) if answers[key] is None}
        total, known = len(missing), len(requests) - len(missing)
        progress(known, len(requests))
        waiting = list(missing.items())
        for start in range(0, total, CHUNK):
            chunk = waiting[start : start + CHUNK]
            before = known + start
            found = self.model.batch(
                [request for _, request in chunk],
                lambda done, _, before=before: progress(before + done, len(requests)),
                check,
            )
            self.asked += len(chunk)
            for (key, request), answer in zip(chunk, found, strict=True):
                answers[key] = self._write(key, request, answer)
        return [answers[key] for key in keys]

    def _key(self, request: Request) -> str:
        """A hash of everything that the answer depends on."""
        prompt = request.prompt
        images = [hashlib.sha256(np.ascontiguousarray(image)).hexdigest() for image in prompt.images]
        shapes = [[*image.shape, str(image.dtype)] for image in prompt.images]
        # The same question at temperature 0 has the same answer, whatever the seed.
        seed = request.seed if request.temperature > 0 and not request.choices else 0
        asked = [
            VERSION, self.name, prompt.text, prompt.system, prompt.chat, images, shapes, request.choices,
            *((0, 0.0) if request.choices else (request.max_tokens, request.temperature)), seed,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.json"

    def _read(self, key: str, request: Request) -> Answer | None:
        """The answer of a file, if it is whole and of the kind that was asked for."""
        try:
            answer = json.loads(self._path(key).read_text("utf-8"))["answer"]
            if not request.choices:
                return answer if isinstance(answer, str) else None
            numbers = tuple(-math.inf if x is None else float(x) for x in answer)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        fits = len(numbers) == len(request.choices) and not any(math.isnan(x) for x in numbers)
        return numbers if fits else None

    def _write(self, key: str, request: Request, answer: Answer) -> Answer:
        """Keep an answer; a full disk is no reason to lose it."""
        path = self._path(key)
        kept = answer if isinstance(answer, str) else [x if math.isfinite(x) else None for x in answer]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(prefix=".part-", dir=path.parent)
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    json.dump({"answer": kept}, file, allow_nan=False)
                os.replace(part, path)
            except BaseException:
                os.unlink(part)
                raise
        except OSError as error:
            log.warning("The answer of the language model could not be kept in %s: %s", path.parent, error)
        return answer
