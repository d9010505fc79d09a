"""The bundled model's parts on a tiny config and a stub world."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from causal_core.demo import schedule
from causal_core.demo.captions import training_caption
from causal_core.demo.config import PRESETS, DemoConfig, get_config
from causal_core.demo.latents import PatchPCA
from causal_core.demo.model import DemoModel, from_uint8, generate, to_uint8
from causal_core.demo.tokenizer import END, PAD, START, UNKNOWN, WordTokenizer
from causal_core.errors import CounterfactError
from causal_core.worlds.dataset import SceneData

from ..helpers.stub_world import COLOURS, TINY, StubWorld, scenes  # noqa: F401


def test_tokenizer_gives_one_id_a_word():
    tokenizer = WordTokenizer(["a", "house", "red"], max_length=8)
    assert tokenizer.encode("A RED, unseen house") == [START, 4, 6, UNKNOWN, 5, END, PAD, PAD]
    assert tokenizer.encode("a " * 20) == [START] + [4] * 6 + [END]
    assert tokenizer.encode("") == [START, END] + [PAD] * 6


def test_spans_find_each_phrase_and_its_tokens():
    tokenizer = WordTokenizer(["red", "house", "car", "on", "the", "left"], max_length=16)
    caption, phrases = "red house, red car, house on the left", ["red house", "red car", "house on the left"]
    assert tokenizer.spans(caption, phrases) == [(1, 3), (3, 5), (5, 9)]
    assert tokenizer.spans(caption, ["red car", "red house"]) == [(3, 5), (1, 3)]
    with pytest.raises(CounterfactError, match="blue car"):
        tokenizer.spans(caption, ["blue car"])
    with pytest.raises(CounterfactError, match="shorten"):
        WordTokenizer([], max_length=4).spans(caption, ["red car"])


def test_cottage_captions_fit_and_are_known():
    from causal_core.worlds import get_world

    world = get_world("cottage")
    tokenizer = WordTokenizer(world.vocabulary(), 64)
    longest = [
        max((p for value in concept.domain for p in world.phrases(concept.name, value)), key=lambda p: len(p.split()))
        for concept in world.concepts()
    ]
    ids = tokenizer.encode(", ".join(longest))
    assert UNKNOWN not in ids and END in ids and ids[-1] == PAD


def test_pca_is_orthonormal_and_inverts():
    images = from_uint8(np.stack([StubWorld().render(StubWorld().sample(i), 16) for i in range(40)]))
    full = PatchPCA(4, 48).fit(images, floor=0.1)
    assert torch.allclose(full.matrix.T @ full.matrix, torch.eye(48), atol=1e-5)
    assert torch.allclose(full.decode(full.encode(images)), images, atol=1e-4)
    assert full.scale.min() >= 0.0999 * full.scale.max()
    few = PatchPCA(4, 6).fit(images)
    latents = few.encode(images)
    assert latents.shape == (40, 6, 4, 4) and abs(latents[:, 0].std().item() - 1) < 0.05
    assert torch.allclose(few.encode(few.decode(latents)), latents, atol=1e-4)
    again = PatchPCA(4, 6).fit(images)
    assert torch.equal(again.matrix, few.matrix)


def test_uint8_round_trip():
    images = np.arange(256, dtype=np.uint8)[: 16 * 16].reshape(1, 16, 16, 1).repeat(3, -1)
    assert np.array_equal(to_uint8(from_uint8(images)), images)


def test_schedule_rises_and_finds_its_own_timesteps():
    sigmas = schedule.sigmas()
    assert sigmas.shape == (1000,) and (sigmas[1:] > sigmas[:-1]).all() and sigmas[0] < 0.01 and sigmas[-1] > 1000
    assert torch.equal(schedule.timestep(sigmas), torch.arange(1000))
    assert schedule.timestep(torch.tensor(0.0)) == 0 and schedule.timestep(torch.tensor(1e9)) == 999


def test_v_stands_for_x0():
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    sigma = torch.tensor([0.01, 1.0, 30.0])
    x = x0 + sigma[:, None, None, None] * noise
    assert torch.allclose(schedule.from_v(x, schedule.v_target(x0, noise, sigma), sigma), x0, atol=1e-4)
    v = schedule.v_target(x0, noise, sigma)
    answer = schedule.denoised(lambda *_, **__: (v,), x, sigma, torch.zeros(3, 1, 1))
    assert torch.allclose(answer, x0, atol=1e-4)


def test_sampler_is_exact_for_a_gaussian():
    # For data of standard deviation 0.5 the flow ends at 0.5 / sqrt(0.25 + sigma^2) times its start.
    levels = schedule.sampling_sigmas(200)[20:]
    start = torch.tensor([[[[2.0]]]])
    end = schedule.solve(lambda x, s: x * 0.25 / (0.25 + s.view(-1, 1, 1, 1) ** 2), start, levels)
    assert end.item() == pytest.approx(2.0 * 0.5 / float(0.25 + levels[0] ** 2) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = get_config(name)
    assert DemoConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.comfy_unet_config()["channel_mult"][0] == 1


def test_bad_configs_are_refused():
    with pytest.raises(CounterfactError, match="micro"):
        get_config("nano")
    with pytest.raises(CounterfactError, match="multiples"):
        DemoConfig("odd", 64, 4, 8, (64, 96))
    with pytest.raises(CounterfactError):
        DemoConfig.from_dict({"name": "empty"})


def test_weights_file_round_trip_and_its_errors(tmp_path):
    torch.manual_seed(0)
    model = DemoModel(TINY, ["red", "sky"], {"images": 5}).eval()
    path = tmp_path / "deep" / "tiny.safetensors"
    model.save(path)
    loaded = DemoModel.load(path)
    assert loaded.config == TINY and loaded.provenance == {"images": 5} and loaded.tokenizer.encode("sky")[1] == 5
    assert torch.allclose(loaded.context(["red"]), model.context(["red"]), atol=1e-2)
    first = generate(loaded, ["red sky", "sky", "red"], seed=3, steps=2, batch=2)
    assert first.shape == (3, 16, 16, 3) and first.dtype == np.uint8
    assert np.array_equal(first, generate(loaded, ["red sky", "sky", "red"], seed=3, steps=2, batch=2))
    assert [p.name for p in path.parent.iterdir()] == ["tiny.safetensors"]

    with pytest.raises(CounterfactError, match="check the path"):
        DemoModel.load(tmp_path / "missing.safetensors")
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CounterfactError, match="again"):
            DemoModel.load(path)


def test_text_encoder_ignores_padding_and_takes_embeddings():
    model = DemoModel(TINY, ["red", "sky"]).eval()
    ids = torch.tensor([model.tokenizer.encode("red sky")])
    direct = model.text(ids)
    assert torch.equal(direct, model.text.forward_embeds(model.text.embedding(ids), (ids != PAD).int()))
    assert torch.allclose(model.text(ids[:, :8])[:, :4], direct[:, :4], atol=1e-6)


def test_shards_are_taken_in_as_they_appear(data):
    assert len(data) == 20 and data.shards == 3
    data.render()
    assert len(data) == 50
    images, values = data.batch([0, 49])
    assert np.array_equal(images[1], data.world.render(data.scene(49), 16)) and list(values[0]) == ["sky", "wall"]
    assert len(SceneData(StubWorld(), 16, count=50)) == 50
    assert len(SceneData(StubWorld(), 16, count=50, seed=1)) == 0


def test_captions_vary_but_tell_the_truth(data):
    rng = np.random.default_rng(0)
    seen = {training_caption(data.world, {"sky": "red", "wall": "blue"}, rng) for _ in range(300)}
    assert {"", "red sky, blue wall", "the sky is red, blue wall", "red sky", "blue wall, red sky"} <= seen
    assert not any("blue sky" in caption or "red wall" in caption for caption in seen)
