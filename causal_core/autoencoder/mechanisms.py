"""The structural causal model inside the autoencoder: z_i = f_i(z_parents) + u_i along the topological order.

Additive noise makes abduction exact for any acyclic graph: u_i = z_i - f_i(z_parents). An intervention on a middle
variable recomputes its descendants and nothing else (CausalDiffAE, Komanduri et al. 2024, with parents'
latents and not parents' noises in f_i).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .coding import Coding
from .features import Waves


class Mechanisms(nn.Module):
    """One small network a variable that has parents; a variable without has f_i = 0.

    Parameters
    ----------
    coding : variables, their parents and places
    hidden : units of each of two hidden layers
    """

    def __init__(self, coding: Coding, hidden: int = 64) -> None:
        super().__init__()
        self.coding = coding
        self.networks = nn.ModuleDict()
        for i, (variable, parents) in enumerate(zip(coding.variables, coding.parents)):
            if not parents:
                continue
            waves = Waves([coding.variables[p] for p in parents])
            self.networks[str(i)] = nn.Sequential(
                waves, nn.Linear(waves.width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
                nn.Linear(hidden, variable.width),
            )  # fmt: skip

    def expected(self, i: int, z: torch.Tensor) -> torch.Tensor:
        """f_i for latents [B, width]: [B, width of variable i]; of a discrete variable, probabilities."""
        places, variable = self.coding.places, self.coding.variables[i]
        if str(i) not in self.networks:
            return z.new_zeros(len(z), variable.width)
        found = self.networks[str(i)](torch.cat([z[:, places[p]] for p in self.coding.parents[i]], 1))
        return found.softmax(1) if variable.domain else found

    def abduct(self, z: torch.Tensor) -> torch.Tensor:
        """Exogenous noise u [B, width] of latents [B, width]."""
        return z - torch.cat([self.expected(i, z) for i in range(len(self.coding.variables))], 1)

    def predict(self, u: torch.Tensor, do: Mapping[int, torch.Tensor] | None = None) -> torch.Tensor:
        """Latents [B, width] of noise [B, width], with the variables of ``do`` held at the given [B, width of i]."""
        z = torch.zeros_like(u)
        for i, where in enumerate(self.coding.places):
            held = (do or {}).get(i)
            z[:, where] = self.expected(i, z) + u[:, where] if held is None else held.to(u)
        return z

    def counterfactual(self, z: torch.Tensor, do: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Latents [B, width] as they would have been under ``do``: abduction, action, prediction.

        Only the variables of ``do`` and their descendants are recomputed; all others keep their latents bit for bit. A
        descendant whose parents come out as they were keeps its own. Discrete descendants become one value, the one
        with the largest f_i + u_i, since that is what the decoder has seen.
        """
        u, new = self.abduct(z), z.clone()
        reached = set(do).union(*(self.coding.descendants(i) for i in do))
        for i in sorted(reached):
            where = self.coding.places[i]
            if i in do:
                new[:, where] = do[i].to(z)
                continue
            places = [self.coding.places[p] for p in self.coding.parents[i]]
            same = torch.stack([(new[:, p] == z[:, p]).all(1) for p in places]).all(0)
            value = self.expected(i, new) + u[:, where]
            if self.coding.variables[i].domain:
                value = nn.functional.one_hot(value.argmax(1), value.shape[1]).to(z)
            new[:, where] = torch.where(same[:, None], z[:, where], value)
        return new
