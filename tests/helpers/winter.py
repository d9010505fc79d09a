"""A summer that becomes winter, or stays, as a setting of the benchmark's methods on a model of random weights."""

from __future__ import annotations

import torch

from causal_core.bench.baselines import Setting
from causal_core.concepts import Concept, Concepts
from causal_core.demo.schedule import sampling_sigmas
from causal_core.graph import CausalGraph
from causal_core.plan import Intervention, propagate

STEPS = 5
SIGMAS = sampling_sigmas(STEPS, 0.1).tolist()
PHRASES = {"foliage": {"green": "green foliage", "bare": "bare"}, "car": {"red": "red car", "blue": "blue car"}}
CONCEPTS = Concepts(
    (
        Concept("season", ("summer", "winter"), "summer"),
        Concept("foliage", ("green", "bare"), "green", PHRASES["foliage"]),
        Concept("car", ("red", "blue"), "red", PHRASES["car"]),
    )
)
GRAPH = CausalGraph.from_edges([("season", "foliage")], concepts=CONCEPTS)
CHANGED = propagate(GRAPH, Intervention({"season": "winter"}), {"foliage": "bare"})
NULL = propagate(GRAPH, Intervention({}))
NOTHING = torch.zeros(8, 8)
INSIDE = torch.zeros(8, 8).index_fill(1, torch.tensor([0, 1, 2]), 1.0)


def setting(model, plan=CHANGED, changed=INSIDE, **more):
    x0 = 0.5 * torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    return Setting(model, plan, x0, SIGMAS, 7, changed, **more)
