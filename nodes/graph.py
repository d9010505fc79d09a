"""The causal graph: build it, and look at it."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from . import types
from .mistakes import naming


class GraphBuilder(io.ComfyNode):
    """Say what causes what."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalGraphBuilder",
            display_name="Build Causal Graph",
            category="causal/graph",
            description="Say what causes what: type edges, paste a graph, or take the graph of a demo scene. Concepts, "
            "if connected, bring their values along.",
            search_aliases=["counterfactual", "dag", "causal diagram", "edges", "structural causal model"],
            inputs=[
                types.Concepts.Input(
                    "concepts", optional=True,
                    tooltip="The concepts and their factual values, from Extract Concepts. Typed edges may only name "
                    "these. In a graph that has concepts of its own, their values take the place of its values.",
                ),
                types.Graph.Input(
                    "graph", optional=True, tooltip="A graph to start from, such as a demo scene's. Ignored if you "
                    "type edges."
                ),
                io.String.Input(
                    "edges", default="", multiline=True, optional=True, placeholder="season -> foliage\ntime <-> "
                    "weather",
                    tooltip="Edges, one a line: 'season -> foliage', or a chain 'a -> b -> c'. 'time <-> weather' says "
                    "that something unseen causes both. Or paste the JSON of a graph. Empty: use the connected graph.",
                ),
            ],
            outputs=[
                types.Graph.Output("graph", tooltip="The causal graph."),
                io.String.Output("json", tooltip="The graph as a JSON document, to save, compare or edit."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, concepts=None, graph=None, edges: str = "") -> io.NodeOutput:
        from ..causal_core.errors import CounterfactError
        from ..causal_core.graph import CausalGraph, parse_edges

        with naming("edges"):
            if edges.lstrip().startswith("{"):
                graph = CausalGraph.from_json(edges)
            elif edges.strip():
                graph = CausalGraph.from_edges(*parse_edges(edges), concepts)
            elif graph is None:
                raise CounterfactError("type what causes what, such as 'season -> foliage', or connect a graph")
        with naming("concepts"):
            graph = observed(graph, concepts)
        return io.NodeOutput(graph, graph.to_json())


def observed(graph, concepts):
    """The graph with the values that were found in a picture.

    The known noise explains the values of the scene it belongs to, and no others.
    """
    if concepts is None:
        return graph
    values = graph.concepts
    for concept in concepts:
        if concept.value is not None:
            values = values.replace(concept.name, value=concept.value, confidence=concept.confidence)
    same = values.values() == graph.concepts.values()
    return replace(graph, concepts=values, noise=graph.noise if same else None)


class PreviewGraph(io.ComfyNode):
    """A picture of the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalPreviewGraph",
            display_name="Preview Causal Graph",
            category="causal/graph",
            description="Draw the causal graph. With a plan it shows the values before and after, and tells apart what "
            "is set, what follows, and what must not move.",
            search_aliases=["counterfactual", "show dag", "draw graph", "view graph"],
            is_output_node=True,
            inputs=[
                types.Graph.Input("graph", tooltip="The graph to draw."),
                types.Plan.Input("plan", optional=True, tooltip="A plan for this graph, from Propagate Consequences."),
                io.Int.Input(
                    "width", default=1024, min=256, max=2048, step=64, optional=True, advanced=True,
                    tooltip="Width of the picture in pixels; the height follows from the graph.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The picture of the graph.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, graph, plan=None, width: int = 1024) -> io.NodeOutput:
        import numpy as np
        import torch
        from comfy_api.latest import ui

        from ..causal_core.draw import draw_graph

        with naming("plan"):
            picture = draw_graph(graph, plan, width)
        image = torch.from_numpy(np.array(picture)).float()[None] / 255
        shown = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, ui={**shown, "counterfact_graph": [graph.to_json()]})


NODES = [GraphBuilder, PreviewGraph]
