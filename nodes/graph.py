"""The causal graph: build it, and look at it."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from . import types
from .mistakes import naming

# Those of causal_core.discovery but its baseline; not taken from there, since that would delay ComfyUI's start.
STRATEGIES = ("pairwise", "breadth_first", "triplets")


class GraphBuilder(io.ComfyNode):
    """Say what causes what."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalGraphBuilder",
            display_name="Build Causal Graph",
            category="causal/graph",
            description="Say what causes what: type edges, paste a graph, take the graph of a demo scene, or ask a "
            "language model. Then correct it in the editor, or draw all of it there.",
            search_aliases=["counterfactual", "dag", "causal diagram", "edges", "structural causal model", "causal "
                            "discovery", "graph editor"],
            has_intermediate_output=True,
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
                types.Language.Input(
                    "llm", optional=True, lazy=True,
                    tooltip="A language model that says what causes what. Asked only if no edges are typed and no "
                    "graph is connected. It gets the names and values of the concepts, not the picture.",
                ),
                io.Combo.Input(
                    "strategy", options=list(STRATEGIES), default=STRATEGIES[0], optional=True, advanced=True,
                    tooltip="How the language model is asked. 'pairwise': about every pair, in both orders and several "
                    "wordings. 'breadth_first': what each concept causes, far fewer questions. 'triplets': about every "
                    "three concepts, by vote.",
                ),
                io.String.Input(
                    "constraints", default="", multiline=True, optional=True, advanced=True,
                    placeholder="season -> foliage\nnot car -> season\nfirst: season\nthen: foliage",
                    tooltip="What the language model must respect, one a line: 'a -> b' has to be there, 'not a -> b' "
                    "must not, 'first: a, b' and 'then: c' say what comes earlier in time.",
                ),
                io.Boolean.Input(
                    "confounders", default=False, optional=True, advanced=True,
                    tooltip="Let the language model also propose pairs that something unseen causes.",
                ),
                io.String.Input(
                    "editor", default="", optional=True, socketless=True,
                    extra_dict={"widgetType": "CAUSAL_GRAPH_EDITOR"},
                    tooltip="What was changed by hand in the editor, as a JSON document. It wins over everything else, "
                    "and stays when another graph comes, until it is reset.",
                ),
            ],
            outputs=[
                types.Graph.Output("graph", tooltip="The causal graph."),
                io.String.Output("json", tooltip="The graph as a JSON document, to save, compare or edit."),
                types.Intervention.Output(
                    "intervention", tooltip="What is set by clicking values in the editor: do(...). Nothing if none is."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def check_lazy_status(cls, edges: str = "", graph=None, **inputs) -> list[str]:
        # Unconnected inputs are not among them.
        asked = not edges.strip() and graph is None and "llm" in inputs and inputs["llm"] is None
        return ["llm"] if asked else []

    @classmethod
    def execute(
        cls, concepts=None, graph=None, edges: str = "", llm=None, strategy: str = STRATEGIES[0],
        constraints: str = "", confounders: bool = False, editor: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.apply_edits import apply_edits
        from ..causal_core.edits import GraphEdits
        from ..causal_core.graph import CausalGraph, parse_edges

        with naming("editor"):
            edits = GraphEdits.from_json(editor)
        notes = []
        with naming("edges"):
            if edges.lstrip().startswith("{"):
                graph = CausalGraph.from_json(edges)
            elif edges.strip():
                graph = CausalGraph.from_edges(*parse_edges(edges), concepts)
            elif graph is None and llm is None and concepts is None and not edits.added:
                raise CounterfactError(
                    "type what causes what, such as 'season -> foliage', connect a graph, concepts or a language "
                    "model, or draw a graph in the editor"
                )
        if graph is None and llm is not None:
            graph, notes = asked(llm, concepts, edits.added, strategy, constraints, confounders)
        elif graph is None and concepts is not None:
            graph = CausalGraph(concepts)
        if graph is not None:
            with naming("concepts"):
                graph = observed(graph, concepts)
        with naming("editor"):
            edited = apply_edits(graph, edits)
        document = edited.graph.to_json()
        base = "" if graph is None else replace(graph, scm=None, noise=None).to_json()
        ui = {
            "counterfact_base": [base],
            "counterfact_graph": [document],
            "counterfact_notes": [*notes, *edited.notes],
        }
        return io.NodeOutput(edited.graph, document, edited.intervention, ui=ui)


def asked(llm, concepts, added, strategy: str, constraints: str, confounders: bool):
    """The graph that a language model tells, and what of its answers could not be kept."""
    import comfy.model_management
    import comfy.utils

    from ..causal_core.concepts import Concepts
    from ..causal_core.discovery import discover, parse_constraints
    from ..causal_core.graph import CausalGraph
    from ..causal_core.language.answers import Cached

    if concepts is None and not added:
        raise CounterfactError("llm: connect concepts, or add some in the editor: the model says how they are linked")
    concepts = Concepts(added) if concepts is None else concepts
    with naming("constraints"):
        known = parse_constraints(constraints, concepts)
    if len(concepts) < 2:
        return CausalGraph(concepts), []
    bar = comfy.utils.ProgressBar(1)
    with naming("llm"):
        found = discover(
            concepts, Cached(llm), strategy=strategy, constraints=known, confounders=confounders,
            progress=lambda done, total: bar.update_absolute(done, total),
            check=comfy.model_management.throw_exception_if_processing_interrupted,
        )  # fmt: skip
    return found.graph, [f"{edge.source} -> {edge.target}: {edge.reason}" for edge in found.broken]


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
