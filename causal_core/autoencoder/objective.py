"""The training objective: denoising, alignment with labels, mechanisms, a residual that says nothing of the labels.

L = L_diffusion + a L_align + m L_mechanism + b KL(q(r | x) || N(0, 1)) + c L_independence + d L_drawing, every term a
mean, so that no weight depends on sizes (the evidence bound of CausalDiffAE, Komanduri et al. 2024, whose prior
given labels becomes L_align). L_drawing is the squared error of what the decoder is given to see of the latents.
Unlabelled pictures train everything but the alignment.

With ``terms = "sums"`` they are the divergences of that bound instead: KL(N(z, 1) || N(label, 1)) for the alignment,
KL(N(u, 1) || N(0, 1)) for the noise u = z - f(z_parents), and that of r, each summed over places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from .coding import Coding
from .diffusion import STEPS, sigmas
from .networks import Context, drawn

if TYPE_CHECKING:
    from .model import CausalAutoencoder

GAMMA = 5.0
NEARLY_RIGHT = 0.1


class Batch(NamedTuple):
    """Pictures [B, C, H, W] in -1..1; labels [B, width], NaN where unknown; free [B, variables], False where a variable
    was set by an intervention, so that it says nothing of its mechanism."""

    images: torch.Tensor
    labels: torch.Tensor
    free: torch.Tensor


def known(coding: Coding, labels: torch.Tensor) -> torch.Tensor:
    """Which variables have a label: [B, variables] of labels [B, width]."""
    return torch.stack([~labels[:, where].isnan().any(1) for where in coding.places], 1)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)


def _over_variables(terms: list[torch.Tensor], sums: bool) -> torch.Tensor:
    found = torch.stack(terms)
    return found.sum() if sums else found.mean()


def alignment(coding: Coding, readings: torch.Tensor, labels: torch.Tensor, sums: bool = False) -> torch.Tensor:
    """How far the encoder's readings [B, width] are from labels [B, width]: a mean over variables.

    Cross-entropy of discrete variables; of continuous ones the absolute error, rounded below NEARLY_RIGHT. With
    ``sums`` the sum over variables, of continuous ones of half the squared error.
    """
    terms, there = [], known(coding, labels)
    for i, (variable, where) in enumerate(zip(coding.variables, coding.places)):
        target = labels[:, where].nan_to_num()
        if variable.domain:
            error = F.cross_entropy(readings[:, where], target.argmax(1), reduction="none")
        elif sums:
            error = (readings[:, where] - target).square().sum(1) / 2
        else:
            error = F.smooth_l1_loss(readings[:, where], target, beta=NEARLY_RIGHT, reduction="none").mean(1)
        terms.append(_mean(error, there[:, i]))
    return _over_variables(terms, sums)


def mechanism_loss(model: CausalAutoencoder, z: torch.Tensor, free: torch.Tensor, sums: bool = False) -> torch.Tensor:
    """How far latents z [B, width] are from what their parents let expect: a mean over variables with parents.

    Squared error of continuous variables, so that f is the conditional mean and u has mean 0; cross-entropy of others.
    With ``sums`` the sum over variables, of continuous ones of half the squared error.
    """
    coding, terms = model.coding, []
    for i, (variable, where) in enumerate(zip(coding.variables, coding.places)):
        if not coding.parents[i]:
            continue
        expected = model.mechanisms.expected(i, z)
        if variable.domain:
            error = -(z[:, where] * expected.clamp_min(1e-6).log()).sum(1)
        else:
            error = (expected - z[:, where]).square().sum(1) / (2 if sums else 1)
        terms.append(_mean(error, free[:, i]))
    return _over_variables(terms, sums) if terms else z.new_zeros(())


def independence(r: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Mean squared correlation of residual codes [B, R] and features of the variables [B, F]; 0 if neither tells of the
    other. What chance alone gives in a batch of this size is taken off."""

    def standard(x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(0)
        return x / (x.square().mean(0) + 1e-4).sqrt()

    correlation = standard(r).T @ standard(features) / len(r)
    return correlation.square().mean() - 1 / len(r)


def diffusion_loss(
    model: CausalAutoencoder, x0: torch.Tensor, context: Context, rng: torch.Generator, half: bool = False
) -> torch.Tensor:
    """Weighted squared error of the decoder's prediction for pictures x0 [B, C, H, W], a scalar.

    No gradient of it reaches the drawing, or that would come to be one that leaves an easy rest, not the best one.
    ``half`` lets the decoder compute in bfloat16 where that is safe.
    """
    config, n = model.config, len(x0)
    if context.drawing is not None:
        context = context._replace(drawing=context.drawing.detach())
    x0 = model.decoder.rest(x0, context)
    # Stratified timesteps: the same distribution with less variance from batch to batch.
    places = (torch.arange(n, device=x0.device) + torch.rand(n, generator=rng, device=x0.device)) / n
    rising = sigmas(config.schedule, x0.device)
    sigma = (config.shift * rising[(places * STEPS).long().clamp_max(STEPS - 1)]).clamp_max(rising[-1])
    s = sigma[:, None, None, None]
    noise = torch.randn(x0.shape, generator=rng, device=x0.device)
    with torch.autocast(x0.device.type, torch.bfloat16, enabled=half):
        found = model.decoder(x0 + s * noise, sigma, context)
    target = noise if config.prediction == "epsilon" else (noise - s * x0) / (s**2 + 1).sqrt()
    error = (found.float() - target).square().mean((1, 2, 3))
    if config.weighting == "uniform":
        return error.mean()
    snr = sigma**-2.0
    # Min-SNR of Hang et al. 2023; plus one, or else the noisiest levels, which decide where things are, hardly count.
    weight = (snr.clamp_max(GAMMA) + 1) / (snr if config.prediction == "epsilon" else snr + 1)
    return (weight * error).mean()


def objective(
    model: CausalAutoencoder, batch: Batch, rng: torch.Generator, step: int | torch.Tensor = 0, half: bool = False
) -> dict[str, torch.Tensor]:
    """All terms, unweighted, and their weighted sum as "loss".

    ``rng`` is on the model's device; ``step`` counts those of the training; ``half`` as in :func:`diffusion_loss`.
    """
    config, coding = model.config, model.coding
    n, device, sums = len(batch.images), batch.images.device, config.terms == "sums"

    def chance(share: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=rng, device=device) < share

    readings, mean, log_variance = model.encoder(batch.images)
    z, there = model.encoder.latents(readings), known(coding, batch.labels)
    variables = len(coding.variables)
    labels = torch.where(coding.by_place(there), batch.labels.nan_to_num(), z.detach())
    r = drawn(mean, log_variance, rng)
    seen = torch.where(coding.by_place(chance(config.label_share, variables) & there), labels, z)
    given = ~(chance(config.drop_one, variables) | chance(config.drop_all, 1))
    given = torch.cat([given, ~chance(config.drop_residual, 1)], 1).float()
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    context = model.decoder.context(seen, r, given)
    terms = {
        "diffusion": diffusion_loss(model, batch.images, context, rng, half),
        "alignment": alignment(coding, readings, batch.labels, sums),
        # In the bound, encoder and mechanisms share it; else mechanisms learn from labels as they are.
        "mechanism": mechanism_loss(model, z if sums else labels, batch.free, sums),
        "prior": divergence.sum(1).mean() if sums else divergence.mean(),
        "independence": independence(mean, model.decoder.waves(labels)),
    }
    rest = sum(getattr(config, name) * terms[name] for name in ("alignment", "mechanism", "prior", "independence"))
    share = torch.as_tensor(step / config.ramp).clamp_max(1.0) if config.ramp else 1.0
    terms["loss"] = terms["diffusion"] + share * rest
    if context.drawing is not None:
        terms["drawing"] = F.mse_loss(context.drawing, batch.images)
        terms["loss"] = terms["loss"] + config.drawing * terms["drawing"]
    return terms
