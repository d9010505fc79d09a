"""Fixtures that are shared with other folders."""

from ..helpers.small_unet import overhead_command
from ..helpers.tiny_models import model, tiny

__all__ = ["model", "overhead_command", "tiny"]
