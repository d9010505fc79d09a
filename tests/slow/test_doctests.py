"""The examples in the docstrings of `causal_core`, module by module under its real name.

pytest's own doctest collection would name the modules after the folder of the checkout, since the pack's root is a
package too, and so import everything twice.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import causal_core

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(causal_core.__path__, "causal_core.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
