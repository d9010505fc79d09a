"""What counterfactual pictures are judged by: effectiveness, composition, reversibility, minimality, realism, strength.

The axioms are those of Monteiro et al. (ICLR 2023), measured as by Melistas et al. (NeurIPS 2024), whose benchmark adds
minimality. Everything is a function of arrays; readings come from :mod:`.autoencoder_reader`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..autoencoder.coding import Coding

# Weights of the two halves of the latent divergence, and the share of pictures that count as having a value.
CLD_WEIGHTS, NEIGHBOURS = (0.8, 0.2), 0.1
# A reading may fall by this much, in normalised units, and still count as rising: twice what a good reader errs.
TOLERANCE = 0.02


def errors(coding: Coding, scales: Sequence[float], read: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Errors [..., variables] of readings [..., width] against true places [..., width].

    Absolute and in normalised units for continuous variables; 0 or 1, right or wrong, for discrete ones; NaN where the
    truth is not known.

    Parameters
    ----------
    scales : for each continuous variable what counts as an error of 1, in units of its label
    """
    found = []
    for variable, where, scale in zip(coding.variables, coding.places, scales):
        if variable.domain:
            wrong = (read[..., where].argmax(-1) != truth[..., where].argmax(-1)).to(read.dtype)
            found.append(wrong.where(~truth[..., where].isnan().any(-1), torch.nan))
        else:
            found.append((read[..., where] - truth[..., where]).abs()[..., 0] * (variable.half / scale))
    return torch.stack(found, -1)


def effectiveness(coding: Coding, found: torch.Tensor) -> dict[str, np.ndarray]:
    """Errors of interventions, sorted by what a variable is to them: one number a picture [N], NaN where none is.

    Parameters
    ----------
    found : [variables, N, variables], errors of do(first) read for last

    Returns
    -------
    dict
        intervened_mae, descendant_mae : of the variable that was set, and of what depends on it, against the values
        that the true model gives; drift : of everything else, against its factual value. Means over interventions;
        ``KIND.VARIABLE`` is of do(VARIABLE) alone
    """
    everything = range(len(coding.variables))
    kinds: dict[str, list[tuple[int, list[int]]]] = {
        "intervened_mae": [(i, [i]) for i in everything],
        "descendant_mae": [(i, list(coding.descendants(i))) for i in everything],
        "drift": [(i, sorted(set(everything) - {i, *coding.descendants(i)})) for i in everything],
    }
    rows = {}
    for kind, roles in kinds.items():
        pairs = [found[i, :, j] for i, them in roles for j in them]
        if not pairs:
            continue
        rows[kind] = torch.stack(pairs).nanmean(0).numpy()
        for i, them in roles:
            if them:
                rows[f"{kind}.{coding.names[i]}"] = found[i][:, them].nanmean(1).numpy()
    return rows


def pixel_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference, 0 to 1, of pictures [..., C, H, W] in -1..1: [...]."""
    return (a - b).abs().mean((-3, -2, -1)) / 2


def latent_divergence(
    moved: np.ndarray, distances: np.ndarray, factual: np.ndarray, counterfactual: np.ndarray, pool: np.ndarray
) -> np.ndarray:
    """Minimality [N], 0 to 1, the smaller the more of a picture was kept: the counterfactual latent divergence.

    log(w1 exp P(S_cf <= d) + w2 exp P(S_f >= d)) of Sanchez and Tsaftaris (CLeaR 2022) with the weights of Melistas et
    al. 2024: d is how far a picture moved, S_cf and S_f how far it is from pictures that really have the new, or the
    old, value. A good counterfactual moves less than to another picture of the new value, and more than within its own
    value. Distances here are those of pixels, not of a learned embedding; of a continuous variable the nearest tenth of
    the pictures have the same value; a picture is not compared with itself.

    Parameters
    ----------
    moved : [N], distance between each picture and its counterfactual
    distances : [N, M] to the pictures of a pool
    factual, counterfactual : [N, w], places of the variable before and after
    pool : [M, w], its places in the pool
    """

    def alike(value: np.ndarray) -> np.ndarray:
        apart = np.where(distances > 0, np.abs(pool[None] - value[:, None]).sum(2), np.inf)
        nearest = np.sort(apart, axis=1)[:, max(1, round(NEIGHBOURS * len(pool))) - 1]
        return apart <= nearest[:, None]

    def share(of: np.ndarray, among: np.ndarray) -> np.ndarray:
        return (of & among).sum(1) / among.sum(1)

    closer = share(distances <= moved[:, None], alike(counterfactual))
    further = share(distances >= moved[:, None], alike(factual))
    first, second = CLD_WEIGHTS
    return np.log(first * np.exp(closer) + second * np.exp(further))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance of features [N, F] and [M, F]: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    Heusel et al. 2017, equation 6, with features of a reader of this data in place of Inception's.

    >>> frechet(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]]))
    9.0
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    both = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    distance = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * both
    return float(max(distance, 0.0))


def way(coding: Coding, index: int, read: torch.Tensor, factual: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """How far readings have gone from the factual value to that of the intervention.

    Parameters
    ----------
    index : the variable
    read : [W, N, width], readings at W strengths
    factual, target : [N, width] and [N, w], places before, and those of the intervention

    Returns
    -------
    [W, N]: of a continuous variable the distance in the target's direction, in half intervals; of a discrete one the
    probability that the reader gives to the target
    """
    here = read[..., coding.places[index]]
    if coding.variables[index].domain:
        return (here * target).sum(-1)
    before = factual[:, coding.places[index]]
    return ((here - before) * (target - before).sign()).sum(-1)


def strength(
    coding: Coding, index: int, gone: torch.Tensor, factual: torch.Tensor, target: torch.Tensor, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Share of the way gone at each strength [W], and which pictures rise from each to the next, bool [N].

    The share is that of all pictures together, sum of ways over sum of distances, so that small interventions, whose
    share is noise, count little; of discrete variables the mean probability.

    Parameters
    ----------
    gone : [W, N] of :func:`way`
    scale : an error of 1 in units of the label
    """
    tolerance = TOLERANCE
    if coding.variables[index].domain:
        shares = gone.mean(1)
    else:
        distance = (target - factual[:, coding.places[index]]).abs()[:, 0]
        shares = gone.sum(1) / distance.sum().clamp_min(1e-9)
        tolerance *= scale / coding.variables[index].half
    return shares.numpy(), (gone.diff(dim=0) >= -tolerance).all(0).numpy()


def flat(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over pictures; what has no number is left out."""
    return {key: float(np.nanmean(values)) for key, values in rows.items() if not np.isnan(values).all()}
