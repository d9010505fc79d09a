"""The widgets that several sampling nodes share, and the settings that they make."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..causal_core.errors import finite, unknown
from ..causal_core.guidance.csg import DEFAULTS, Settings
from ..causal_core.guidance.directions import How
from ..causal_core.guidance.picture import SKIP

STEPS = 30
MODES = PER_CONCEPT, FUSED = "per concept", "fused"


def widgets(*names: str) -> list:
    """Fresh inputs by name, in that order."""
    return [_WIDGETS[name]() for name in names]


def _float(name: str, default: float, low: float, high: float, step: float, tooltip: str, advanced: bool = True):
    return lambda: io.Float.Input(
        name, default=default, min=low, max=high, step=step, optional=advanced, advanced=advanced, tooltip=tooltip
    )


def _flag(name: str, default: bool, tooltip: str):
    return lambda: io.Boolean.Input(name, default=default, optional=True, advanced=True, tooltip=tooltip)


_WIDGETS = {
    "seed": lambda: io.Int.Input(
        "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
        tooltip="Of the noise that the picture is inverted with. The same seed gives the same picture.",
    ),
    "steps": lambda: io.Int.Input(
        "steps", default=STEPS, min=2, max=200,
        tooltip="Sampling steps. More follow the source more finely and take longer.",
    ),
    "strength": _float(
        "strength", DEFAULTS.strength, 0.0, 4.0, 0.05,
        "How far to go: 0 returns the source, 1 follows the plan, more exaggerates.", advanced=False,
    ),
    "mode": lambda: io.Combo.Input(
        "mode", options=list(MODES), default=PER_CONCEPT, optional=True,
        tooltip=f"'{PER_CONCEPT}': each affected concept has a direction of its own; most exact, one evaluation a step "
        f"for each of them and one more. '{FUSED}': one direction for all, always two evaluations a step, whatever "
        "the number of concepts.",
    ),
    "threshold": _float(
        "threshold", DEFAULTS.threshold, 0.01, 1.0, 0.01,
        "How large a change must be to belong to a concept's region, as a share of the largest. Lower gives wider "
        "regions.",
    ),
    "attention_weight": _float(
        "attention_weight", DEFAULTS.attention_weight, 0.0, 1.0, 0.05,
        "How much the model's attention to a concept's words narrows its region; 0 does without.",
    ),
    "protect": _float(
        "protect", DEFAULTS.protect, 0.0, 1.0, 0.05,
        "Keeps regions away from where the model looks only at concepts that must not move. 0 is off.",
    ),
    "grow": lambda: io.Int.Input(
        "grow", default=DEFAULTS.grow, min=0, max=32, optional=True, advanced=True,
        tooltip="Widens the regions by that many latent pixels (4 image pixels each in the demo model, 8 in SD).",
    ),
    "feather": _float(
        "feather", DEFAULTS.feather, 0.0, 16.0, 0.1, "Softens the borders of the regions outwards, in latent pixels.",
    ),
    "preserve": _flag(
        "preserve", DEFAULTS.preserve,
        "Keep everything outside the regions exactly as in the source. Off lets light and colour adapt everywhere.",
    ),
    "eta": _float(
        "eta", DEFAULTS.eta, 0.0, 1.0, 0.05,
        "Share of fresh noise a step: 1 is the ancestral sampler, 0 the deterministic one.",
    ),
    "skip": _float(
        "skip", SKIP, 0.0, 0.9, 0.05,
        "Share of the noise schedule to leave out at its noisy end. More keeps the layout of the source, less allows "
        "larger changes. The number of steps stays the same.",
    ),
    "delay": _float(
        "delay", DEFAULTS.how.delay, 0.0, 0.5, 0.01,
        "Consequences start later than their causes, by this share of the steps for each edge between them.",
    ),
    "stop": _float(
        "stop", DEFAULTS.how.stop, 0.05, 1.0, 0.05,
        "Share of the steps after which nothing is guided any more and the picture only settles.",
    ),
    "project": _float(
        "project", DEFAULTS.how.project, 0.0, 1.0, 0.05,
        "Takes out of each change what only raises contrast and saturation. Helps at high strength.",
    ),
    "clamp": _float(
        "clamp", DEFAULTS.how.clamp, 0.0, 10.0, 0.1,
        "Largest change a step, as a multiple of what the step does anyway. 0 is no limit. Helps against burnt "
        "colours.",
    ),
    "momentum": _float(
        "momentum", DEFAULTS.how.momentum, 0.0, 1.0, 0.05, "Carries changes of earlier steps on. 0 is off.",
    ),
    "share_overlaps": _flag(
        "share_overlaps", DEFAULTS.how.share_overlaps,
        "Where regions overlap, share the change out instead of adding it up.",
    ),
}  # fmt: skip


def checked(name: str, value: float) -> float:
    """The value of a widget, which a link may have brought past its limits.

    Raises
    ------
    CounterfactError
        If it is no finite number within the limits.
    """
    widget = _WIDGETS[name]()
    return type(widget.default)(finite(value, name, widget.min, widget.max))


def settings(mode: str = PER_CONCEPT, **given: Any) -> Settings:
    """Settings from widget values; raises CounterfactError for one that the widget would not take."""
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    values = {name: value if isinstance(value, bool) else checked(name, value) for name, value in given.items()}
    how = How(**{name: values.pop(name) for name in How.__dataclass_fields__ if name in values})
    return Settings(**values, fused=mode == FUSED, how=how)
