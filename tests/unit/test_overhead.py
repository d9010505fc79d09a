"""The benchmark of overhead: true architectures, honest counts of memory, and regressions that it must show."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from causal_core.attention import capture
from causal_core.attention.processors import capturing
from causal_core.bench import overhead
from causal_core.errors import CounterfactError

CPU = torch.device("cpu")
# Latents of 576 places, and self-attention over all of them: its probabilities alone would take 5 MB a row.
SMALL = overhead.Shape(
    "small",
    {
        "sample_size": 24,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    192, 8, 24, 2, half=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def unet():
    with torch.inference_mode():
        return overhead.random_unet(SMALL.unet, CPU, torch.float32)


@pytest.fixture
def inputs():
    return overhead.random_inputs(SMALL, CPU, torch.float32)


@pytest.fixture(scope="module")
def measured(unet):
    """Extra memory in MB, by a function that replaces the arm with capture."""
    inputs = overhead.random_inputs(SMALL, CPU, torch.float32)

    def peak(arm):
        with torch.inference_mode():
            arm(unet, inputs, overhead.Stopwatch(CPU))  # warm
            return overhead.peak_bytes(lambda: arm(unet, inputs, overhead.Stopwatch(CPU)), CPU) / 1e6

    before = peak(lambda unet, inputs, watch: overhead.plain(unet, inputs))
    return lambda arm=overhead.guided: peak(arm) - before


@pytest.fixture(scope="module")
def as_it_is(measured):
    """Extra memory of the arm as it is."""
    return measured()


@pytest.fixture(scope="module")
def on_meta():
    """The networks of the shapes by name, without memory for their weights."""

    @cache
    def unet(name):
        with torch.device("meta"):
            return UNet2DConditionModel(**overhead.SHAPES[name].unet)

    return unet


@pytest.mark.parametrize(("name", "parameters"), [("sd15_512", 859_520_964), ("sdxl_1024", 2_567_463_684)])
def test_architectures_have_the_parameters_of_the_released_models(on_meta, name, parameters):
    assert sum(p.numel() for p in on_meta(name).parameters()) == parameters


@pytest.mark.parametrize("name", overhead.SHAPES)
def test_every_shape_runs(on_meta, name):
    shape, meta = overhead.SHAPES[name], torch.device("meta")
    side = shape.size // shape.patch
    with torch.inference_mode():
        found = overhead.plain(on_meta(name), overhead.random_inputs(shape, meta, torch.float32))
    assert found.shape == (2, shape.unet.get("in_channels", 4), side, side)
    assert max(end for _, end in overhead.SPANS.values()) < shape.tokens


def test_both_arms_are_one_model_and_self_attention_stays_on_the_fast_path(unet, inputs, monkeypatch):
    before = unet.attn_processors
    with capturing(unet, capture.AttentionMaps({0: overhead.SPANS}, (24, 24)), [0, 1]):
        within = unet.attn_processors
    changed = {name for name in before if within[name] is not before[name]}
    assert changed == {name for name in before if ".attn2." in name} and len(changed) == len(before) / 2
    untouched = [processor for name, processor in within.items() if ".attn1." in name]
    assert untouched and all(type(processor) is AttnProcessor2_0 for processor in untouched)
    assert unet.attn_processors == before
    seen = []
    monkeypatch.setattr(overhead, "STRENGTH", 0.0)
    monkeypatch.setattr(overhead, "blurred", lambda image, sigma: seen.append(image) or image)
    with torch.inference_mode():
        plain, watch = overhead.plain(unet, inputs), overhead.Stopwatch(CPU)
        guided = overhead.guided(unet, inputs, watch)
    assert plain.isfinite().all() and plain.std() > 0
    # Every layer of cross-attention, and the step at the end.
    assert len(watch.laps) == len(before) / 2 + 1
    assert torch.equal(guided, plain[:1]) and len(seen) == 3 and all(image.max() > 0 for image in seen)


def test_memory_is_counted_to_the_byte():
    def work(mb):
        first = torch.empty(mb * 10**6, dtype=torch.uint8)
        second = torch.empty(2 * 10**6, dtype=torch.uint8)
        del first
        return torch.empty(10**6, dtype=torch.uint8), second

    assert overhead.peak_bytes(lambda: work(5), CPU) == 7_000_000
    assert overhead.peak_bytes(lambda: work(6), CPU) == 8_000_000
    assert overhead.peak_bytes(lambda: None, CPU) == 0


def test_memory_is_the_same_every_time(measured, as_it_is):
    assert measured() == as_it_is < 1


def test_stored_maps_of_all_tokens_show(measured, as_it_is, monkeypatch):
    def store(maps, q, k, heads, rows, shape, **_):
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
        maps.sums[len(maps.sums)] = (q @ k.transpose(-1, -2)).softmax(-1)

    monkeypatch.setattr(capture.AttentionMaps, "add", store)
    monkeypatch.setattr(capture.AttentionMaps, "mean", lambda maps, name: torch.ones(maps.grid))
    # Two rows, four heads, 24 tokens, 4 bytes: three layers of 576 places and four of 144.
    assert measured() - as_it_is == pytest.approx(2 * 4 * 24 * 4 * (3 * 576 + 4 * 144) / 1e6, abs=0.3)


def test_self_attention_that_is_not_fused_shows(measured):
    def unfused(unet, inputs, watch):
        before = unet.attn_processors
        unet.set_attn_processor({
            name: AttnProcessor() if ".attn1." in name else processor for name, processor in before.items()
        })  # fmt: skip
        try:
            return overhead.guided(unet, inputs, watch)
        finally:
            unet.set_attn_processor(before)

    # The probabilities alone: two rows, four heads, 576 places by 576, 4 bytes.
    assert measured(unfused) > 10.6


def test_ratios_are_those_of_pairs_in_changing_order(monkeypatch):
    order, done = [], []
    times = iter([(1.0, 0.0), (1.5, 0.3), (3.0, 0.4), (2.0, 0.0), (10.0, 0.0), (11.0, 0.5)])
    monkeypatch.setattr(overhead, "peak_bytes", lambda function, device: function() * 10**6)
    monkeypatch.setattr(overhead, "timed", lambda arm, device: arm(None) and overhead.Timing(*next(times), 7.0))
    found = overhead.compare(
        lambda watch: order.append("one") or 1,
        lambda watch: order.append("other") or 3,
        3, CPU, lambda: done.append(1),
    )  # fmt: skip
    assert order == ["one", "other"] + ["one", "other", "other", "one", "one", "other"] and len(done) == 8
    assert found["time_ratio"] == 1.5 and found["extra_mb"] == 2.0
    assert found["time_ratio_lowest"] == pytest.approx(1.1) and found["time_ratio_highest"] == 1.5
    assert found["added_share"] == pytest.approx(0.2) and found["added_seconds"] == 0.4
    assert found["seconds_without"] == 2.0 and found["seconds_with"] == 3.0 and found["wall_seconds_with"] == 7.0


def test_only_work_is_timed_and_what_is_added_apart():
    import time

    def arm(watch):
        time.sleep(0.05)
        for _ in range(2):
            with watch:
                sum(range(100_000))
        sum(range(1_000_000))

    found = overhead.timed(arm, CPU)
    # Sleeping is no work, however busy the machine is.
    assert 0 < found.added < found.work < found.wall - 0.045


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command with words; returns what it prints. The shape "demo" is the small one."""
    monkeypatch.setitem(overhead.SHAPES, "demo", replace(SMALL, name="demo"))

    def run(*words):
        parser = argparse.ArgumentParser()
        overhead.add_arguments(parser)
        assert overhead.main(parser.parse_args(words)) == 0
        return capsys.readouterr().out

    return run


def test_a_run_prints_its_table_and_writes_its_metrics(run, tmp_path):
    out = tmp_path / "out.json"
    printed = run("--shapes", "demo", "--repeats", "2", "--device", "cpu", "--json", str(out))
    written = json.loads(out.read_text())
    assert written["bench"] == "overhead" and written["version"] == 1
    metrics, config = written["metrics"], written["config"]
    assert metrics["demo.time_ratio"] > 0 and metrics["demo.extra_mb"] >= 0 and metrics["demo.peak_mb_with"] > 0
    assert config["repeats"] == {"demo": 2} and config["dtypes"] == {"demo": "float32"} and config["device"] == "cpu"
    assert "| demo | float32 |" in printed and "CPU time of the process" in printed


def test_another_size_has_another_name(run, tmp_path):
    out = tmp_path / "out.json"
    run("--shapes", "demo", "--repeats", "1", "--size", "128", "--device", "cpu", "--json", str(out))
    assert {name.split(".")[0] for name in json.loads(out.read_text())["metrics"]} == {"demo_128"}
    assert overhead.resized(overhead.SHAPES["sdxl_1024"], 512).name == "sdxl_512"


@pytest.mark.parametrize(("words", "message"), [
    (["--repeats", "0"], "--threads and --repeats must be at least 1"),
    (["--threads", "0"], "--threads and --repeats must be at least 1"),
    (["--size", "100"], "--size must be a multiple of 64 pixels, not 100"),
    (["--size", "0"], "--size must be a multiple of 64 pixels, not 0"),
])  # fmt: skip
def test_bad_options_are_named(run, words, message):
    with pytest.raises(CounterfactError, match=message):
        run("--shapes", "demo", *words)


def test_a_gpu_that_is_not_there_is_named(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CounterfactError, match="--device cuda: there is no GPU"):
        run("--shapes", "demo", "--device", "cuda")
