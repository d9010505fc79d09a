"""Concepts of a picture: listed by hand or taken from a scene, their values given or read, and where they are."""

from __future__ import annotations

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from . import types
from .mistakes import naming

KEEP, SCORE, ASK = "keep given values", "score with the model", "ask a language model"
DIFFUSION = "model", "clip", "vae", "image"


class ConceptExtractor(io.ComfyNode):
    """List the concepts of a picture and find their values and regions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalConceptExtractor",
            display_name="Extract Concepts",
            category="causal/graph",
            description="List the concepts of a picture, their values and where they are. The diffusion model can read "
            "the values itself: it picks those whose words help it most to restore the picture from noise. A "
            "vision-language model can read them too, and can propose the concepts. What you type always wins.",
            search_aliases=["counterfactual", "caption", "attributes", "diffusion "
            "classifier", "interrogate", "describe "
            "image", "vision language model", "segment"],
            inputs=[
                io.Combo.Input(
                    "mode", options=[SCORE, KEEP, ASK], default=SCORE,
                    tooltip=f"'{SCORE}': the diffusion model reads the values from the picture; needs model, clip, vae "
                    f"and image. '{KEEP}': use the values as they are typed or connected. '{ASK}': a language model "
                    "that can see reads the values, or proposes concepts if there are none; needs llm and image.",
                ),
                io.Model.Input("model", optional=True, lazy=True, tooltip="The diffusion model that reads the "
                "picture."),
                io.Clip.Input("clip", optional=True, lazy=True, tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", optional=True, lazy=True, tooltip="The VAE of the same checkpoint."),
                io.Image.Input("image", optional=True, lazy=True, tooltip="The picture to read: one, not a batch."),
                types.Concepts.Input(
                    "concepts", optional=True,
                    tooltip="Concepts to look for, such as those of a demo scene: names, values and phrases. Values "
                    f"from lists are read anew, except with '{KEEP}'. Ignored if you type a list.",
                ),
                io.String.Input(
                    "typed", default="", multiline=True, optional=True,
                    placeholder="season: spring, summer, autumn, winter = summer\ncar: none, red, blue",
                    tooltip="Concepts one a line: name, colon, values, and optionally '= value' for the value it has, "
                    "which no model changes. Or paste the JSON of concepts, edited or not; values that are null are "
                    "read. Empty: use the connected concepts.",
                ),
                io.Int.Input(
                    "levels", default=6, min=2, max=64, optional=True, advanced=True,
                    tooltip="At how many noise levels the diffusion model compares values at most; values that are "
                    "clearly behind are dropped earlier. More is surer and takes longer.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, optional=True,
                    advanced=True,
                    tooltip="Of the noise. The same seed reads the same values.",
                ),
                io.Boolean.Input(
                    "find_regions", default=False, optional=True,
                    tooltip="Find where in the picture each concept is; needs model, clip, vae and image, and takes "
                    "about two more looks at each value.",
                ),
                io.Mask.Input(
                    "masks", optional=True,
                    tooltip="Regions of your own, painted or from a segmentation node such as SAM 3. They take the "
                    "place of what is found.",
                ),
                io.String.Input(
                    "masks_of", default="", optional=True, placeholder="house, car",
                    tooltip="Which concept each mask belongs to: names in the order of the masks, with commas. Masks "
                    "of one concept are joined. One name alone takes all masks. Empty: one mask for each concept, in "
                    "their order.",
                ),
                types.Language.Input(
                    "llm", optional=True, lazy=True,
                    tooltip="A vision-language model, such as Qwen3-VL from Load CLIP through Language Model from "
                    f"CLIP, or one on a server. For '{ASK}'.",
                ),
            ],
            outputs=[
                types.Concepts.Output("concepts", tooltip="The concepts with their values and how sure each one is."),
                io.String.Output("json", tooltip="The concepts as a JSON document, to save, compare or edit."),
                io.Mask.Output(
                    "regions", tooltip="Where each concept is, in their order; empty masks for those without a region."
                ),
                io.Image.Output("overlay", tooltip="The regions drawn on the picture, each with its name."),
            ],
        )  # fmt: skip

    @classmethod
    def check_lazy_status(
        cls, mode: str, concepts=None, typed: str = "", find_regions: bool = False, masks=None, **inputs
    ) -> list[str]:
        needed = {"image"} if masks is not None else set()
        if find_regions or (mode == SCORE and _open(mode, typed, concepts)):
            needed.update(DIFFUSION)
        if mode == ASK and _open(mode, typed, concepts):
            needed.update(("llm", "image"))
        # Unconnected inputs are not among them.
        return [name for name, value in inputs.items() if value is None and name in needed]

    @classmethod
    def execute(
        cls, mode: str, model=None, clip=None, vae=None, image=None, concepts=None, typed: str = "", levels: int = 6,
        seed: int = 0, find_regions: bool = False, masks=None, masks_of: str = "", llm=None,
    ) -> io.NodeOutput:  # fmt: skip
        import torch
        from comfy_api.latest import ui

        from ..causal_core.draw_regions import overlay

        known = given(mode, typed, concepts)
        reads, picture = _open(mode, typed, concepts), None
        if find_regions or (mode == SCORE and reads):
            remedy = f"set mode to '{KEEP}'" if reads and mode == SCORE else "turn find_regions off"
            _require(remedy, model=model, clip=clip, vae=vae, image=image)
            from .reading import Picture

            picture = Picture(model, clip, vae, _one(image), seed)
        if mode == SCORE and reads:
            known = picture.read(known, levels)
        elif mode == ASK and reads:
            _require(f"set mode to '{KEEP}'", llm=llm, image=image)
            known = asked(llm, _one(image), known)
        regions = own_regions(masks, masks_of, known)
        if find_regions:
            regions |= picture.regions(known, [name for name in known.names if name not in regions])
        size = tuple(masks.shape[-2:]) if masks is not None else (64, 64)
        size = size if image is None else tuple(image.shape[1:3])
        fitting = {
            name: torch.nn.functional.interpolate(
                region[None, None].float().cpu(), size=size, mode="bilinear", antialias=True
            )[0, 0].clamp(0, 1)
            for name, region in regions.items()
        }  # fmt: skip
        batch = torch.stack([fitting.get(name, torch.zeros(size)) for name in known.names])
        background = torch.full((*size, 3), 0.5) if image is None else image[0, ..., :3].float().cpu()
        drawn = overlay(background.numpy(), {name: region.numpy() for name, region in fitting.items()})
        drawn = torch.from_numpy(drawn)[None]
        preview = ui.PreviewImage(drawn, cls=cls) if fitting else None
        return io.NodeOutput(known, known.to_json(), batch, drawn, ui=preview)


def given(mode: str, typed: str, concepts):
    """The concepts with the values that stay as they are; None where a language model is to propose some."""
    from ..causal_core.concepts import Concepts, parse_concepts

    if typed.strip():
        with naming("typed"):
            return Concepts.from_json(typed) if typed.lstrip().startswith("{") else parse_concepts(typed)
    if concepts is None:
        if mode == ASK:
            return None
        with naming("typed"):
            return parse_concepts(typed)
    if mode != KEEP:
        for concept in concepts:
            if len(concept.domain) > 1:
                concepts = concepts.replace(concept.name, value=None, confidence=None)
    return concepts


def _open(mode: str, typed: str, concepts) -> bool:
    """Whether there is something to read; mistakes in the list are for `execute` to tell."""
    try:
        known = given(mode, typed, concepts)
    except CounterfactError:
        return True
    return known is None or any(concept.value is None for concept in known)


def asked(llm, image, concepts):
    """The concepts that a language model proposes, or the values that it reads, in a picture [1, H, W, 3]."""
    import comfy.model_management
    import comfy.utils

    from ..causal_core.extraction.vision import describe
    from ..causal_core.language.answers import Cached

    bar = comfy.utils.ProgressBar(1)
    pixels = (image[0, ..., :3].float().cpu() * 255).round().clamp(0, 255).byte().numpy()
    with naming("llm"):
        return describe(
            pixels,
            Cached(llm),
            concepts,
            comfy.model_management.throw_exception_if_processing_interrupted,
            bar.update_absolute,
        )


def own_regions(masks, masks_of: str, concepts) -> dict:
    """The user's masks [H, W] by concept.

    Raises
    ------
    CounterfactError
        If names and masks do not match.
    """
    from .grid import flat

    names = [name.strip() for name in masks_of.split(",") if name.strip()]
    if masks is None:
        if names:
            raise CounterfactError("masks: masks_of names concepts, but no masks are connected")
        return {}
    masks = flat(masks)
    with naming("masks_of"):
        names = [concepts[name].name for name in names] or list(concepts.names)
    names = names * len(masks) if len(names) == 1 else names
    if len(names) != len(masks):
        raise CounterfactError(
            f"masks: there are {len(masks)} masks for {len(names)} concepts ({', '.join(names)}); name the concept of "
            "each mask in masks_of"
        )
    found: dict = {}
    for name, mask in zip(names, masks):
        found[name] = mask if name not in found else found[name].maximum(mask)
    return found


def _one(image):
    if len(image) != 1:
        raise CounterfactError(f"image: it is a batch of {len(image)} pictures; connect one picture")
    return image


def _require(remedy: str, **inputs) -> None:
    missing = [name for name, value in inputs.items() if value is None]
    if missing:
        raise CounterfactError(f"{', '.join(missing)}: connect {'it' if len(missing) == 1 else 'them'}, or {remedy}")


NODES = [ConceptExtractor]
