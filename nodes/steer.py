"""Causal Semantic Guidance inside ComfyUI's own samplers: as a MODEL for any KSampler, and as a GUIDER.

The source picture is followed without inversion (FlowEdit, Kulikov et al., ICCV 2025, with a direction and a region for
each concept). Each noise level has fresh noise n; with it the model's error r = x0 - D(x0 + sigma n) about the source
is known, and a picture z, the source at first, moves towards the guided estimate

    D^ = W (D*(z + sigma n) + r) + (1 - W) x0,    z' = z + (1 - sigma' / sigma) (D^ - z)

The sampler decides on the noise levels and gets D^ as the model's estimate, so that it ends in z, and where W is 0 in
the source, whichever sampler it is. State lives in the options of one run, never in the MODEL.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from ..causal_core.guidance.captions import captions, edits
from ..causal_core.guidance.csg import Settings, look, probe_steps, regions_of
from ..causal_core.guidance.directions import Guide
from ..causal_core.guidance.steps import noised
from . import types
from .denoise import Captions, Rows, encode
from .grid import on_grid, ratio_of
from .options import PER_CONCEPT, settings, widgets
from .phrases import watched_tokens

KEY = "counterfact"

SHARED = (
    "threshold", "attention_weight", "protect", "grow", "feather", "preserve", "delay", "stop", "project", "clamp",
    "momentum", "share_overlaps",
)  # fmt: skip


class Steering:
    """What a patched MODEL carries: captions, settings and given regions, and nothing of any run.

    Parameters
    ----------
    seed : of the noise that regions are looked for with
    regions : MASK of the user's own regions, see :func:`nodes.grid.on_grid`, or None
    alone : take the factual caption as the base, not the sampler's own conditioning
    """

    def __init__(self, model, clip, plan, chosen: Settings, seed: int, regions=None, alone: bool = False) -> None:
        self.plan, self.settings, self.seed, self.regions, self.alone = plan, chosen, seed, regions, alone
        self.prepared = Captions(model, encode(clip, captions(plan, chosen.fused)))
        self.watched = watched_tokens(self.prepared, clip, plan, chosen.fused)

    def outer_sample(self, executor, *args, **kwargs):
        """Put the captions among the conditionings that ComfyUI is about to prepare."""
        guider = executor.class_obj
        for row, conditioning in self.prepared.original_conds.items():
            guider.conds[f"{KEY}.{row}"] = [entry.copy() for entry in conditioning]
        return executor(*args, **kwargs)

    def sampler_sample(
        self, executor, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
        disable_pbar=False,
    ):  # fmt: skip
        """Find the regions, then let the sampler run with them."""
        if latent_image is None or not bool(latent_image.any()):
            raise CounterfactError(
                "latent_image: it is empty; connect VAE Encode of the source picture to the sampler, not an empty one"
            )
        if not bool(noise.any()):
            raise CounterfactError(
                "noise: the sampler adds none to the source picture, and without noise there is nothing to sample; "
                "enable it (add_noise, or Random Noise)"
            )
        options = extra_args["model_options"]
        if len(sigmas) > 1:
            options[KEY] = Source(self, guider, sigmas, extra_args, latent_image, denoise_mask)
        try:
            return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)
        finally:
            # The options hold the source, and the source them: else both would stay until Python cleans up.
            options.pop(KEY, None)

    def predict_noise(self, executor, x, timestep, model_options, seed):
        """The guided estimate in place of the sampler's own."""
        source = model_options.get(KEY)
        if source is None:
            return executor(x, timestep, model_options, seed)
        own = None if self.alone else lambda latent: executor(latent, timestep, model_options, seed)
        return source.estimate(float(timestep.max()), own).reshape(x.shape)


class _Prepared:
    """The captions of one run as :class:`nodes.denoise.Rows` wants them: conditionings that ComfyUI has prepared."""

    def __init__(self, guider: Any, prepared: Captions) -> None:
        self.conds = {row: guider.conds[f"{KEY}.{row}"] for row in prepared.original_conds}
        self.inner_model, self.model_patcher = guider.inner_model, guider.model_patcher
        self.attention, self.lengths = prepared.attention, prepared.lengths


class Source:
    """The source picture during one run, with its regions and one guide a picture, and what has become of it so far.

    Attributes
    ----------
    target : the picture z that moves from the source to the counterfactual, [B, C, h, w]
    """

    def __init__(self, steering: Steering, guider, sigmas, extra_args, latent, mask) -> None:
        plan, chosen, flow = steering.plan, steering.settings, steering.prepared.flow
        self.rows = Rows(_Prepared(guider, steering.prepared), extra_args["model_options"])
        self.flow, self.preserve = flow, chosen.preserve
        if latent.ndim == 5 and latent.shape[2] != 1:
            raise CounterfactError(
                f"latent_image: it is a video of {latent.shape[2]} frames, but single pictures are edited; encode one "
                "picture at a time"
            )
        self.shape, self.latent = latent.shape, _flat(latent)
        self.levels = [float(sigma) for sigma in sigmas]
        self.target = self.found = self.latent
        self.sigma, self.noise = math.inf, torch.zeros_like(self.latent)
        self.generator = torch.Generator("cpu").manual_seed(extra_args.get("seed") or 0)
        changes = [c for c in edits(plan, chosen.strength, chosen.fused) if c.strength > 0.0]
        generator, ratio = torch.Generator("cpu").manual_seed(steering.seed), ratio_of(guider.model_patcher)
        self.guides = []
        for i, one in enumerate(self.latent.split(1)):
            levels = [self.levels[step] for step in probe_steps(len(self.levels) - 1, chosen.probes)]
            probes = [(sigma, noised(one, _drawn(one, generator), sigma, flow)) for sigma in levels]
            given = on_grid(steering.regions, plan, tuple(one.shape[-2:]), ratio, i, len(self.latent))
            seen = look(self.rows, probes, [c for c in changes if c.name not in given], steering.watched)
            within = None if mask is None else _flat(mask)[min(i, len(mask) - 1)].amax(0)
            self.guides.append(Guide(changes, {**given, **regions_of(seen, chosen, within)}, chosen.how))

    def _go_to(self, sigma: float) -> None:
        """Move the target on to a noise level; samplers may ask for one twice, or for one in between."""
        if sigma == self.sigma:
            return
        if sigma < self.sigma < math.inf:
            self.target = self.target + (1.0 - sigma / self.sigma) * (self.found - self.target)
        # One noise for all pictures, so that a picture comes out the same alone and in a batch.
        self.sigma, self.noise = sigma, _drawn(self.latent[:1], self.generator)

    def estimate(self, sigma: float, own=None) -> torch.Tensor:
        """D^ [B, C, h, w] at one noise level; ``own`` is the sampler's own estimate, the base where it is given."""
        self._go_to(sigma)
        steps = len(self.levels) - 1
        done = sum(level > sigma for level in self.levels[:-1])
        path = noised(self.latent, self.noise, sigma, self.flow)
        x = path + (self.target - self.latent)
        rows = self.guides[0].rows(done / steps)
        found = {}
        if own is None or len(rows) > 1:
            found = dict(zip(rows, self.rows(x, sigma, rows)))
        if own is None:
            base, source = found[0], self.rows(path, sigma, [0])[0]
        else:
            base, source = (_flat(own(latent.reshape(self.shape))) for latent in (x, path))
        # What the model cannot draw of the source has no place in what is new once only details are left.
        last = self.levels[-1] == 0.0 and sigma <= self.levels[-2]
        out = []
        for i, guide in enumerate(self.guides):
            one, union = slice(i, i + 1), 0.0 if guide.union is None else guide.union.to(x)
            estimates = {row: estimate[one] for row, estimate in found.items()}
            target = base[one]
            if estimates:
                # The sampler's own estimate may be of another caption, or with a negative one.
                target = target + (guide(x[one], estimates, done / steps) - estimates[0])
            if not torch.isfinite(target).all():
                raise CounterfactError(
                    f"step {min(done + 1, steps)} of {steps} gave numbers that are not finite; lower the strength or "
                    "use fp32"
                )
            followed = target + ((1.0 - union) if last else 1.0) * (self.latent[one] - source[one])
            if self.preserve and guide.union is not None:
                followed = union * followed + (1.0 - union) * self.latent[one]
            out.append(followed)
        self.found = torch.cat(out)
        return self.found


def _drawn(latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Noise like a latent, the same on every device."""
    return torch.randn(latent.shape, generator=generator).to(latent)


def _flat(latent: torch.Tensor) -> torch.Tensor:
    """[B, C, h, w] of the latents of video models too, which have a dimension for frames."""
    return latent.squeeze(2) if latent.ndim == 5 else latent


def unsteered(model) -> None:
    """Raise CounterfactError for a MODEL that draws counterfactuals already."""
    if model.get_wrappers(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, KEY):
        raise CounterfactError(
            "model: it comes from Apply CSG to Model and draws a counterfactual already; connect the model before that "
            "node, and put several changes into one plan"
        )


def steered(model, clip, plan, chosen: Settings, seed: int, regions=None, alone: bool = False):
    """A clone of a MODEL that samples the counterfactual of whatever latent a sampler is given; see Steering."""
    unsteered(model)
    steering = Steering(model, clip, plan, chosen, seed, regions, alone)
    patched = model.clone()
    kinds = comfy.patcher_extension.WrappersMP
    patched.add_wrapper_with_key(kinds.OUTER_SAMPLE, KEY, steering.outer_sample)
    patched.add_wrapper_with_key(kinds.SAMPLER_SAMPLE, KEY, steering.sampler_sample)
    patched.add_wrapper_with_key(kinds.PREDICT_NOISE, KEY, steering.predict_noise)
    return patched, steering


def inputs() -> list:
    """What both nodes ask for."""
    return [
        io.Model.Input("model", tooltip="The diffusion model, with LoRAs and other patches already on it."),
        io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
        types.Plan.Input("plan", tooltip="What changes and what stays, from Propagate Consequences."),
        *widgets("strength", "mode"),
        io.Int.Input(
            "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, optional=True,
            advanced=True, tooltip="Of the noise that regions are looked for with.",
        ),
        io.Mask.Input(
            "regions", optional=True, tooltip="Regions that you decide yourself: one mask for each affected concept in "
            "the order of the plan, or one for all.",
        ),
        *widgets(*SHARED),
    ]  # fmt: skip


class ApplyCSG(io.ComfyNode):
    """Make any sampler draw the counterfactual."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalApplyCSG",
            display_name="Apply CSG to Model",
            category="causal/sampling",
            description="Patch a model so that any KSampler draws the counterfactual of the latent that it is given. "
            "In the sampler: latent_image from VAE Encode of the source, the factual caption as positive, cfg 1, "
            "denoise about 0.9, and any sampler. Sample Counterfactual is more exact; this one goes with everything.",
            search_aliases=["counterfactual", "causal semantic guidance", "patch model", "ksampler", "flowedit"],
            inputs=inputs(),
            outputs=[io.Model.Output(tooltip="For a KSampler that gets the source picture as its latent_image.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, plan, strength: float, mode: str = PER_CONCEPT, seed: int = 0, regions=None, **chosen
    ) -> io.NodeOutput:  # fmt: skip
        settled = settings(mode, strength=strength, **chosen)
        return io.NodeOutput(steered(model, clip, plan, settled, seed, regions)[0])


class CSGGuider(io.ComfyNode):
    """A guider that draws the counterfactual."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalCSGGuider",
            display_name="CSG Guider",
            category="causal/sampling",
            description="A guider for SamplerCustomAdvanced that draws the counterfactual of the latent that the "
            "sampler is given, with any sampler and any noise levels below the highest (Split Sigmas, or denoise about "
            "0.9). The factual caption of the plan is its base.",
            search_aliases=["counterfactual", "causal semantic guidance", "custom sampler", "basic guider"],
            inputs=inputs(),
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced, with VAE Encode of the source picture as "
            "its latent_image.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, clip, plan, strength: float, mode: str = PER_CONCEPT, seed: int = 0, regions=None, **chosen
    ) -> io.NodeOutput:  # fmt: skip
        patched, steering = steered(
            model, clip, plan, settings(mode, strength=strength, **chosen), seed, regions, alone=True
        )
        guider = comfy.samplers.CFGGuider(patched)
        guider.original_conds = {"positive": steering.prepared.original_conds["0"]}
        return io.NodeOutput(guider)


NODES = [ApplyCSG, CSGGuider]
