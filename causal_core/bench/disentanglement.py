"""Whether each latent tells of one variable, and each variable is told by one latent: DCI and InfoMEC.

DCI (Eastwood and Williams, ICLR 2018) looks at how much boosted trees use a latent to predict a variable; InfoMEC (Hsu
et al., "Disentanglement via Latent Quantization", NeurIPS 2023) at mutual information. Both mean something only if the
variables themselves are independent in the sample.

    >>> variables = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    >>> scores = dci(Code(variables), Code(variables))
    >>> scores["disentanglement"] > 0.99, scores["completeness"] > 0.99
    (True, True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ROUNDS, DEPTH, RATE, BINS = 100, 3, 0.1, 64
LATENT_BINS, SOURCE_BINS = 20, 10
# A latent that moves less than this share of the widest is not in use (Hsu et al. 2023), nor is one that knows less
# than this of each variable: of which one it knows most is chance.
IN_USE, KNOWS = 1 / 20, 1 / 20


@dataclass(frozen=True)
class Code:
    """Numbers that pictures are told by, latents or variables, in groups that each count as one.

    Attributes
    ----------
    values : float [N, D]
    groups : places of each; single columns if not given
    discrete : whether each is a vector on the simplex, one place a value
    """

    values: np.ndarray
    groups: tuple[slice, ...] = ()
    discrete: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        groups = self.groups or tuple(slice(d, d + 1) for d in range(self.values.shape[1]))
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "discrete", self.discrete or (False,) * len(groups))

    def line(self, group: int) -> np.ndarray:
        """One number [N] that stands for a group: a discrete value's index, or the first principal component."""
        part = self.values[:, self.groups[group]]
        if self.discrete[group]:
            return part.argmax(1).astype(float)
        if part.shape[1] == 1:
            return part[:, 0]
        centred = part - part.mean(0)
        return centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]

    def binned(self, group: int, bins: int) -> np.ndarray:
        """The group as int [N]: a discrete value's index, or one of ``bins`` bins that hold about equally many."""
        line = self.line(group)
        return line.astype(int) if self.discrete[group] else quantile_bins(line, bins)


def quantile_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Bins int [N] that hold about equally many of the values [N].

    >>> quantile_bins(np.array([5.0, 1.0, 9.0, 7.0]), 2).tolist()
    [0, 0, 1, 1]
    """
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="right")


def boosted(binned: np.ndarray, target: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient boosting of regression trees with squared error (Friedman 2001).

    Parameters
    ----------
    binned : int [N, D], features in BINS bins each
    target : [N]
    known : bool [N], rows to learn from

    Returns
    -------
    predictions [N] for all rows, and importances [D]: how much splits of each feature lower the squared error, as
    shares of the whole (0 if there is nothing to learn)
    """
    rows, features = binned.shape
    prediction = np.full(rows, target[known].mean())
    importances = np.zeros(features)
    places = np.arange(features) * BINS + binned
    for _ in range(ROUNDS):
        residual = np.where(known, target - prediction, 0.0)
        node = np.zeros(rows, np.int64)
        for level in range(DEPTH):
            shape = (2**level, features, BINS)
            cells = (node[:, None] * features * BINS + places)[known].ravel()
            weights = np.repeat(residual[known], features)
            sums = np.bincount(cells, weights, math.prod(shape)).reshape(shape).cumsum(2)
            counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape).cumsum(2)
            total, count = sums[..., -1:], counts[..., -1:]
            with np.errstate(divide="ignore", invalid="ignore"):
                gains = sums**2 / counts + (total - sums) ** 2 / (count - counts) - total**2 / count
            gains = np.where((counts > 0) & (counts < count), gains, 0.0).reshape(2**level, -1)
            best = gains.argmax(1)
            feature, edge = np.divmod(best, BINS)
            np.add.at(importances, feature, gains[np.arange(2**level), best])
            node = 2 * node + (binned[np.arange(rows), feature[node]] > edge[node])
        sums = np.bincount(node[known], residual[known], 2**DEPTH)
        prediction += RATE * (sums / np.bincount(node[known], minlength=2**DEPTH).clip(1))[node]
    return prediction, importances / max(importances.sum(), 1e-300)


def evenness(shares: np.ndarray, axis: int) -> np.ndarray:
    """Entropy of shares along an axis over the largest possible one: 0 if one has all, 1 if all have the same."""
    count = shares.shape[axis]
    shares = shares / shares.sum(axis, keepdims=True).clip(1e-300)
    entropy = -(shares * np.log(shares.clip(1e-300))).sum(axis)
    return entropy / math.log(count) if count > 1 else np.zeros_like(entropy)


def dci(latents: Code, variables: Code, held_out: float = 0.25) -> dict[str, float]:
    """Disentanglement, completeness and informativeness, each at most 1, the best (Eastwood and Williams 2018).

    R_ij is the importance of latent i for variable j. Disentanglement is the mean over latents of 1 - H(R_i. / sum),
    weighted by how much they matter; completeness the mean over variables of 1 - H(R_.j / sum), entropies to the base
    of their number of outcomes. Importances are those of boosted trees with scikit-learn's defaults: 100 trees of depth
    3, rate 0.1. Other than there, thresholds are quantiles, 64 a latent; a discrete variable is learnt as one indicator
    a value, with squared error; and places of one group count as one latent.

    Informativeness is the share of the variance, and of discrete variables of right values, that the trees predict on
    ``held_out`` of the pictures, a mean over variables; the paper states the error instead.
    """
    known = np.arange(len(latents.values)) >= int(held_out * len(latents.values))
    binned = np.stack([quantile_bins(column, BINS) for column in latents.values.T], 1)
    importances, informativeness = [], []
    for where, discrete in zip(variables.groups, variables.discrete):
        target = variables.values[:, where]
        found = [boosted(binned, column, known) for column in target.T]
        predicted = np.stack([p for p, _ in found], 1)[~known]
        # A value that never occurs has no importances.
        by_column = np.stack([i for _, i in found]).mean(0)
        importances.append([by_column[group].sum() for group in latents.groups])
        truth = target[~known]
        if discrete:
            informativeness.append((predicted.argmax(1) == truth.argmax(1)).mean())
        else:
            informativeness.append(1 - ((predicted - truth) ** 2).mean() / max(truth.var(), 1e-300))
    table = np.array(importances).T
    weights = table.sum(1) / max(table.sum(), 1e-300)
    return {
        "disentanglement": float((weights * (1 - evenness(table, 1))).sum()),
        "completeness": float((1 - evenness(table, 0)).mean()),
        "informativeness": float(np.mean(informativeness)),
    }


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information in nats of int [N] and int [N], not below 0; entropies corrected after Miller (1955).

    >>> round(mutual_information(np.array([0, 1] * 500), np.array([1, 0] * 500)), 2)
    0.69
    """
    joint = np.stack([a, b], 1)
    return max(0.0, _entropy(a) + _entropy(b) - _entropy(joint)) if len(np.unique(a)) > 1 else 0.0


def _entropy(values: np.ndarray) -> float:
    counts = np.unique(values, axis=0, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum() + (len(counts) - 1) / (2 * len(values)))


def infomec(latents: Code, variables: Code) -> dict[str, float]:
    """InfoM (modularity), InfoE (explicitness) and InfoC (compactness), 1 the best (Hsu et al. 2023, section 4).

    With N_ij = I(z_i; s_j) / H(s_j): InfoM is the mean over latents of max_j N_ij / sum_j N_ij, InfoC the mean over
    variables of max_i N_ij / sum_i N_ij, both moved so that an even spread is 0. Latents that hardly move are left out.
    InfoE is how much better a linear model on all latents predicts a variable than none.

    Other than in the paper's code, latents that know hardly anything of any variable are left out as well (a residual
    code may), information is counted in bins and not from neighbours, and continuous variables are predicted by linear
    regression (share of the variance) in place of a logistic regression on each of their values (share of the log
    loss).
    """
    lines = [latents.line(i) for i in range(len(latents.groups))]
    moves = [1.0 if d else float(np.ptp(line)) for line, d in zip(lines, latents.discrete)]
    used = [i for i, move in enumerate(moves) if move > IN_USE * max(moves)]
    sources = [variables.binned(j, SOURCE_BINS) for j in range(len(variables.groups))]
    table = np.array(
        [
            [mutual_information(latents.binned(i, LATENT_BINS), s) / max(_entropy(s), 1e-300) for s in sources]
            for i in used
        ]
    )
    table = table[table.max(1) > KNOWS]
    if not len(table):
        return {"infom": 0.0, "infoe": explicitness(latents, variables), "infoc": 0.0}

    def concentration(axis: int) -> float:
        count = table.shape[axis]
        if count == 1:
            return 1.0
        totals = table.sum(axis)
        # A variable that no latent knows is told by all of them alike.
        share = np.where(totals > 0, table.max(axis) / totals.clip(1e-300), 1 / count).mean()
        return float((share - 1 / count) / (1 - 1 / count))

    return {"infom": concentration(1), "infoe": explicitness(latents, variables), "infoc": concentration(0)}


def explicitness(latents: Code, variables: Code) -> float:
    """The share of what is unknown of a variable that a linear model on latents takes away, a mean over variables."""
    spread = latents.values.std(0)
    inputs = (latents.values - latents.values.mean(0)) / np.where(spread > 1e-9, spread, 1.0)
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    found = []
    for where, discrete in zip(variables.groups, variables.discrete):
        target = variables.values[:, where]
        if discrete:
            found.append(1 - logistic_loss(inputs, target) / max(logistic_loss(inputs[:, -1:], target), 1e-300))
        else:
            left = target - inputs @ np.linalg.lstsq(inputs, target, rcond=None)[0]
            found.append(1 - left.var() / max(target.var(), 1e-300))
    return float(np.mean(np.clip(found, 0, 1)))


def logistic_loss(inputs: np.ndarray, target: np.ndarray) -> float:
    """The mean log loss in nats of the best logistic regression of target [N, K], one 1 a row, on inputs [N, D]."""
    import torch

    x, classes = torch.from_numpy(inputs), torch.from_numpy(target.argmax(1))
    weights = torch.zeros(x.shape[1], target.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights, classes)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()
