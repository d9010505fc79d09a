"""The nodes: thin shells around `causal_core` that give it sockets, tooltips, progress and ComfyUI's models.

Whatever is slow to import (torch is not: ComfyUI has it already) is imported when a node runs.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    abduct,
    autoencoder,
    autoencoder_train,
    concepts,
    csg,
    demo,
    generator,
    graph,
    identify,
    instruction,
    intervention,
    language,
    modular,
    regions,
    report,
    steer,
)
from .mistakes import keep_log_plain


class CounterfactExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def on_load(self) -> None:
        keep_log_plain()
        demo.register_folder()
        language.register_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        topics = (
            demo, concepts, graph, identify, modular, generator, intervention, csg, abduct, regions, steer, instruction,
            report, language, autoencoder, autoencoder_train,
        )  # fmt: skip
        return [node for topic in topics for node in topic.NODES]
