"""The bundled text-to-image model: small enough to train on one CPU core, standard enough to run in ComfyUI.

>>> from causal_core.demo.model import DemoModel, generate
>>> model = DemoModel.load(weights_path("micro"))  # doctest: +SKIP
>>> images = generate(model, ["in winter, at night, red house"], seed=0)  # uint8 [1, 64, 64, 3]  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path

from ..errors import unknown

WEIGHTS = Path(__file__).parent / "weights"


def weights_path(name: str) -> Path:
    """The file of a bundled model; raises CounterfactError that lists the bundled ones."""
    known = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    if name not in known:
        raise unknown("bundled model", name, known)
    return WEIGHTS / f"{name}.safetensors"
