"""Where training nodes find what they learn from, and where they put what they have learnt."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import folder_paths

from ..causal_core.errors import CounterfactError
from .demo import FOLDER, own_files

RUNS = "counterfact", "training"


def offered(pictures: bool = True) -> tuple[list[str], list[str]]:
    """What lies in ComfyUI's input folder: folders with ``pictures`` in them or below them, and CSV files."""
    root = Path(folder_paths.get_input_directory())
    folders, tables = set(), []
    for place, _, files in os.walk(root):
        here = Path(place).relative_to(root)
        tables += [(here / file).as_posix() for file in files if file.lower().endswith(".csv")]
        # One by one: of thousands of pictures the first says enough.
        if pictures and any(folder_paths.filter_files_content_types([file], ["image"]) for file in files):
            folders.update(folder.as_posix() for folder in (here, *here.parents) if folder.parts)
    return sorted(folders), sorted(tables)


def chosen(what: str, name: str, known: Sequence[str]) -> Path:
    """Something in ComfyUI's input folder; raises CounterfactError for what is not among the ``known``."""
    if name not in known:
        raise CounterfactError(
            f"{what}: there is no {name!r} in ComfyUI's input folder; put it there, or press R and choose another"
        )
    return Path(folder_paths.get_input_directory(), name)


def within(folder: str) -> list[Path]:
    """All files in a folder of ComfyUI's input folder and below it; none for no folder."""
    found = Path(folder_paths.get_input_directory(), folder).rglob("*") if folder else ()
    return sorted(path for path in found if path.is_file())


def unchanged(found: Iterable[Path]) -> str:
    """A text that is another one whenever one of the files is."""
    states = [(path, path.stat()) for path in found if path.exists()]
    told = "\n".join(f"{path} {state.st_mtime_ns} {state.st_size}" for path, state in states)
    return hashlib.sha256(told.encode()).hexdigest()


def run_folder(name: str) -> Path:
    """Where the checkpoints of a run lie."""
    return Path(folder_paths.get_output_directory(), *RUNS, name)


def target(name: str, kind: str, what: str) -> Path:
    """The file for the weights of a run.

    Raises
    ------
    CounterfactError
        If a file is there already that is not of this kind, which is ``what`` in words, or that the run did not make.
    """
    file = f"{name}.safetensors"
    path = Path(folder_paths.get_folder_paths(FOLDER)[0], file)
    own = own_files()
    if file not in own and not path.exists():
        return path
    if own.get(file) != kind:
        raise CounterfactError(f"name: models/{FOLDER}/{file} is there already and is no {what}; choose another name")
    if not run_folder(name).exists():
        raise CounterfactError(
            f"name: models/{FOLDER}/{file} is there already, and the run that made it is not; choose another name"
        )
    return path
