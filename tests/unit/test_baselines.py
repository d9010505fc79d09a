"""The parts of the baselines: directions, attention, masks and phrases."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from causal_core.attention.capture import AttentionMaps
from causal_core.bench.baselines import latent_mask
from causal_core.bench.baselines.inpaint import inpaint_true_mask
from causal_core.bench.baselines.prompt_to_prompt import Control, blend_mask, controlled, token_map
from causal_core.bench.baselines.semantic import at_least_quantile, directions, leditspp, sega
from causal_core.bench.baselines.setting import changed_phrases
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.plan import Intervention, propagate

from ..helpers.winter import CHANGED, CONCEPTS, GRAPH, setting


def far(found, x0):
    return (found - x0).abs().max()


# Semantic guidance on a denoiser with known answers: the estimate depends on the caption alone.


def constant(texts, attention=False):
    """The empty caption gives 0, winter 1 above and 0.1 below, summer the opposite; both are looked for on the left."""

    def denoise(x, sigma, chosen, maps=None):
        image = torch.full_like(x, 0.1)
        image[..., :4, :] = 1.0
        if maps is not None and attention:
            left = torch.zeros(4, 4).index_fill(1, torch.tensor([0, 1]), 8.0)
            q = torch.zeros(len(chosen), 16, 2)
            q[..., 0] = left.flatten()
            k = torch.zeros(len(chosen), 64, 2)
            k[:, 1:3, 0] = 1.0
            maps.add(q, k, 1, list(chosen), (4, 4))
        value = {"": 0.0, "winter season": 1.0, "summer season": -1.0}
        return torch.stack([value.get(texts[row], 0.25) * image for row in chosen])

    return denoise


WINTER = propagate(GRAPH, Intervention({"season": "winter"}))


def test_sega_adds_each_edit_and_subtracts_its_opposite(model):
    s = setting(model, WINTER, rows=constant)
    plain = sega(s, scale=2.0, threshold=0.0, warmup=0.0, momentum=0.0) - s.x0
    wanted = torch.full((1, 8, 8, 8), 0.4)
    wanted[..., :4, :] = 4.0
    assert torch.allclose(plain, wanted, atol=1e-5)
    cut = sega(s, scale=2.0, threshold=0.5, warmup=0.0, momentum=0.0) - s.x0
    assert torch.allclose(cut[..., :4, :], wanted[..., :4, :], atol=1e-5) and far(cut[..., 4:, :], 0) < 1e-5
    # Momentum adds a tenth of the running mean of the steps before.
    assert (sega(s, scale=2.0, threshold=0.0, warmup=0.0) - s.x0)[..., :4, :].min() > 4.01
    assert far(sega(s, scale=2.0, threshold=0.0, warmup=1.0), s.x0) < 1e-5
    late = sega(s, scale=2.0, threshold=0.0, warmup=0.8, momentum=0.5) - s.x0
    early_only = sega(s, scale=2.0, threshold=0.0, warmup=0.8, momentum=0.0) - s.x0
    assert (late - early_only)[..., :4, :].min() > 0.1, "momentum must gather during the warm-up"


def test_ledits_acts_only_where_attention_and_size_agree(model):
    s = setting(model, WINTER, rows=lambda texts: constant(texts, attention=True))
    moved = leditspp(s, scale=1.0, threshold=0.5) - s.x0
    assert torch.allclose(moved[..., :4, :4], torch.full((1, 8, 4, 4), 2.0), atol=1e-5)
    assert far(moved[..., 4:, :], 0) < 1e-5 and far(moved[..., 5:], 0) < 1e-5


def test_edits_and_their_thresholds():
    assert directions(CHANGED) == [("winter season", 1), ("summer season", -1), ("bare", 1), ("green foliage", -1)]
    size = torch.arange(100.0).view(1, 10, 10)
    assert at_least_quantile(size, 0.9).sum() == 10 and at_least_quantile(size, 0.0).all()


# Prompt-to-prompt.


def test_tokens_map_phrase_by_phrase(model):
    tokenize = model.tokenizer.encode
    before = {"season": "summer season", "foliage": "green foliage", "car": "red car"}
    assert torch.equal(token_map(tokenize, before, before), torch.eye(64))
    found = token_map(tokenize, before, {"season": "winter season", "foliage": "bare", "car": "red car"})
    # <start> summer season green foliage red car <end>  ->  <start> winter season bare red car <end>
    assert torch.equal(found[:8, :7].argmax(0), torch.tensor([0, 1, 2, 3, 5, 6, 7])) and found[4, 3] == 1
    assert torch.allclose(found.sum(1)[8:], torch.ones(56)) and (found[:8, 7:] == 0).all()
    wider = token_map(tokenize, {"foliage": "bare"}, {"foliage": "green foliage", "car": "red car"})
    assert wider[1, 1] == wider[1, 2] == 0.5 and (wider[:, 3:5] == 0).all() and wider[2, 5] == 1


def test_attention_control_is_the_published_formula(model):
    attn = model.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(3, 16, 64, generator=generator), torch.randn(3, 64, 32, generator=generator)
    tokens = token_map(model.tokenizer.encode, {"foliage": "bare"}, {"foliage": "green foliage", "car": "red car"})
    maps = AttentionMaps({}, (8, 8))
    out = Control(tokens, True, True, maps, 3)(attn, x, context)

    def parts(t):
        return t.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    q, k, v = parts(attn.to_q(x)), parts(attn.to_k(context)), parts(attn.to_v(context))
    probability = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    new = tokens.sum(0) == 0
    probability[1] = torch.where(new, probability[1], probability[0] @ tokens)
    wanted = attn.to_out[0]((probability @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(out, wanted, atol=1e-5)

    own = model.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1
    same = x.clone()
    same[1] = x[0]
    q, k, v = parts(own.to_q(same)), parts(own.to_k(same)), parts(own.to_v(x))
    wanted = own.to_out[0](
        (((q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    )
    assert torch.allclose(Control(tokens, True, True, maps, 3)(own, x), wanted, atol=1e-5)
    fine = Control(tokens, True, True, AttentionMaps({}, (4, 4)), 3)(own, x)
    assert torch.allclose(fine, own(x), atol=1e-5), "self-attention as fine as the latent stays the target's own"


def test_control_restores_the_processors(model):
    before = model.unet.attn_processors
    with pytest.raises(RuntimeError), controlled(model.unet, Control(torch.eye(64), True, True, None, 2)):
        raise RuntimeError
    assert model.unet.attn_processors == before


def test_the_blend_takes_the_union_over_phrases_above_their_floor():
    one, two = torch.full((8, 8), 0.5), torch.full((8, 8), 0.2)
    one[1, 1], two[6, 6], two[6, 1] = 0.6, 0.4, 0.23
    maps = SimpleNamespace(grid=(8, 8), watched={0: {"a": (1, 2)}, 1: {"b": (1, 2)}}, mean={"a": one, "b": two}.get)
    wanted = torch.zeros(8, 8)
    wanted[0:3, 0:3] = wanted[5:8, 5:8] = 1.0
    assert torch.equal(blend_mask(maps, 0.3), wanted)
    wanted[5:8, 0:3] = 1.0
    assert torch.equal(blend_mask(maps, 0.1), wanted)


# Inpainting.


def test_inpainting_without_a_mask_says_so(model):
    with pytest.raises(CounterfactError, match="changed"):
        inpaint_true_mask(setting(model, changed=None))


def test_latent_masks_hold_every_changed_pixel():
    changed = np.zeros((16, 32), dtype=bool)
    changed[3, 4] = changed[15, 31] = True
    found = latent_mask(changed, (4, 8))
    assert found.sum() == 2 and found[0, 1] == found[3, 7] == 1


def test_phrases_of_a_change_may_be_absent():
    concepts = CONCEPTS.replace("foliage", value=None)
    plan = propagate(CausalGraph.from_edges([], concepts=concepts), Intervention({"foliage": "bare"}))
    assert changed_phrases(plan) == {"foliage": ("", "bare")} and directions(plan) == [("bare", 1.0)]
