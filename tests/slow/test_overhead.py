"""The benchmark of overhead: true architectures whole, and regressions of memory that it must show, and whole runs."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from causal_core.attention import capture
from causal_core.bench import overhead

from ..helpers.small_unet import SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unet():
    with torch.inference_mode():
        return overhead.random_unet(SMALL.unet, CPU, torch.float32)


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


def test_a_run_prints_its_table_and_writes_its_metrics(overhead_command, tmp_path):
    out = tmp_path / "out.json"
    printed = overhead_command("--shapes", "demo", "--repeats", "2", "--device", "cpu", "--json", str(out))
    written = json.loads(out.read_text())
    assert written["bench"] == "overhead" and written["version"] == 1
    metrics, config = written["metrics"], written["config"]
    assert metrics["demo.time_ratio"] > 0 and metrics["demo.extra_mb"] >= 0 and metrics["demo.peak_mb_with"] > 0
    assert config["repeats"] == {"demo": 2} and config["dtypes"] == {"demo": "float32"} and config["device"] == "cpu"
    assert "| demo | float32 |" in printed and "CPU time of the process" in printed


def test_another_size_has_another_name(overhead_command, tmp_path):
    out = tmp_path / "out.json"
    overhead_command("--shapes", "demo", "--repeats", "1", "--size", "128", "--device", "cpu", "--json", str(out))
    assert {name.split(".")[0] for name in json.loads(out.read_text())["metrics"]} == {"demo_128"}
    assert overhead.resized(overhead.SHAPES["sdxl_1024"], 512).name == "sdxl_512"
