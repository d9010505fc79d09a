"""Inversion, regions and sampling on small denoisers with known answers."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from causal_core.attention.capture import AttentionMaps
from causal_core.attention.processors import capturing, grid_of
from causal_core.attention.spans import phrase_spans
from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.demo.schedule import sampling_sigmas
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.guidance.captions import Edit, captions, edits, watched_spans
from causal_core.guidance.check import margins, with_retries
from causal_core.guidance.csg import (
    Result,
    Seen,
    Settings,
    look,
    probe_latents,
    probe_steps,
    regions_of,
    sample,
)
from causal_core.guidance.directions import Guide, How
from causal_core.guidance.inversion import invert
from causal_core.guidance.regions import normalised, protection, region, shared
from causal_core.guidance.rows import DiffusersRows
from causal_core.guidance.steps import ancestral_split, posterior_mean, step_mean
from causal_core.plan import Intervention, propagate, undone

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


def picture(seed=0, shape=(1, 4, 8, 8)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_step_splits_its_variance():
    for sigma, sigma_next in itertools.pairwise(SIGMAS):
        for eta in (0.0, 0.5, 1.0):
            down, up = ancestral_split(sigma, sigma_next, eta)
            assert down**2 + up**2 == pytest.approx(sigma_next**2)
    assert ancestral_split(1.0, 0.5, 0.0) == (0.5, 0.0)
    assert torch.equal(posterior_mean(torch.ones(2), torch.zeros(2), 2.0, 0.0), torch.zeros(2))


FLOW = [1.0, 0.8, 0.55, 0.3, 0.1, 0.0]


def base(x, sigma):
    return toy(x, sigma, [0])[0]


def at(name, strength=1.0, row=1):
    """A concept whose direction is that from the caption before."""
    return Edit(name, strength, row, row - 1)


def test_a_flow_step_keeps_signal_and_noise_in_proportion():
    """From x0 and n the mean plus fresh noise has the signal and the variance of the next level."""
    for sigma, sigma_next in itertools.pairwise(FLOW[:-1]):
        for eta in (0.0, 0.4, 1.0):
            signal = step_mean(torch.tensor(1.0 - sigma), torch.tensor(1.0), sigma, sigma_next, eta, flow=True)
            assert signal == pytest.approx(1.0 - sigma_next, abs=1e-6)
            kept = step_mean(torch.tensor(sigma), torch.tensor(0.0), sigma, sigma_next, eta, flow=True)
            assert (kept < sigma_next - 1e-6) if eta else kept == pytest.approx(sigma_next)
    assert step_mean(torch.tensor(3.0), torch.tensor(2.0), 0.1, 0.0, 1.0, flow=True) == 2.0


@pytest.mark.parametrize("method", ["edit-friendly", "ddim"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("levels", "flow"), [(SIGMAS, False), (FLOW, True)])
def test_replaying_the_abducted_noise_returns_the_picture(method, eta, levels, flow):
    x0 = picture()
    trajectory = invert(base, x0, levels, 3, eta, flow, method)
    assert len(trajectory.latents) == len(levels) and len(trajectory.corrections) == len(levels) - 1
    assert (sample(toy, trajectory, Guide([], {})) - x0).abs().max() < 1e-5


def test_ddim_inversion_needs_little_correction():
    """Its latents lie on the sampler's own path, those of independent noise do not."""
    x0 = picture()
    sizes = [
        torch.stack(invert(base, x0, SIGMAS, 0, 0.0, method=method).corrections[:-1]).abs().mean()
        for method in ("ddim", "edit-friendly")
    ]
    assert 5 * sizes[0] < sizes[1]


def test_an_unknown_inversion_is_refused():
    with pytest.raises(CounterfactError, match="method: 'null-text' is none of edit-friendly, ddim"):
        invert(base, picture(), SIGMAS, 0, method="null-text")


def test_noise_depends_on_the_seed_alone():
    x0 = picture()
    runs = [invert(base, x0, SIGMAS, seed) for seed in (1, 1, 2)]
    assert torch.equal(runs[0].corrections[2], runs[1].corrections[2])
    assert not torch.equal(runs[0].corrections[2], runs[2].corrections[2])


def test_a_trajectory_of_something_else_is_refused():
    trajectory = invert(base, picture(), SIGMAS, 0, made_with={"model": "a", "size": "8 x 8"})
    trajectory.require(model="a", size="8 x 8")
    with pytest.raises(CounterfactError, match=r"trajectory: it was made with another size \(8 x 8, here 16 x 8\)"):
        trajectory.require(model="a", size="16 x 8")


def found_regions(changes, settings, within=None, x0=None):
    trajectory = invert(base, picture() if x0 is None else x0, SIGMAS, 0)
    seen = look(toy, probe_latents(trajectory, settings.probes), changes, {})
    return regions_of(seen, settings, within)


def test_an_edit_stays_in_its_region_and_reaches_it():
    x0 = picture()
    changes = [at("a")]
    regions = found_regions(changes, Settings())
    assert (regions["a"][:, :4] == 1).all() and (regions["a"][:, 4:] == 0).all()
    edited = sample(toy, invert(base, x0, SIGMAS, 0), Guide(changes, regions))
    assert torch.equal(edited[..., 4:], x0[..., 4:])
    assert (edited - x0)[..., :4].mean() > 0.2


def test_a_mask_bounds_regions_and_sets_their_scale():
    within = torch.zeros(8, 8)
    within[:2] = 1.0
    regions = found_regions([at("a")], Settings(), within)
    assert (regions["a"][:2, :4] == 1).all() and regions["a"][2:].sum() == 0
    size = torch.full((8, 8), 0.03)
    size[6, 6] = 1.0
    assert region(size).sum() == 1
    assert (region(size, within=within)[:2] == 1).all(), "what is faint elsewhere may be the most inside of a mask"


def test_a_mask_beside_the_change_is_refused():
    within = torch.zeros(8, 8)
    within[:, 5:] = 1.0
    with pytest.raises(CounterfactError, match="mask: nothing of a is inside of it"):
        found_regions([at("a")], Settings(), within)


def test_grown_and_feathered_regions_contain_the_plain_one():
    plain, grown, soft = (
        found_regions([at("a")], settings)["a"] for settings in (Settings(), Settings(grow=1), Settings(feather=1.0))
    )
    assert (grown[:, 4] == 1).all() and (grown[:, 5:] == 0).all()
    assert (soft[plain == 1] == 1).all() and 0 < soft[3, 4] < 1


def test_probes_are_distinct_steps_of_the_noisier_half():
    assert len(probe_steps(30, 8)) == 8 and max(probe_steps(30, 8)) <= 18
    assert probe_steps(2, 8) == [0] and probe_steps(5, 1) == [0] and probe_steps(8, 3) == [0, 2, 3]


def test_full_regions_and_strength_one_follow_the_counterfactual_caption_exactly():
    """The directions telescope: with all masks open their sum is the whole caption's direction; fused is the same."""
    trajectory = invert(base, picture(), SIGMAS, 0)
    full = {name: torch.ones(8, 8) for name in "ab"}
    ours = sample(toy, trajectory, Guide([at("a"), at("b", row=2)], full))

    def whole(x, sigma, rows, maps=None):
        return toy(x, sigma, [2 * row for row in rows])

    assert torch.allclose(ours, sample(whole, trajectory, Guide([at("a")], full)), atol=1e-5)
    fused = sample(whole, trajectory, Guide([Edit("a", 1.0, 1), Edit("b", 1.0, 1)], full))
    assert torch.allclose(ours, fused, atol=1e-5)


def test_small_changes_beside_large_ones_count_in_fused_mode():
    size = torch.linspace(0.0, 1.0, 64).reshape(8, 8)

    def area(settings, names="ab"):
        return float(
            sum(region.sum() for region in regions_of(Seen(dict.fromkeys(names, size), {}), settings).values())
        )

    assert area(Settings(fused=True, threshold=0.4)) == area(Settings(threshold=0.2)) > area(Settings(threshold=0.4))
    assert area(Settings(fused=True), "a") == area(Settings(), "a")


def test_fused_concepts_of_two_places_keep_their_own_strengths():
    left, right = torch.zeros(8, 8), torch.zeros(8, 8)
    left[:, :2], right[:, 2:4] = 1.0, 1.0
    guide = Guide([Edit("a", 1.0, 1), Edit("b", 0.5, 1)], {"a": left, "b": right})
    assert guide.rows(0.0) == [0, 1]
    x = picture()
    moved = guide(x, {0: torch.zeros_like(x), 1: torch.ones_like(x)}, 0.0)
    assert (moved[..., :2] == 1).all() and (moved[..., 2:4] == 0.5).all() and (moved[..., 4:] == 0).all()


def test_strength_orders_the_change():
    x0 = picture()
    trajectory = invert(base, x0, SIGMAS, 0)
    full = {"a": torch.ones(8, 8)}
    moved = [(sample(toy, trajectory, Guide([at("a", s)], full)) - x0).abs().mean() for s in (0.0, 0.5, 1.0, 2.0)]
    assert moved == sorted(moved) and moved[0] < 1e-6 < moved[1]


def test_consequences_start_later_and_everything_stops():
    changes = [Edit("cause", 1.0, 1, 0, 0), Edit("effect", 1.0, 2, 1, 1)]
    guide = Guide(changes, {"cause": torch.ones(8, 8), "effect": torch.ones(8, 8)}, How(delay=0.2, stop=0.8))
    assert [guide.rows(share) for share in (0.0, 0.1, 0.2, 0.79, 0.8)] == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2], [0]]
    x = picture()
    assert torch.equal(guide(x, {0: x}, 0.9), x)


def step(how, base_value, direction, weight=None, x=None):
    """D* - D_0 of one step."""
    weight = torch.ones(8, 8) if weight is None else weight
    guide = Guide([at("a")], {"a": weight}, how)
    x = torch.zeros_like(direction) if x is None else x
    return guide(x, {0: base_value, 1: base_value + direction}, 0.5) - base_value


def test_projection_takes_out_what_lies_along_the_step():
    along, across = picture(1), picture(2)
    across = across - (across * along).sum() / along.pow(2).sum() * along
    for share, left in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        found = step(How(project=share), along, 3 * along + across)
        assert torch.allclose(found, 3 * left * along + across, atol=1e-4)


def test_clamping_bounds_the_size_of_the_change():
    along, direction = picture(1), 10 * picture(2)
    found = step(How(clamp=0.5), along, direction)
    assert float(found.norm()) == pytest.approx(0.5 * float(along.norm()), rel=1e-4)
    assert torch.allclose(found / found.norm(), direction / direction.norm(), atol=1e-5)
    assert torch.equal(step(How(clamp=1000.0), along, direction), step(How(), along, direction))
    part = torch.zeros(8, 8)
    part[:2] = 1.0
    assert float(step(How(clamp=0.5), along, direction, part).norm()) == pytest.approx(
        0.5 * float(along[..., :2, :].norm()), rel=1e-4
    )


def test_momentum_carries_earlier_directions_on():
    x, guide = torch.zeros(1, 4, 8, 8), Guide([at("a")], {"a": torch.ones(8, 8)}, How(momentum=0.5))
    first, second = (guide(x, {0: x, 1: x + 1.0}, share) for share in (0.0, 0.1))
    assert (first == 1).all() and torch.allclose(second, torch.full_like(x, 1 + 0.5 * 0.6))


def test_shared_overlaps_never_exceed_a_whole_region():
    a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    a[:, :2], b[:, 1:] = 1.0, 1.0
    found = shared({"a": a, "b": b})
    assert (found["a"] + found["b"] == 1).all() and (found["a"][:, 1] == 0.5).all() and (found["a"][:, 0] == 1).all()


def test_protection_is_where_only_invariants_are_looked_at():
    own, other = torch.zeros(4, 4), torch.zeros(4, 4)
    own[0], other[:2] = 1.0, 1.0
    found = protection(own, [other], 0.8)
    assert (found[0] == 0).all() and torch.allclose(found[1], torch.tensor(0.8)) and (found[2:] == 0).all()
    assert protection(own, [other], 0.0) is None and protection(None, [other], 1.0) is None
    assert region(torch.ones(4, 4), protected=torch.ones(4, 4)).sum() == 0


def test_the_peak_of_a_map_is_not_a_single_outlier():
    image = torch.full((32, 32), 0.5)
    image[0, 0] = 100.0
    assert normalised(image).mean() < 0.1
    image[0, :4] = 1.0
    image[0, 0] = 4.0
    assert normalised(image)[5, 5] == pytest.approx(0.5 / 1.75)


def test_a_step_that_breaks_names_itself():
    trajectory = invert(base, picture(), SIGMAS, 0)

    def broken(x, sigma, rows, maps=None):
        return toy(x, sigma, rows) * (float("nan") if sigma < 1.0 else 1.0)

    with pytest.raises(CounterfactError, match=r"step \d of 8"):
        sample(broken, trajectory, Guide([], {}))


def test_an_inversion_that_breaks_names_its_step():
    with pytest.raises(CounterfactError, match=r"step 3 of 8 of the inversion"):
        invert(lambda x, sigma: base(x, sigma) * (float("nan") if sigma <= SIGMAS[2] else 1.0), picture(), SIGMAS, 0)


def test_margins_tell_which_value_a_picture_shows():
    """The toy's captions add their number to the left half: a picture is explained by the caption that draws it."""

    def draws(x, sigma, rows, maps=None):
        return torch.stack([torch.full_like(x, float(row)) for row in rows])

    changes, regions = [at("a")], {"a": torch.ones(8, 8)}
    new, old = (torch.full((1, 4, 8, 8), value) for value in (0.9, 0.1))
    assert margins(draws, new, changes, regions, [1.0, 0.5], 0)["a"] > 0.5
    assert margins(draws, old, changes, regions, [1.0, 0.5], 0)["a"] < -0.5
    assert np.isnan(margins(draws, new, changes, {"a": torch.zeros(8, 8)}, [1.0], 0)["a"])


def test_retries_push_harder_until_the_value_shows_and_keep_the_best():
    seen = []

    def edit(settings):
        seen.append((settings.strength, settings.threshold))
        return Result(torch.full((1,), float(len(seen))))

    def judge(score):
        return lambda result: {"a": score(float(result.latent)), "b": float("nan")}

    best, tried = with_retries(edit, judge(lambda n: n - 1.5), Settings(strength=1.0, threshold=0.2), 2)
    assert len(tried) == 2 and best.latent == 2 and seen == [(1.0, 0.2), pytest.approx((1.3, 0.15))]
    seen.clear()
    best, tried = with_retries(edit, judge(lambda n: -n), Settings(), 2)
    assert len(tried) == 3 and best.latent == 1, "none is right: the least wrong is kept"
    seen.clear()
    assert len(with_retries(edit, judge(lambda n: 1.0), Settings(), 2)[1]) == 1


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
    assert captions(changed, fused=True) == [captions(changed)[0], captions(changed)[-1]]
    assert captions(plan({"season": "summer"})) == captions(plan(), fused=True) == captions(changed)[:1]
    assert [(e.before, e.after, e.depth) for e in edits(changed)] == [(0, 1, 0), (1, 2, 1)]
    assert [(e.before, e.after) for e in edits(changed, fused=True)] == [(0, 1), (0, 1)]
    assert (
        captions(undone(changed))[-1] == captions(changed)[0] and captions(undone(changed))[0] == captions(changed)[-1]
    )


def test_watched_tokens_are_those_of_the_phrases(model):
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    watched = watched_spans(model.tokenizer.encode, changed)
    invariant = {"car": (5, 7)}
    assert watched == {
        0: {"season": (1, 3), "foliage": (3, 5), **invariant}, 1: {"season": (1, 3)}, 2: {"foliage": (3, 5)}
    }  # fmt: skip
    both = {"season": (1, 3), "foliage": (3, 5)}
    assert watched_spans(model.tokenizer.encode, changed, fused=True) == {0: {**both, **invariant}, 1: both}
    assert watched_spans(model.tokenizer.encode, plan()) == {0: {}}


def cut(room):
    """A tokenizer that reads so many words."""
    return lambda text: [0, *text.replace(",", "").split()[:room], 1]


def winter(phrase):
    """A plan for do(season = winter) with those words for it, after an invariant car."""
    season = Concept("season", ("summer", "winter"), "summer", {"winter": (phrase,)})
    graph = CausalGraph(Concepts((CONCEPTS["car"], season)))
    return propagate(graph, Intervention({"season": "winter"}))


@pytest.mark.parametrize("fused", [False, True])
def test_affected_concepts_that_the_text_encoder_does_not_read_cannot_be_edited(model, fused):
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    for room, name, phrase in ((1, "season", "summer season"), (3, "foliage", "green foliage")):
        words = f'plan: words cannot change {name}: phrase "{phrase}" is cut off .* shorter caption: fewer concepts'
        with pytest.raises(CounterfactError, match=words):
            watched_spans(cut(room), changed, fused)
    assert watched_spans(cut(4), winter("deep winter"), fused)[1] == {"season": (3, 5)}
    with pytest.raises(CounterfactError, match='change season: phrase "deep cold winter" is cut off'):
        watched_spans(cut(4), winter("deep cold winter"), fused)
    with pytest.raises(CounterfactError, match='change season: phrase "Schnee" has no token .* use other words'):
        watched_spans(model.tokenizer.encode, winter("Schnee"), fused)


def test_invariant_concepts_that_are_not_read_are_left_out_with_one_warning(caplog):
    changed = plan({"season": "winter"}, {"foliage": "bare"})
    assert set(watched_spans(cut(5), changed)[0]) == {"season", "foliage"}
    assert [record.levelname for record in caplog.records] == ["WARNING"] and '"red car" is cut off' in caplog.text
    caplog.clear()
    assert set(watched_spans(cut(6), changed)[0]) == {"season", "foliage", "car"} and not caplog.records


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


def test_noise_levels_skip_the_noisiest_share():
    levels = sampling_sigmas(9, 0.1)
    assert len(levels) == 10 and levels[-1] == 0 and np.all(np.diff(levels.numpy()) < 0)
    assert torch.equal(levels, sampling_sigmas(10)[1:])
