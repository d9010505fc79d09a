"""Inversion, regions and sampling on small denoisers with known answers."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from causal_core.attention.capture import AttentionMaps
from causal_core.attention.processors import capturing, grid_of
from causal_core.attention.spans import phrase_spans
from causal_core.concepts import parse_concepts
from causal_core.demo.config import DemoConfig
from causal_core.demo.model import DemoModel
from causal_core.demo.schedule import sampling_sigmas
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.guidance.captions import captions, watched_spans
from causal_core.guidance.csg import Edit, Settings, counterfactual, locate, sample
from causal_core.guidance.inversion import invert
from causal_core.guidance.regions import region
from causal_core.guidance.rows import DiffusersRows
from causal_core.guidance.steps import ancestral_split, posterior_mean
from causal_core.plan import Intervention, propagate

SIGMAS = sampling_sigmas(8, 0.1).tolist()
CONCEPTS = parse_concepts("season: summer, winter = summer\nfoliage: green, bare = green\ncar: red, blue = red")
GRAPH = CausalGraph.from_edges([("season", "foliage")], concepts=CONCEPTS)


def plan(do=None, follow=None):
    return propagate(GRAPH, Intervention(do or {}), follow or {})


def toy(x, sigma, rows, maps=None):
    """A non-linear denoiser that mixes channels; caption r adds r in the left half of the picture."""
    mixed = torch.tanh(0.7 * x + 0.3 * x.roll(1, 1)) / (1 + 0.1 * sigma)
    left = torch.zeros_like(x)
    left[..., : x.shape[-1] // 2] = 1.0
    return torch.stack([mixed + 0.5 * row * left for row in rows])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = DemoConfig("test", size=32, patch=4, latent_channels=8, widths=(32, 64), text_width=32, text_heads=2)
    words = "summer winter season green bare foliage red blue car".split()
    return DemoModel(config, words).eval().requires_grad_(False)


def picture(seed=0, shape=(1, 4, 8, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_step_splits_its_variance():
    for sigma, sigma_next in itertools.pairwise(SIGMAS):
        for eta in (0.0, 0.5, 1.0):
            down, up = ancestral_split(sigma, sigma_next, eta)
            assert down**2 + up**2 == pytest.approx(sigma_next**2)
    assert ancestral_split(1.0, 0.5, 0.0) == (0.5, 0.0)
    assert torch.equal(posterior_mean(torch.ones(2), torch.zeros(2), 2.0, 0.0), torch.zeros(2))


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_replaying_the_abducted_noise_returns_the_picture(eta):
    x0 = picture()
    trajectory = invert(lambda x, s: toy(x, s, [0])[0], x0, SIGMAS, 3, eta)
    again = sample(toy, trajectory, [], {}, Settings(eta=eta))
    assert (again - x0).abs().max() < 1e-5


def test_noise_depends_on_the_seed_alone():
    x0 = picture()
    runs = [invert(lambda x, s: toy(x, s, [0])[0], x0, SIGMAS, seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0].noises[2], runs[1].noises[2]) and not torch.equal(runs[0].noises[2], runs[2].noises[2])


def test_an_edit_stays_in_its_region_and_reaches_it():
    x0 = picture()
    trajectory = invert(lambda x, s: toy(x, s, [0])[0], x0, SIGMAS, 0)
    changes = [Edit("a", 1.0, 1)]
    regions = locate(toy, trajectory, changes, {}, Settings(grow=0, feather=0.0))
    assert (regions["a"][:, :4] == 1).all() and (regions["a"][:, 4:] == 0).all()
    edited = sample(toy, trajectory, changes, regions, Settings())
    assert torch.equal(edited[..., 4:], x0[..., 4:])
    assert (edited - x0)[..., :4].mean() > 0.2


def test_full_regions_and_strength_one_follow_the_counterfactual_caption_exactly():
    """The directions telescope: with all masks open their sum is the whole caption's direction."""
    trajectory = invert(lambda x, s: toy(x, s, [0])[0], picture(), SIGMAS, 0)
    full = {name: torch.ones(8, 8) for name in "ab"}
    ours = sample(toy, trajectory, [Edit("a", 1.0, 1), Edit("b", 1.0, 2)], full, Settings())
    whole = sample(
        lambda x, s, rows, maps=None: toy(x, s, [2 * r for r in rows]),
        trajectory,
        [Edit("a", 1.0, 1)],
        full,
        Settings(),
    )
    assert torch.allclose(ours, whole, atol=1e-5)


def test_strength_orders_the_change():
    x0 = picture()
    trajectory = invert(lambda x, s: toy(x, s, [0])[0], x0, SIGMAS, 0)
    full = {"a": torch.ones(8, 8)}
    moved = [
        (sample(toy, trajectory, [Edit("a", s, 1)], full, Settings()) - x0).abs().mean() for s in (0.0, 0.5, 1.0, 2.0)
    ]
    assert moved == sorted(moved) and moved[0] < 1e-6 < moved[1]


def test_a_step_that_breaks_names_itself():
    trajectory = invert(lambda x, s: toy(x, s, [0])[0], picture(), SIGMAS, 0)

    def broken(x, sigma, rows, maps=None):
        return toy(x, sigma, rows) * (float("nan") if sigma < 1.0 else 1.0)

    with pytest.raises(CounterfactError, match=r"step \d of 8"):
        sample(broken, trajectory, [], {}, Settings())


def test_region_keeps_what_attention_overlooks():
    size = torch.zeros(8, 8)
    size[2:4, 2:4] = 1.0
    elsewhere = torch.zeros(8, 8)
    elsewhere[6, 6] = 1.0
    found = region(size, elsewhere, grow=0, attention_weight=1.0)
    assert (found[2:4, 2:4] == 1).all() and found.sum() == 4


def test_captions_change_one_affected_concept_at_a_time():
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    assert captions(changed) == [
        "summer season, green foliage, red car",
        "winter season, green foliage, red car",
        "winter season, bare foliage, red car",
    ]
    assert captions(plan({"season": "summer"})) == captions(changed)[:1]


def test_watched_tokens_are_those_of_the_phrases(model):
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    watched = watched_spans(model.tokenizer.encode, changed)
    assert watched == {0: {"season": (1, 3), "foliage": (3, 5)}, 1: {"season": (1, 3)}, 2: {"foliage": (3, 5)}}


@pytest.mark.parametrize(("phrases", "words"), [(["red car", "?!"], "no token"), (["red car"] * 40, "cut off")])
def test_phrases_without_tokens_or_cut_off_are_named(model, phrases, words):
    with pytest.raises(CounterfactError, match=words):
        phrase_spans(model.tokenizer.encode, phrases)


def test_capture_gives_the_probabilities_of_the_phrase_tokens_and_changes_no_output(model):
    x = picture(0, (2, 8, 8, 8))
    rows = DiffusersRows(model, ["red car, green foliage", "blue car"])
    maps = AttentionMaps({0: {"car": (1, 3)}, 1: {"car": (1, 3)}}, (8, 8))
    plain = rows(x, 1.0, [0, 1])
    assert torch.equal(rows(x, 1.0, [0, 1], maps), plain) or torch.allclose(
        rows(x, 1.0, [0, 1], maps), plain, atol=1e-6
    )
    assert maps.mean("car").shape == (8, 8) and 0 < maps.mean("car").mean() < 1

    # The same probabilities by an explicit softmax in one layer.
    q, k = torch.randn(1, 16, 32), torch.randn(1, 6, 32)
    single = AttentionMaps({0: {"car": (1, 3)}}, (8, 8))
    single.add(q, k, 2, [0], (4, 4))
    heads_q, heads_k = (t.view(1, -1, 2, 16).transpose(1, 2) for t in (q, k))
    expected = (heads_q @ heads_k.transpose(-1, -2) / 4.0).softmax(-1)[..., 1:3].sum(-1).mean(1).view(4, 4)
    enlarged = F.interpolate(expected[None, None], size=(8, 8), mode="bilinear")[0, 0]
    assert torch.allclose(single.mean("car"), enlarged, atol=1e-6)
    single.add(torch.randn(1, 64, 32), k, 2, [0], (8, 8))
    assert torch.allclose(single.mean("car"), enlarged, atol=1e-6), "a layer as fine as the latent must not count"


def test_capture_restores_the_processors(model):
    before = model.unet.attn_processors
    with pytest.raises(RuntimeError), capturing(model.unet, AttentionMaps({0: {"a": (1, 2)}}, (8, 8)), [0]):
        raise RuntimeError
    assert model.unet.attn_processors == before


def test_layer_sizes_of_other_shapes():
    assert grid_of(9 * 13, (36, 52)) == (9, 13) and grid_of(5 * 7, (9, 13)) == (5, 7)
    with pytest.raises(ValueError, match="no halving"):
        grid_of(10, (8, 8))


def test_the_whole_edit_on_the_model_is_deterministic_and_null_is_the_source(model):
    x0 = picture(1, (1, 8, 8, 8)) * 0.5
    levels = sampling_sigmas(6, 0.1).tolist()

    def run(changed, **settings):
        rows = DiffusersRows(model, captions(changed))
        watched = watched_spans(model.tokenizer.encode, changed)
        return counterfactual(rows, x0, levels, changed, watched, 7, Settings(probes=3, **settings))

    null = run(plan())
    assert (null.latent - x0).abs().max() < 1e-3 and null.regions == {} and null.evaluations == 12
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    first, second = run(changed), run(changed)
    assert torch.equal(first.latent, second.latent) and list(first.regions) == ["season", "foliage"]
    assert first.evaluations == 6 + 3 * 3 + 6 * 3
    assert torch.equal(run(changed, strength=0.0).latent, null.latent)


def test_noise_levels_skip_the_noisiest_share():
    levels = sampling_sigmas(9, 0.1)
    assert len(levels) == 10 and levels[-1] == 0 and np.all(np.diff(levels.numpy()) < 0)
    assert torch.equal(levels, sampling_sigmas(10)[1:])
