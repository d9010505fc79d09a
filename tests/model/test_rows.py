"""Rows of captions with the demo model: short of memory, in half precision, with patches of other nodes."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

CAPTIONS = ["summer season, green foliage", "winter season, green foliage", "winter season, bare foliage"]
SPANS = {0: {"season": (1, 3), "foliage": (3, 5)}, 1: {"season": (1, 3)}, 2: {"foliage": (3, 5)}}
GRID = (16, 16)
SIGMA = 1.5


@pytest.fixture
def evaluate(pack, comfy_model):
    """All captions at `times` noise levels, with and without maps: the estimates, the maps and the notes."""
    module, capture = pack("nodes.denoise"), pack("causal_core.attention.capture")

    def call(model=None, times=1, watched=SPANS, finest=2, prepare=lambda conditioning: None):
        model = model or comfy_model.model
        latent = torch.randn(1, 24, *GRID, generator=torch.Generator().manual_seed(1))
        maps = capture.AttentionMaps(watched, GRID)
        maps.finest = finest
        found, notes = [], []

        def function(rows, x, mask):
            for number in range(times):
                found.append(rows(x, SIGMA / (1 + number), [0, 1, 2], maps))
            found.append(rows(x, SIGMA, [0, 1, 2]))
            notes.extend(rows.notes)
            return x

        conditionings = module.encode(comfy_model.clip, CAPTIONS)
        for conditioning in conditionings:
            prepare(conditioning[0][1])
        module.run(module.Captions(model, conditionings), {"samples": latent}, torch.tensor([SIGMA, 0.0]), function, 0)
        return SimpleNamespace(shown=torch.stack(found[:-1]), plain=found[-1], maps=maps, notes=notes)

    return call


@pytest.fixture
def tight(comfy_model):
    """The model, out of memory with more than so many captions at once; it writes down what it is asked."""

    def build(most, raised=torch.OutOfMemoryError, words="CUDA out of memory"):
        model, asked = comfy_model.model.clone(), []

        def wrapper(apply, args):
            asked.append(len(args["cond_or_uncond"]))
            if asked[-1] > most:
                raise raised(words)
            return apply(args["input"], args["timestep"], **args["c"])

        model.set_model_unet_function_wrapper(wrapper)
        return model, asked

    return build


@pytest.fixture
def tight_maps(pack, monkeypatch):
    """Out of memory where attention of so fine a layer is captured, half-way through a call."""

    def limit(finest):
        maps, calls = pack("causal_core.attention.capture").AttentionMaps, []
        add = maps.add

        def short(self, q, k, heads, rows, shape, *args, **kwargs):
            calls.append(shape)
            looked_at = self.finest * shape[0] < GRID[0] + self.finest
            if shape[0] >= finest and looked_at and self.sums:
                raise torch.OutOfMemoryError("CUDA out of memory")
            add(self, q, k, heads, rows, shape, *args, **kwargs)

        monkeypatch.setattr(maps, "add", short)
        return calls

    return limit


def same(first, second):
    return torch.allclose(first, second, rtol=0.0, atol=1e-5)


KINDS = {
    "ComfyUI's own": (torch.OutOfMemoryError, "CUDA out of memory"),
    "split attention": (RuntimeError, "Not enough memory, use lower resolution (max approx. 512x512)."),
    "MPS": (RuntimeError, "MPS backend out of memory"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_captions_come_one_at_a_time_when_memory_runs_out(evaluate, tight, caplog, kind):
    expected = evaluate(times=2)
    model, asked = tight(1, *KINDS[kind])
    with caplog.at_level(logging.WARNING):
        found = evaluate(model, times=2)
    assert same(found.shown, expected.shown) and same(found.plain, expected.plain)
    for name in ("season", "foliage"):
        assert same(found.maps.mean(name), expected.maps.mean(name))
    assert asked == [3] + 9 * [1], "what has failed once is not tried again"
    told = "memory ran out: captions are evaluated one at a time, which takes longer and gives the same"
    assert found.notes == [told] == [record.message for record in caplog.records if "memory" in record.message]


def test_then_coarse_layers_alone_are_looked_at(evaluate, tight_maps, caplog):
    plain, coarse = evaluate(times=2), evaluate(times=2, finest=4)
    tight_maps(8)
    with caplog.at_level(logging.WARNING):
        found = evaluate(times=2)
    assert same(found.shown, plain.shown) and same(found.plain, plain.plain)
    for name in ("season", "foliage"):
        assert same(found.maps.mean(name), coarse.maps.mean(name)), "nothing is left of the attempts that failed"
        assert not same(coarse.maps.mean(name), plain.maps.mean(name))
    assert [note.split()[3] for note in found.notes] == ["captions", "attention"]
    assert found.notes[1] == "memory ran out: attention is captured in coarse layers only"
    assert caplog.text.count("coarse layers only") == 1


def test_then_no_attention_is_captured(evaluate, tight_maps):
    expected = evaluate(times=3)
    calls = tight_maps(1)
    found = evaluate(times=3)
    assert same(found.shown, expected.shown) and found.maps.mean("season") is None
    assert len(found.notes) == 3 and "regions come from the size of changes" in found.notes[2]
    three = len(calls)
    evaluate(times=1)
    assert len(calls) == 2 * three > 0, "three noise levels ask for no more maps than the first of them"


def test_at_last_the_error_says_what_to_do_and_comfyui_goes_on(pack, evaluate, tight):
    import comfy.model_management as memory

    expected = evaluate()
    model, asked = tight(0)
    with pytest.raises(
        pack("causal_core.errors").CounterfactError, match="smaller picture.*fused.*fewer concepts"
    ) as e:
        evaluate(model)
    assert asked == [3, 1, 1, 1], "together, one at a time, in coarse layers, without attention"
    assert memory.is_oom(e.value), "ComfyUI unloads all models where it sees its own error"
    memory.unload_all_models()
    assert torch.equal(evaluate().shown, expected.shown)


def test_layers_of_one_size_are_not_tried_apart(pack):
    memory = pack("nodes.memory")
    savings = memory.Savings()
    savings.more(True, False)
    savings.more(True, False)
    assert (savings.rows, savings.layers, savings.maps) == (True, False, True)
    with pytest.raises(memory.OutOfMemory):
        savings.more(False, False)


def test_nothing_else_is_swallowed(evaluate, tight):
    import comfy.model_management as memory

    with pytest.raises(memory.InterruptProcessingException):
        evaluate(tight(1, memory.InterruptProcessingException)[0])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(tight(1, RuntimeError, "mat1 and mat2 shapes cannot be multiplied")[0])


def test_an_interrupt_while_memory_runs_out_stops_the_run(monkeypatch, pack, evaluate, tight):
    import comfy.model_management as memory

    model, asked = tight(1)
    monkeypatch.setattr(memory, "soft_empty_cache", lambda force=False: memory.interrupt_current_processing())
    with pytest.raises(memory.InterruptProcessingException):
        evaluate(model)
    assert asked == [3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_full_precision_numbers(pack, weights, evaluate, dtype):
    expected = evaluate()
    model = pack("nodes.demo_model").load(weights, disable_dynamic=True)[0]
    network = model.model.diffusion_model
    network.to(dtype)
    network.dtype = dtype
    found = evaluate(model)
    for one, other in ((found.shown, expected.shown), (found.plain, expected.plain)):
        assert one.dtype == torch.float32
        assert 0 < (one - other).square().mean().sqrt() < 0.03 * other.std()
    for sums in found.maps.sums.values():
        assert sums.dtype == torch.float32
    for name in ("season", "foliage"):
        image, wanted = found.maps.mean(name), expected.maps.mean(name)
        assert image.dtype == torch.float32 and torch.allclose(image, wanted, rtol=0.03)


def attn2_patch(model):
    model.set_model_attn2_patch(lambda q, k, v, options: (q, 1.5 * k, v + 0.3))


def more_tokens(model):
    """As IP-Adapter has done it: tokens of a picture after those of the text."""
    more = lambda t: torch.cat([t, t.flip(1)[:, :4] + 0.5], 1)  # noqa: E731
    model.set_model_attn2_patch(lambda q, k, v, options: (q, more(k), more(v)))


def attn2_output_patch(model):
    model.set_model_attn2_output_patch(lambda out, options: 0.5 * out)


def function_wrapper(model):
    model.set_model_unet_function_wrapper(lambda f, args: 0.9 * f(args["input"], args["timestep"], **args["c"]))


def lora(model):
    import comfy.sd

    layer = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k"
    weight = model.get_model_object(f"{layer}.weight")
    generator = torch.Generator().manual_seed(4)
    ranks = {"lora_up": (weight.shape[0], 2), "lora_down": (2, weight.shape[1])}
    found = {f"{layer}.{side}.weight": torch.randn(size, generator=generator) for side, size in ranks.items()}
    return comfy.sd.load_lora_for_models(model, None, found, 1.0, 1.0)[0]


@pytest.mark.parametrize("patch", [attn2_patch, more_tokens, attn2_output_patch, function_wrapper, lora])
def test_patches_of_other_nodes_act_with_and_without_maps(comfy_model, evaluate, patch):
    plain, model = evaluate(), comfy_model.model.clone()
    patched = evaluate(patch(model) or model)
    assert torch.equal(patched.shown[0], patched.plain), "looking changes nothing"
    assert not torch.allclose(patched.plain, plain.plain, atol=1e-4)
    assert patched.maps.mean("season").isfinite().all()
    assert torch.equal(evaluate().plain, plain.plain), "nothing is left on the model"


def test_control_acts_with_and_without_maps(evaluate):
    import comfy.controlnet

    class Control(comfy.controlnet.ControlBase):
        """Adds to the middle block, as a ControlNet does."""

        def get_control(self, x, t, cond, batched_number, transformer_options):
            return {"middle": [0.3 * torch.ones(len(x), 1, 1, 1)]}

        def copy(self):
            return self

        def get_models(self):
            return []

    control = Control()
    control.set_cond_hint(torch.zeros(1, 3, 64, 64))
    plain = evaluate()
    found = evaluate(prepare=lambda conditioning: conditioning.update(control=control))
    assert torch.equal(found.shown[0], found.plain)
    assert not torch.allclose(found.plain, plain.plain, atol=1e-4)
