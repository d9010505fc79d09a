"""All that an error may give away."""

from __future__ import annotations

import traceback


def everywhere(error: BaseException) -> str:
    """All that is told of an error, with the local variables of all frames, and of those that it came from."""
    told, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told.append(repr(error) + str(vars(error)))
        told += traceback.TracebackException.from_exception(error, capture_locals=True).format()
        error = error.__cause__ or error.__context__
    return "".join(told)
