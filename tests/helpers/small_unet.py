"""A small network with attention, in the form in which the benchmark of overhead has its shapes."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest

from causal_core.bench import overhead
from causal_core.bench.overhead import Shape

# Latents of 576 places, and self-attention over all of them: its probabilities alone would take 5 MB a row.
SMALL = Shape(
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


@pytest.fixture
def overhead_command(capsys, monkeypatch):
    """Run the command with words; returns what it prints. The shape "demo" is the small one, with 64 places."""
    monkeypatch.setitem(overhead.SHAPES, "demo", replace(SMALL, name="demo", size=64))

    def run(*words):
        parser = argparse.ArgumentParser()
        overhead.add_arguments(parser)
        assert overhead.main(parser.parse_args(words)) == 0
        return capsys.readouterr().out

    return run
