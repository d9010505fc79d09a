"""Ways to make counterfactual pictures, trained and measured side by side by ``counterfact bench autoencoder``."""

from __future__ import annotations

from .autoencoder import DiffAE, Inversion, Ours
from .causal_vae import CausalVAE
from .conditional import ConditionalDDPM, ConditionalRandom
from .method import Do, Method
from .replica import Replica

# Methods with the same weights have the same ``name``.
METHODS: dict[str, type[Method]] = {
    "ours": Ours,
    "ours_inversion": Inversion,
    "replica": Replica,
    "diffae": DiffAE,
    "conditional_ddpm": ConditionalDDPM,
    "conditional_ddpm_random": ConditionalRandom,
    "causal_vae": CausalVAE,
}

__all__ = ["METHODS", "Do", "Method", "Ours"]
