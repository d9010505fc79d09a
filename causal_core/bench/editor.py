"""How smoothly the graph editor drags a concept: frames a second in a real browser, in both renderers of the canvas.

A graph of 50 concepts and 100 edges is dragged with the mouse; the page counts its own animation frames meanwhile, of
which a browser makes at most 60 a second. Without a graphics card the processor draws everything, so this is the slow
case.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..concepts import Concept, Concepts
from ..graph import CausalGraph, Edge

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONCEPTS, EDGES = 50, 100
LAYERS = (8, 10, 9, 8, 7, 5, 3)
SECONDS = 4.0
RENDERERS = {"litegraph": False, "vue": True}

COUNT_FRAMES = """() => {
    const frames = window.counterfactFrames = [];
    const count = (now) => {
        frames.push(now);
        if (window.counterfactFrames === frames) requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
}"""
TAKE_FRAMES = "() => { const frames = window.counterfactFrames; window.counterfactFrames = null; return frames; }"


def large_graph(seed: int = 1) -> CausalGraph:
    """50 concepts in seven layers, 100 edges that mostly go from one layer to the next, and two latent confounders.

    Examples
    --------
    >>> graph = large_graph()
    >>> len(graph.concepts), len(graph.edges), len(graph.confounded)
    (50, 100, 2)
    """
    rng = random.Random(seed)
    layer = [i for i, size in enumerate(LAYERS) for _ in range(size)]
    names = [f"{thing} {side}" for thing in ("sky", "lake", "road", "house", "tree", "field", "river", "cloud",
             "street", "garden") for side in ("colour", "light", "state", "size", "mood")]  # fmt: skip
    rng.shuffle(names)
    links: set[tuple[int, int]] = set()
    while len(links) < EDGES:
        a, b = rng.sample(range(CONCEPTS), 2)
        if 0 < layer[b] - layer[a] <= (2 if rng.random() < 0.3 else 1):
            links.add((a, b))
    concepts = Concepts(tuple(Concept(name, ("low", "high"), "low") for name in names))
    edges = tuple(Edge(names[a], names[b], round(rng.uniform(0.3, 1.0), 2)) for a, b in sorted(links))
    return replace(CausalGraph(concepts, edges), confounded=((names[3], names[9]), (names[20], names[31])))


def drag(page: Page, seconds: float) -> list[float]:
    """Drag a concept in circles; the times of all frames meanwhile, in milliseconds."""
    card = page.locator(".cf-card").nth(CONCEPTS // 2)
    box = card.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 20, steps=5)
    page.evaluate(COUNT_FRAMES)
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        page.mouse.move(x + 20 + 70 * math.sin(3 * passed), y + 20 + 50 * math.cos(3 * passed))
    frames = page.evaluate(TAKE_FRAMES)
    page.mouse.up()
    if card.bounding_box() == box:
        raise RuntimeError("the concept did not follow the mouse")
    return frames


def figures(frames: list[float]) -> dict[str, float]:
    """Frames a second over all, and the times of slow frames in milliseconds.

    Examples
    --------
    >>> figures([0.0, 20.0, 40.0, 100.0])
    {'frames_per_second': 30.0, 'slow_frame_ms': 60.0, 'slowest_frame_ms': 60.0}
    """
    gaps = sorted(b - a for a, b in zip(frames, frames[1:]))
    return {
        "frames_per_second": 1000.0 * len(gaps) / sum(gaps),
        "slow_frame_ms": gaps[math.ceil(0.95 * len(gaps)) - 1],
        "slowest_frame_ms": gaps[-1],
    }


def run(args: argparse.Namespace) -> dict[str, float]:
    """Start a server and a browser and measure; `editor.frames_per_second` is that of the slower renderer."""
    from ..comfyui.browser import add_editor, chromium, empty_canvas, open_comfyui
    from ..comfyui.locate import find_pack
    from ..comfyui.server import ComfyServer

    document = large_graph(getattr(args, "seed", 1)).to_json()
    metrics = {}
    with ComfyServer(find_pack(), cpu=True) as server, chromium() as browser:
        for name, vue in RENDERERS.items():
            page = open_comfyui(browser, server.url, vue)
            add_editor(page, document)
            page.wait_for_function("(count) => document.querySelectorAll('.cf-card').length === count", arg=CONCEPTS)
            drag(page, 1.0)  # compiled, and everything drawn once
            found = figures(drag(page, SECONDS))
            metrics |= {f"editor.{name}.{key}": value for key, value in found.items()}
            empty_canvas(page)
            page.context.close()
    speeds = [metrics[f"editor.{name}.frames_per_second"] for name in RENDERERS]
    return {"editor.frames_per_second": min(speeds), **metrics}


def table(metrics: Mapping[str, float]) -> str:
    """The figures for people."""
    lines = [f"{'editor':12} {'frames/s':>9} {'95 % of frames':>15} {'slowest':>9}"]
    for name in RENDERERS:
        rate, slow, slowest = (
            metrics[f"editor.{name}.{key}"] for key in ("frames_per_second", "slow_frame_ms", "slowest_frame_ms")
        )
        lines.append(f"{name:12} {rate:9.1f} {slow:12.0f} ms {slowest:6.0f} ms")
    return "\n".join(lines)
