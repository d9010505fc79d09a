"""The part ``chain`` of ``counterfact bench graph``: from a bare picture to its counterfactual, and is all of it right?

Nothing but the picture and the list of concepts is given. The values are read, a random intervention is planned with
a causal graph, and the counterfactual is drawn. A picture does not tell its exogenous noise: the plan that is called
right is that of the true mechanisms for the true values, the noise abducted from these. Whether the scene's own noise
gives the same is reported beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..concepts import Concepts
from ..errors import CounterfactError
from ..extraction.picture import read_picture
from ..graph import CausalGraph
from ..guidance.picture import edit
from ..plan import CounterfactualPlan, Intervention, Mechanism, propagate
from ..worlds import get_world
from .csg import Case, cases, worker
from .extraction import mapped
from .graph_scores import interval

STAGES = ("concepts", "plan", "picture")


@dataclass(frozen=True)
class Run:
    """What came of one picture.

    Attributes
    ----------
    concepts : whether all values were read right
    plan : whether all counterfactual values are right
    picture : whether the drawn picture shows the values of its own plan
    exact : whether the right plan is what the scene's own noise gives
    """

    concepts: bool
    plan: bool
    picture: bool
    exact: bool

    @property
    def all_right(self) -> bool:
        """Whether concepts, plan and picture are right."""
        return self.concepts and self.plan and self.picture


def read(case: Case) -> Concepts:
    """The concepts of a case's picture."""
    bench = worker()
    picture = bench.world.render(case.scene, bench.model.config.size)
    return read_picture(bench.model, picture, bench.world.concepts(), case.seed).concepts


def drawn(task: tuple[Case, CounterfactualPlan | None]) -> dict[str, str]:
    """What the reader sees in the counterfactual picture; nothing where there is no plan."""
    case, plan = task
    if plan is None:
        return {}
    bench = worker()
    picture = bench.world.render(case.scene, bench.model.config.size)
    return bench.reader.read(edit(bench.model, picture, plan, case.seed, bench.steps).picture[None])[0]


def planned(
    graph: CausalGraph,
    concepts: Concepts,
    intervention: Intervention,
    mechanism: Callable[[CausalGraph], Mechanism] | None = None,
) -> CounterfactualPlan | None:
    """The plan for values that were read; None where the graph's mechanisms cannot give them, or each other.

    Parameters
    ----------
    graph : its own values and noise do not count
    mechanism : from the graph with the values to what answers for concepts without a mechanism
    """
    values = graph.concepts
    for concept in concepts:
        values = values.replace(concept.name, value=concept.value)
    graph = replace(graph, concepts=values, noise=None)
    try:
        return propagate(graph, intervention, mechanism=mechanism(graph) if mechanism else None)
    except CounterfactError:
        return None


def outcome(
    case: Case, read_values: Mapping[str, str], plan: CounterfactualPlan | None, seen: Mapping[str, str]
) -> Run:
    """Which stages of one run are right."""
    known = case.plan.concepts
    right = after(planned(get_world(case.scene.world).graph(), known, case.plan.intervention))
    mine = after(plan)
    return Run(
        dict(read_values) == known.values(),
        plan is not None and mine == right,
        plan is not None and dict(seen) == mine,
        right == after(case.plan),
    )


def after(plan: CounterfactualPlan | None) -> dict[str, str | None]:
    """The counterfactual values of a plan by concept."""
    return {} if plan is None else {item.name: item.counterfactual for item in plan.items}


def run(
    args: argparse.Namespace,
    graph: CausalGraph | None = None,
    mechanism: Callable[[CausalGraph], Mechanism] | None = None,
    found: Sequence[Concepts] | None = None,
) -> dict[str, float]:
    """Shares of runs in which each stage, and all of them, are right, with 95 % bootstrap intervals.

    Parameters
    ----------
    args : has the options of :func:`add_arguments` and of :func:`causal_core.bench.extraction.add_arguments`
    graph : to plan with, over the concepts of the cottage world; without it the true one with its mechanisms
    mechanism : see :func:`planned`; for a graph without mechanisms
    found : what :func:`readings` gave for the same `args`, so that pictures are read once for several graphs

    Returns
    -------
    dict with ``chain.all_right`` and ``chain.STAGE_right``; for a given graph each name ends in ``_llm``
    """
    work = _cases(args)
    found = readings(args) if found is None else found
    used = get_world("cottage").graph() if graph is None else graph
    plans = [planned(used, one, case.plan.intervention, mechanism) for case, one in zip(work, found)]
    seen = mapped(drawn, list(zip(work, plans)), args)
    runs = [outcome(case, one.values(), *rest) for case, one, *rest in zip(work, found, plans, seen)]
    return shares(runs, args.seed, "" if graph is None else "_llm")


def readings(args: argparse.Namespace) -> list[Concepts]:
    """What is read in the pictures of a run."""
    return mapped(read, _cases(args), args)


def _cases(args: argparse.Namespace) -> list[Case]:
    return cases(get_world("cottage"), args.scenes, args.seed)


def shares(runs: Sequence[Run], seed: int, ending: str = "") -> dict[str, float]:
    """Metrics of :func:`run` from its runs."""
    measured = {f"{stage}_right": [getattr(one, stage) for one in runs] for stage in STAGES}
    measured["all_right"] = [one.all_right for one in runs]
    measured["all_right_exact"] = [one.all_right and one.exact for one in runs]
    metrics = {}
    for name, values in measured.items():
        low, high = interval(values, seed)
        name = f"chain.{name}{ending}"
        metrics |= {name: float(np.mean(values)), f"{name}.ci_low": low, f"{name}.ci_high": high}
    return metrics


def table(metrics: Mapping[str, float]) -> str:
    """The shares as a Markdown table, 95 % intervals in brackets."""
    lines = ["| chain | share of runs |", "| --- | --- |"]
    for name, value in metrics.items():
        if name.startswith("chain.") and not name.endswith(("_low", "_high")):
            low, high = metrics[f"{name}.ci_low"], metrics[f"{name}.ci_high"]
            lines.append(f"| {name.removeprefix('chain.')} | {value:.3f} ({low:.3f} to {high:.3f}) |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part alone."""
    parser.add_argument("--steps", type=int, default=30, help="sampling steps of each edit")
