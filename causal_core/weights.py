"""Weights files: safetensors with one JSON document in the metadata, written so that nobody sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from .errors import CounterfactError, check_schema

METADATA_KEY = "counterfact"


def write_tensors(path: str | Path, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
    """Write a safetensors file with one JSON document in its metadata; a reader never sees half a file."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = serialize(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
            metadata={METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False)},
        )
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: str | Path, kind: str, version: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote.

    Raises
    ------
    CounterfactError
        If the file is missing, cut short, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise CounterfactError(f"cannot read {path}: {error.strerror or 'no such file'}; check the path") from None
    except (SafetensorError, ValueError, RecursionError) as error:  # ValueError: JSON, also its numbers and letters
        raise CounterfactError(f"{path} is damaged or no safetensors file ({error}); export it again") from None
    try:
        check_schema(document, kind, version)
    except CounterfactError as error:
        raise CounterfactError(f"{path}: {error}") from None
    return tensors, document
