"""Attention of every model family, on small instances of ComfyUI's own networks with random weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

GRID = (8, 12)
SIGMA = 0.6
SPANS = {0: {"car": (1, 3), "sky": (4, 5)}, 1: {"car": (2, 5)}}
FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 24, "context_in_dim": 24,
    "hidden_size": 48, "num_heads": 2, "mlp_ratio": 2.0, "depth": 1, "depth_single_blocks": 4, "axes_dim": [4, 10, 10],
    "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
FLUX2 = {
    **FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "patch_size": 1,
    "txt_ids_dims": [3], "axes_dim": [6, 6, 6, 6], "global_modulation": True, "mlp_silu_act": True, "ops_bias": False,
}  # fmt: skip
CHROMA = {
    **FLUX, "image_model": "chroma", "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 48,
    "hidden_dim": 32, "n_layers": 1,
}  # fmt: skip
del CHROMA["guidance_embed"]
SD3 = {
    "in_channels": 16, "pos_embed_scaling_factor": None, "pos_embed_max_size": 16, "num_patches": 256, "depth": 2,
    "input_size": None, "patch_size": 2, "adm_in_channels": 24, "qk_norm": "rms", "x_block_self_attn_layers": [0],
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 24, "out_features": 128}},
}  # fmt: skip
QWEN = {
    "image_model": "qwen_image", "in_channels": 64, "num_layers": 2, "attention_head_dim": 24, "num_attention_heads": 2,
    "joint_attention_dim": 24, "pooled_projection_dim": 24, "axes_dims_rope": (4, 10, 10),
}  # fmt: skip
LUMINA = {
    "image_model": "lumina2", "in_channels": 16, "patch_size": 2, "dim": 48, "n_layers": 4, "n_refiner_layers": 1,
    "n_heads": 2, "n_kv_heads": 1, "axes_dims": [4, 10, 10], "axes_lens": [64, 64, 64], "cap_feat_dim": 24,
    "qk_norm": True, "multiple_of": 16, "ffn_dim_multiplier": 1.0,
}  # fmt: skip
Z_IMAGE = {
    **LUMINA, "dim": 256, "n_heads": 8, "n_kv_heads": 8, "axes_dims": [8, 12, 12], "z_image_modulation": True,
    "pad_tokens_multiple": 32, "time_scale": 1000.0,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 4,
    "text_dim": 24, "in_dim": 16, "out_dim": 16, "freq_dim": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family, and its attention for 6 text tokens and a latent of GRID.

    Attributes
    ----------
    config, unet : class in comfy.supported_models and its arguments
    layers : one letter a call of the attention: "+" to be looked at, "-" too near to an end, "." of another kind
    queries, first : position of the first picture query, and of the first text key
    keys : tokens that the softmax runs over
    more : what the conditioning has besides
    """

    config: str
    unet: dict
    layers: str
    queries: int
    keys: int
    first: int = 0
    patch: int = 2
    more: dict = field(default_factory=dict)


POOLED = {"pooled_output": torch.ones(1, 24)}
SEEN = SimpleNamespace(penultimate_hidden_states=torch.ones(1, 5, 1280))
BIAS = torch.randn(1, 30, 30, generator=torch.Generator().manual_seed(5))
FAMILIES = {
    "flux": Family("Flux", FLUX, "+-++-", 6, 30, more=POOLED),
    "flux_biased": Family(
        "Flux", FLUX, "+-++-", 6, 30, more={**POOLED, "attention_mask": BIAS, "attention_mask_img_shape": (4, 6)}
    ),
    "flux_kontext": Family(
        "Flux", FLUX, "+-++-", 6, 46, more={**POOLED, "reference_latents": [torch.ones(1, 16, 8, 8)]}
    ),
    "flux2": Family("Flux2", FLUX2, "+-++-", 512, 608, 506, patch=1),
    "chroma": Family("Chroma", CHROMA, "+-++-", 6, 30),
    "sd3": Family("SD3", SD3, "+.+", 6, 30, more=POOLED),
    "qwen_image": Family("QwenImage", QWEN, "++", 6, 30),
    "qwen_image_masked": Family(
        "QwenImage", QWEN, "++", 6, 30, more={"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
    ),
    "lumina2": Family("Lumina2", LUMINA, "..-++-", 6, 30),
    "z_image": Family("ZImage", Z_IMAGE, "..-++-", 32, 64),
    "wan": Family("WAN21_T2V", WAN, ".-.+.+.-", 0, 6),
    "wan_i2v": Family(
        "WAN21_I2V", {**WAN, "model_type": "i2v", "in_dim": 36}, "..-..+..+..-", 0, 6, more={"clip_vision_output": SEEN}
    ),
}  # fmt: skip


def build(config: str, unet: dict):
    """A ModelPatcher of a small network whose attention is far from uniform."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    made = getattr(comfy.supported_models, config)(dict(unet))
    made.set_inference_dtype(torch.float32, None)
    device = torch.device("cpu")
    model = made.get_model({}, device=device)
    generator = torch.Generator().manual_seed(7)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        scale = 0.5 if weight.ndim < 2 else weight[0].numel() ** -0.5
        weight.data = noise * scale + (1.8 if weight.ndim < 2 and "norm" in name and "weight" in name else 0.0)
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


@pytest.fixture(scope="module")
def models():
    """Built when first asked for, by name of the family."""
    built = {}

    def get(name: str):
        family = FAMILIES[name]
        key = (family.config, str(family.unet))
        if key not in built:
            built[key] = build(family.config, family.unet)
        return built[key]

    return get


def conditioning(tokens: int, seed: int, more: dict):
    return [[torch.randn(1, tokens, 24, generator=torch.Generator().manual_seed(seed)), dict(more)]]


def picture(model, batch: int = 1, grid=GRID):
    form = model.get_model_object("latent_format")
    shape = (batch, form.latent_channels, *((1,) if form.latent_dimensions == 3 else ()), *grid)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


class Recorder:
    """An attention override of another node that writes down what it sees."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, attention, *args, **kwargs):
        names = dict(zip(("q", "k", "v", "heads", "mask"), args)) | kwargs
        q, k = (
            t if t.ndim == 4 else t.unflatten(-1, (names["heads"], -1)).transpose(1, 2) for t in map(names.get, "qk")
        )
        self.calls.append((q, k, names.get("mask"), names["transformer_options"]["cond_or_uncond"]))
        return attention(*args, **kwargs)


@pytest.fixture
def denoise(pack):
    """Estimates of caption rows 0 and 1, what the recorder saw, and the maps."""

    def call(model, conditionings, latent=None, spans=None, grid=GRID):
        recorder = Recorder()
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = recorder
        module = pack("nodes.denoise")
        maps = pack("causal_core.attention.capture").AttentionMaps(spans or {}, grid)
        found = []

        def function(rows, x, mask):
            found.append(rows(x, SIGMA, [0, 1], maps if spans else None))
            return found[0][0]

        latent = {"samples": picture(model, grid=grid)} if latent is None else latent
        module.run(module.Captions(model, conditionings), latent, torch.tensor([SIGMA, 0.0]), function, 0)
        return SimpleNamespace(rows=found[0], calls=recorder.calls, maps=maps)

    return call


def expected_map(calls, family: Family, name: str):
    """The mean map of a concept by a softmax of its own over what the recorder saw."""
    shape = tuple(side // family.patch for side in GRID)
    found = []
    for number, (q, k, mask, present) in enumerate(calls):
        if family.layers[number % len(family.layers)] != "+":
            continue
        assert k.shape[2] == family.keys
        logits = q.double() @ k.double().transpose(-1, -2) / math.sqrt(q.shape[-1])
        logits = logits if mask is None else logits + mask[:, None]
        for row, part in zip(present, logits.softmax(-1).chunk(len(present))):
            if name in SPANS[row]:
                start, end = SPANS[row][name]
                mass = part[..., family.first + start : family.first + end].sum(-1).mean((0, 1))
                found.append(mass[family.queries : family.queries + math.prod(shape)].view(shape))
    mean = torch.stack(found).mean(0)
    return F.interpolate(mean[None, None], size=GRID, mode="bilinear")[0, 0].float()


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_the_probabilities_of_the_joint_softmax_and_the_output_is_untouched(models, denoise, name):
    family = FAMILIES[name]
    texts = [conditioning(6, seed, family.more) for seed in (0, 1)]
    plain, shown = denoise(models(name), texts), denoise(models(name), texts, spans=SPANS)
    assert torch.equal(plain.rows, shown.rows) and plain.rows.isfinite().all()
    assert plain.rows.ndim == 5 and plain.rows.shape[-2:] == GRID and not torch.equal(*plain.rows)
    # The override of the other node still sees everything, and both captions came in one batch.
    assert len(shown.calls) == len(plain.calls) == len(family.layers)
    assert all(present == [1, 0] for *_, present in shown.calls)
    for concept in ("car", "sky"):
        found, expected = shown.maps.mean(concept), expected_map(shown.calls, family, concept)
        assert found.shape == GRID and found.isfinite().all()
        assert torch.allclose(found, expected, atol=1e-5 * float(expected.max()) + 1e-9)
        hidden = name == "qwen_image_masked" and concept == "sky"
        assert found.max() == 0 if hidden else found.std() > 0.05 * found.mean() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_split_batches_give_the_same_maps(monkeypatch, models, denoise, name):
    import comfy.model_patcher

    family = FAMILIES[name]
    texts = [conditioning(6, seed, family.more) for seed in (0, 1)]
    whole = denoise(models(name), texts, spans=SPANS)
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 0)
    split = denoise(models(name), texts, spans=SPANS)
    assert sorted(present for *_, present in split.calls) == [[0]] * len(family.layers) + [[1]] * len(family.layers)
    assert torch.allclose(split.rows, whole.rows, atol=1e-4)
    for concept in ("car", "sky"):
        assert torch.allclose(split.maps.mean(concept), whole.maps.mean(concept), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["flux", "flux2", "chroma", "sd3", "qwen_image", "lumina2", "z_image", "wan"])
def test_texts_of_different_lengths_are_looked_at_apart(models, denoise, name):
    more = FAMILIES[name].more
    short, long = conditioning(6, 0, more), conditioning(9, 1, more)
    spans = {0: {"sky": (4, 5)}, 1: {"car": (2, 9)}}
    both = denoise(models(name), [short, long], spans=spans)
    alone = denoise(models(name), [short, short], spans={0: spans[0]})
    other = denoise(models(name), [long, long], spans={1: spans[1]})
    assert torch.allclose(both.maps.mean("sky"), alone.maps.mean("sky"), rtol=1e-4)
    assert torch.allclose(both.maps.mean("car"), other.maps.mean("car"), rtol=1e-4)


@pytest.mark.parametrize("name", ["flux", "flux2", "chroma", "sd3", "qwen_image", "lumina2", "z_image", "wan"])
def test_tokens_lie_where_they_are_looked_for(denoise, name):
    """Which key a change of one text token reaches in the first layer, and which query a change of one patch."""
    family = FAMILIES[name]
    refiners = {"n_refiner_layers": 0} if "n_refiner_layers" in family.unet else {}
    model = build(family.config, family.unet | refiners)
    layer = min(
        i for i, kind in enumerate(family.layers.replace("..", "") if refiners else family.layers) if kind != "."
    )
    texts = [conditioning(6, seed, family.more) for seed in (0, 1)]
    latent = picture(model)
    before = denoise(model, texts, {"samples": latent}).calls[layer]

    texts[1][0][0] = texts[1][0][0].clone()
    texts[1][0][0][:, 4] += 1.0
    after = denoise(model, texts, {"samples": latent}).calls[layer]
    assert changed(before[1], after[1]) == {(0, family.first + 4)}

    if name != "wan":  # has mixed its picture tokens before it looks at the text
        moved = latent.clone()
        moved[..., 3, 5] += 1.0
        after = denoise(model, [conditioning(6, seed, family.more) for seed in (0, 1)], {"samples": moved}).calls[layer]
        place = family.queries + 3 // family.patch * (GRID[1] // family.patch) + 5 // family.patch
        assert changed(before[0], after[0]) == {(0, place), (1, place)}


def changed(before, after):
    """(batch row, token) of what differs."""
    return {tuple(place) for place in ((before - after).abs().amax((1, 3)) > 1e-4).nonzero().tolist()}


def test_wan_with_as_many_picture_as_text_tokens(models, denoise):
    texts = [conditioning(24, seed, {}) for seed in (0, 1)]
    shown = denoise(models("wan"), texts, spans=SPANS)
    family = Family("", {}, FAMILIES["wan"].layers, 0, 24)
    assert torch.allclose(shown.maps.mean("car"), expected_map(shown.calls, family, "car"), atol=1e-6)


def test_unets_show_their_cross_attention_with_another_nodes_patch_and_tiled_texts(denoise):
    from comfy.ldm.modules.attention import optimized_attention

    unet = {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1, "context_dim": 24, "use_spatial_transformer": True, "legacy": False,
        "adm_in_channels": None,
    }  # fmt: skip
    model = build("SD15", unet)
    grid, seen = (6, 10), []

    def other(q, k, v, options):
        seen.append((q, k, options["n_heads"], options["cond_or_uncond"]))
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    for block in (("input", 3), ("middle", 0), ("output", 0), ("output", 1)):
        model.set_model_attn2_replace(other, *block)
    # 6 and 12 tokens run in one batch, the shorter text twice.
    texts = [conditioning(6, 0, {}), conditioning(12, 1, {})]
    plain = denoise(model, texts, grid=grid)
    count = len(seen)
    shown = denoise(model, texts, spans=SPANS, grid=grid)
    assert torch.equal(plain.rows, shown.rows) and count == len(seen) - count == 4
    found = []
    for q, k, heads, present in seen[count:]:
        assert present == [1, 0] and k.shape[1] == 12
        heads_q, heads_k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        logits = heads_q @ heads_k.transpose(-1, -2) / math.sqrt(heads_q.shape[-1])
        for row, part in zip(present, logits.chunk(2)):
            start, end = SPANS[row]["car"]
            probabilities = part[..., : (6, 12)[row]].softmax(-1)
            found.append(probabilities[..., start:end].sum(-1).mean((0, 1)).view(3, 5))
    expected = F.interpolate(torch.stack(found).mean(0)[None, None], size=grid, mode="bilinear")[0, 0]
    assert torch.allclose(shown.maps.mean("car"), expected, atol=1e-6) and expected.std() > 1e-3


def test_other_layouts_and_families_give_no_maps(monkeypatch, pack, models, denoise):
    model = models("flux").clone()

    def longer(args):
        return {**args, "txt": torch.cat([args["txt"]] * 2, 1), "txt_ids": torch.cat([args["txt_ids"]] * 2, 1)}

    model.set_model_patch(longer, "post_input")
    texts = [conditioning(6, seed, POOLED) for seed in (0, 1)]
    assert denoise(model, texts, spans=SPANS).maps.mean("car") is None

    module = pack("nodes.denoise")
    assert module.captures(models("flux")) and module.is_flow(models("flux"))
    monkeypatch.setattr(pack("nodes.attention"), "FAMILIES", ())
    assert not module.captures(models("flux"))
    unknown = denoise(models("flux"), texts, spans=SPANS)
    assert unknown.maps.mean("car") is None and unknown.rows.isfinite().all()


def test_predictions_of_other_kinds_are_refused(pack, models, comfy_model):
    import comfy.model_sampling

    module, error = pack("nodes.denoise"), pack("causal_core.errors").CounterfactError
    assert not module.is_flow(comfy_model.model)
    for kind in (comfy.model_sampling.COSMOS_RFLOW, comfy.model_sampling.IMG_TO_IMG_FLOW):
        model = models("flux").clone()
        model.add_object_patch("model_sampling", kind())
        with pytest.raises(error, match="model: Flux does not predict"):
            module.Captions(model, [conditioning(6, 0, POOLED)])
    with pytest.raises(error, match="clip: it makes 24 numbers a token, but the model reads 64"):
        module.Captions(comfy_model.model, [conditioning(6, 0, {})])


@pytest.mark.parametrize("name", ["wan", "qwen_image"])
def test_latents_of_video_models_are_single_frames(pack, models, name):
    module, error = pack("nodes.denoise"), pack("causal_core.errors").CounterfactError
    model = models(name)
    guider = module.Captions(model, [conditioning(6, 0, {})])
    latent, sigmas = picture(model, 2), torch.tensor([SIGMA, 0.0])
    mask = torch.stack([torch.zeros(64, 96), torch.ones(64, 96)])
    seen = []

    def function(rows, x, found):
        seen.append((x.shape, found.amax((1, 2, 3)).tolist(), rows(x[:, :, None], SIGMA, [0]).shape))
        return x

    out = module.run(guider, {"samples": latent, "noise_mask": mask}, sigmas, function, 0)
    assert torch.allclose(out, latent, atol=1e-5)
    assert seen == [((2, 16, *GRID), [0.0, 1.0], (1, 2, 16, 1, *GRID))]
    assert module.run(guider, {"samples": latent[:, :, 0]}, sigmas, lambda rows, x, mask: x, 0).shape == latent.shape
    with pytest.raises(error, match="latent: it is a video of 3 frames"):
        module.run(guider, {"samples": latent.repeat(1, 1, 3, 1, 1)}, sigmas, function, 0)


def test_previews_of_video_models_show_the_frame(monkeypatch, pack, models):
    import latent_preview

    seen = []
    monkeypatch.setattr(
        latent_preview, "prepare_callback", lambda model, steps: lambda *args: seen.append(args[1].shape)
    )
    pack("nodes.denoise").progress_bar(models("wan"), 3)(torch.zeros(1, 16, *GRID))
    pack("nodes.denoise").progress_bar(models("flux"), 3)(torch.zeros(1, 16, *GRID))
    assert seen == [(1, 16, 1, *GRID), (1, 16, *GRID)]


@pytest.mark.parametrize("apart", [False, True])
def test_maps_take_both_layouts_several_spans_and_the_meta_device(pack, apart):
    maps = pack("causal_core.attention.capture").AttentionMaps
    q, k = torch.randn(1, 2, 12, 8), torch.randn(1, 2, 9, 8)
    whole, parts = maps({0: {"car": (1, 4)}}, (6, 8)), maps({0: {"car": [(1, 2), (2, 4)]}}, (6, 8))
    given = (q, k) if apart else (t.transpose(1, 2).flatten(2) for t in (q, k))
    q_given, k_given = given
    for one in (whole, parts):
        one.add(q_given, k_given, 2, [0], (3, 4))
    expected = (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1)[..., 1:4].sum(-1).mean((0, 1)).view(1, 1, 3, 4)
    assert torch.allclose(whole.mean("car"), F.interpolate(expected, size=(6, 8), mode="bilinear")[0, 0], atol=1e-6)
    assert torch.allclose(whole.mean("car"), parts.mean("car"), atol=1e-6)
    meta = maps({0: {"car": (1, 4)}}, (6, 8))
    for _ in range(2):
        meta.add(q_given.to("meta"), k_given.to("meta"), 2, [0], (3, 4))
    assert meta.sums[0, (3, 4)].device.type == "meta" and meta.sums[0, (3, 4)].shape == (1, 3, 4)


class Ids:
    """A text encoder that answers with the ids of the tokens as their first numbers."""

    def __init__(self, width: int = 8, layers: int = 0, mask: bool = True) -> None:
        self.width, self.layers, self.mask = width, layers, mask

    def encode_token_weights(self, sections):
        ids = torch.tensor([token for section in sections for token, *_ in section], dtype=torch.float32)
        out = F.pad(ids[None, :, None], (0, self.width - 1))
        out = out[:, None].repeat(1, self.layers, 1, 1) if self.layers else out
        return (out, torch.zeros(1, 8), {"attention_mask": torch.ones(1, len(ids))})[: 2 + self.mask]


def text_encoder(kind, **parts):
    """One of ComfyUI's text encoders without its weights: what it does with the parts' outputs is its own."""
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def pieces():
    """A small SentencePiece model, which ComfyUI has with the weights of the text encoder alone."""
    import io

    import sentencepiece

    text, file = ["blue sky, small size, red car", "snowy sky, large size, green car"], io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=file, vocab_size=64, hard_vocab_limit=False, minloglevel=2,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    )  # fmt: skip
    return {"spiece_model": file.getvalue()}


def text_encoders(name: str):
    """Tokenizer and encoder of a family, and by which parts of the tokenizer its conditioning is read."""
    import comfy.text_encoders.flux as flux
    import comfy.text_encoders.lumina2 as lumina
    import comfy.text_encoders.pixart_t5 as pixart
    import comfy.text_encoders.qwen_image as qwen
    import comfy.text_encoders.sd3_clip as sd3
    import comfy.text_encoders.wan as wan
    import comfy.text_encoders.z_image as z_image

    clips, short = {"clip_l": Ids(2048, mask=False), "clip_g": Ids(2048, mask=False)}, Ids(4096, mask=False)
    none, three = dict.fromkeys(clips), dict(clips, t5xxl=short, t5_attention_mask=False)
    single = lambda kind, name, **options: text_encoder(kind, clip=name, clip_name=name, **{name: Ids(**options)})  # noqa: E731
    return {
        "flux": lambda: (flux.FluxTokenizer(), text_encoder(flux.FluxClipModel, **three), ["t5xxl"]),
        "flux2": lambda: (flux.KleinTokenizer(), single(flux.Flux2TEModel, "qwen3_4b", layers=3), ["qwen3_4b"]),
        "chroma": lambda: (pixart.PixArtTokenizer(), single(pixart.PixArtT5XXL, "t5xxl"), ["clip_t5xxl"]),
        "sd3": lambda: (sd3.SD3Tokenizer(), text_encoder(sd3.SD3ClipModel, **three), ["clip_g", "t5xxl"]),
        "sd3 without T5": lambda: (
            sd3.SD3Tokenizer(), text_encoder(sd3.SD3ClipModel, **clips, t5xxl=None), ["clip_g"]
        ),
        "sd3 without CLIP": lambda: (
            sd3.SD3Tokenizer(), text_encoder(sd3.SD3ClipModel, **three | none), ["t5xxl"]
        ),
        "qwen_image": lambda: (qwen.QwenImageTokenizer(), single(qwen.QwenImageTEModel, "qwen25_7b"), ["qwen25_7b"]),
        "z_image": lambda: (z_image.ZImageTokenizer(), single(z_image.ZImageTEModel, "qwen3_4b"), ["qwen3_4b"]),
        "lumina2": lambda: (
            lumina.LuminaTokenizer(tokenizer_data=pieces()), single(lumina.LuminaModel, "gemma2_2b"), ["gemma2_2b"]
        ),
        "wan": lambda: (
            wan.WanT5Tokenizer(tokenizer_data=pieces()),
            text_encoder(wan.WanT5Model, clip="clip_umt5xxl", clip_name="umt5xxl", clip_umt5xxl=Ids()),
            ["clip_umt5xxl"],
        ),
    }[name]()  # fmt: skip


@pytest.fixture(scope="module")
def winter(pack):
    """A plan whose phrases share words with the templates of the text encoders."""
    concepts = pack("causal_core.concepts").parse_concepts(
        "sky: blue, snowy = blue\nsize: small, large = small\ncar: red, green = red"
    )
    graph = pack("causal_core.graph").CausalGraph.from_edges([("sky", "size")], concepts=concepts)
    plans = pack("causal_core.plan")
    return plans.propagate(graph, plans.Intervention({"sky": "snowy"}), {"size": "large"})


@pytest.mark.parametrize(
    "name",
    ["flux", "flux2", "chroma", "sd3", "sd3 without T5", "sd3 without CLIP", "qwen_image", "z_image", "lumina2", "wan"],
)
def test_phrases_are_found_in_what_comfyui_makes_of_a_text(pack, models, winter, caplog, name):
    tokenizer, encoder, parts = text_encoders(name)
    clip = SimpleNamespace(tokenize=tokenizer.tokenize_with_weights, cond_stage_model=encoder)
    captions = pack("causal_core.guidance.captions")
    texts = [encoder.encode_token_weights(clip.tokenize(text))[0] for text in captions.captions(winter)]
    guider = SimpleNamespace(
        attention=pack("nodes.attention").adapter(models(name.split()[0])), lengths=[text.shape[1] for text in texts]
    )
    watched = pack("nodes.phrases").watched_tokens
    found = watched(guider, clip, winter)
    values = captions.caption_values(winter)
    assert {row: set(names) for row, names in found.items()} == {0: {"sky", "size", "car"}, 1: {"sky"}, 2: {"size"}}
    for row, names in found.items():
        for concept, spans in names.items():
            words = [
                getattr(tokenizer, part).decode([int(token) for token in texts[row][0, start:end, 0]]).strip()
                for part, (start, end) in zip(parts, spans, strict=True)
            ]
            assert words == [f"{values[row][concept]} {concept}"] * len(parts)
    assert not caplog.records

    guider.lengths = [length + 1 for length in guider.lengths]
    assert watched(guider, clip, winter) == {}
    assert "Regions are found without attention: clip: it made a conditioning of" in caplog.text


def test_phrases_of_the_bundled_model_and_of_unknown_families(pack, comfy_model, winter):
    module, captions = pack("nodes.denoise"), pack("causal_core.guidance.captions")
    watched, plans = pack("nodes.phrases").watched_tokens, pack("causal_core.plan")
    world = pack("causal_core.worlds").get_world("cottage")
    known = plans.propagate(world.scene_graph(world.sample(302)), plans.Intervention({"season": "winter"}))
    guider = module.Captions(comfy_model.model, module.encode(comfy_model.clip, captions.captions(known)))
    found = watched(guider, comfy_model.clip, known)
    assert {row: len(names) for row, names in found.items() if row} == dict.fromkeys(range(1, len(found)), 1)
    for row, values in enumerate(captions.caption_values(known)):
        text = module.token_ids(comfy_model.clip, captions.captions(known)[row])
        for name, phrase in captions.phrases(known, values).items():
            for start, end in found[row].get(name, ()):
                assert text[start:end] == module.token_ids(comfy_model.clip, phrase)[1 : 1 + end - start]

    # Neither "large" nor "size" is among its words.
    guider = module.Captions(comfy_model.model, module.encode(comfy_model.clip, captions.captions(winter)))
    with pytest.raises(pack("causal_core.errors").CounterfactError, match='change size: phrase "large size" has no to'):
        watched(guider, comfy_model.clip, winter)
    guider.attention = None
    assert watched(guider, comfy_model.clip, winter) == {}
