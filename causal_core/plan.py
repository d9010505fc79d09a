"""Interventions and what follows from them: which concepts are set, which change with them, which must not move.

The plan comes from abduction, action and prediction over the graph's mechanisms (Pearl, Causality, 2nd edition, theorem
7.1.7). Where it has none, the caller may bring a mechanism of another kind, such as a language model's, or the user
says what a descendant becomes; without either it keeps its value, and the plan still tells descendants from invariants.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from .concepts import Concepts, caption, typed_lines
from .errors import CounterfactError, fields, finite, folded, identifier, limited, read_document, text, write_document
from .graph import CausalGraph
from .scm import Prediction

INTERVENTION_KIND = "counterfact.intervention"
PLAN_KIND = "counterfact.plan"
VERSION = 1
ROLES = ("intervened", "descendant", "invariant")
MAX_REASON = 2000

log = logging.getLogger("counterfact")


@dataclass(frozen=True)
class Intervention:
    """Concepts that are set from outside, whatever their causes say: do(season = winter). It may be empty.

    Examples
    --------
    >>> both = Intervention({"season": "winter"}).merge(Intervention({"time": "night"}))
    >>> print(both)
    do(season = winter, time = night)
    >>> both.merge(Intervention({"time": "noon"}))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: do(time = noon) contradicts do(time = night): keep one of them
    """

    do: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        do: dict[str, str] = {}
        for name, value in self.do.items():
            name = identifier(name, "the intervened concept")
            if folded(name) in map(folded, do):
                raise CounterfactError(f"the intervention sets {name!r} twice: keep one of them")
            do[name] = text(value, f"the value of concept {name!r}")
        limited(list(do), "the intervention")
        object.__setattr__(self, "do", do)

    def __str__(self) -> str:
        return f"do({', '.join(f'{name} = {value}' for name, value in self.do.items())})"

    def merge(self, other: Intervention) -> Intervention:
        """Both interventions at once; raises CounterfactError if they set one concept to two values."""
        mine = {folded(name): name for name in self.do}
        merged = dict(self.do)
        for name, value in other.do.items():
            known = mine.get(folded(name), name)
            if folded(merged.setdefault(known, value)) != folded(value):
                raise CounterfactError(
                    f"do({name} = {value}) contradicts do({known} = {self.do[known]}): keep one of them"
                )
        return Intervention(merged)

    def to_json(self) -> str:
        """A `counterfact.intervention` document; the same intervention always gives the same text."""
        return write_document(INTERVENTION_KIND, VERSION, {"do": dict(self.do)})

    @classmethod
    def from_json(cls, document: str) -> Intervention:
        """Read a `counterfact.intervention` document; anything else raises CounterfactError."""
        return cls(fields(read_document(document, INTERVENTION_KIND, VERSION), "the document", do=dict)["do"])


def parse_intervention(typed: str, concepts: Concepts) -> Intervention:
    """Read typed assignments, divided by commas, semicolons or lines; `do(...)` around them is welcome.

    Raises
    ------
    CounterfactError
        For an unknown concept or value (lists the known ones), or a concept set to two values.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season: summer, winter\\ntime: day, night")
    >>> print(parse_intervention("Season = winter, time = night", concepts))
    do(season = winter, time = night)
    """
    intervention = Intervention()
    for line in typed_lines(typed):
        for part in re.split("[,;]", re.sub(r"\bdo\s*\(([^()]*)\)", r"\1", line)):
            name, equals, value = part.partition("=")
            if not part.strip():
                continue
            if not equals:
                raise CounterfactError(f"cannot read the intervention {part.strip()[:80]!r}: write 'concept = value'")
            intervention = intervention.merge(Intervention(concepts.settle({name.strip(): value})))
    return intervention


@dataclass(frozen=True)
class PlanItem:
    """What happens to one concept.

    Parameters
    ----------
    name : str
    factual, counterfactual : str, optional
        Values before and after; None where the value is not known.
    role : {"intervened", "descendant", "invariant"}
        A descendant follows from an intervened concept and is not intervened itself; it need not change.
    depth : int, optional
        Edges from the nearest intervened concept, 0 for the intervened, None for invariants.
    strength : float
        How strongly the intervention acts here, 0 to 1; 1 for the intervened, 0 for invariants.
    probability : float, optional
        Posterior probability of the counterfactual value, 0 to 1; None where no mechanism tells.
    reason : str
        Why, in plain words.
    """

    name: str
    factual: str | None
    counterfactual: str | None
    role: str
    depth: int | None = None
    strength: float = 0.0
    probability: float | None = None
    reason: str = ""

    def __post_init__(self) -> None:
        where = f"plan item {self.name!r}"
        if self.role not in ROLES:
            raise CounterfactError(f"{where} has the role {self.role!r}: it must be one of {', '.join(ROLES)}")
        lowest = {"intervened": 0, "descendant": 1, "invariant": None}[self.role]
        if (self.depth is None) != (lowest is None) or (self.depth is not None and self.depth < lowest):
            raise CounterfactError(f"{where} has the depth {self.depth}, which does not fit its role {self.role!r}")
        if self.role == "invariant" and self.changed:
            raise CounterfactError(f"{where} is invariant, so it must keep its value {self.factual!r}")
        object.__setattr__(self, "strength", finite(self.strength, f"the strength of {where}", 0.0, 1.0))
        if self.probability is not None:
            object.__setattr__(self, "probability", finite(self.probability, f"the probability of {where}", 0.0, 1.0))
        if self.reason != "":
            text(self.reason, f"the reason of {where}", MAX_REASON)

    @property
    def changed(self) -> bool:
        """Whether the counterfactual value differs from the factual one."""
        return self.counterfactual != self.factual


@dataclass(frozen=True)
class CounterfactualPlan:
    """What an intervention does to every concept of a graph.

    Parameters
    ----------
    concepts : Concepts
        With their factual values.
    intervention : Intervention
    items : tuple of PlanItem
        One for each concept, causes first.

    Raises
    ------
    CounterfactError
        If the items do not belong to the concepts and the intervention.
    """

    concepts: Concepts
    intervention: Intervention
    items: tuple[PlanItem, ...]

    def __post_init__(self) -> None:
        do = self.concepts.settle(self.intervention.do)
        object.__setattr__(self, "intervention", Intervention(do))
        names = [item.name for item in self.items]
        if sorted(names) != sorted(self.concepts.names):
            odd = sorted(set(names) ^ set(self.concepts.names)) or sorted(n for n in set(names) if names.count(n) > 1)
            raise CounterfactError(f"the plan needs exactly one item for each concept: look at {', '.join(odd[:10])}")
        for item in self.items:
            concept, where = self.concepts[item.name], f"plan item {item.name!r}"
            if item.factual != concept.value:
                raise CounterfactError(f"{where} says {item.factual!r} before, the concept says {concept.value!r}")
            if item.counterfactual is not None and concept.match(item.counterfactual) != item.counterfactual:
                raise CounterfactError(f"{where} must spell {concept.match(item.counterfactual)!r} as the concept does")
            if (item.role == "intervened") != (item.name in do) or item.counterfactual != do.get(
                item.name, item.counterfactual
            ):
                raise CounterfactError(f"{where} does not agree with the intervention {Intervention(do)}")

    @property
    def affected(self) -> tuple[PlanItem, ...]:
        """Items whose value changes, intervened or descendant."""
        return tuple(item for item in self.items if item.changed)

    @property
    def invariant(self) -> tuple[PlanItem, ...]:
        """All other items: what must not move in the picture."""
        return tuple(item for item in self.items if not item.changed)

    @property
    def caption_factual(self) -> str:
        """Caption of the picture as it is."""
        return caption(self.concepts)

    @property
    def caption_counterfactual(self) -> str:
        """Caption of the picture as it would be."""
        return caption(self.concepts, {item.name: item.counterfactual for item in self.affected})

    def to_json(self) -> str:
        """A `counterfact.plan` document; the same plan always gives the same text."""
        body = {
            "concepts": self.concepts.to_list(),
            "do": dict(self.intervention.do),
            "items": [asdict(item) for item in self.items],
        }
        return write_document(PLAN_KIND, VERSION, body)

    @classmethod
    def from_json(cls, document: str) -> CounterfactualPlan:
        """Read a `counterfact.plan` document, edited by hand or not; anything else raises CounterfactError."""
        data = fields(read_document(document, PLAN_KIND, VERSION), "the document", concepts=list, do=dict, items=list)
        spec: dict[str, Any] = {
            "name": str, "factual": (str, None), "counterfactual": (str, None), "role": str, "depth": (int, None),
            "strength": (float, 0.0), "probability": (float, None), "reason": (str, ""),
        }  # fmt: skip
        items = tuple(
            PlanItem(**fields(item, f"plan item {i}", **spec))
            for i, item in enumerate(limited(data["items"], "the plan"), 1)
        )
        return cls(Concepts.from_list(data["concepts"]), Intervention(data["do"]), items)


class Consequence(NamedTuple):
    """What becomes of one descendant (None: it keeps its value), how probable that is, and why.

    The probability is from 0 to 1, or None if it cannot be said.
    """

    value: str | None
    probability: float | None
    reason: str


UNMOVED = Consequence(None, 1.0, "keeps its value: none of its causes changes")

# Names whose causes are settled, and the counterfactual values known so far; an answer for each of the names.
Mechanism = Callable[[tuple[str, ...], Mapping[str, str]], Mapping[str, Consequence]]


def unexplained(
    graph: CausalGraph, intervention: Intervention, overrides: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Descendants that have neither a mechanism in the graph nor a value fixed by hand, causes first.

    Examples
    --------
    >>> graph = CausalGraph.from_edges([("rain", "street"), ("street", "shoes")])
    >>> unexplained(graph, Intervention({"rain": "yes"}), {"shoes": "wet"})
    ('street',)
    """
    settled = graph.concepts.settle({**intervention.do, **(overrides or {})})
    explained = {*settled, *(graph.scm.observed if graph.scm else ())}
    reached = graph.depth_from(graph.concepts.settle(intervention.do))
    return tuple(name for name in graph.topological_order() if name in reached and name not in explained)


def propagate(
    graph: CausalGraph,
    intervention: Intervention,
    overrides: Mapping[str, str] | None = None,
    decay: float = 0.85,
    mechanism: Mechanism | None = None,
) -> CounterfactualPlan:
    """Work out what an intervention does to every concept.

    Parameters
    ----------
    graph : CausalGraph
        With mechanisms, descendants get their most probable counterfactual value, exactly where the noise is known and
        explains the factual values; without, `mechanism` says what they become, or they keep their value.
    intervention : Intervention
    overrides : mapping from descendant to value, optional
        Consequences that the user fixes by hand; what follows from them takes them into account.
    decay : float
        Loss of strength with each edge after the first, 0 to 1. The strength of a descendant at depth d is
        `decay ** (d - 1)` times the product of edge confidences on the path where this product is largest.
    mechanism : callable, optional
        Asked about the concepts of :func:`unexplained` that have a changed cause, as many at once as do not depend on
        each other, causes first: `mechanism(names, after)` gives a :class:`Consequence` for each name, `after` being
        the counterfactual values settled so far.

    Raises
    ------
    CounterfactError
        For unknown concepts or values, an override of a concept that does not follow from the intervention, a missing
        factual value that a mechanism needs, or factual values that are impossible under the mechanisms.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season: summer, winter = summer\\nfoliage: green, bare = green\\ncar: red = red")
    >>> graph = CausalGraph.from_edges([("season", "foliage")], concepts=concepts)
    >>> plan = propagate(graph, Intervention({"season": "winter"}), overrides={"foliage": "bare"})
    >>> plan.caption_counterfactual
    'winter season, bare foliage, red car'
    >>> [item.name for item in plan.invariant]
    ['car']
    """
    finite(decay, "decay", 0.0, 1.0)
    do = graph.concepts.settle(intervention.do)
    fixed = graph.concepts.settle(overrides or {})
    depth = graph.depth_from(do)
    for name in fixed:
        if name in do:
            raise CounterfactError(f"{name!r} is both set by the intervention and fixed as a consequence: remove one")
        if name not in depth:
            raise CounterfactError(
                f"{name!r} does not follow from {Intervention(do)}: set it in the intervention, not as a consequence"
            )
    after = {**graph.concepts.values(), **do, **fixed}
    waiting = unexplained(graph, intervention, fixed)
    following = [name for name in depth if name not in do and name not in fixed and name not in waiting]
    predicted = _predict(graph, {**do, **fixed}, following) if following else {}
    after.update({name: found.value for name, found in predicted.items()})
    if mechanism is not None:
        predicted.update(_asked(graph, waiting, after, mechanism))
    reach = _reach(graph, do)

    def item(name: str) -> PlanItem:
        factual, value = graph.concepts[name].value, after.get(name)
        if name in do:
            return PlanItem(name, factual, value, "intervened", 0, 1.0, 1.0, f"set by do({name} = {value})")
        if name not in depth:
            reason = f"does not follow from {listed(do)}" if do else "nothing is set"
            return PlanItem(name, factual, value, "invariant", None, 0.0, 1.0, reason)
        strength = decay ** (depth[name] - 1) * reach[name]
        if name in fixed:
            probability, reason = 1.0, f"{value}, fixed by hand"
        elif name in predicted:
            _, probability, reason = predicted[name]
        else:
            causes = listed(parent for parent in graph.parents(name) if parent in depth)
            probability, reason = None, f"keeps its value: no mechanism says how it follows from {causes}"
        return PlanItem(name, factual, value, "descendant", depth[name], strength, probability, reason)

    return CounterfactualPlan(graph.concepts, Intervention(do), tuple(map(item, graph.topological_order())))


def undone(plan: CounterfactualPlan) -> CounterfactualPlan:
    """The plan that takes an edited picture back: factual and counterfactual values change places.

    Raises
    ------
    CounterfactError
        If the factual value of an intervened concept is not known, so that it cannot be set again.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season: summer, winter = summer\\nfoliage: green, bare = green")
    >>> plan = propagate(CausalGraph.from_edges([("season", "foliage")], concepts=concepts),
    ...                  Intervention({"season": "winter"}), {"foliage": "bare"})
    >>> print(undone(plan).intervention, undone(plan).caption_counterfactual)
    do(season = summer) summer season, green foliage
    """
    concepts = plan.concepts
    for item in plan.affected:
        if item.role == "intervened" and item.factual is None:
            raise CounterfactError(f"{item.name!r} has no factual value to go back to: give it one in the concepts")
        concepts = concepts.replace(item.name, value=item.counterfactual)
    items = tuple(
        replace(item, factual=item.counterfactual, counterfactual=item.factual) if item.changed else item
        for item in plan.items
    )
    do = {item.name: item.counterfactual for item in items if item.role == "intervened"}
    return CounterfactualPlan(concepts, Intervention(do), items)


def _predict(graph: CausalGraph, do: Mapping[str, str], wanted: Iterable[str]) -> dict[str, Consequence]:
    """Consequences for `wanted` concepts, all of which have mechanisms in the graph.

    The parents of a concept with a mechanism have mechanisms, so that no other concept can change what is predicted.
    """
    values, scm = graph.concepts.values(), graph.scm
    missing = [name for name in scm.observed if name not in values]
    if missing:
        raise CounterfactError(f"the mechanisms need the factual value of {', '.join(missing)}: set it in the concepts")
    factual = {name: values[name] for name in scm.observed}
    noise = graph.noise
    if noise is not None and not factual.items() <= scm.evaluate(noise).items():
        log.info("the known noise does not give the factual values: abducting it from the values instead")
        noise = None
    predicted = scm.counterfactual(factual, {name: do[name] for name in do if name in factual}, noise)
    after = {**values, **do, **{name: predicted[name].value for name in wanted}}
    return {name: Consequence(*predicted[name], _because(graph, name, after, predicted[name])) for name in wanted}


def _asked(
    graph: CausalGraph, waiting: Iterable[str], after: dict[str, str], mechanism: Mechanism
) -> dict[str, Consequence]:
    """What `mechanism` says about the `waiting` concepts; adds the values to `after`.

    Asked at once are all whose causes are settled and one of these has changed.
    """
    before = graph.concepts.values()
    causes = {name: graph.parents(name) for name in waiting}
    found: dict[str, Consequence] = {}
    while causes:
        ready = [name for name, parents in causes.items() if causes.keys().isdisjoint(parents)]
        moved = tuple(name for name in ready if any(after.get(p) != before.get(p) for p in causes[name]))
        answers = mechanism(moved, after) if moved else {}
        for name in ready:
            found[name] = answers[name] if name in moved else UNMOVED
            if found[name].value is not None:
                after[name] = found[name].value
            del causes[name]
    return found


def _reach(graph: CausalGraph, sources: Mapping[str, str]) -> dict[str, float]:
    """Largest product of edge confidences on any path from the sources (1 for themselves)."""
    confidence = {(edge.source, edge.target): edge.confidence for edge in graph.edges}
    reach: dict[str, float] = {}
    for name in graph.topological_order():
        products = [reach[parent] * confidence[parent, name] for parent in graph.parents(name)]
        reach[name] = 1.0 if name in sources else max(products, default=0.0)
    return reach


def _because(graph: CausalGraph, name: str, after: Mapping[str, str], found: Prediction) -> str:
    """A prediction in plain words: the changed causes, and how sure it is."""
    before = graph.concepts.values()
    parents = graph.parents(name)
    causes = listed(f"{parent} = {after[parent]}" for parent in parents if after[parent] != before[parent])
    sure = "" if found.probability > 0.995 else f" (p = {found.probability:.2f})"
    if found.value != before[name]:
        return f"{found.value} because {causes}{sure}"
    return f"stays {found.value} " + (f"even with {causes}" if causes else "because none of its causes changes") + sure


def listed(words: Iterable[str], most: int = 8) -> str:
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")
