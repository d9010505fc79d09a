"""The benchmark of overhead: two arms that are one model, honest counts, and options that are no good."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from causal_core.attention import capture
from causal_core.attention.processors import capturing
from causal_core.bench import overhead
from causal_core.errors import CounterfactError

from ..helpers.small_unet import SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unet():
    with torch.inference_mode():
        return overhead.random_unet(SMALL.unet, CPU, torch.float32)


@pytest.fixture
def inputs():
    return overhead.random_inputs(SMALL, CPU, torch.float32)


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


@pytest.mark.parametrize(("words", "message"), [
    (["--repeats", "0"], "--threads and --repeats must be at least 1"),
    (["--threads", "0"], "--threads and --repeats must be at least 1"),
    (["--size", "100"], "--size must be a multiple of 64 pixels, not 100"),
    (["--size", "0"], "--size must be a multiple of 64 pixels, not 0"),
])  # fmt: skip
def test_bad_options_are_named(overhead_command, words, message):
    with pytest.raises(CounterfactError, match=message):
        overhead_command("--shapes", "demo", *words)


def test_a_gpu_that_is_not_there_is_named(overhead_command, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CounterfactError, match="--device cuda: there is no GPU"):
        overhead_command("--shapes", "demo", "--device", "cuda")
