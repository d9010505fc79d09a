"""Pretrained generators as samplers of pictures given values: the bundled ones, and tiny ones of random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import causal_core.autoencoder
from causal_core.autoencoder.coding import Coding, Variable
from causal_core.autoencoder.config import AutoencoderConfig
from causal_core.autoencoder.model import CausalAutoencoder
from causal_core.concepts import caption, parse_concepts
from causal_core.demo import weights_path
from causal_core.demo.model import DemoModel, generate
from causal_core.errors import CounterfactError
from causal_core.modular.images import CaptionSampler, DecoderSampler, PipelineSampler, fingerprint
from causal_core.worlds import get_world
from causal_core.worlds.reader import Reader

CONCEPTS = parse_concepts("season: summer, winter\ncar: red, blue")
CODING = Coding((Variable("season", ("summer", "winter")), Variable("car", ("red", "blue"))), ((), ()))
RED, BLUE = {"season": "winter", "car": "red"}, {"season": "winter", "car": "blue"}
VALUES, SEEDS = [RED, BLUE, RED, BLUE, RED], [7, 7, 8, 2**70, -1]


def _autoencoder(coding: Coding = CODING, channels: int = 3) -> CausalAutoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(
        "tiny", size=16, channels=channels, patch=2, widths=(32, 32), encoder_widths=(8, 16), encoder_hidden=16,
        residual=3,
    )  # fmt: skip
    return CausalAutoencoder(config, coding).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pipeline():
    """Stable Diffusion with random weights, and letters for tokens."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz,"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    start, end = len(words) - 2, len(words) - 1
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, bos_token_id=start, eos_token_id=end,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=16, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=32)
    parts = (vae, CLIPTextModel(text), tokenizer, unet, scheduler)
    made = StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(params=["caption", "decoder", "pipeline"])
def sampler(request):
    if request.param == "caption":
        return CaptionSampler(request.getfixturevalue("model"), CONCEPTS, steps=2, batch=2)
    if request.param == "decoder":
        return DecoderSampler(_autoencoder(), steps=2, batch=2)
    # With eta there is new noise in every step.
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "eta": 1.0}
    return PipelineSampler(request.getfixturevalue("pipeline"), CONCEPTS, options, batch=2)


def _differ(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference in grey levels; rounding makes one."""
    return int(np.abs(a.astype(int) - b).max())


# What every sampler promises


def test_a_picture_depends_on_its_values_and_seed_alone(sampler):
    before = sampler.fingerprint()
    found = sampler.sample(VALUES, SEEDS)
    assert found.dtype == np.uint8 and found.shape == (5, found.shape[1], found.shape[1], 3)
    assert np.array_equal(found, sampler.sample(VALUES, SEEDS))
    backwards = replace(sampler, batch=3).sample(VALUES[::-1], SEEDS[::-1])[::-1]
    alone = np.concatenate([sampler.sample([one], [seed]) for one, seed in zip(VALUES, SEEDS)])
    assert _differ(found, backwards) <= 1 and _differ(found, alone) <= 1
    assert _differ(found[0], found[1]) > 5, "the same seed, another car"
    assert _differ(found[0], found[2]) > 5, "the same car, another seed"
    assert sampler.fingerprint() == before and len(before) == 64


def test_it_asks_before_each_batch_whether_to_go_on(sampler):
    asked = []
    sampler.sample(VALUES, SEEDS, lambda: asked.append(1))
    assert len(asked) == 3

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sampler.sample(VALUES, SEEDS, stop)


@pytest.mark.parametrize(
    ("values", "seeds", "match"),
    [
        ([RED, {"season": "winter"}], [1, 2], "car missing; give every concept"),
        ([{}], [1], "season, car missing"),
        ([{**RED, "mood": "low"}], [1], "unknown .*'mood'"),
        ([{**RED, "car": "pink"}], [1], "pink.*red, blue"),
        ([RED, BLUE], [1], "2 pictures and 1 seeds"),
        ([], [], "at least one"),
    ],
)
def test_what_cannot_be_drawn_is_refused(sampler, values, seeds, match):
    with pytest.raises(CounterfactError, match=match):
        sampler.sample(values, seeds)


@pytest.mark.parametrize("batch", [0, 2.0, True])
def test_batches_are_whole_numbers(sampler, batch):
    with pytest.raises(CounterfactError, match="batch must be a whole number from 1 to"):
        replace(sampler, batch=batch)


@pytest.mark.parametrize("steps", [0, 1001])
def test_steps_are_whole_numbers(model, steps):
    with pytest.raises(CounterfactError, match="steps must be a whole number from 1 to 1000"):
        CaptionSampler(model, CONCEPTS, steps)
    with pytest.raises(CounterfactError, match="steps must be a whole number from 1 to 1000"):
        DecoderSampler(_autoencoder(), steps)


# Fingerprints


def test_fingerprints_see_every_number_and_its_type():
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))

    same = fingerprint(network())
    assert same == fingerprint(network())
    nudged, counted = network(), network()
    nudged[0].bias.data[2] += 1e-6
    counted[1].running_mean[0] = 1.0
    typed = network()
    # The same bytes: a count of no batches, and zero as a number.
    typed[1].num_batches_tracked = typed[1].num_batches_tracked.double()
    others = [fingerprint(one) for one in (nudged, counted, typed)] + [fingerprint(network(), network())]
    assert len({same, *others}) == 5 and len(fingerprint(network().bfloat16())) == 64
    with pytest.raises(CounterfactError, match="0.weight are not in memory"):
        fingerprint(network().to("meta"))


# The bundled text-to-image model


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_captions_are_drawn_as_the_model_itself_draws_them(model, guidance):
    found = CaptionSampler(model, CONCEPTS, steps=2, guidance=guidance).sample([RED, BLUE], [7, 8])
    texts = [caption(CONCEPTS, RED), caption(CONCEPTS, BLUE)]
    want = [generate(model, [text], seed, 2, guidance)[0] for text, seed in zip(texts, (7, 8))]
    assert _differ(found, np.stack(want)) <= 1


def test_a_value_of_the_list_holds_where_none_is_given(model):
    held = CaptionSampler(model, CONCEPTS.replace("season", value="winter"), steps=2)
    assert np.array_equal(held.sample([{"car": "red"}], [1]), replace(held, concepts=CONCEPTS).sample([RED], [1]))


def test_the_reader_sees_the_season_that_was_asked_for():
    world = get_world("cottage")
    concepts = world.concepts()
    scene = {name: value for name, value in world.sample(3).values.items() if name in concepts}
    values = [{**scene, "season": season} for season in ("summer", "winter", "autumn")]
    sampler = CaptionSampler(DemoModel.load(weights_path("micro")), concepts, steps=4)
    seen = Reader.load().read(sampler.sample(values, [1, 1, 1]))
    assert [one["season"] for one in seen] == ["summer", "winter", "autumn"]
    assert all(one["time"] == scene["time"] for one in seen)


# The decoder of a causal autoencoder


def _middle(seen: np.ndarray) -> float:
    """The mean column of what is True, for a picture that is 20 wide."""
    return float((np.nonzero(seen)[1] + 0.5).mean() / seen.shape[1] * 20)


def test_the_pendulum_is_drawn_as_told():
    weights = Path(causal_core.autoencoder.__file__).parent / "weights" / "pendulum.safetensors"
    told = [(70, 5), (130, 5), (70, 15), (130, 15)]
    values = [
        {"angle": "20", "light": str(light), "shadow length": "6", "shadow position": str(place)}
        for light, place in told
    ]
    sampler = DecoderSampler(CausalAutoencoder.load(weights), steps=4)
    for picture, (light, place) in zip(sampler.sample(values, [1, 1, 2, 3]), told):
        # The shadow is all that is dark on the ground, the lamp all that is not white above: 10 higher than the pivot.
        assert abs(_middle(picture[-6:].max(-1) < 160) - place) < 0.5
        assert abs(_middle(picture[:10].min(-1) < 160) - (10 + 10 / np.tan(light * np.pi / 200))) < 0.5
    with pytest.raises(CounterfactError, match="light = 190 is outside 60..147"):
        sampler.sample([{**values[0], "light": "190"}], [1])


def test_grey_pictures_come_in_colour():
    found = DecoderSampler(_autoencoder(channels=1), steps=1).sample([RED], [1])
    assert found.shape == (1, 16, 16, 3) and (found == found[..., :1]).all() and found.std() > 1


# Pipelines of diffusers


def test_fingerprints_of_pipelines_see_all_networks(pipeline):
    sampler = PipelineSampler(pipeline, CONCEPTS)
    prints = {sampler.fingerprint()}
    for network in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        weight = next(network.parameters()).data
        weight += 1.0
        prints.add(sampler.fingerprint())
        weight -= 1.0
    assert len(prints) == 4


@pytest.mark.parametrize("name", ["prompt", "generator", "num_images_per_prompt"])
def test_pipelines_are_asked_for_one_picture_a_caption(pipeline, name):
    with pytest.raises(CounterfactError, match=f"options: {name} follow.*leave them out"):
        PipelineSampler(pipeline, CONCEPTS, {name: 2})
