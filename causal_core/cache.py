"""Where files live that can be fetched or made again: one cache folder a user, shared by every copy of the pack."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import CounterfactError


def cache_dir() -> Path:
    """The cache folder, not yet created: `COUNTERFACT_CACHE`, else the platform's own place for caches.

    Raises
    ------
    CounterfactError
        If there is neither `COUNTERFACT_CACHE` nor a home folder.
    """
    if own := os.environ.get("COUNTERFACT_CACHE"):
        return Path(own).expanduser().absolute()
    try:
        home = Path.home()
    except RuntimeError:
        raise CounterfactError("no home folder found: set COUNTERFACT_CACHE to a folder that may be written") from None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "counterfact" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "counterfact"
    # The XDG specification has relative values ignored.
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else home / ".cache") / "counterfact"
