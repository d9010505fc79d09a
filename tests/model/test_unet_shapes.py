"""Attention maps of the true Stable Diffusion architectures, and tokens of captions longer than one section.

At full size the networks are on the meta device: shapes and layers are real, numbers are not computed. Numbers come
from networks of the same topology with a tenth of the width, at sizes that people use.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

SIGMA = 2.0
META = torch.device("meta")


@dataclass(frozen=True)
class Architecture:
    """What is known of a family: ComfyUI's name for it, parameters, and captured layers by fraction of the latent."""

    detected: str
    parameters: int
    side: int
    text: int
    layers: dict[int, int]


# Two levels with 2 layers on the way down and 3 up, one in the middle; SDXL has 2 and 10 of them at every place.
ARCHITECTURES = {
    "sd15": Architecture("SD15", 859_520_964, 512, 768, {2: 5, 4: 5, 8: 1}),
    "sd2": Architecture("SD20", 865_910_724, 768, 1024, {2: 5, 4: 5, 8: 1}),
    "sdxl": Architecture("SDXL", 2_567_463_684, 1024, 2048, {2: 10, 4: 60}),
}


@pytest.fixture(autouse=True)
def fused_attention(pack, monkeypatch):
    """The attention that ComfyUI takes on a GPU; its own for CPUs cuts these sizes into very many pieces."""
    import comfy.ldm.modules.attention as attention

    for module in (attention, pack("nodes.attention.unet")):
        monkeypatch.setattr(module, "optimized_attention", attention.attention_pytorch)


@pytest.fixture(scope="module")
def networks(pack):
    """The architectures through diffusers, without weights."""
    from diffusers import UNet2DConditionModel

    bench = pack("causal_core.bench.overhead")
    sd2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
    with META:
        return {
            name: UNet2DConditionModel(**config)
            for name, config in (("sd15", bench.SD15), ("sd2", bench.SD15 | sd2), ("sdxl", bench.SDXL))
        }


def detected(network):
    """What ComfyUI makes of the weights of a network."""
    import comfy.model_detection

    found = comfy.model_detection.model_config_from_diffusers_unet(network.state_dict())
    found.set_inference_dtype(torch.float32, None)
    return found


@pytest.fixture
def full_size(networks, monkeypatch):
    """A MODEL of the true architecture on the meta device, by name."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.ops

    def free(device=None, torch_free_too=False):
        return (2**50, 2**50) if torch_free_too else 2**50

    # What asks for numbers: is there room, are there weights, is the latent empty.
    monkeypatch.setattr(comfy.model_management, "get_free_memory", free)
    monkeypatch.setattr(comfy.ops.disable_weight_init, "_zero_init_parameter", staticmethod(lambda module, name: None))
    monkeypatch.setattr(torch, "count_nonzero", lambda tensor: 0)

    def build(name):
        base = detected(networks[name]).get_model({}, device=META)
        return comfy.model_patcher.ModelPatcher(base, load_device=META, offload_device=META)

    return build


@pytest.fixture(scope="module")
def narrow(networks):
    """A MODEL of the same topology with a tenth of the width and random weights, by name."""
    import comfy.model_patcher

    built = {}

    def build(name):
        if name in built:
            return built[name]
        config = detected(networks[name])
        heads = {"num_heads": 2} if name == "sd15" else {"num_head_channels": 32}
        config.unet_config |= {"model_channels": 32, **heads}
        base = config.get_model({}, device="cpu")
        generator = torch.Generator().manual_seed(5)
        for key, weight in base.diffusion_model.named_parameters():
            if weight.ndim == 1:
                weight.fill_(float(key.endswith("weight")))
                continue
            # Sharper attention than chance, so that every token has a map of its own; small steps from block to block,
            # so that rounding does not grow through seventy of them.
            sharp, last = ("attn2.to_q", "attn2.to_k"), ("to_out.0", "ff.net.2", "proj_out")
            gain = 2.0 if any(part in key for part in sharp) else 0.2 if any(part in key for part in last) else 1.0
            weight.normal_(0, gain / math.sqrt(weight[0].numel()), generator=generator)
        cpu = torch.device("cpu")
        built[name] = comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)
        return built[name]

    return build


def conditioning(name, tokens, seed):
    """What a text encoder would give: one row of that many tokens."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, tokens, ARCHITECTURES[name].text, generator=generator)
    return [[text, {"pooled_output": torch.randn(1, 1280, generator=generator)}]]


@pytest.fixture
def within(pack):
    """Run a function with the denoiser and the latent; returns what the function returns."""

    def run(model, name, lengths, size, batch, function):
        denoise = pack("nodes.denoise")
        guider = denoise.Captions(model, [conditioning(name, n, seed) for seed, n in enumerate(lengths)])
        results = []

        def once(rows, x, mask):
            results.append(function(rows, x))
            return x

        generator = torch.Generator().manual_seed(9)
        latent = SIGMA * torch.randn(batch, 4, size[1] // 8, size[0] // 8, generator=generator)
        denoise.run(guider, {"samples": latent}, torch.tensor([SIGMA, 0.0]), once, 0)
        return results[0]

    return run


@contextmanager
def cross_attention(model):
    """Heads, queries and keys of the cross-attention layers that run in this context, and the rows of their batches."""
    seen, order, handles = [], [], []

    def keep(heads, found, queries):
        seen.append((heads, *queries, found))
        queries.clear()

    def watch(attention):
        queries = []
        first = attention.to_q.register_forward_hook(lambda layer, given, found: queries.append(found))
        second = attention.to_k.register_forward_hook(lambda layer, given, found: keep(attention.heads, found, queries))
        handles.extend([first, second])

    network = model.model.diffusion_model
    for name, module in network.named_modules():
        if name.endswith("attn2"):
            watch(module)
    handles.append(network.register_forward_pre_hook(
        lambda network, given, options: order.extend(options["transformer_options"]["cond_or_uncond"]),
        with_kwargs=True,
    ))  # fmt: skip
    try:
        yield seen, order
    finally:
        for handle in handles:
            handle.remove()


def expected_map(layers, span, grid, chunk=0, chunks=1):
    """The map of a span, the slow way: from all probabilities of the layers that are coarser than the latent."""
    found = []
    for heads, q, k in layers:
        q, k = (t.chunk(chunks)[chunk].unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        halvings = round(math.log2(grid[0] * grid[1] / q.shape[2]) / 2)
        if halvings == 0:
            continue
        every_token = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        image = every_token[..., slice(*span)].sum(-1).mean((0, 1)).view(grid[0] >> halvings, grid[1] >> halvings)
        found.append(F.interpolate(image[None, None], size=grid, mode="bilinear", align_corners=False)[0, 0])
    return torch.stack(found).mean(0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_true_architecture_shows_its_coarse_layers(pack, networks, full_size, within, name):
    known = ARCHITECTURES[name]
    model = full_size(name)
    assert type(model.model.model_config).__name__ == known.detected
    for network in (networks[name], model.model.diffusion_model):
        assert sum(p.numel() for p in network.parameters()) == known.parameters
    side = known.side // 8
    maps = pack("causal_core.attention.capture").AttentionMaps(
        {0: {"car": (1, 3)}, 1: {"snow": (80, 82)}}, (side, side)
    )
    found = within(model, name, (77, 154), (known.side, known.side), 2, lambda rows, x: rows(x, SIGMA, [0, 1], maps))
    assert found.shape == (2, 2, 4, side, side) and found.device == META
    for row in (0, 1):
        layers = {(side // n, side // n): count for n, count in known.layers.items()}
        assert {shape: count for (at, shape), count in maps.counts.items() if at == row} == layers


@pytest.mark.parametrize(
    ("name", "size", "batch"),
    [("sd15", (576, 832), 1), ("sd2", (832, 576), 1), ("sdxl", (576, 832), 2)],
)
def test_maps_at_non_square_sizes_are_the_probabilities(pack, narrow, within, name, size, batch):
    model, spans = narrow(name), {0: {"car": (1, 3)}, 1: {"snow": (5, 6), "pond": (60, 64)}}
    grid = (size[1] // 8, size[0] // 8)
    maps = pack("causal_core.attention.capture").AttentionMaps(spans, grid)
    with cross_attention(model) as (layers, order):
        found = within(model, name, (77, 77), size, batch, lambda rows, x: rows(x, SIGMA, [0, 1], maps))
    assert found.shape == (2, batch, 4, *grid) and sorted(order) == [0, 1]
    for row, concepts in spans.items():
        for concept, span in concepts.items():
            image, wanted = maps.mean(concept), expected_map(layers, span, grid, order.index(row), 2)
            assert image.shape == grid and image.std() > 0.05 * image.mean()
            assert torch.allclose(image, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "lengths"), [("sd15", (77, 154, 231)), ("sdxl", (77, 154))])
def test_captions_of_several_lengths_split_or_not_give_the_same_maps(pack, narrow, within, monkeypatch, name, lengths):
    import comfy.model_base

    model, grid = narrow(name), (16, 24)
    every = ({"car": (1, 3)}, {"snow": (80, 84), "smoke": (77, 79)}, {"pond": (228, 230)})
    spans = dict(enumerate(every[: len(lengths)]))
    capture = pack("causal_core.attention.capture")

    def look(rows, x):
        """Each row by itself without maps, all of them with maps, and again with no memory for more than one."""
        alone = []
        for row in spans:
            with cross_attention(model) as (layers, _):
                alone.append((rows(x, SIGMA, [row])[0], layers))
        results = []
        for memory in (0, math.inf):
            maps = capture.AttentionMaps(spans, grid)
            with monkeypatch.context() as low, cross_attention(model) as (layers, order):
                low.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, memory=memory, **_: memory)
                found = rows(x, SIGMA, list(spans), maps)
            assert sorted(order) == list(spans) and len(layers[0][1]) == (2 if memory else 2 * len(spans))
            results.append((found, maps))
        return alone, results

    alone, results = within(model, name, lengths, (grid[1] * 8, grid[0] * 8), 2, look)
    for found, maps in results:
        for row, (plain, layers) in enumerate(alone):
            assert torch.allclose(found[row], plain, atol=1e-4)
            for concept, span in spans[row].items():
                assert torch.allclose(maps.mean(concept), expected_map(layers, span, grid), rtol=1e-3, atol=1e-6)


@cache
def tokenizer(name):
    """ComfyUI's own tokenizer of a family, as nodes see it, and its words by id."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.text_encoders.sd2_clip

    made = {
        "sd15": comfy.sd1_clip.SD1Tokenizer,
        "sd2": comfy.text_encoders.sd2_clip.SD2Tokenizer,
        "sdxl": comfy.sdxl_clip.SDXLTokenizer,
    }[name]()
    words = {"sd15": "clip_l", "sd2": "clip_h", "sdxl": "clip_g"}[name]
    return SimpleNamespace(tokenize=made.tokenize_with_weights), getattr(made, words).inv_vocab


@pytest.fixture
def watched(pack):
    """Which words are watched in the captions of a plan whose other concepts take so many words."""
    concepts, plans = pack("causal_core.concepts"), pack("causal_core.plan")
    denoise, captions = pack("nodes.denoise"), pack("causal_core.guidance.captions")
    CausalGraph = pack("causal_core.graph").CausalGraph

    def run(name, before, after=0, snow="deep snow on the ground"):
        clip, vocabulary = tokenizer(name)

        def fillers(label, tokens):
            """Concepts whose phrases take so many tokens, a comma after each included."""
            parts = [39] * (tokens // 40) + ([tokens % 40 - 1] if tokens % 40 else [])
            texts = [" ".join(["tree"] * words) for words in parts]
            return [concepts.Concept(f"{label} {i}", ("much",), "much", {"much": (t,)}) for i, t in enumerate(texts)]

        season = concepts.Concept(
            "season", ("summer", "winter"), "summer", {"summer": ("green grass",), "winter": (snow,)}
        )
        car = concepts.Concept("car", ("red",), "red", {"red": ("a red car",)})
        several = (*fillers("before", before), season, car, *fillers("after", after))
        plan = plans.propagate(CausalGraph(concepts.Concepts(several)), plans.Intervention({"season": "winter"}))
        rows = captions.watched_spans(lambda text: denoise.token_ids(clip, text), plan)
        read = []
        for row, caption in enumerate(captions.captions(plan)):
            ids = denoise.token_ids(clip, caption)
            read.append({
                concept: " ".join(vocabulary[i].removesuffix("</w>") for i in ids[slice(*span)])
                for concept, span in rows[row].items()
            })  # fmt: skip
        return rows, read, len(ids)

    return run


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("before", [10, 72, 75, 76, 140, 150, 152, 200])
def test_phrases_are_found_in_every_section(watched, name, before):
    rows, read, length = watched(name, before)
    assert length == 77 * math.ceil((before + 5 + 1 + 3) / 75)
    assert read[0]["season"] == "green grass"
    assert read[1]["season"] in "deep snow on the ground" and len(read[1]["season"].split()) >= 3
    start, end = rows[0]["season"]
    # A start token before every section, an end token after every full one.
    assert start == before + 2 * (before // 75) + 1 and end == start + 2


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (70, "deep snow on the ground"),
        (71, "deep snow on the"),
        (72, "deep snow on"),
        (73, "on the ground"),
        (74, "snow on the ground"),
        (75, "deep snow on the ground"),
    ],
)
def test_a_phrase_across_the_border_is_watched_where_most_of_it_is(watched, before, kept):
    rows, read, _ = watched("sd15", before)
    assert read[1]["season"] == kept
    assert (rows[1]["season"][0] >= 78) == (before >= 73)


def test_weighted_and_punctuated_phrases_are_found(watched):
    # A short weighted phrase is never divided: the encoder fills the section up and begins another.
    rows, read, _ = watched("sdxl", 74, snow="(deep snow:1.3)")
    assert read[1]["season"] == "deep snow" and rows[1]["season"][0] == 78
    rows, read, _ = watched("sd15", 100, after=60, snow="so much snow!")
    assert read[1]["season"] == "so much snow !,"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_phrase_without_tokens_is_named(pack, watched, name):
    with pytest.raises(pack("causal_core.errors").CounterfactError, match=r'phrase "\(\)" has no token'):
        watched(name, 80, snow="()")
