"""Everything that fixes an autoencoder and its training: sizes, losses and schedule are data, not code."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import CounterfactError, finite, identifier, unknown

PREDICTIONS, SCHEDULES, WEIGHTINGS = ("v", "epsilon"), ("cosine", "linear"), ("min_snr", "uniform")
TERMS = ("means", "sums")
MOST_LEVELS = 12


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes, losses and schedule.

    Attributes
    ----------
    name : name of the preset, and of the file of weights
    world : world whose scenes it is trained on; empty for a folder of images
    size, channels : side of the square pictures in pixels, and 3 for colour or 1 for grey
    patch : side in pixels of the square that becomes one position of the decoder
    widths, layers, attention_levels : channels of each level of the decoder, blocks a level, and on how many of the
        lowest levels there is attention
    encoder_widths, encoder_hidden : channels of the encoder's convolutions, units of its last layer
    residual : numbers of the residual code, which holds what no variable says
    gain : factor on the difference of picture and drawing, which is what is diffused: about 0.5 over its spread
    prediction, schedule, weighting : what the decoder predicts ("v", or the paper's "epsilon"), the noise levels
        ("cosine", or the paper's "linear") and the loss weight over them ("min_snr", or the paper's "uniform")
    shift : factor on the noise levels that are trained on, at most 3: more than 1, and more of the training goes into
        levels at which only the latents say what is where (Hoogeboom et al. 2023); the paper has 1
    alignment, mechanism, prior, independence, drawing : weights of the loss terms, see :mod:`.objective`; without a
        weight of the drawing the decoder has none, as that of the paper
    terms : whether these terms are "means" over variables and places, or the paper's divergences, which are "sums"
    ramp : steps in which their weights rise from 0, linearly; the paper's 50,000, or 0 for none
    label_share : how often in training the decoder sees the label in place of the encoder's reading
    drop_all, drop_one, drop_residual : how often it sees no variable at all, lacks one variable, lacks the residual;
        this, prior and independence keep the residual from saying what variables say: then no intervention would show
    kept : share of x_T that stays where an intervention changes the picture, see :func:`.diffusion.released`: 1 where
        things keep their look or their place in it, less where they move
    batch, images, learning_rate, warm_up, ema : pictures a step and in all, peak rate, steps until it is reached, and
        the decay of the averaged weights
    """

    name: str = "custom"
    world: str = ""
    size: int = 64
    channels: int = 3
    patch: int = 4
    widths: tuple[int, ...] = (64, 96, 128)
    layers: int = 1
    attention_levels: int = 1
    encoder_widths: tuple[int, ...] = (32, 48, 64, 96)
    encoder_hidden: int = 256
    residual: int = 8
    gain: float = 4.0
    prediction: str = "v"
    schedule: str = "cosine"
    weighting: str = "min_snr"
    shift: float = 1.0
    alignment: float = 1.0
    mechanism: float = 1.0
    prior: float = 0.02
    independence: float = 1.0
    drawing: float = 1.0
    terms: str = "means"
    ramp: int = 0
    label_share: float = 0.5
    drop_all: float = 0.0
    drop_one: float = 0.02
    drop_residual: float = 0.5
    kept: float = 1.0
    batch: int = 32
    images: int = 200_000
    learning_rate: float = 1e-3
    warm_up: int = 300
    ema: float = 0.999

    def __post_init__(self) -> None:
        identifier(self.name, "autoencoder config: name")
        if not isinstance(self.world, str):
            raise CounterfactError("autoencoder config: world must be the name of a world, or empty")
        for name in ("widths", "encoder_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        sizes = ("size", "patch", "encoder_hidden", "batch", "images", "warm_up")
        for name in sizes:
            self._whole(name, getattr(self, name), 1, 10**9 if name in ("images", "warm_up") else 8192)
        self._whole("layers", self.layers, 1, 16)
        self._whole("channels", self.channels, 1, 4)
        self._whole("residual", self.residual, 1, 1024)
        for name in ("widths", "encoder_widths"):
            for width in getattr(self, name):
                self._whole(name, width, 8, 4096)
        if not (1 <= len(self.widths) <= MOST_LEVELS and 1 <= len(self.encoder_widths) <= MOST_LEVELS):
            raise CounterfactError(
                f"autoencoder config: widths and encoder_widths need 1 to {MOST_LEVELS} numbers each"
            )
        if any(w % 16 for w in self.widths) or any(w % 8 for w in self.encoder_widths):
            raise CounterfactError("autoencoder config: widths must be multiples of 16, encoder_widths of 8")
        self._whole("attention_levels", self.attention_levels, 0, len(self.widths))
        # The middle of the network always attends.
        if any(w % 32 for w in self.widths[-max(1, self.attention_levels) :]):
            raise CounterfactError("autoencoder config: widths with attention and the last one must be multiples of 32")
        if self.size % (self.patch << (len(self.widths) - 1)):
            raise CounterfactError(
                f"autoencoder config: size {self.size} must be a multiple of patch times 2 for each further level of "
                f"widths, {self.patch << (len(self.widths) - 1)}"
            )
        self._whole("ramp", self.ramp, 0, 10**9)
        choices = {"prediction": PREDICTIONS, "schedule": SCHEDULES, "weighting": WEIGHTINGS, "terms": TERMS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise unknown(f"{name} in the autoencoder config:", getattr(self, name), known, "choices")
        for name in ("alignment", "mechanism", "prior", "independence", "drawing", "learning_rate"):
            finite(getattr(self, name), f"autoencoder config: {name}", 0.0, 1e6)
        if self.prediction == "epsilon" and self.weighting != "uniform":
            raise CounterfactError(
                "autoencoder config: predicted noise (epsilon) can only be weighted uniform; choose that, or predict v"
            )
        finite(self.shift, "autoencoder config: shift", 0.1, 3.0)
        finite(self.gain, "autoencoder config: gain", 0.1, 100.0)
        for name in ("label_share", "drop_all", "drop_one", "drop_residual", "kept", "ema"):
            finite(getattr(self, name), f"autoencoder config: {name}", 0.0, 1.0)

    @staticmethod
    def _whole(name: str, value: Any, low: int, high: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise CounterfactError(f"autoencoder config: {name} must be a whole number from {low} to {high}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Any) -> AutoencoderConfig:
        """The inverse of :meth:`to_dict`; missing entries take their defaults, others than these are errors."""
        if not isinstance(data, dict):
            raise CounterfactError("autoencoder config: expected an object {...}")
        known = {field.name for field in fields(cls)}
        for key in data:
            if key not in known:
                raise unknown("entry of the autoencoder config:", key, sorted(known), "entries")
        try:
            return cls(**data)
        except TypeError as error:
            raise CounterfactError(f"autoencoder config: {error}") from None


# Objective and optimizer of the published code of CausalDiffAE, which hides all latents of half of the pictures.
PAPER: dict[str, Any] = {
    "prediction": "epsilon", "schedule": "linear", "weighting": "uniform", "shift": 1.0, "terms": "sums",
    "ramp": 50_000, "alignment": 1.0, "mechanism": 1.0, "prior": 1.0, "independence": 0.0, "drawing": 0.0,
    "label_share": 0.0, "drop_all": 0.5, "drop_one": 0.0, "drop_residual": 0.0, "learning_rate": 1e-4, "warm_up": 1,
    "ema": 0.9999,
}  # fmt: skip

PRESETS = {
    # Its variables say all that there is to see, so that the residual need not be held back.
    "pendulum": AutoencoderConfig(
        "pendulum", world="pendulum", gain=8.0, prior=1e-3, independence=0.1, drop_one=0.0, drop_residual=0.1,
        kept=0.1, batch=16, learning_rate=7e-4,
    ),  # fmt: skip
    "cottage": AutoencoderConfig(
        "cottage", world="cottage", encoder_widths=(32, 64, 96, 128), residual=32, gain=3.0, kept=0.5, batch=16,
        learning_rate=7e-4,
    ),  # fmt: skip
    "digits": AutoencoderConfig("digits", world="digits", size=32, channels=1, patch=2, residual=16),
    # Small and quick: a part of modular models, which draw from it by the thousand.
    "coloured-digits": AutoencoderConfig(
        "coloured-digits", world="coloured-digits", size=32, patch=4, widths=(32, 64), encoder_widths=(32, 48, 64),
        residual=8,
    ),  # fmt: skip
}


def get_config(name: str, **changes: Any) -> AutoencoderConfig:
    """The preset of that name with some entries changed; raises CounterfactError that lists the known ones."""
    if name not in PRESETS:
        raise unknown("autoencoder config", name, PRESETS)
    return replace(PRESETS[name], **changes)
