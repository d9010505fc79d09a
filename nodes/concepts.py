"""Concepts of a picture: listed by hand or taken from a scene, their values given or read by the model itself."""

from __future__ import annotations

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from . import types
from .mistakes import naming

KEEP, SCORE = "keep given values", "score with the model"
PASSES = 2


class ConceptExtractor(io.ComfyNode):
    """List the concepts of a picture and find their values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalConceptExtractor",
            display_name="Extract Concepts",
            category="causal/graph",
            description="List the concepts of a picture and their values. The model can read the values itself: it "
            "picks those whose words help it most to restore the picture from noise.",
            search_aliases=["counterfactual", "caption", "attributes", "diffusion "
            "classifier", "interrogate", "describe "
            "image"],
            inputs=[
                io.Combo.Input(
                    "mode", options=[SCORE, KEEP], default=SCORE,
                    tooltip=f"'{SCORE}': read the values from the picture; needs model, clip, vae and image. '{KEEP}': "
                    "use the values as they are typed or connected.",
                ),
                io.Model.Input("model", optional=True, lazy=True, tooltip="The diffusion model that reads the "
                "picture."),
                io.Clip.Input("clip", optional=True, lazy=True, tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", optional=True, lazy=True, tooltip="The VAE of the same checkpoint."),
                io.Image.Input("image", optional=True, lazy=True, tooltip="The picture to read: one, not a batch."),
                types.Concepts.Input(
                    "concepts", optional=True,
                    tooltip="Concepts to look for, such as those of a demo scene: names, values and phrases. Ignored "
                    "if you type a list.",
                ),
                io.String.Input(
                    "typed", default="", multiline=True, optional=True,
                    placeholder="season: spring, summer, autumn, winter = summer\ncar: none, red, blue",
                    tooltip="Concepts one a line: name, colon, values, and optionally '= value' for the value it has. "
                    "Empty: use the connected concepts.",
                ),
                io.Int.Input(
                    "levels", default=6, min=2, max=64, optional=True, advanced=True,
                    tooltip="How many noise levels to compare captions at. More is surer and takes longer.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, optional=True,
                    advanced=True,
                    tooltip="Of the noise. The same seed reads the same values.",
                ),
            ],
            outputs=[
                types.Concepts.Output("concepts", tooltip="The concepts with their values and how sure each one is."),
                io.String.Output("json", tooltip="The concepts as a JSON document, to save, compare or edit."),
            ],
        )  # fmt: skip

    @classmethod
    def check_lazy_status(cls, mode: str, **inputs) -> list[str]:
        # Unconnected inputs are not among them.
        return [name for name, value in inputs.items() if value is None and mode == SCORE]

    @classmethod
    def execute(
        cls, mode: str, model=None, clip=None, vae=None, image=None, concepts=None, typed: str = "", levels: int = 6,
        seed: int = 0,
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.concepts import parse_concepts

        if typed.strip() or concepts is None:
            with naming("typed"):
                concepts = parse_concepts(typed)
        if mode == SCORE:
            needed = {"model": model, "clip": clip, "vae": vae, "image": image}
            missing = [name for name, value in needed.items() if value is None]
            if missing:
                raise CounterfactError(f"{', '.join(missing)}: connect them, or set mode to '{KEEP}'")
            concepts = read_values(model, clip, vae, image, concepts, levels, seed)
        return io.NodeOutput(concepts, concepts.to_json())


def read_values(model, clip, vae, image, concepts, levels: int, seed: int):
    """The concepts with the values that the model reads in the picture."""
    import torch

    from ..causal_core.extraction.classifier import classify, denoising_errors, noise_levels
    from .denoise import Captions, encode, progress_bar, run

    if len(image) != 1:
        raise CounterfactError(f"image: it is a batch of {len(image)} pictures; connect one picture")
    latent = {"samples": vae.encode(image[..., :3])}
    sigmas = noise_levels(levels)
    bar = progress_bar(model, PASSES * levels)

    def score(captions, groups):
        errors = []

        def compare(rows, x0, mask):
            errors.append(denoising_errors(rows, x0, groups, sigmas, seed, bar))
            return x0

        run(
            Captions(model, encode(clip, captions)),
            latent,
            torch.tensor([*sorted(sigmas, reverse=True), 0.0]),
            compare,
            seed,
        )
        return errors[0]

    return classify(concepts, score, PASSES)


NODES = [ConceptExtractor]
