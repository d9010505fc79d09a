"""Fixtures that are shared with other folders."""

from ..helpers.tiny_models import model, tiny

__all__ = ["model", "tiny"]
