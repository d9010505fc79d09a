"""Concepts of a picture: listed by hand or taken from a scene, their values given or read by the model itself."""

from __future__ import annotations

from comfy_api.latest import io

from . import types
from .mistakes import naming

NODES = []
