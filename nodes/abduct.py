"""Abduction as a node of its own: invert a picture once, edit it many times."""

from __future__ import annotations

import hashlib

from comfy_api.latest import io

from ..causal_core.errors import CounterfactError, finite
from ..causal_core.guidance.inversion import METHODS, Trajectory, invert
from . import types
from .options import widgets


def made_with(model, caption: str, steps: int, skip: float, size) -> dict[str, str]:
    """What a trajectory depends on, in words; see :meth:`causal_core.guidance.inversion.Trajectory.require`."""
    height, width = size
    return {
        "model": fingerprint(model), "caption": caption, "number of steps": str(steps), "skip": f"{skip:g}",
        "size": f"{width} x {height} latent pixels",
    }  # fmt: skip


def fingerprint(model) -> str:
    """A short name for a MODEL's weights, LoRAs included: the same for the same, whether it is loaded or not."""
    parameters = dict(model.model.diffusion_model.named_parameters())
    names = sorted(parameters)
    digest = hashlib.sha256(f"{type(model.model).__name__} {len(names)}".encode())
    for name in names[:: max(1, len(names) // 8)]:
        backup = model.backup.get(f"diffusion_model.{name}")
        weight = parameters[name] if backup is None else backup.weight
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        if weight.device.type != "meta":
            digest.update(weight.detach().flatten()[:64].float().cpu().numpy().tobytes())
    for name, patches in sorted(model.patches.items()):
        digest.update(f"{name} {[(p[0], p[2]) for p in patches]}".encode())
    return f"{type(model.model).__name__} {digest.hexdigest()[:8]}"


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
        cls, model, clip, latent, graph, seed: int, steps: int, method: str = METHODS[0], eta: float = 1.0,
        skip: float = 0.1,
    ) -> io.NodeOutput:  # fmt: skip
        from ..causal_core.concepts import caption
        from .denoise import Captions, encode, noise_levels, progress_bar, run

        eta, skip = finite(eta, "eta", 0.0, 1.0), finite(skip, "skip", 0.0, 0.9)
        if method == "ddim" and eta > 0.0:
            raise CounterfactError("eta: DDIM inversion belongs to the deterministic sampler; set eta to 0 here and "
                                   "in the sampling node")  # fmt: skip
        text = caption(graph.concepts)
        guider = Captions(model, encode(clip, [text]))
        sigmas = noise_levels(model, steps, skip)
        count = len(latent["samples"])
        bar = progress_bar(model, count * steps * (2 if method == "ddim" else 1))
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
