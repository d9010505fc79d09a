"""Language models in files: what lies there, and how it is loaded without running anything of it and without a network.

A folder needs config.json and safetensors; pickled weights and code in a folder are never loaded. A .gguf file is
unpacked by transformers, which knows most of the common architectures.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import CounterfactError

log = logging.getLogger("counterfact")

# Up to so many bytes of weights, a model on the CPU computes in full precision.
FULL_PRECISION_BYTES = 6_000_000_000
SAMPLE_BYTES = 1_000_000


@dataclass(frozen=True)
class ModelFiles:
    """Where a model lies.

    Attributes
    ----------
    path : the folder, or the .gguf file
    weights : its files of weights
    sees : whether it takes pictures
    """

    path: Path
    weights: tuple[Path, ...]
    sees: bool = False

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    @property
    def name(self) -> str:
        """File name and fingerprint: files with other content have another name, wherever they lie."""
        digest = hashlib.sha256()
        texts = [] if self.is_gguf else sorted(p for p in self.path.iterdir() if p.suffix in (".json", ".jinja"))
        for file in (*texts, *self.weights):
            size = file.stat().st_size
            digest.update(f"{size}\n".encode())
            with file.open("rb") as content:
                digest.update(content.read(SAMPLE_BYTES))
                content.seek(max(0, size - SAMPLE_BYTES))
                digest.update(content.read(SAMPLE_BYTES))
        return f"file:{self.path.stem if self.is_gguf else self.path.name}@{digest.hexdigest()[:12]}"


def find_files(path: str | Path) -> ModelFiles:
    """The model at a path.

    Raises
    ------
    CounterfactError
        If there is none that can be loaded safely.
    """
    path = Path(path).expanduser().absolute()
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise CounterfactError(f"model: {path} is no .gguf file; name one, or a folder with a transformers model")
        return ModelFiles(path, (path,))
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CounterfactError(f"model: {path} is no folder with a transformers model: it has no readable config.json")
    weights = tuple(sorted(path.glob("*.safetensors")))
    if not weights:
        raise CounterfactError(
            f"model: {path} has no .safetensors file; other formats are not loaded, since they may run code: convert it"
        )
    return ModelFiles(path, weights, sees="vision_config" in config)


@dataclass(frozen=True)
class Loaded:
    """A model in memory.

    Attributes
    ----------
    module : a transformers model that can generate
    tokenizer : its tokenizer
    processor : what prepares pictures and text together, if it takes pictures
    """

    module: Any
    tokenizer: Any
    processor: Any = None


def load(files: ModelFiles, device: torch.device) -> Loaded:
    """Load a model into main memory, in the precision in which `device` is to compute.

    Raises
    ------
    CounterfactError
        If it is damaged, of an unknown architecture, or a package for it is missing.
    """
    if missing := [name for name in ("gguf", "accelerate") if files.is_gguf and find_spec(name) is None]:
        raise CounterfactError(
            f"model: to load {files.path.name}, the Python packages {' and '.join(missing)} are needed; run pip "
            "install -e '.[llm]' in the folder of the pack"
        )
    log.info("Loading the language model %s", files.path.name)
    try:
        with _quiet(), _offline():
            loaded = _load(files, device)
    except Exception as error:
        # There is no telling what a damaged file does to its parsers.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    else:
        return loaded
    raise CounterfactError(
        f"model: {files.path} cannot be loaded ({reason}); check the files, or open the model in another program and "
        "use that as a server"
    )


def _load(files: ModelFiles, device: torch.device) -> Loaded:
    import transformers

    place = files.path.parent if files.is_gguf else files.path
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    full = device.type == "cpu" and sum(file.stat().st_size for file in files.weights) < FULL_PRECISION_BYTES
    # The option was renamed in 4.56.
    dtype = "dtype" if tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56) else "torch_dtype"
    weights = {dtype: torch.float32 if full else torch.bfloat16 if files.is_gguf else "auto", "use_safetensors": True}
    if files.is_gguf:
        safe["gguf_file"] = files.path.name
        if hasattr(transformers, "GgufConfig"):
            # Packed weights would need kernels from the network.
            weights["quantization_config"] = transformers.GgufConfig(dequantize=True)
    if files.sees:
        processor = transformers.AutoProcessor.from_pretrained(place, **safe)
        tokenizer, kind = processor.tokenizer, transformers.AutoModelForImageTextToText
    else:
        processor, kind = None, transformers.AutoModelForCausalLM
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **safe)
    module = kind.from_pretrained(place, **safe, **weights).eval().requires_grad_(False)
    # No draws, penalties or lengths that the folder asks for: a request says all that.
    ends = _as_list(module.generation_config.eos_token_id) + _as_list(tokenizer.eos_token_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    module.generation_config = transformers.GenerationConfig(eos_token_id=ends or None, pad_token_id=pad)
    return Loaded(module, tokenizer, processor)


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and advice, which are for programmers."""
    from transformers.utils import logging as its

    level, bars = its.get_verbosity(), its.is_progress_bar_enabled()
    its.set_verbosity_error()
    its.disable_progress_bar()
    try:
        yield
    finally:
        its.set_verbosity(level)
        if bars:
            its.enable_progress_bar()


@contextmanager
def _offline() -> Iterator[None]:
    """Without a network, whatever a config.json may ask for."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
