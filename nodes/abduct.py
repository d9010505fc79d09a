"""Abduction as a node of its own: invert a picture once, edit it many times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from comfy_api.latest import io

from ..causal_core.concepts import caption
from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.inversion import METHODS, Trajectory, invert
from ..causal_core.guidance.picture import SKIP
from . import types
from .denoise import Captions, encode, noise_levels, progress_bar, run
from .options import DEFAULTS, checked, widgets
from .steer import unsteered

SAMPLED = 8


def made_with(model, text: str, steps: int, skip: float, size) -> dict[str, str]:
    """What a trajectory depends on, in words; see :meth:`causal_core.guidance.inversion.Trajectory.require`."""
    height, width = size
    return {
        "model": fingerprint(model), "caption": text, "number of steps": str(steps), "skip": f"{skip:g}",
        "size": f"{width} x {height} latent pixels",
    }  # fmt: skip


def fingerprint(model) -> str:
    """A short name for what a MODEL computes: its weights, with LoRAs, and the patches on it.

    Weights are read where ComfyUI keeps the originals, so that it does not matter whether and how far a model is
    loaded; of each tensor a few numbers tell it from others. Of patches that are functions only the names count.
    """
    kind, digest = type(model.model.model_config).__name__, hashlib.sha256()
    sampling = model.get_model_object("model_sampling")
    for told in _told(
        {
            "kind": kind,
            "weights": dict(_weights(model)),
            "patches": model.patches,
            "options": model.model_options.get("transformer_options", {}),
            "wrappers": model.wrappers,
            "prediction": [kind.__name__ for kind in type(sampling).__mro__],
            "levels": [float(sampling.sigma_max), float(sampling.sigma_min)],
        }
    ):
        digest.update(told)
    return f"{kind} {digest.hexdigest()[:8]}"


def _weights(model) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters by name as they are in the checkpoint, whatever loading has made of them."""
    for name, parameter in model.model.diffusion_model.named_parameters():
        key = f"diffusion_model.{name}"
        if key in model.backup:
            yield name, model.backup[key].weight
        else:
            yield name, model.hook_backup[key][0] if key in model.hook_backup else parameter


def _told(thing: Any) -> Iterator[bytes]:
    """The bytes that tell a thing from others: contents of tensors and containers, names of everything else."""
    if isinstance(thing, torch.Tensor):
        yield f"{tuple(thing.shape)}".encode() + _sampled(thing)
    elif isinstance(thing, Mapping):
        for key in sorted(thing, key=str):
            yield f"{key}:".encode()
            yield from _told(thing[key])
    elif isinstance(thing, (list, tuple)):
        yield f"{len(thing)}".encode()
        for part in thing:
            yield from _told(part)
    elif thing is None or isinstance(thing, (str, int, float)):
        yield repr(thing).encode()
    else:
        # LoRAs and their like keep their tensors in an attribute.
        yield getattr(thing, "__qualname__", type(thing).__name__).encode()
        yield from _told(getattr(thing, "weights", None))


def _sampled(tensor: torch.Tensor) -> bytes:
    """A few numbers out of the middle of a tensor, as they lie in memory, quantised or not."""
    stored = tensor
    while hasattr(stored, "__tensor_flatten__"):
        stored = getattr(stored, stored.__tensor_flatten__()[0][0])
    if stored.is_meta:
        # ComfyUI loads what a checkpoint lacks as zeros.
        stored = torch.zeros(min(SAMPLED, stored.numel()), dtype=stored.dtype)
    stored = stored.detach().as_subclass(torch.Tensor)
    while stored.ndim > 1:
        stored = stored[len(stored) // 2] if len(stored) else stored.flatten()
    return stored.reshape(-1)[:SAMPLED].contiguous().view(torch.uint8).cpu().numpy().tobytes()


def check(trajectory: Trajectory, source, expected: dict[str, str], eta: float) -> Trajectory:
    """The trajectory on the device of ``source``, if it belongs to this picture and run; else CounterfactError."""
    trajectory.require(**expected)
    if trajectory.eta != eta:
        raise CounterfactError(
            f"trajectory: it was made for another sampler (eta {trajectory.eta:g}, here {eta:g}); give both nodes the "
            "same eta"
        )
    trajectory = trajectory.to(source)
    if not bool(((trajectory.latents[-1] - source).abs() <= 1e-4).all()):
        raise CounterfactError("trajectory: it was made from another picture; connect the same latent to both nodes")
    return trajectory


class CSGInvert(io.ComfyNode):
    """Find the noise that makes the model draw the source picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalCSGInvert",
            display_name="Invert Picture (CSG)",
            category="causal/sampling",
            description="Find the noise that makes the model draw the source picture again, exactly. Sample "
            "Counterfactual does this by itself; do it here once to try many interventions on one picture faster.",
            search_aliases=["counterfactual", "abduction", "edit-friendly inversion", "ddim inversion", "unsampler"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model."),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Latent.Input("latent", tooltip="The source picture, from VAE Encode. Picture n of a batch takes the "
                "seed plus n."),
                types.Graph.Input("graph", tooltip="The graph with the values that the picture shows: they make the "
                "caption that it is inverted with."),
                *widgets("seed", "steps"),
                io.Combo.Input(
                    "method", options=list(METHODS), default=METHODS[0], optional=True, advanced=True,
                    tooltip="'edit-friendly': independent noise at every level; edits best. 'ddim': the deterministic "
                    "sampler run backwards; needs eta 0 and twice the time.",
                ),
                *widgets("eta", "skip"),
            ],
            outputs=[types.Trajectory.Output("trajectory", tooltip="For Sample Counterfactual, Find Regions and CSG "
            "Guider with the same model, steps, skip and eta.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, latent, graph, seed: int, steps: int, method: str = METHODS[0], eta: float = DEFAULTS.eta,
        skip: float = SKIP,
    ) -> io.NodeOutput:  # fmt: skip
        steps, eta, skip = checked("steps", steps), checked("eta", eta), checked("skip", skip)
        if method == "ddim" and eta > 0.0:
            raise CounterfactError(
                "eta: DDIM inversion belongs to the deterministic sampler; set eta to 0 here and in the sampling node"
            )
        unsteered(model)
        text = caption(graph.concepts)
        guider = Captions(model, encode(clip, [text]))
        sigmas = noise_levels(model, steps, skip)
        bar = progress_bar(model, len(latent["samples"]) * steps * (2 if method == "ddim" else 1))
        found = []

        def abduct(rows, x0, mask):
            def denoise(x, sigma):
                estimate = rows(x, sigma, [0])[0]
                bar(estimate)
                return estimate

            facts = made_with(model, text, steps, skip, x0.shape[-2:])
            for i, source in enumerate(x0.split(1)):
                one = invert(denoise, source, sigmas.tolist(), (seed + i) % 2**64, eta, guider.flow, method, facts)
                found.append(one.to("cpu"))
            return x0

        run(guider, latent, sigmas, abduct, seed)
        return io.NodeOutput(tuple(found))


NODES = [CSGInvert]
