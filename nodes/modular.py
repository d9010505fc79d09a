"""Questions with hidden causes, answered: fit a model to a table of labels, draw cases from it, or ask for bounds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths
from comfy_api.latest import io

from ..causal_core.errors import CounterfactError, finite, identifier
from . import types
from .demo import MODULAR, find_weights, fingerprint, own_files
from .files import chosen, offered, run_folder, target, unchanged, within
from .identify import EXAMPLE, asked_in
from .mistakes import naming

if TYPE_CHECKING:
    from ..causal_core.graph import CausalGraph
    from ..causal_core.modular.model import ModularModel

# Not taken from causal_core.modular, since that would delay ComfyUI's start.
METHODS = "likelihood", "adversarial"
STATES, CASES, MOST_CASES, MOST_CAPTIONS = 8, 2000, 1_000_000, 4096
NO_PICTURES, SIDE, SIDES = "none", 32, (8, 128)
LABELS = (
    "A CSV file in ComfyUI's input folder. Its first line names the columns, one for each concept of the graph. Cells "
    "may be empty. A column 'do' may name the concepts that were set in a row. An example comes with the pack."
)


PACK = Path(__file__).parents[1] / "causal_core" / "modular"
BUNDLED, EXAMPLES, EXAMPLE_MARK = PACK / "weights", PACK / "examples", " (example)"


def models() -> list[str]:
    """Bundled modular models by name, those of the user by file name."""
    bundled = [file.stem for file in sorted(BUNDLED.glob("*.safetensors"))]
    # What cannot be read is offered too: choosing it tells why.
    return bundled + [name for name, kind in own_files().items() if kind in (MODULAR, None)]


def tables() -> list[str]:
    """CSV files in ComfyUI's input folder, and those that come with the pack."""
    return offered(pictures=False)[1] + [file.stem + EXAMPLE_MARK for file in sorted(EXAMPLES.glob("*.csv"))]


def table_of(labels: str) -> Path:
    """The file of a table; raises CounterfactError for what is not among the :func:`tables`."""
    known = tables()
    if labels in known and labels.endswith(EXAMPLE_MARK):
        return EXAMPLES / f"{labels.removesuffix(EXAMPLE_MARK)}.csv"
    return chosen("labels", labels, known)


@dataclass(frozen=True)
class FittedModel:
    """A CAUSAL_MODULAR.

    Attributes
    ----------
    model : fitted
    graph : that it was fitted for, with the values and ranges of the table
    experiments : sets of concepts that were set in some rows of the table, to all of their values
    """

    model: ModularModel
    graph: CausalGraph
    experiments: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, model: ModularModel) -> FittedModel:
        """What a model knows of itself."""
        graph, told = model.graph(), model.provenance.get("experiments", [])
        try:
            experiments = tuple(tuple(graph.concepts[name].name for name in names) for names in told)
        except TypeError:
            raise CounterfactError("the file is damaged (its experiments); fit the model again") from None
        return cls(model, graph, experiments)


class FitModular(io.ComfyNode):
    """Fit a model of all concepts to a table of labels, or go on where a run was stopped."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalFitModular",
            display_name="Fit Modular Model",
            category="causal/query",
            description="Learn from a table of labels how each concept follows from its causes, hidden ones too. "
            "Sample Query then answers every question that data can answer. Cancelling saves the run: the same "
            "settings go on where it was. The model lies in models/counterfact in the end, for Load Modular Model.",
            search_aliases=["counterfactual", "modular", "structural causal model", "hidden cause", "confounder",
                            "modular-dcm", "id-gen", "train", "learn"],
            is_output_node=True,
            inputs=[
                types.Graph.Input(
                    "graph", tooltip="What causes what among the labels, with its hidden causes, from Build Causal "
                    "Graph or Mark Confounder. A concept without values or range takes them from its column."
                ),
                io.Combo.Input("labels", options=tables(), tooltip=LABELS),
                io.String.Input(
                    "name", default="my model",
                    tooltip="Of the model and of the run: the file will be models/counterfact/NAME.safetensors. The "
                    "same name goes on with its run; other labels or settings need another name.",
                ),
                io.Combo.Input(
                    "method", options=list(METHODS), default=METHODS[0], optional=True, advanced=True,
                    tooltip="How to learn. 'likelihood': make the rows of the table as likely as possible; quick and "
                    "exact. 'adversarial': until a critic cannot tell made rows from those of the table; slower, for "
                    "many hidden causes.",
                ),
                io.Int.Input(
                    "states", default=STATES, min=2, max=64, optional=True, advanced=True,
                    tooltip="In how many states each hidden cause can be. More can tell more, and take longer.",
                ),
                io.Int.Input(
                    "steps", default=0, min=0, max=1_000_000, optional=True, advanced=True,
                    tooltip="Steps to learn each part in. 0: as usual for the method.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**53, control_after_generate=False, optional=True, advanced=True,
                    tooltip="Of the first weights and of everything random.",
                ),
                io.Combo.Input(
                    "images", options=[NO_PICTURES, *offered()[0]], default=NO_PICTURES, optional=True,
                    tooltip="A folder in ComfyUI's input folder with a picture for each row, for a graph with a "
                    "concept called picture. The first column of the labels then names the pictures by their paths in "
                    "the folder; rows without one are left out.",
                ),
                io.Int.Input(
                    "picture_size", default=SIDE, min=SIDES[0], max=SIDES[1], step=8, optional=True, advanced=True,
                    tooltip="Side in pixels in which the concepts that the picture causes see it. Each picture is "
                    "scaled and cut to its central square.",
                ),
            ],
            outputs=[types.Modular.Output("model", tooltip="The fitted model, for Sample Query.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, labels: str = "", images: str = NO_PICTURES, **_) -> str:
        return told_of(labels, images)

    @classmethod
    def execute(
        cls, graph, labels: str, name: str, method: str = METHODS[0], states: int = STATES, steps: int = 0,
        seed: int = 0, images: str = NO_PICTURES, picture_size: int = SIDE,
    ) -> io.NodeOutput:  # fmt: skip
        import comfy.model_management
        import torch

        from ..causal_core.modular.records import Records
        from .generator import pictured
        from .modular_run import fitted

        name = identifier(name, "name")
        weights = target(name, MODULAR, "modular model")
        table = table_of(labels)
        pictures = None if images == NO_PICTURES else chosen("images", images, offered()[0])
        # ComfyUI runs nodes in a mode in which nothing can be learnt.
        with torch.inference_mode(False), torch.enable_grad():
            try:
                data = Records.read(
                    table, graph, images=pictures, side=int(finite(picture_size, "picture_size", *SIDES)),
                    check=comfy.model_management.throw_exception_if_processing_interrupted,
                )  # fmt: skip
            except CounterfactError as error:
                if pictures is None and (picture := pictured(graph)) is not None:
                    raise CounterfactError(f"{error}; if {picture} is a picture, choose its folder in images") from None
                raise
            model, told = fitted(
                graph, data, run_folder(name), weights, method, int(finite(states, "states", 2, 64)),
                int(finite(steps, "steps", 0, 1e6)), seed, table.name,
            )  # fmt: skip
        return io.NodeOutput(FittedModel.of(model), ui={"text": [told]})


def told_of(labels: str, images: str = NO_PICTURES) -> str:
    """Another text whenever a table of labels, or a folder of pictures, is another one."""
    table = [] if not labels or labels.endswith(EXAMPLE_MARK) else [Path(folder_paths.get_input_directory(), labels)]
    return unchanged(table + ([] if images == NO_PICTURES else within(images)))


class LoadModular(io.ComfyNode):
    """A model that was fitted before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalLoadModular",
            display_name="Load Modular Model",
            category="causal/query",
            description="Load a model that Fit Modular Model made. Its graph and the values of its concepts come with "
            "it.",
            search_aliases=["counterfactual", "modular", "structural causal model"],
            inputs=[
                io.Combo.Input(
                    "weights", options=models(),
                    tooltip="Which model. front_door comes with the pack: written digits in the middle of its graph. "
                    "Those of Fit Modular Model lie in models/counterfact and appear here after pressing R.",
                ),
            ],
            outputs=[
                types.Modular.Output("model", tooltip="The fitted model, for Sample Query."),
                types.Graph.Output(
                    "graph", tooltip="The causal graph that it was fitted for, with its hidden causes and the values "
                    "or the range of each concept, for Identify Query and Preview Causal Graph."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, weights: str) -> str:
        return fingerprint(find_weights(weights, BUNDLED))

    @classmethod
    def execute(cls, weights: str) -> io.NodeOutput:
        from ..causal_core.modular.model import ModularModel

        # By its name in the list: no other file is opened, whatever a workflow says.
        file = find_weights(weights, BUNDLED)
        if weights not in {*models(), *own_files()} or not file.is_file():
            raise CounterfactError(
                f"weights: there is no {weights!r} in models/counterfact; fit a model, or choose another (press R to "
                "refresh)"
            )
        with naming("weights"):
            found = FittedModel.of(ModularModel.load(file))
        return io.NodeOutput(found, found.graph)


class SampleQuery(io.ComfyNode):
    """Answer a question with cases drawn from a fitted model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalSampleQuery",
            display_name="Sample Query",
            category="causal/query",
            description="Answer a causal question by drawing cases from a fitted model: how likely each value is, as a "
            "table and a chart, and captions and pictures of some of the cases. A question that data cannot answer is "
            "refused.",
            search_aliases=["counterfactual", "causal effect", "do calculus", "interventional distribution",
                            "monte carlo", "captions", "pictures of cases"],
            is_output_node=True,
            inputs=[
                types.Modular.Input("model", tooltip="From Fit or Load Modular Model."),
                io.String.Input(
                    "query", default="", multiline=True, placeholder=EXAMPLE,
                    tooltip=f"The question. '{EXAMPLE}' asks how likely each ground is if the season is set to winter. "
                    "What is known comes behind the bar too: 'do(season=winter), time=day'. As in Identify Query.",
                ),
                io.Int.Input(
                    "count", default=CASES, min=1, max=MOST_CASES,
                    tooltip="How many cases to draw. Four times as many halve the standard error.",
                ),
                io.Int.Input(
                    "captions", default=4, min=0, max=MOST_CAPTIONS, optional=True,
                    tooltip="How many of the cases to give as captions, values and images. With 0, nodes behind "
                    "captions and images do not run.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**53, control_after_generate=False, optional=True,
                    tooltip="Which cases are drawn. The same number always draws the same cases.",
                ),
                types.Generator.Input(
                    "pictures", optional=True,
                    tooltip="From Model as Generator or Autoencoder as Generator: draws what the cases look like. "
                    "Needed if what is asked depends on a picture in the graph; then it draws one of every case, so "
                    "that count should be small.",
                ),
            ],
            outputs=[
                io.String.Output("table", tooltip="The answer as a table in Markdown, for Preview as Text or a note."),
                io.Image.Output("chart", tooltip="The answer as a chart."),
                io.String.Output(
                    "captions", is_output_list=True, tooltip="A caption of each of the first cases, for CLIP Text "
                    "Encode: what is behind it runs once a caption."
                ),
                io.String.Output(
                    "values", tooltip="The same cases as JSON: what is set, the value of each concept, and the number "
                    "of the picture in images, in every world of the question."
                ),
                io.Image.Output(
                    "images", tooltip="A picture of each of these cases in each world of the question: case by case, "
                    "and of each case world by world, in the order of values. A case has the same seed in all worlds. "
                    "Without pictures, nodes behind it do not run."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, query: str, count: int = CASES, captions: int = 4, seed: int = 0, pictures=None
    ) -> io.NodeOutput:  # fmt: skip
        import comfy.model_management
        import comfy.utils
        import torch
        from comfy_execution.graph_utils import ExecutionBlocker

        from ..causal_core.identify import identify
        from ..causal_core.modular.report import captions as captions_of
        from ..causal_core.modular.report import pictures as pictures_of
        from ..causal_core.modular.report import sample_chart, sample_table, sampled
        from ..causal_core.query import parse_query
        from .generator_run import Told, require

        count = int(finite(count, "count", 1, MOST_CASES))
        kept = int(finite(captions, "captions", 0, MOST_CAPTIONS))
        with asked_in("query"):
            asked = parse_query(query, model.graph.concepts)
            found = identify(model.graph, asked, model.experiments)
            if not found.identifiable:
                raise CounterfactError(
                    f"{asked} cannot be answered from data: {found.reason}. Query Bounds tells between which numbers "
                    "the answer is; or ask another question"
                )
        check = comfy.model_management.throw_exception_if_processing_interrupted
        fitted, generator = model.model, None
        if pictures is None:
            require(fitted, asked)
        else:
            generator = Told.of(pictures, fitted)
            fitted = fitted.plugged(dict.fromkeys(fitted.pictures, generator), check)
        bar = comfy.utils.ProgressBar(1)
        cases = sampled(
            fitted, asked, count, kept, seed, check=check,
            progress=lambda done, total: bar.update_absolute(done, total),
        )  # fmt: skip
        table, images = sample_table(cases), ExecutionBlocker(None)
        told = [[{"do": dict(do), "values": dict(values)} for do, values in case] for case in cases.first]
        if generator is not None and told:
            images = torch.from_numpy(pictures_of(fitted, cases, generator, check)).float() / 255
            for number, world in enumerate(world for case in told for world in case):
                world["image"] = number
        said = captions_of(cases, model.graph.concepts) or ExecutionBlocker(None)
        image, shown = drawn(sample_chart(cases), cls)
        return io.NodeOutput(
            table, image, said, json.dumps(told, indent=1, ensure_ascii=False), images,
            ui={**shown, "text": [table]},
        )  # fmt: skip


class QueryBounds(io.ComfyNode):
    """Between which numbers the answer to a question is that data cannot answer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalQueryBounds",
            display_name="Query Bounds",
            category="causal/query",
            description="Find out between which numbers the answer to a causal question is, where data cannot tell "
            "the answer itself because causes are hidden. These are bounds, never an answer.",
            search_aliases=["counterfactual", "partial identification", "bounds", "probability of necessity",
                            "instrument", "hidden cause"],
            is_output_node=True,
            inputs=[
                types.Graph.Input(
                    "graph", tooltip="What causes what among the labels, with its hidden causes. A concept without "
                    "values takes them from its column."
                ),
                io.Combo.Input("labels", options=tables(), tooltip=LABELS),
                io.String.Input(
                    "query", default="", multiline=True, placeholder=EXAMPLE,
                    tooltip="The question, as in Identify Query. All concepts that matter to it need values; numbers "
                    "have no bounds.",
                ),
                io.Float.Input(
                    "smoothing", default=0.0, min=0.0, max=1000.0, step=0.1, optional=True, advanced=True,
                    tooltip="Cases to add to every cell of the counts, for combinations that no row has. 0: count the "
                    "rows as they are.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "table", tooltip="As a table in Markdown: between which numbers the probability of each value is."
                ),
                io.Image.Output("chart", tooltip="The bounds as a chart: from where to where each probability may be."),
                io.Float.Output(
                    "low", tooltip="The lower bound, of the first line of the table if it has several. No answer."
                ),
                io.Float.Output(
                    "high", tooltip="The upper bound, of the first line of the table if it has several. No answer."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, labels: str = "", **_) -> str:
        return told_of(labels)

    @classmethod
    def execute(cls, graph, labels: str, query: str, smoothing: float = 0.0) -> io.NodeOutput:
        import comfy.model_management

        from ..causal_core.graph import CausalGraph
        from ..causal_core.modular.bounds import bounds
        from ..causal_core.modular.model import settled
        from ..causal_core.modular.records import Records
        from ..causal_core.modular.report import bounds_chart, bounds_table
        from ..causal_core.query import parse_query
        from .generator import pictured
        from .modular_run import placed

        if (picture := pictured(graph)) is not None:
            raise CounterfactError(
                f"graph: {picture} is a picture, and bounds need concepts with a few values; take it out of the graph, "
                "or give it values if it is a label"
            )
        table = table_of(labels)
        data = Records.read(table, graph, smoothing)
        graph = CausalGraph.from_edges(graph.edges, graph.confounded, settled(graph.concepts, data.coding))
        with asked_in("query"):
            asked = parse_query(query, graph.concepts)
        with placed():
            check = comfy.model_management.throw_exception_if_processing_interrupted
            found = bounds(graph, data, asked, check=check)
        text = bounds_table(found, data.domains, len(data))
        image, shown = drawn(bounds_chart(found, data.domains), cls)
        return io.NodeOutput(
            text, image, float(found.low.flat[0]), float(found.high.flat[0]), ui={**shown, "text": [text]}
        )  # fmt: skip


def drawn(picture, cls: type[io.ComfyNode]):
    """A chart as an IMAGE, and what shows it on the node."""
    import numpy as np
    import torch
    from comfy_api.latest import ui

    image = torch.from_numpy(np.array(picture)).float()[None] / 255
    return image, ui.PreviewImage(image, cls=cls).as_dict()


NODES = [FitModular, LoadModular, SampleQuery, QueryBounds]
