"""What if: an intervention, and what follows from it."""

from __future__ import annotations

from contextlib import nullcontext

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
                    tooltip="Another Do or What If node, to set both at once. It is an error if the two contradict.",
                ),
            ],
            outputs=[types.Intervention.Output("intervention", tooltip="Everything that is set.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, graph, do: str, previous=None) -> io.NodeOutput:
        from ..causal_core.plan import parse_intervention

        with naming("do"):
            intervention = parse_intervention(do, graph.concepts)
        return io.NodeOutput(together(intervention, previous, graph))


class WhatIf(io.ComfyNode):
    """Set concepts by asking in plain words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalWhatIf",
            display_name="What If",
            category="causal/plan",
            description="Ask 'what if' in plain words: the sentence becomes an intervention.",
            search_aliases=["counterfactual", "question", "plain words", "intervention", "natural language"],
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph: it knows the concepts and their values."),
                io.String.Input(
                    "sentence", default="What if it were winter?", multiline=True,
                    placeholder="What if it were winter and night?",
                    tooltip="The question, in English if there is no language model. Several things can be asked at "
                    "once: 'What if it were winter and the car were blue?'.",
                ),
                types.Language.Input(
                    "llm", optional=True, lazy=True,
                    tooltip="A language model. Asked only if the names, values and phrases of the concepts leave open "
                    "what is meant. It gets the sentence and the concepts, not the picture.",
                ),
                types.Intervention.Input(
                    "previous", optional=True,
                    tooltip="Another What If or Do node, to set both at once. It is an error if they contradict.",
                ),
            ],
            outputs=[
                types.Intervention.Output("intervention", tooltip="Everything that is set."),
                io.String.Output("understood", tooltip="What the sentence was taken to mean, one concept a line."),
            ],
        )  # fmt: skip

    @classmethod
    def check_lazy_status(cls, graph, sentence: str, **inputs) -> list[str]:
        from ..causal_core.discovery.what_if import what_if
        from ..causal_core.errors import CounterfactError

        # Unconnected inputs are not among them.
        if "llm" not in inputs or inputs["llm"] is not None:
            return []
        try:
            what_if(sentence, graph.concepts)
        except CounterfactError:
            return ["llm"]
        return []

    @classmethod
    def execute(cls, graph, sentence: str, llm=None, previous=None) -> io.NodeOutput:
        import comfy.model_management

        from ..causal_core.discovery.what_if import what_if
        from ..causal_core.language.answers import Cached

        concepts, check = graph.concepts, comfy.model_management.throw_exception_if_processing_interrupted
        # What goes wrong with a model need not be the sentence's fault.
        with nullcontext() if llm else naming("sentence"):
            asked = what_if(sentence, concepts, Cached(llm) if llm else None, check)
        lines = [f"{name}: {concepts[name].value or 'not known'} -> {value}" for name, value in asked.do.items()]
        understood = "\n".join([str(asked), *lines])
        return io.NodeOutput(together(asked, previous, graph), understood, ui={"text": [understood]})


def together(intervention, previous, graph):
    """An intervention and, if there is one, the previous one, which may have been made for another graph."""
    from ..causal_core.plan import Intervention

    with naming("previous"):
        earlier = Intervention(graph.concepts.settle(previous.do)) if previous else Intervention()
        return earlier.merge(intervention)


class Propagate(io.ComfyNode):
    """Work out the consequences of an intervention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalPropagate",
            display_name="Propagate Consequences",
            category="causal/plan",
            description="Work out what follows from an intervention: which concepts change with it, and which must not "
            "move. Uses the graph's mechanisms where it has them, and your word or a language model where it has none.",
            search_aliases=["counterfactual", "abduction", "prediction", "descendants", "effects", "plan"],
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph with the factual values of the concepts."),
                types.Intervention.Input("intervention", tooltip="From Do (Set Concept) or What If."),
                io.String.Input(
                    "consequences", default="", multiline=True, optional=True, placeholder="foliage = bare",
                    tooltip="Consequences that you decide yourself, as 'concept = value', one a line. They overrule "
                    "mechanisms and the language model, and what follows from them changes too.",
                ),
                io.Float.Input(
                    "decay", default=0.85, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="Loss of strength with each further step from the intervention: 1 edits distant "
                    "consequences as strongly as near ones, 0 edits only the nearest.",
                ),
                types.Language.Input(
                    "llm", optional=True, lazy=True,
                    tooltip="A language model that says what becomes of concepts without a mechanism. Asked only about "
                    "those. It gets names and values of concepts, not the picture. Without it they keep their value.",
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
    def check_lazy_status(cls, graph, intervention, consequences: str = "", **inputs) -> list[str]:
        from ..causal_core.plan import parse_intervention, unexplained

        # Unconnected inputs are not among them.
        if "llm" not in inputs or inputs["llm"] is not None:
            return []
        with naming("consequences"):
            fixed = parse_intervention(consequences, graph.concepts).do
        return ["llm"] if unexplained(graph, intervention, fixed) else []

    @classmethod
    def execute(cls, graph, intervention, consequences: str = "", decay: float = 0.85, llm=None) -> io.NodeOutput:
        from ..causal_core.plan import parse_intervention, propagate

        with naming("consequences"):
            fixed = parse_intervention(consequences, graph.concepts).do
        plan = propagate(graph, intervention, fixed, decay, None if llm is None else asking(llm, graph))
        document = plan.to_json()
        return io.NodeOutput(
            plan, plan.caption_factual, plan.caption_counterfactual, document,
            ui={"counterfact_plan": [document], "text": [describe(plan)]},
        )  # fmt: skip


def asking(llm, graph):
    """A mechanism that asks a language model, shows progress and can be interrupted."""
    import comfy.model_management
    import comfy.utils

    from ..causal_core.discovery.mechanisms import language_mechanism
    from ..causal_core.language.answers import Cached

    bar = comfy.utils.ProgressBar(1)
    ask = language_mechanism(
        graph, Cached(llm), lambda done, total: bar.update_absolute(done, total),
        comfy.model_management.throw_exception_if_processing_interrupted,
    )  # fmt: skip

    def mechanism(names, after):
        with naming("llm"):
            return ask(names, after)

    return mechanism


def describe(plan) -> str:
    """The plan in a few lines, for the page."""
    changes = [f"{item.name}: {item.factual} -> {item.counterfactual} ({item.reason})" for item in plan.affected]
    kept = ", ".join(item.name for item in plan.invariant) or "nothing"
    return "\n".join([str(plan.intervention), *(changes or ["nothing changes"]), f"stays: {kept}"])


NODES = [DoIntervention, WhatIf, Propagate]
