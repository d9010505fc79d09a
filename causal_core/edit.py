"""``counterfact edit``: one counterfactual picture from a picture and a plan, without ComfyUI."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from .errors import CounterfactError
from .guidance.csg import Settings
from .plan import CounterfactualPlan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``counterfact edit``."""
    parser.add_argument("--image", type=Path, required=True, help="the factual picture")
    parser.add_argument("--plan", type=Path, required=True, help="a counterfactual plan, JSON")
    parser.add_argument("--out", type=Path, required=True, help="folder for the picture, the masks and the report")
    parser.add_argument("--seed", type=int, default=0, help="of the abducted noise")
    parser.add_argument("--steps", type=int, default=30, help="sampling steps")
    parser.add_argument("--strength", type=float, default=Settings.strength, help="0 returns the source, 1 follows the "
                        "plan, more exaggerates")  # fmt: skip
    parser.add_argument("--fused", action="store_true", help="two evaluations a step, however many concepts change")
    parser.add_argument("--weights", type=Path, help="weights of the text-to-image model; the bundled ones without it")


def main(args: argparse.Namespace) -> int:
    """Read, edit, write."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError
    from tqdm import tqdm

    from .demo import weights_path
    from .demo.model import DemoModel
    from .guidance.picture import edit

    if args.steps < 2:
        raise CounterfactError("--steps must be at least 2")
    try:
        plan = CounterfactualPlan.from_json(args.plan.read_text(encoding="utf-8"))
        with Image.open(args.image) as opened:
            source = np.asarray(opened.convert("RGB"))
    except (OSError, UnicodeDecodeError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CounterfactError(f"cannot read what to edit: {error}") from None
    settings = Settings(strength=args.strength, fused=args.fused)
    model = DemoModel.load(args.weights or weights_path("micro"))
    with torch.inference_mode(), tqdm(unit="step") as bar:
        found = edit(model, source, plan, args.seed, args.steps, settings, progress=lambda step, denoised: bar.update())
    args.out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(found.picture).save(args.out / "counterfactual.png")
    for number, region in enumerate(found.regions.values(), 1):
        # Numbered: names come from the plan and may be no file names.
        mask = Image.fromarray((region.numpy() * 255).round().astype(np.uint8))
        mask.resize(source.shape[1::-1], Image.Resampling.BILINEAR).save(args.out / f"mask-{number:02d}.png")
    report = {
        "do": dict(plan.intervention.do),
        "affected": [
            {"name": item.name, "factual": item.factual, "counterfactual": item.counterfactual,
             "mask": f"mask-{number:02d}.png", "area": float(found.regions[item.name].mean())}
            for number, item in enumerate(plan.affected, 1) if item.name in found.regions
        ],
        "evaluations": found.result.evaluations,
        "seed": args.seed,
        "settings": {**asdict(settings), "steps": args.steps},
    }  # fmt: skip
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(args.out / "counterfactual.png")
    return 0
