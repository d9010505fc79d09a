"""Counterfact, a ComfyUI node pack for causal "what if" editing: the same picture, had one thing been different.

ComfyUI imports this file at its start; everything else is imported when ComfyUI asks for the nodes, or later.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI for the nodes of this pack."""
    from .nodes import CounterfactExtension

    return CounterfactExtension()
