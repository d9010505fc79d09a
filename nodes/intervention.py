"""What if: an intervention, and what follows from it."""

from __future__ import annotations

from comfy_api.latest import io

from . import types
from .mistakes import naming


class DoIntervention(io.ComfyNode):
    """Set concepts from outside."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalDoIntervention",
            display_name="Do (Set Concept)",
            category="causal/plan",
            description="Ask 'what if': set one or more concepts to a value, whatever their causes say.",
            search_aliases=["counterfactual", "what if", "intervention", "do calculus", "set variable"],
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph: it knows the concepts and their values."),
                io.String.Input(
                    "do", default="season = winter", multiline=True, placeholder="season = winter",
                    tooltip="What to set, as 'concept = value'; several are divided by commas or lines. Leave it empty "
                    "to set nothing: the result is then the picture itself.",
                ),
                types.Intervention.Input(
                    "previous", optional=True,
                    tooltip="Another Do node, to set both at once. It is an error if the two contradict each other.",
                ),
            ],
            outputs=[types.Intervention.Output("intervention", tooltip="Everything that is set.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, graph, do: str, previous=None) -> io.NodeOutput:
        from ..causal_core.plan import Intervention, parse_intervention

        with naming("do"):
            intervention = parse_intervention(do, graph.concepts)
        with naming("previous"):
            # The other Do node may have read another graph.
            earlier = Intervention(graph.concepts.settle(previous.do)) if previous else Intervention()
            return io.NodeOutput(earlier.merge(intervention))


class Propagate(io.ComfyNode):
    """Work out the consequences of an intervention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalPropagate",
            display_name="Propagate Consequences",
            category="causal/plan",
            description="Work out what follows from an intervention: which concepts change with it, and which must not "
            "move. Uses the graph's mechanisms where it has them, and your word where it has none.",
            search_aliases=["counterfactual", "abduction", "prediction", "descendants", "effects", "plan"],
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph with the factual values of the concepts."),
                types.Intervention.Input("intervention", tooltip="From Do (Set Concept)."),
                io.String.Input(
                    "consequences", default="", multiline=True, optional=True, placeholder="foliage = bare",
                    tooltip="Consequences that you decide yourself, as 'concept = value', one a line. Needed for "
                    "concepts without a mechanism; elsewhere they overrule it, and what follows from them changes too.",
                ),
                io.Float.Input(
                    "decay", default=0.85, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="Loss of strength with each further step from the intervention: 1 edits distant "
                    "consequences as strongly as near ones, 0 edits only the nearest.",
                ),
            ],
            outputs=[
                types.Plan.Output("plan", tooltip="What changes, how strongly, and what must not move."),
                io.String.Output("factual_caption", tooltip="Caption of the picture as it is."),
                io.String.Output("counterfactual_caption", tooltip="Caption of the picture as it would be."),
                io.String.Output("json", tooltip="The plan as a JSON document, to save, compare or edit."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, graph, intervention, consequences: str = "", decay: float = 0.85) -> io.NodeOutput:
        from ..causal_core.plan import parse_intervention, propagate

        with naming("consequences"):
            fixed = parse_intervention(consequences, graph.concepts).do
        plan = propagate(graph, intervention, fixed, decay)
        document = plan.to_json()
        return io.NodeOutput(
            plan, plan.caption_factual, plan.caption_counterfactual, document,
            ui={"counterfact_plan": [document], "text": [describe(plan)]},
        )  # fmt: skip


def describe(plan) -> str:
    """The plan in a few lines, for the page."""
    changes = [f"{item.name}: {item.factual} -> {item.counterfactual} ({item.reason})" for item in plan.affected]
    kept = ", ".join(item.name for item in plan.invariant) or "nothing"
    return "\n".join([str(plan.intervention), *(changes or ["nothing changes"]), f"stays: {kept}"])


NODES = [DoIntervention, Propagate]
