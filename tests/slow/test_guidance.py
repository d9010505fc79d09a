"""The whole edit on a model of random weights."""

import torch

from causal_core.concepts import parse_concepts
from causal_core.demo.schedule import sampling_sigmas
from causal_core.graph import CausalGraph
from causal_core.guidance.captions import captions, watched_spans
from causal_core.guidance.csg import Settings, counterfactual
from causal_core.guidance.rows import DiffusersRows
from causal_core.plan import Intervention, propagate

CONCEPTS = parse_concepts("season: summer, winter = summer\nfoliage: green, bare = green\ncar: red, blue = red")
GRAPH = CausalGraph.from_edges([("season", "foliage")], concepts=CONCEPTS)


def test_the_whole_edit_on_the_model_is_deterministic_and_null_is_the_source(model):
    x0 = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.5
    levels = sampling_sigmas(6, 0.1).tolist()

    def run(changed, **settings):
        rows = DiffusersRows(model, captions(changed))
        watched = watched_spans(model.tokenizer.encode, changed)
        return counterfactual(rows, x0, levels, changed, watched, 7, Settings(probes=3, **settings))

    null = run(propagate(GRAPH, Intervention({})))
    assert (null.latent - x0).abs().max() < 1e-3 and null.regions == {} and null.evaluations == 12
    changed = propagate(GRAPH, Intervention({"season": "winter"}), {"foliage": "bare"})
    first, second = run(changed), run(changed)
    assert torch.equal(first.latent, second.latent) and list(first.regions) == ["season", "foliage"]
    assert first.evaluations == 6 + 3 * 3 + 6 * 3 and first.rows_per_step == 3
    fused = run(changed, fused=True)
    assert fused.evaluations == 6 + 3 * 2 + 6 * 2 and fused.rows_per_step == 2
    assert torch.equal(run(changed, strength=0.0).latent, null.latent)
