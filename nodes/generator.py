"""Pretrained models as parts of a modular model: they draw the pictures of its cases."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..causal_core.concepts import Concepts
from ..causal_core.errors import CounterfactError, finite, unknown
from . import types
from .autoencoder import STEPS
from .denoise import Captions, encode
from .mistakes import naming
from .steer import unsteered

# As Empty Latent Image and KSampler have them.
LEAST, MOST, SIDE, MOST_STEPS, CFG, MOST_CFG = 16, 16384, 512, 10_000, 8.0, 100.0
SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS


class ModelAsGenerator(io.ComfyNode):
    """A text-to-image model that draws what a case of a modular model looks like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalModelGenerator",
            display_name="Model as Generator",
            category="causal/query",
            description="Let a text-to-image model draw the cases of Sample Query. It is told the values of a case in "
            "a caption, stays as it is, and can stand in the middle of the graph: what is read in its pictures may "
            "cause other concepts.",
            search_aliases=["counterfactual", "conditional sampler", "picture generator", "text to image", "modular",
                            "id-gen", "pretrained"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model, with LoRAs and other patches already on it."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                types.Graph.Input(
                    "graph", tooltip="Its concepts make the caption, with their phrases and in their order. Values "
                    "that they have hold where a case says nothing. If there is a concept called picture, its causes "
                    "alone make the caption."
                ),
                io.Int.Input(
                    "width", default=SIDE, min=LEAST, max=MOST, step=8,
                    tooltip="Of the pictures, in pixels. 64 for the demo model.",
                ),
                io.Int.Input(
                    "height", default=SIDE, min=LEAST, max=MOST, step=8,
                    tooltip="Of the pictures, in pixels. 64 for the demo model.",
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=MOST_STEPS,
                    tooltip="Sampling steps, as in KSampler. More are finer and take longer.",
                ),
                io.Float.Input(
                    "cfg", default=CFG, min=0.0, max=MOST_CFG, step=0.1, round=0.01,
                    tooltip="How closely to follow the caption, as in KSampler. 2 for the demo model.",
                ),
                io.Combo.Input(
                    "sampler_name", options=list(SAMPLERS), default="euler", tooltip="The sampler, as in KSampler. "
                    "Those that add noise take pictures one at a time, so that each depends on its own seed alone."
                ),
                io.Combo.Input(
                    "scheduler", options=list(SCHEDULERS), default="normal",
                    tooltip="How the noise falls from step to step, as in KSampler.",
                ),
                io.String.Input(
                    "style", default="", multiline=True, optional=True, advanced=True,
                    placeholder="a watercolour of a landscape",
                    tooltip="Text to put before each caption.",
                ),
                io.String.Input(
                    "negative", default="", multiline=True, optional=True, advanced=True,
                    tooltip="What the pictures should not show: the negative prompt.",
                ),
            ],
            outputs=[types.Generator.Output("generator", tooltip="For the pictures input of Sample Query.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, vae, graph, width: int = SIDE, height: int = SIDE, steps: int = 20, cfg: float = CFG,
        sampler_name: str = "euler", scheduler: str = "normal", style: str = "", negative: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        from .generator_run import ModelGenerator

        for name, chosen, known in (("sampler_name", sampler_name, SAMPLERS), ("scheduler", scheduler, SCHEDULERS)):
            if chosen not in known:
                raise unknown(name, chosen, known)
        unsteered(model)
        # Says whether model and text encoder belong together.
        Captions(model, encode(clip, [negative]))
        made, read = model.get_model_object("latent_format").latent_channels, vae.latent_channels
        if made != read:
            raise CounterfactError(
                f"vae: it decodes {read} channels, but the model makes {made}; connect the VAE of its checkpoint"
            )
        with naming("graph"):
            concepts = told(graph)
        found = ModelGenerator(
            model, clip, vae, concepts, style, negative, int(finite(width, "width", LEAST, MOST)),
            int(finite(height, "height", LEAST, MOST)), int(finite(steps, "steps", 1, MOST_STEPS)),
            finite(cfg, "cfg", 0.0, MOST_CFG), sampler_name, scheduler,
        )  # fmt: skip
        return io.NodeOutput(found)


def told(graph) -> Concepts:
    """What a generator is told: all concepts, or the causes of the picture if that is one of them."""
    picture = pictured(graph)
    if picture is None:
        return graph.concepts
    causes = graph.parents(picture)
    if not causes:
        raise CounterfactError(f"nothing causes the {picture}, so that there is nothing to tell; add what it shows")
    return Concepts(tuple(graph.concepts[name] for name in causes))


def pictured(graph) -> str | None:
    """The concept of a graph that is a picture: the one of that name, unless it has values or a range."""
    from ..causal_core.modular.records import PICTURE

    if PICTURE not in graph.concepts:
        return None
    concept = graph.concepts[PICTURE]
    return None if concept.domain or concept.interval or concept.value is not None else concept.name


class AutoencoderAsGenerator(io.ComfyNode):
    """The decoder of a causal autoencoder that draws what a case of a modular model looks like."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalAutoencoderGenerator",
            display_name="Autoencoder as Generator",
            category="causal/query",
            description="Let the decoder of a causal autoencoder draw the cases of Sample Query. It is told the "
            "values of all its variables and stays as it is; what they do not say is drawn at random.",
            search_aliases=["counterfactual", "conditional sampler", "picture generator", "causaldiffae", "modular",
                            "id-gen", "pretrained", "decoder"],
            inputs=[
                types.Autoencoder.Input("autoencoder", tooltip="From Load or Train Causal Autoencoder."),
                io.Int.Input(
                    "steps", default=STEPS, min=1, max=1000,
                    tooltip="Steps from noise to the picture. More are finer and take longer.",
                ),
            ],
            outputs=[types.Generator.Output("generator", tooltip="For the pictures input of Sample Query.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, autoencoder, steps: int = STEPS) -> io.NodeOutput:
        from .generator_run import DecoderGenerator

        return io.NodeOutput(DecoderGenerator(autoencoder, int(finite(steps, "steps", 1, 1000))))


NODES = [ModelAsGenerator, AutoencoderAsGenerator]
