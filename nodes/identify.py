"""Whether data can answer a causal question although some causes are hidden: mark these, and ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from . import types
from .mistakes import naming

EXAMPLE = "P(ground | do(season=winter))"


class MarkConfounder(io.ComfyNode):
    """Say that something unseen causes two concepts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalMarkConfounder",
            display_name="Mark Confounder",
            category="causal/graph",
            description="Say that a hidden cause, something that no picture shows, acts on two concepts; or take that "
            "back. Identify Query then knows that the two go together without one causing the other.",
            search_aliases=["counterfactual", "confounder", "hidden cause", "latent", "unobserved", "bidirected edge"],
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph in which to mark the two concepts."),
                io.String.Input(
                    "first", default="", placeholder="time", tooltip="The one concept that the hidden cause acts on.",
                ),
                io.String.Input(
                    "second", default="", placeholder="weather",
                    tooltip="The other concept that it acts on. Which of the two comes first does not matter.",
                ),
                io.Boolean.Input(
                    "present", default=True, optional=True, advanced=True,
                    tooltip="On: there is such a hidden cause. Off: there is none, and a mark that says so is taken "
                    "away.",
                ),
            ],
            outputs=[
                types.Graph.Output(
                    "graph", tooltip="The graph with the mark. Mechanisms, the rules by which its values follow from "
                    "each other, stay only if they say the same; the node tells if they were left out."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, graph, first: str, second: str, present: bool = True) -> io.NodeOutput:
        with naming("first"):
            one = graph.concepts[first].name
        with naming("second"):
            other = graph.concepts[second].name
            if one == other:
                raise CounterfactError(f"this is {one} again; name another concept than in first")
        marked = graph.with_confounder(one, other, present)
        acts = "a hidden cause acts" if present else "no hidden cause acts"
        lines = [f"{one} <-> {other}: {acts} on both"]
        if marked.scm is not graph.scm:
            lines.append(f"the mechanisms are left out: in them {'no' if present else 'a'} hidden cause acts on both")
        return io.NodeOutput(marked, ui={"text": ["\n".join(lines)]})


class IdentifyQuery(io.ComfyNode):
    """Ask whether data can answer a causal question."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalIdentifyQuery",
            display_name="Identify Query",
            category="causal/query",
            description="Find out whether data can answer a causal question although some causes are hidden. If they "
            "can, you get the expression to work out; if not, the reason. Type the question, or put it together from "
            "an outcome, an intervention and what is given.",
            search_aliases=["counterfactual", "identification", "do calculus", "causal effect", "front door",
                            "back door", "adjustment", "id algorithm"],
            is_output_node=True,
            inputs=[
                types.Graph.Input("graph", tooltip="The causal graph: what causes what, and where causes are hidden."),
                io.String.Input(
                    "query", default="", multiline=True, optional=True, placeholder=EXAMPLE,
                    tooltip=f"The question. '{EXAMPLE}' asks how likely each ground is if the season is set to winter. "
                    "What is known comes behind the bar too: 'do(season=winter), time=day'. Empty: the question is "
                    "made of outcome, intervention and given.",
                ),
                io.String.Input(
                    "outcome", default="", optional=True, placeholder="ground",
                    tooltip="What you want to know: concepts, divided by commas, such as 'ground, shadow'. 'ground = "
                    "snow' asks for this value alone. Ignored if you type a query.",
                ),
                types.Intervention.Input(
                    "intervention", optional=True,
                    tooltip="What is set, from Do (Set Concept) or What If. Ignored if you type a query.",
                ),
                io.String.Input(
                    "given", default="", optional=True, placeholder="time = day",
                    tooltip="What is known besides, divided by commas: 'time = day'. A concept without a value stands "
                    "for each of its values. Ignored if you type a query.",
                ),
                io.String.Input(
                    "experiments", default="", multiline=True, optional=True, advanced=True,
                    placeholder="season\ntime, weather",
                    tooltip="Experiments that you have data of: the concepts that were set in one, divided by commas, "
                    "one experiment a line. Data in which nothing was set are always there.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "expression", tooltip="What to work out from data, as text; sum[x] adds up over all values of x. "
                    "Empty if data cannot answer."
                ),
                io.Boolean.Output("identifiable", tooltip="Whether data can answer the question."),
                io.String.Output("reason", tooltip="Why they can, or what stands in the way."),
                io.String.Output("latex", tooltip="The expression as LaTeX, for a paper. Empty if there is none."),
                io.String.Output("query", tooltip="The question as it was read."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, graph, query: str = "", outcome: str = "", intervention=None, given: str = "", experiments: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.concepts import typed_lines
        from ..causal_core.identify import identify
        from ..causal_core.identify_cli import described
        from ..causal_core.query import parse_query

        concepts = graph.concepts
        with naming("experiments"):
            lines = [[name for name in line.split(",") if name.strip()] for line in typed_lines(experiments)]
            experimented = [[concepts[name].name for name in names] for names in lines]
        where, text = "query", query
        if not query.strip():
            where, text = "outcome, intervention, given", put_together(concepts, outcome, intervention, given)
        with asked_in(where):
            found = identify(graph, parse_query(text, concepts), experimented)
        expression = str(found) if found.identifiable else ""
        return io.NodeOutput(
            expression, found.identifiable, found.reason, found.latex, str(found.query), ui={"text": [described(found)]}
        )


def put_together(concepts, outcome: str, intervention, given: str) -> str:
    """The text of a question. Its parts are read one by one too, so that a mistake names the input it is in."""
    from ..causal_core.query import parse_query, written

    if not outcome.strip():
        raise CounterfactError(f"query: type a question, such as {EXAMPLE}, or name an outcome")
    with asked_in("outcome"):
        parse_query(written(outcome, {}), concepts)
    if given.strip():
        with asked_in("given"):
            parse_query(written(given, {}), concepts)
    with naming("intervention"):
        do = concepts.settle(intervention.do) if intervention else {}
        return written(outcome, do, given)


@contextmanager
def asked_in(name: str) -> Iterator[None]:
    """Put the name of an input before a mistake in a question, in the place of the word that the core has for it."""
    with naming(name):
        try:
            yield
        except CounterfactError as error:
            raise CounterfactError(str(error).removeprefix("query: ")) from None


NODES = [MarkConfounder, IdentifyQuery]
