"""Socket types of the pack; each carries a frozen object of `causal_core` that turns into JSON and back.

`io.Custom` makes a new class on every call, so that each type is made here once.
"""

from __future__ import annotations

from comfy_api.latest import io

Concepts = io.Custom("CAUSAL_CONCEPTS")
Graph = io.Custom("CAUSAL_GRAPH")
Intervention = io.Custom("CAUSAL_INTERVENTION")
Plan = io.Custom("CAUSAL_PLAN")
Trajectory = io.Custom("CAUSAL_TRAJECTORY")
Language = io.Custom("CAUSAL_LLM")
Autoencoder = io.Custom("CAUSAL_AUTOENCODER")
CausalLatent = io.Custom("CAUSAL_LATENT")
Modular = io.Custom("CAUSAL_MODULAR")
Generator = io.Custom("CAUSAL_GENERATOR")
