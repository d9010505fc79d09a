"""What an edit did, in numbers: a document that the sampler begins and a look at the edited picture completes.

Effectiveness, composition and reversibility follow Monteiro et al. (ICLR 2023); effectiveness and drift
need the values of the concepts, read again in the edited picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from ..concepts import Concepts
from ..errors import CounterfactError, folded, read_document, write_document
from ..metrics import psnr
from ..plan import CounterfactualPlan, Intervention, PlanItem
from .csg import Result
from .regions import dilated

KIND, VERSION = "counterfact.report", 1


def sampled(plan: CounterfactualPlan, results: Sequence[Result], strength: float = 1.0) -> dict[str, Any]:
    """What a sampler did.

    Parameters
    ----------
    results : one for each picture of a batch
    strength : that of the whole edit; each concept has its own besides

    Returns
    -------
    dict for :func:`write_report`; areas are shares of a picture, means over the batch
    """
    affected = [
        {
            "name": item.name,
            "factual": item.factual,
            "counterfactual": item.counterfactual,
            "strength": strength * item.strength,
            "area": _mean([float(r.regions[item.name].mean()) if item.name in r.regions else 0.0 for r in results]),
        }
        for item in plan.affected
    ]
    return {
        "do": dict(plan.intervention.do),
        "affected": affected,
        "invariant": [item.name for item in plan.invariant],
        "images": len(results),
        "rows_per_step": _mean([r.rows_per_step for r in results]),
    }


def compared(
    plan: CounterfactualPlan,
    source: torch.Tensor,
    edited: torch.Tensor,
    regions: Mapping[str, torch.Tensor],
    read: Concepts | None = None,
    margin: int = 0,
) -> dict[str, Any]:
    """What one picture shows of an edit.

    Parameters
    ----------
    source, edited : float [H, W, 3], 0 to 1
    regions : region of each affected concept, [H, W], 0 to 1
    read : concepts with the values that the edited picture shows
    margin : pixels around the regions that do not count as outside, 0 and up

    Returns
    -------
    dict for :func:`write_report`; None stands for what cannot be known

        ``areas`` share of the picture by concept; ``outside`` the share of the pixels that lie outside of all regions,
        there ``psnr`` in dB (at most 99) and ``mean_change`` of a channel, 0 to 1; and if values were read:
        ``read`` values by concept, ``effectiveness`` the shares of the intervened concepts and of the changed
        descendants that show their counterfactual value, ``invariant_drift`` the share of the invariants that show
        another value than before, ``drifted`` their names.

    Raises
    ------
    CounterfactError
        If ``read`` has no value for any concept of the plan.
    """
    reached = torch.zeros(source.shape[:2])
    for region in regions.values():
        reached = torch.maximum(reached, region.float().cpu())
    outside = dilated(reached, margin) == 0.0
    before, after = ((picture.float().cpu().clamp(0, 1) * 255).round().byte().numpy() for picture in (source, edited))
    found: dict[str, Any] = {
        "areas": {name: float(region.mean()) for name, region in regions.items()},
        "outside": {
            "share": float(outside.float().mean()),
            "psnr": _known(psnr(before, after, outside.numpy())),
            "mean_change": _known(float((source - edited).abs().cpu()[outside].mean())),
            "margin": margin,
        },
    }
    return found if read is None else found | _judged(plan, read)


def _judged(plan: CounterfactualPlan, read: Concepts) -> dict[str, Any]:
    """Which values are as they should be."""
    values = {item.name: read[item.name].value for item in plan.items if item.name in read.names}
    seen = {name: value for name, value in values.items() if value is not None}
    if not seen:
        raise CounterfactError(
            f"concepts: they have no value for any concept of the plan ({', '.join(plan.concepts.names)}); connect "
            "Extract Concepts for the edited picture, with the concepts of the source"
        )

    right = {
        item.name: folded(seen[item.name]) == folded(item.counterfactual)
        for item in plan.items
        if item.name in seen and item.counterfactual is not None
    }

    def share(items: Iterable[PlanItem]) -> float | None:
        return _mean([right[item.name] for item in items if item.name in right])

    kept = share(plan.invariant)
    return {
        "read": seen,
        "effectiveness": {
            "intervened": share(item for item in plan.affected if item.role == "intervened"),
            "descendants": share(item for item in plan.affected if item.role == "descendant"),
        },
        "invariant_drift": None if kept is None else 1.0 - kept,
        "drifted": [item.name for item in plan.invariant if right.get(item.name) is False],
    }


def write_report(report: Mapping[str, Any]) -> str:
    """A ``counterfact.report`` document; the same report always gives the same text."""
    return write_document(KIND, VERSION, dict(report))


def read_report(document: str, plan: CounterfactualPlan) -> dict[str, Any]:
    """Read a ``counterfact.report`` document; CounterfactError if it is none, or is about another plan."""
    report = read_document(document, KIND, VERSION)
    do = report.get("do")
    if do != dict(plan.intervention.do):
        told = Intervention(do) if isinstance(do, dict) else "nothing known"
        raise CounterfactError(
            f"it is about {told}, but the plan is about {plan.intervention}; connect both of the same edit"
        )
    return report


def table(plan: CounterfactualPlan, report: Mapping[str, Any]) -> str:
    """A report for people, in Markdown: what became of each concept, and the measures below."""
    seen, areas = report.get("read", {}), report.get("areas", {})
    heads = ["concept", "role", "before", "after", "region", *(["read again"] if seen else [])]
    lines = [heads, ["---"] * len(heads)]
    for item in plan.items:
        after = item.counterfactual if item.changed else "same"
        area = f"{100 * areas[item.name]:.1f} %" if item.name in areas else ""
        again = [seen.get(item.name, "")] if seen else []
        if again and again[0] and item.counterfactual is not None:
            again = [f"{again[0]} ({'right' if folded(again[0]) == folded(item.counterfactual) else 'wrong'})"]
        lines.append([item.name, item.role, item.factual or "?", after or "?", area, *again])
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*rows, "", *(f"- {line}" for line in measures(report))])


def measures(report: Mapping[str, Any]) -> list[str]:
    """The measures of a report, a line each; those that it lacks are left out.

    >>> measures({"effectiveness": {"intervened": 1.0, "descendants": None}, "composition": {"max_latent_error": 2e-6}})
    ['effectiveness: 100 % of what was set', 'composition: setting nothing changes the latent by 2e-06 at most']
    """

    def number(*path: str) -> float | None:
        value: Any = report
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, Real) and math.isfinite(value) else None

    def percent(*path: str) -> str | None:
        share = number(*path)
        return None if share is None else f"{100 * share:.0f} %"

    effective = [
        f"{share} of what {words}"
        for role, words in (("intervened", "was set"), ("descendants", "follows"))
        if (share := percent("effectiveness", role))
    ]
    lines = [f"effectiveness: {', '.join(effective)}"] if effective else []
    if share := percent("invariant_drift"):
        names = ", ".join(map(str, report.get("drifted", ())))
        lines.append(f"drift: {share} of the invariants show another value" + (f" ({names})" if names else ""))
    if (loss := number("outside", "psnr")) is not None:
        change = number("outside", "mean_change") or 0.0
        lines.append(f"outside the regions: PSNR {loss:.1f} dB, mean change {change:.4f}")
    if (error := number("composition", "max_latent_error")) is not None:
        lines.append(f"composition: setting nothing changes the latent by {error:.2g} at most")
    if (error := number("reversibility", "mean_latent_error")) is not None:
        lines.append(f"reversibility: done and undone, the latent differs by {error:.2g} on average")
    if (spent := number("evaluations_per_step")) is not None:
        seconds = number("seconds")
        lines.append(f"cost: {spent:.1f} evaluations a step" + (f", {seconds:.1f} s" if seconds is not None else ""))
    return lines


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
