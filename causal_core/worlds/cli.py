"""``counterfact world render`` and ``counterfact world counterfactual``: scenes and their truths as PNG and JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import CounterfactError
from ..plan import parse_intervention
from . import WORLDS, Scene, World, get_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of both actions to a parser."""
    parser.add_argument("action", choices=("render", "counterfactual"))
    parser.add_argument("--world", default="cottage", help="one of " + ", ".join(WORLDS))
    parser.add_argument("--seed", type=int, default=0, help="fixes the scene: same seed, same bytes")
    parser.add_argument("--size", type=int, default=64, help="side length in pixels, 16 to 1024")
    parser.add_argument("--do", default="", help='interventions, for instance "season = winter, time = night"')
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for the files")


def main(args: argparse.Namespace) -> int:
    """Write the scene (and, for ``counterfactual``, the scene under ``--do`` with the same noise)."""
    if not 16 <= args.size <= 1024:
        raise CounterfactError(f"--size must be from 16 to 1024 pixels, not {args.size}")
    if args.seed < 0:
        raise CounterfactError(f"--seed must be 0 or more, not {args.seed}")
    if args.action == "counterfactual" and not args.do:
        raise CounterfactError('--do is empty: name what to change, for instance --do "season = winter"')
    world = get_world(args.world)
    do = dict(parse_intervention(args.do, world.concepts()).do) if args.do else {}
    stem = f"{world.name}_{args.seed}"
    if args.action == "render":
        _write(world, world.sample(args.seed, do), args.size, args.out, stem)
        return 0
    scene = world.sample(args.seed)
    _write(world, scene, args.size, args.out, f"{stem}_factual")
    _write(world, world.counterfactual(scene, do), args.size, args.out, f"{stem}_counterfactual")
    return 0


def _write(world: World, scene: Scene, size: int, folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    info.add_text("caption", world.caption(scene))
    Image.fromarray(world.render(scene, size)).save(folder / f"{stem}.png", pnginfo=info)
    (folder / f"{stem}.json").write_text(scene.to_json() + "\n", encoding="utf-8")
    print(folder / f"{stem}.png")
