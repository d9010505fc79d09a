"""CausalDiffAE: a picture into causally related latents, an intervention on any of them, and the picture back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..causal_core.errors import CounterfactError, folded
from . import types
from .demo import AUTOENCODER, find_weights, fingerprint, own_files
from .mistakes import naming

if TYPE_CHECKING:
    from ..causal_core.autoencoder.coding import Coding, Variable
    from ..causal_core.autoencoder.config import AutoencoderConfig

BUNDLED = Path(__file__).parents[1] / "causal_core" / "autoencoder" / "weights"
SHIPPED = "pendulum"
OFF, FIT = "off", "fit"
# Shares of x_T that are kept where the picture changes.
RELEASE = {"automatic": None, "never": 1.0, "where it changes": 0.1}
# Not taken from causal_core.autoencoder.model, since that would delay ComfyUI's start.
STEPS = 20
LUMA = 0.299, 0.587, 0.114


def presets() -> list[str]:
    """Bundled autoencoders by name, those of the user by file name."""
    bundled = sorted({SHIPPED, *(file.stem for file in BUNDLED.glob("*.safetensors"))})
    # What cannot be read is offered too: choosing it tells why.
    return bundled + [name for name, kind in own_files().items() if kind in (AUTOENCODER, None)]


class LoadAutoencoder(io.ComfyNode):
    """A causal autoencoder under ComfyUI's memory management."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalLoadAutoencoder",
            display_name="Load Causal Autoencoder",
            category="causal/autoencoder",
            description="Load a CausalDiffAE: a diffusion autoencoder whose latents are the variables of a causal "
            "graph. It edits pictures of the kind that it was trained on, and no others.",
            search_aliases=["counterfactual", "causaldiffae", "diffae", "diffusion autoencoder", "causal vae"],
            inputs=[
                io.Combo.Input(
                    "weights", options=presets(), default=SHIPPED,
                    tooltip="Which autoencoder: pendulum and cottage come with the pack and know these worlds of Draw "
                    "Demo Scene, coloured-digits writes the digits of the modular model front_door. Those of Train "
                    "Causal Autoencoder, and files that 'counterfact train autoencoder' wrote, appear here when they "
                    "lie in models/counterfact.",
                ),
            ],
            outputs=[
                types.Autoencoder.Output("autoencoder", tooltip="For CausalDiffAE Encode, Decode and Causal "
                "Traversal."),
                types.Graph.Output(
                    "graph", tooltip="The causal graph of its variables, with the values or the range of each, for Do "
                    "(Set Concept). Without factual values: those come from CausalDiffAE Encode."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, weights: str) -> str:
        return fingerprint(find_weights(weights, BUNDLED))

    @classmethod
    def execute(cls, weights: str) -> io.NodeOutput:
        from ..causal_core.autoencoder.model import CausalAutoencoder
        from .autoencoder_memory import ManagedAutoencoder

        file = find_weights(weights, BUNDLED)
        if not file.is_file():
            raise CounterfactError(
                f"weights: there is no file {file}; install the pack again, or choose others (press R to refresh)"
            )
        with naming("weights"):
            model = CausalAutoencoder.load(file)
        return io.NodeOutput(ManagedAutoencoder(model), graph_of(model.coding))


class Encode(io.ComfyNode):
    """Read what a picture shows, and find the noise that makes the decoder draw it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalEncode",
            display_name="CausalDiffAE Encode",
            category="causal/autoencoder",
            description="Read the variables of a picture, abduct their exogenous noise, and find the noise that makes "
            "the decoder draw this picture again: everything that CausalDiffAE Decode needs to change one thing only.",
            search_aliases=["counterfactual", "abduction", "causaldiffae", "ddim inversion", "read factors"],
            inputs=[
                types.Autoencoder.Input("autoencoder", tooltip="From Load or Train Causal Autoencoder."),
                io.Image.Input("image", tooltip="The pictures, of the kind and size that the autoencoder was trained "
                "on. Each of a batch is encoded by itself."),
                io.Int.Input(
                    "steps", default=STEPS, min=1, max=1000,
                    tooltip="Steps from the picture to its noise, and back when it is decoded. More are more exact "
                    "and take longer.",
                ),
                io.Combo.Input(
                    "resize", options=[OFF, FIT], default=OFF, optional=True,
                    tooltip="'off': a picture of another size, or a coloured one for an autoencoder that knows only "
                    "grey ones, is an error. 'fit': it is scaled, cut to its central square and made grey, as the "
                    "pictures of a folder are for training.",
                ),
            ],
            outputs=[
                types.CausalLatent.Output("latent", tooltip="For CausalDiffAE Decode and Causal Traversal."),
                types.Graph.Output(
                    "graph", tooltip="The causal graph with the values that were read in the first picture, for Do "
                    "(Set Concept), Propagate Consequences and Preview Causal Graph."
                ),
                io.String.Output("values", tooltip="What was read, as JSON: for each picture the value of each "
                "variable."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, autoencoder, image, steps: int, resize: str = OFF) -> io.NodeOutput:
        coding = autoencoder.model.coding
        with naming("image"):
            images = pictures(image, autoencoder.model.config, resize == FIT)
        latent = autoencoder.encode(images, steps)
        found = [readings(coding, z) for z in latent.z]
        lines = [f"{name} = {value}" for name, value in found[0].items()]
        return io.NodeOutput(
            latent, graph_of(coding, latent.z[0]), json.dumps(found, indent=1, ensure_ascii=False),
            ui={"text": ["\n".join(lines)]},
        )  # fmt: skip


class Decode(io.ComfyNode):
    """Draw encoded pictures as they would have been."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalDecode",
            display_name="CausalDiffAE Decode",
            category="causal/autoencoder",
            description="Draw an encoded picture as it would have been: what is set and what follows from it change, "
            "everything else comes back from the picture's own noise. Without an intervention the picture comes back.",
            search_aliases=["counterfactual", "what if", "causaldiffae", "edit image", "prediction"],
            inputs=[
                types.Autoencoder.Input("autoencoder", tooltip="The same as CausalDiffAE Encode has."),
                types.CausalLatent.Input("latent", tooltip="From CausalDiffAE Encode."),
                types.Intervention.Input(
                    "intervention", optional=True,
                    tooltip="From Do (Set Concept) or What If. It is done to every picture of a batch.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=3.0, step=0.05, optional=True,
                    tooltip="How far to go: 0 returns the picture as it was encoded, 1 is the intervention, more "
                    "exaggerates.",
                ),
                io.Boolean.Input(
                    "clamp", default=False, optional=True,
                    tooltip="Move a number that is outside the range of its variable to the end of it. Off: it is an "
                    "error, since the autoencoder has never seen such pictures.",
                ),
                io.Combo.Input(
                    "release", options=list(RELEASE), default=next(iter(RELEASE)), optional=True, advanced=True,
                    tooltip="Whether to let go of the picture's noise where the intervention changes it. It helps "
                    "where things move and remains of them shine through, and costs details where things only change "
                    "their look. Automatic: as the weights were made.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The counterfactual pictures."),
                io.String.Output("values", tooltip="As JSON: for each picture each variable's value before and after."),
                types.Plan.Output(
                    "plan", tooltip="What was set in the first picture, what follows from it and what stays, for "
                    "Preview Causal Graph."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, autoencoder, latent, intervention=None, strength: float = 1.0, clamp: bool = False,
        release: str = "automatic",
    ) -> io.NodeOutput:
        autoencoder.require(latent)
        coding = autoencoder.model.coding
        with naming("intervention"):
            do = settled(coding, intervention.do if intervention else {}, clamp)
        new = autoencoder.intervened(latent, do, RELEASE[release]) if do else None
        image = autoencoder.decode(latent, new, strength)
        was, now = ([readings(coding, z) for z in which.z] for which in (latent, new or latent))
        changes = [
            {name: {"before": value, "after": after[name]} for name, value in before.items()}
            for before, after in zip(was, now)
        ]
        return io.NodeOutput(
            image, json.dumps(changes, indent=1, ensure_ascii=False), plan_of(coding, latent.z[0], do, now[0]),
            ui={"text": ["\n".join(_told(name, **change) for name, change in changes[0].items())]},
        )  # fmt: skip


class Traversal(io.ComfyNode):
    """One variable swept, everything else as it follows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalTraversal",
            display_name="Causal Traversal",
            category="causal/autoencoder",
            description="Sweep one variable over its range and draw what follows: frames for an animation, and a "
            "contact sheet of them.",
            search_aliases=["counterfactual", "latent traversal", "sweep", "interpolate", "animation", "causaldiffae"],
            inputs=[
                types.Autoencoder.Input("autoencoder", tooltip="The same as CausalDiffAE Encode has."),
                types.CausalLatent.Input("latent", tooltip="From CausalDiffAE Encode. Pictures of a batch stand side "
                "by side in each frame."),
                io.String.Input(
                    "variable", default="light",
                    tooltip="Which variable to sweep. The values output of CausalDiffAE Encode lists them.",
                ),
                io.Int.Input(
                    "count", default=8, min=2, max=240,
                    tooltip="How many frames, for a variable whose values are numbers. Others have one a value.",
                ),
                io.String.Input(
                    "values", default="", optional=True, placeholder="70 .. 120",
                    tooltip="Empty: the whole range, or all values. '70 .. 120': count steps from the one to the "
                    "other. '70, 90, 120' or 'summer, winter': just these.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=3.0, step=0.05, optional=True,
                    tooltip="How far to go: 0 changes nothing, 1 is the intervention, more exaggerates.",
                ),
            ],
            outputs=[
                io.Image.Output("frames", tooltip="A picture for each value, for Save Animated WEBP, Create Video or "
                "Preview Image."),
                io.Image.Output("sheet", tooltip="All frames on one picture, with their values."),
                io.String.Output("shown", tooltip="The values in the order of the frames, one a line."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, autoencoder, latent, variable: str, count: int, values: str = "", strength: float = 1.0
    ) -> io.NodeOutput:
        import numpy as np

        from ..causal_core.autoencoder.traversal import captioned, parse_sweep
        from .autoencoder_memory import joined

        autoencoder.require(latent)
        coding = autoencoder.model.coding
        with naming("variable"):
            swept = coding.variables[coding.index(spelled(coding, variable))]
        with naming("values"):
            chosen = parse_sweep(values, swept, count)
        new = joined([autoencoder.intervened(latent, {swept.name: value}) for value in chosen])
        images = autoencoder.decode(joined([latent] * len(chosen)), new, strength)
        frames = images.unflatten(0, (len(chosen), -1))
        shown = [str(readable(swept, value)) for value in chosen]
        page = captioned(frames.float().cpu().numpy(), [f"{swept.name} = {value}" for value in shown])
        sheet = torch.from_numpy(np.array(page)).float()[None] / 255
        return io.NodeOutput(torch.cat(frames.unbind(1), 2), sheet.to(images), "\n".join(shown))


def pictures(image: torch.Tensor, config: AutoencoderConfig, fit: bool) -> torch.Tensor:
    """An IMAGE as the autoencoder takes it, [B, C, H, W] in -1..1.

    Raises
    ------
    CounterfactError
        If size or colours do not fit and ``fit`` does not allow to change them.
    """
    if not bool(torch.isfinite(image).all()):
        raise CounterfactError("it has pixels that are no numbers; look at the node that made it")
    image = image.float().clamp(0, 1)
    size, grey = config.size, config.channels == 1
    if tuple(image.shape[1:3]) != (size, size):
        if not fit:
            raise CounterfactError(
                f"it has {image.shape[2]} x {image.shape[1]} pixels, but the autoencoder was trained on {size} x "
                f"{size}; set resize to '{FIT}', or scale it first"
            )
        image = _fitted(image, size)
    if grey and bool((image[..., :3] - image[..., :1]).abs().max() > 1 / 255):
        if not fit:
            raise CounterfactError(
                f"it is in colour, but the autoencoder was trained on grey pictures; set resize to '{FIT}', or take "
                "the colours out first"
            )
        image = (image[..., :3] * image.new_tensor(LUMA)).sum(-1, keepdim=True)
    image = image[..., :1] if grey else image[..., :1].expand(-1, -1, -1, 3) if image.shape[-1] < 3 else image[..., :3]
    return image.movedim(-1, 1) * 2 - 1


def _fitted(image: torch.Tensor, size: int) -> torch.Tensor:
    """The central square of pictures [B, H, W, C], scaled as those of a folder are for training."""
    import numpy as np
    from PIL import Image

    from ..causal_core.autoencoder.folder import square

    pixels = (image[..., :3] * 255).round().byte().cpu().numpy()
    whole = [square(Image.fromarray(one[..., 0] if one.shape[-1] < 3 else one), size) for one in pixels]
    return torch.from_numpy(np.stack([np.broadcast_to(one, (size, size, 3)) for one in whole])).float() / 255


def graph_of(coding: Coding, z: torch.Tensor | None = None):
    """The causal graph of the variables, with the values that latents [width] stand for if they are given.

    A number that was read beyond the end of its variable's range becomes that end.
    """
    from ..causal_core.concepts import Concept, Concepts
    from ..causal_core.graph import CausalGraph

    concepts = []
    for variable, where in zip(coding.variables, coding.places):
        value = sure = None
        if z is not None:
            value = _within(variable, str(readable(variable, variable.value(z[where].tolist()))))
            sure = float(z[where].max().clamp(0, 1)) if variable.domain else None
        concepts.append(Concept(variable.name, variable.domain, value, confidence=sure, interval=variable.interval))
    edges = [(coding.names[p], name) for name, parents in zip(coding.names, coding.parents) for p in parents]
    return CausalGraph.from_edges(edges, concepts=Concepts(tuple(concepts)))


def readings(coding: Coding, z: torch.Tensor) -> dict[str, float | str]:
    """Readable values of latents [width]."""
    return {name: readable(coding.variables[coding.index(name)], value) for name, value in coding.values(z).items()}


def readable(variable: Variable, value: str) -> float | str:
    """A value for people: the text, or the number with five digits."""
    return value if variable.domain else float(f"{float(value):.5g}")


def spelled(coding: Coding, name: str) -> str:
    """A variable's name as the autoencoder spells it; an unknown one as it is."""
    return next((known for known in coding.names if folded(known) == folded(name)), name)


def settled(coding: Coding, do: Mapping[str, str], clamp: bool) -> dict[str, str]:
    """An intervention with names and values as the autoencoder spells them.

    Raises
    ------
    CounterfactError
        For an unknown variable, or a value that it cannot take; one out of range is moved inside if ``clamp`` says so.
    """
    found = {}
    for name, value in do.items():
        variable = coding.variables[coding.index(spelled(coding, name))]
        places = variable.vector(value, clamp)
        found[variable.name] = variable.value(places) if variable.domain else _within(variable, value)
    return found


def _within(variable: Variable, value: str) -> str:
    if variable.domain:
        return value
    low, high = variable.interval
    return repr(min(max(float(value), low), high))


def plan_of(coding: Coding, z: torch.Tensor, do: Mapping[str, str], after: Mapping[str, float | str]):
    """The plan of an intervention on a picture with latents z [width] and the readable values ``after`` it."""
    from ..causal_core.plan import Consequence, Intervention, propagate

    def follows(names, _):
        return {
            name: Consequence(
                _within(coding.variables[coding.index(name)], str(after[name])), None,
                "what the autoencoder's mechanism predicts, with the picture's own noise",
            )
            for name in names
        }  # fmt: skip

    return propagate(graph_of(coding, z), Intervention(do), mechanism=follows)


def _told(name: str, before: float | str, after: float | str) -> str:
    return f"{name}: {before}" if before == after else f"{name}: {before} -> {after}"


NODES = [LoadAutoencoder, Encode, Decode, Traversal]
