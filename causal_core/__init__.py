"""Counterfact's library: causal "what if" editing of pictures, usable and testable without ComfyUI.

Import what you need from its modules (`causal_core.graph`, `causal_core.plan`, ...): the package itself imports
nothing, so that it costs ComfyUI's start nothing.
"""

__version__ = "0.1.0"
