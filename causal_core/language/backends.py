"""A language model by its name, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CounterfactError
from .model import LanguageModel

SMOLLM2, SERVER = "smollm2", "server"


def open_model(name: str, **options: Any) -> LanguageModel:
    """A language model by its name.

    Parameters
    ----------
    name : "smollm2", the small model that is fetched on first use; "server", an OpenAI-compatible server; or the path
        of a folder with a transformers model, or of a .gguf file
    **options : of a server, see `Server`: url, model, timeout, parallel; the others have none

    Raises
    ------
    CounterfactError
        If there is no such model.
    """
    if name == SERVER:
        from .server import Server

        return Server(**options)
    if options:
        raise CounterfactError(f"--backend {name} takes no {', '.join(sorted(options))}: only '{SERVER}' does")
    if name == SMOLLM2:
        from .smollm2 import smollm2

        return smollm2()
    if not (name and Path(name).exists()):
        raise CounterfactError(
            f"--backend: there is no {name!r}; use '{SMOLLM2}', '{SERVER}', or the path of a folder with a "
            "transformers model or of a .gguf file"
        )
    from .local import LocalModel

    return LocalModel.open(name)
