"""Causal Semantic Guidance inside ComfyUI's own samplers: as a MODEL for any KSampler, and as a GUIDER.

The source picture is followed without inversion: the noise that the sampler starts with makes a path x0 + sigma n on
which the model's error r = x0 - D(x^source) is known, and the guided estimate becomes (FlowEdit, Kulikov et al., ICCV
2025, equation 7, with a direction and a region a concept)

    D^ = W (D* + r) + (1 - W) x0

so that any sampler ends exactly in the source where W is 0, and a deterministic one everywhere if nothing is set.
State lives in the options of one run, never in the MODEL.
"""

from __future__ import annotations

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
from .denoise import Captions, Rows, captures, encode
from .edit import on_grid
from .options import PER_CONCEPT, settings, widgets
from .phrases import watched_tokens

KEY = "counterfact"

SHARED = (
    "threshold", "attention_weight", "protect", "grow", "feather", "preserve", "delay", "stop", "project", "clamp",
    "momentum", "share_overlaps",
)  # fmt: skip


class Steering:
    """What a patched MODEL carries: captions, settings and given regions, and nothing of any run."""

    def __init__(self, model, clip, plan, chosen: Settings, seed: int, regions=None, alone: bool = False) -> None:
        self.plan, self.settings, self.seed, self.regions, self.alone = plan, chosen, seed, regions, alone
        self.prepared = Captions(model, encode(clip, captions(plan, chosen.fused)))
        self.watched = watched_tokens(self.prepared, clip, plan, chosen.fused) if captures(model) else {}

    def outer_sample(self, executor, *args, **kwargs):
        """Put the captions among the conditionings that ComfyUI is about to prepare."""
        guider = executor.class_obj
        for row, conditioning in self.prepared.original_conds.items():
            guider.conds[f"{KEY}.{row}"] = [entry.copy() for entry in conditioning]
        return executor(*args, **kwargs)

    def sampler_sample(self, executor, guider, sigmas, extra_args, callback, noise, latent_image=None,
                       denoise_mask=None, disable_pbar=False):  # fmt: skip
        """Find the regions, then let the sampler run with them."""
        if latent_image is None or not bool(latent_image.any()):
            raise CounterfactError(
                "latent_image: it is empty; connect VAE Encode of the source picture to the sampler, not an empty one"
            )
        extra_args["model_options"][KEY] = Source(self, guider, sigmas, extra_args, noise, latent_image, denoise_mask)
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)

    def predict_noise(self, executor, x, timestep, model_options, seed):
        """The guided estimate in place of the sampler's own."""
        source = model_options.get(KEY)
        if source is None:
            return executor(x, timestep, model_options, seed)
        own = None if self.alone else lambda latent: executor(latent, timestep, model_options, seed)
        return source.estimate(x, float(timestep.max()), own)


class _Prepared:
    """The captions of one run as :class:`nodes.denoise.Rows` wants them: conditionings that ComfyUI has prepared."""

    def __init__(self, guider: Any, prepared: Captions) -> None:
        self.conds = {row: guider.conds[f"{KEY}.{row}"] for row in prepared.original_conds}
        self.inner_model, self.model_patcher = guider.inner_model, guider.model_patcher
        self.attention, self.lengths, self.flow = prepared.attention, prepared.lengths, prepared.flow


class Source:
    """The source picture during one run: its path, its regions, and one guide a picture."""

    def __init__(self, steering: Steering, guider, sigmas, extra_args, noise, latent, mask) -> None:
        plan, chosen, flow = steering.plan, steering.settings, steering.prepared.flow
        self.rows = Rows(_Prepared(guider, steering.prepared), extra_args["model_options"])
        self.flow, self.preserve = flow, chosen.preserve
        self.frame = self.rows.video and latent.ndim == 5
        self.latent, self.noise = self._flat(latent), self._flat(noise)
        self.levels = [float(sigma) for sigma in sigmas]
        changes = [c for c in edits(plan, chosen.strength, chosen.fused) if c.strength > 0.0]
        generator = torch.Generator("cpu").manual_seed(steering.seed)
        ratio = guider.model_patcher.get_model_object("latent_format").spacial_downscale_ratio
        self.guides = []
        for i, one in enumerate(self.latent.split(1)):
            steps = probe_steps(len(self.levels) - 1, chosen.probes)
            fresh = [torch.randn(one.shape, generator=generator).to(one) for _ in steps]
            probes = [(self.levels[s], noised(one, n, self.levels[s], flow)) for s, n in zip(steps, fresh)]
            within = None if mask is None else self._flat(mask)[min(i, len(mask) - 1)].amax(0)
            given = on_grid(steering.regions, plan, tuple(one.shape[-2:]), ratio, i, len(self.latent))
            sought = [c for c in changes if c.name not in given]
            seen = look(self.rows, probes, sought, steering.watched)
            regions = {**given, **regions_of(seen, chosen, within)}
            self.guides.append(Guide(changes, regions, chosen.how))

    def _flat(self, latent: torch.Tensor) -> torch.Tensor:
        return latent.squeeze(2) if self.frame else latent

    def estimate(self, x: torch.Tensor, sigma: float, own=None) -> torch.Tensor:
        """D^ for x at one noise level; ``own`` is the sampler's own estimate, taken as the base where it is given."""
        shape, x = x.shape, self._flat(x)
        share = sum(level > sigma for level in self.levels[:-1]) / max(1, len(self.levels) - 1)
        # Where nothing changes the sampler is on the source's path already, whatever noise it has added since.
        path = noised(self.latent, self.noise, sigma, self.flow)
        path = torch.stack([
            here if guide.union is None else guide.union.to(x) * one + (1.0 - guide.union.to(x)) * here
            for here, one, guide in zip(x, path, self.guides)
        ])  # fmt: skip
        rows = self.guides[0].rows(share)
        found = dict(zip(rows, self.rows(x, sigma, rows)))
        if own is None:
            source = self.rows(path, sigma, [0])[0]
        else:
            found[0], source = (self._flat(own(t.reshape(shape))) for t in (x, path))
        out = []
        for i, guide in enumerate(self.guides):
            one = slice(i, i + 1)
            target = guide(x[one], {row: estimate[one] for row, estimate in found.items()}, share)
            if not torch.isfinite(target).all():
                raise CounterfactError(
                    f"the step at noise level {sigma:.3g} gave numbers that are not finite; lower the strength or use "
                    "fp32"
                )
            union = torch.zeros_like(x[0, 0]) if guide.union is None else guide.union.to(x)
            # What the model cannot draw of the source has no place in what is new once only details are left.
            kept = (1.0 - union) if sigma <= self.levels[-2] else 1.0
            followed = target + kept * (self.latent[one] - source[one])
            if self.preserve and guide.union is not None:
                followed = union * followed + (1.0 - union) * self.latent[one]
            out.append(followed)
        return torch.cat(out).reshape(shape)


def steered(model, clip, plan, chosen: Settings, seed: int, regions=None, alone: bool = False):
    """A clone of a MODEL that samples the counterfactual of whatever latent a sampler is given.

    Parameters
    ----------
    alone : take the factual caption as the base, not the sampler's own conditioning
    """
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
            "denoise about 0.9, and a deterministic sampler such as euler or dpmpp_2m. Sample Counterfactual is more "
            "exact; this one goes with everything.",
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
