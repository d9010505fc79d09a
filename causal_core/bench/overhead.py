"""What attention capture and masks cost over the same batched forward without them: time and peak memory.

The two arms share weights and inputs: a UNet on two caption rows (factual and counterfactual), with nothing else, or
with attention shown to the maps of three concepts, their regions, and the weighted sum of directions of one guided step
(:mod:`causal_core.guidance.csg`). Architectures are true, weights random: neither time nor memory depends on values.

Time is the CPU time of this process, which other programs on the machine change less than wall time, or the time
between two events on a GPU. Repeats alternate between the arms and change their order every time; the ratio is the
median of the ratios of the pairs, and their lowest and highest tell how far to trust it: it has everything in it, also
a model that got slower by being looked at. The share is what capture and masks themselves take, by a clock around them
in the same passes, over the forward without; it leaves out the swapping of attention processors, and nearly all of the
machine's unrest.

Memory is the peak of what is allocated during a forward, weights apart: on a GPU the allocator's own count, on a CPU
the running sum of every allocation and release that PyTorch's profiler records, scratch space inside operators
included. Both counts are exact to the byte, unlike the size of the process; the CPU's leaves out what oneDNN and BLAS
keep to themselves.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from ..attention.capture import AttentionMaps
from ..attention.processors import capturing
from ..demo.config import get_config
from ..errors import CounterfactError
from ..guidance.regions import blurred, magnitude, region

MB = 1e6
ROWS = (0, 1)
SPANS = {"first": (2, 5), "second": (7, 8), "third": (12, 18)}
STRENGTH, FEATHER = 1.25, 0.7

# Rombach et al. 2022 (CVPR), the sizes of the released v1 models; 8 is the number of heads of every level.
SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
# Podell et al. 2023 (arXiv 2307.01952), table 1; the text_time embedding is 1280 pooled numbers and 6 sizes of 256.
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@dataclass(frozen=True)
class Shape:
    """One architecture at one size.

    Attributes
    ----------
    unet : arguments of `diffusers.UNet2DConditionModel`
    size, patch : side in pixels of the picture, and of what becomes one latent position
    tokens : length of a caption
    repeats : timed pairs where none are asked for
    half : whether the family is run in half precision where the machine computes in it
    """

    name: str
    unet: Mapping[str, Any]
    size: int
    patch: int
    tokens: int
    repeats: int
    half: bool = True


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("demo", get_config("micro").unet_config(), 64, 4, get_config("micro").max_length, 50, half=False),
        Shape("sd15_512", SD15, 512, 8, 77, 5),
        Shape("sdxl_1024", SDXL, 1024, 8, 77, 1),
    )
}


def resized(shape: Shape, size: int) -> Shape:
    """The same architecture at another size, named after it."""
    if size < 64 or size % 64:
        raise CounterfactError(f"--size must be a multiple of 64 pixels, not {size}")
    return replace(shape, name=f"{shape.name.split('_')[0]}_{size}", size=size)


def half_precision(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 rather than emulating it."""
    if device.type == "cuda":
        return True
    able = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def random_unet(config: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> torch.nn.Module:
    """A UNet of that architecture with random weights, without the minutes that a proper initialisation takes."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    for module in unet.modules():
        module._apply(lambda t: t.to(dtype) if t.is_floating_point() else t, recurse=False)
    unet = unet.to_empty(device=device).eval().requires_grad_(False)
    noise = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    for parameter in unet.parameters():
        repeats = -(-parameter.numel() // len(noise))
        parameter.copy_(noise.repeat(repeats)[: parameter.numel()].view_as(parameter))
    return unet


def random_inputs(shape: Shape, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of one forward of two caption rows over the same latent."""
    generator = torch.Generator().manual_seed(1)

    def noise(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(device, dtype)

    side = shape.size // shape.patch
    inputs = {
        "sample": noise(1, shape.unet.get("in_channels", 4), side, side).repeat(2, 1, 1, 1),
        "timestep": torch.full((2,), 500, device=device),
        "encoder_hidden_states": noise(2, shape.tokens, shape.unet["cross_attention_dim"]),
    }
    if shape.unet.get("addition_embed_type") == "text_time":
        sizes = torch.tensor([shape.size, shape.size, 0, 0, shape.size, shape.size], device=device)
        inputs["added_cond_kwargs"] = {"text_embeds": noise(2, 1280), "time_ids": sizes.to(dtype).repeat(2, 1)}
    return inputs


class Stopwatch:
    """Adds up how long a device works on what runs within it: CPU time of this process, or between two GPU events.

    >>> watch = Stopwatch(torch.device("cpu"))
    >>> with watch:
    ...     total = sum(range(1000))
    >>> watch.seconds() > 0
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.laps = device, []

    def _now(self) -> float | torch.cuda.Event:
        if self.device.type != "cuda":
            return time.process_time()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self) -> None:
        self.started = self._now()

    def __exit__(self, *_: object) -> None:
        self.laps.append((self.started, self._now()))

    def seconds(self) -> float:
        """The sum; waits for a GPU to finish."""
        if self.device.type != "cuda":
            return sum(end - start for start, end in self.laps)
        torch.cuda.synchronize(self.device)
        return sum(start.elapsed_time(end) for start, end in self.laps) / 1000


class TimedMaps(AttentionMaps):
    """Maps that time their own work."""

    def __init__(self, watched: Mapping, grid: tuple[int, int], watch: Stopwatch) -> None:
        super().__init__(watched, grid)
        self.watch = watch

    def add(self, *args: Any, **more: Any) -> None:
        """See :meth:`AttentionMaps.add`."""
        with self.watch:
            super().add(*args, **more)


def plain(unet: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """The forward alone: [2, C, h, w]."""
    return unet(**inputs).sample


def guided(unet: torch.nn.Module, inputs: Mapping[str, Any], watch: Stopwatch) -> torch.Tensor:
    """The same forward with everything that one guided step adds to it, timed: the guided prediction [1, C, h, w]."""
    maps = TimedMaps({row: SPANS for row in ROWS}, tuple(inputs["sample"].shape[-2:]), watch)
    with capturing(unet, maps, ROWS):
        before, after = unet(**inputs).sample.chunk(2)
    with watch:
        direction, target = after - before, before
        size = magnitude(direction)
        for name in SPANS:
            weight = blurred(region(size, maps.mean(name).to(size.device)), FEATHER)
            target = target + STRENGTH * weight.to(direction) * direction
    return target


Arm = Callable[[Stopwatch], Any]


class Timing(NamedTuple):
    """Seconds of one pass: the device's work, the part of it that the arm timed, and by the clock on the wall."""

    work: float
    added: float
    wall: float


def timed(arm: Arm, device: torch.device) -> Timing:
    """One pass of an arm."""
    whole, added = Stopwatch(device), Stopwatch(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall = time.perf_counter()
    with whole:
        arm(added)
    work = whole.seconds()
    return Timing(work, added.seconds(), time.perf_counter() - wall)


def peak_bytes(function: Callable[[], Any], device: torch.device) -> int:
    """Most bytes allocated at once during a call, over what was allocated before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # The profiler's tracer complains of a missing GPU otherwise; it reads this once, when it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        function()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    peak = held = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def compare(one: Arm, other: Arm, repeats: int, device: torch.device, done: Callable[[], None]) -> dict[str, float]:
    """Time and memory of two arms side by side.

    Parameters
    ----------
    one, other : without and with what is measured; each is called with a stopwatch for what it adds
    repeats : timed pairs; the passes that memory is counted in come first and warm everything up
    done : called after each pass

    Returns
    -------
    dict
        `time_ratio` (with its lowest and highest over the pairs), `added_share` and `extra_mb` of the other arm over
        the one; medians of seconds of work, of what was added and by the clock on the wall; peaks in MB (10**6 bytes).
    """
    peaks, pairs = [], []
    for arm in (one, other):
        peaks.append(peak_bytes(lambda arm=arm: arm(Stopwatch(device)), device) / MB)
        done()
    for number in range(repeats):
        pair = {}
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            pair[index] = timed((one, other)[index], device)
            done()
        pairs.append((pair[0], pair[1]))
    ratios = [with_.work / without.work for without, with_ in pairs]
    return {
        "time_ratio": median(ratios),
        "time_ratio_lowest": min(ratios),
        "time_ratio_highest": max(ratios),
        "added_share": median(with_.added / without.work for without, with_ in pairs),
        "added_seconds": median(with_.added for _, with_ in pairs),
        "seconds_without": median(without.work for without, _ in pairs),
        "seconds_with": median(with_.work for _, with_ in pairs),
        "wall_seconds_without": median(without.wall for without, _ in pairs),
        "wall_seconds_with": median(with_.wall for _, with_ in pairs),
        "extra_mb": peaks[1] - peaks[0],
        "peak_mb_without": peaks[0],
        "peak_mb_with": peaks[1],
    }


@contextmanager
def _progress(name: str, passes: int) -> Iterator[Callable[[], None]]:
    from tqdm import tqdm

    with tqdm(total=passes, desc=name, unit="pass") as bar:
        yield bar.update


def run(shape: Shape, repeats: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The metrics of one shape; see :func:`compare`."""
    with torch.inference_mode():
        unet, inputs = random_unet(shape.unet, device, dtype), random_inputs(shape, device, dtype)
        with _progress(shape.name, 2 + 2 * repeats) as done:
            return compare(lambda _: plain(unet, inputs), lambda w: guided(unet, inputs, w), repeats, device, done)


def table(metrics: Mapping[str, float], types: Mapping[str, str]) -> str:
    """The metrics as a Markdown table, one row a shape."""
    columns = {
        "time without (s)": ("{:.4f}", "seconds_without"),
        "with (s)": ("{:.4f}", "seconds_with"),
        "ratio": ("{:.3f}", "time_ratio"),
        "of pairs": ("{:.3f} to {:.3f}", "time_ratio_lowest", "time_ratio_highest"),
        "capture and masks (s)": ("{:.4f}", "added_seconds"),
        "share": ("{:.2%}", "added_share"),
        "wall without (s)": ("{:.4f}", "wall_seconds_without"),
        "wall with (s)": ("{:.4f}", "wall_seconds_with"),
        "peak without (MB)": ("{:.2f}", "peak_mb_without"),
        "peak with (MB)": ("{:.2f}", "peak_mb_with"),
        "extra (MB)": ("{:.2f}", "extra_mb"),
    }
    lines = ["| shape | numbers | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 2)]
    for name, dtype in types.items():
        cells = [form.format(*(metrics[f"{name}.{key}"] for key in keys)) for form, *keys in columns.values()]
        lines.append(f"| {name} | {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact bench overhead``."""
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="what to measure")
    parser.add_argument(
        "--repeats", type=int, help="timed pairs of each shape; without it " + _repeats_of_shapes() + ", as time allows"
    )
    parser.add_argument("--size", type=int, help="side of the picture in pixels instead of the shapes' own")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto",
        help="of weights and inputs; auto takes bfloat16 for the large models where the machine computes in it. "
        "SDXL takes 5 GB of memory in bfloat16, 10 GB in float32, and 2 GB more for a forward",
    )  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--json", type=Path, help="write the metrics to this file")


def _repeats_of_shapes() -> str:
    return ", ".join(f"{shape.repeats} for {name}" for name, shape in SHAPES.items())


def main(args: argparse.Namespace) -> int:
    """Run, print the table, write the JSON."""
    if args.threads < 1 or (args.repeats is not None and args.repeats < 1):
        raise CounterfactError("--threads and --repeats must be at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise CounterfactError("--device cuda: there is no GPU that PyTorch can use; run with --device cpu")
    torch.set_num_threads(args.threads)
    wanted = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device, started = torch.device(wanted), time.perf_counter()
    shapes = [SHAPES[name] if args.size is None else resized(SHAPES[name], args.size) for name in args.shapes]
    metrics: dict[str, float] = {}
    types: dict[str, str] = {}
    repeats: dict[str, int] = {}
    for shape in shapes:
        half = shape.half and half_precision(device)
        types[shape.name] = args.dtype if args.dtype != "auto" else "bfloat16" if half else "float32"
        repeats[shape.name] = args.repeats or shape.repeats
        found = run(shape, repeats[shape.name], device, getattr(torch, types[shape.name]))
        metrics.update({f"{shape.name}.{key}": value for key, value in found.items()})
        gc.collect()
    clock = "time between GPU events" if device.type == "cuda" else "CPU time of the process"
    config = {
        "repeats": repeats,
        "dtypes": types,
        "rows": len(ROWS),
        "concepts": len(SPANS),
        "threads": args.threads,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "clock": clock,
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(table(metrics, types))
    print(f"time: {clock}, {args.threads} threads; memory: peak over what was allocated before a forward")
    if args.json:
        document = {"bench": "overhead", "version": 1, "config": config, "metrics": metrics}
        args.json.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0
