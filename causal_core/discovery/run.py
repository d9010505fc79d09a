"""From concepts to a graph: ask, believe, keep the best acyclic graph."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..concepts import Concepts
from ..errors import CounterfactError, limited, unknown, write_document
from ..graph import MAX_EDGES, MAX_REASON, CausalGraph, Edge
from ..language.model import Check, LanguageModel, Progress, ignore
from .acyclic import Acyclic, acyclic
from .breadth_first import breadth_first
from .confounders import confounders as confounded_pairs
from .constraints import Constraints
from .interview import Interview
from .pairwise import pairwise
from .questions import Context
from .triplets import triplets
from .votes import Beliefs, Pair, Posterior
from .yes_no import yes_no

log = logging.getLogger("counterfact")

KIND, VERSION = "counterfact.discovery", 1
MAX_PAIRS = 20_000

_STRATEGIES: dict[str, Callable[[Interview, Context, Sequence[Pair]], Beliefs]] = {
    "pairwise": pairwise,
    "breadth_first": breadth_first,
    "triplets": triplets,
    "yes_no": yes_no,
}
STRATEGIES = tuple(_STRATEGIES)
# These ask about each pair by itself.
OF_PAIRS = ("pairwise", "yes_no")


@dataclass(frozen=True)
class Discovery:
    """What a model was asked and what came of it.

    Attributes
    ----------
    graph : acyclic; edges with confidence (the probability of the edge) and reason, proposed confounded pairs
    broken : edges that were given up since they would have closed a cycle; the reason names the cycle
    posteriors : for each pair (a, b) that was asked about the probabilities of a -> b, b -> a and no edge
    strategy, model : names
    calls, unreadable, invented : requests to the model, answers in which nothing could be read, and things in answers
        that were no concepts
    """

    graph: CausalGraph
    broken: tuple[Edge, ...]
    posteriors: Mapping[tuple[str, str], Posterior]
    strategy: str
    model: str
    calls: int
    unreadable: int
    invented: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "strategy": self.strategy,
            "model": self.model,
            "calls": self.calls,
            "unreadable": self.unreadable,
            "invented": self.invented,
            "graph": json.loads(self.graph.to_json()),
            "broken": [asdict(edge) for edge in self.broken],
            "pairs": [
                {"a": a, "b": b, "forward": p[0], "backward": p[1], "none": p[2]}
                for (a, b), p in self.posteriors.items()
            ],
        }

    def to_json(self) -> str:
        """A `counterfact.discovery` document; the same discovery always gives the same text."""
        return write_document(KIND, VERSION, self.to_dict())


def discover(
    concepts: Concepts,
    model: LanguageModel,
    strategy: str = "pairwise",
    constraints: Constraints = Constraints(),  # noqa: B008  frozen
    pairs: Sequence[Sequence[str]] | None = None,
    confounders: bool = False,
    progress: Progress = ignore,
    check: Check = ignore,
    descriptions: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Discovery:
    """Ask a language model which concept is a direct cause of which.

    Parameters
    ----------
    model : wrap it in `Cached`, and the same question costs nothing the second time
    strategy : one of `STRATEGIES`
    constraints : what is known; pairs that they decide are not asked about
    pairs : the only pairs that may have an edge; all if not given. For "pairwise" and "yes_no".
    confounders : whether pairs with a latent common cause are to be proposed too
    progress : told the questions answered and the questions known so far
    check : called again and again; what it raises ends the work at once
    descriptions : what a concept means, in a sentence; part of the prompts
    seed : of the search for the best acyclic graph above 16 concepts

    Returns
    -------
    Discovery
        With a strategy and a model that are deterministic it is always the same.

    Raises
    ------
    CounterfactError
        For an unknown strategy or concept, contradictory constraints, if the model fails, or if none of its answers can
        be read.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> from causal_core.discovery import Oracle, parse_constraints
    >>> truth = CausalGraph.from_edges([("rain", "wet street"), ("wet street", "accidents")])
    >>> known = parse_constraints("not wet street -> accidents", truth.concepts)
    >>> found = discover(truth.concepts, Oracle(truth), "breadth_first", known)
    >>> [(edge.source, edge.target, round(edge.confidence, 2)) for edge in found.graph.edges], found.calls
    ([('rain', 'wet street', 0.6)], 4)
    """
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES, "strategies")
    if pairs is not None and strategy not in OF_PAIRS:
        raise CounterfactError(
            f"the strategy {strategy!r} asks about all concepts: leave out the pairs, or take pairwise"
        )
    known = constraints.settle(concepts)
    names = concepts.names
    candidates = list(itertools.combinations(range(len(names)), 2)) if pairs is None else _given(pairs, concepts)
    required = [(concepts.position(cause), concepts.position(effect)) for cause, effect in known.required]
    decided = {*required, *(link[::-1] for link in required)}
    open_pairs = [
        (a, b)
        for a, b in candidates
        if (a, b) not in decided and not (known.against(names[a], names[b]) and known.against(names[b], names[a]))
    ]
    interview = Interview(model, progress, check)
    beliefs = _STRATEGIES[strategy](interview, Context(concepts, descriptions or {}), open_pairs)
    interview.check_something_was_read()
    posteriors = {pair: _constrained(beliefs.posteriors[pair], pair, known, names) for pair in open_pairs}
    weights = np.full((len(names), len(names)), -np.inf)
    for (a, b), (forward, backward, none) in posteriors.items():
        for link, p in (((a, b), forward), ((b, a), backward)):
            weights[link] = math.log(p / none) + beliefs.boldness if p > 0 else -np.inf
    best = acyclic(weights, required, seed, check=check)
    edges = _edges(best, posteriors, beliefs.reasons, set(required), names)
    if len(edges) > MAX_EDGES:
        log.warning("The %d surest of %d edges are kept: a graph holds no more.", MAX_EDGES, len(edges))
        edges = sorted(edges, key=lambda edge: -edge.confidence)[:MAX_EDGES]
    proposed = []
    if confounders:
        linked = {frozenset((edge.source, edge.target)) for edge in edges}
        unlinked = [pair for pair in candidates if frozenset(names[i] for i in pair) not in linked]
        proposed = [(names[a], names[b]) for a, b in confounded_pairs(interview, Context(concepts, {}), unlinked)]
    return Discovery(
        CausalGraph.from_edges(edges, proposed, concepts),
        _broken(best, posteriors, names),
        {(names[a], names[b]): p for (a, b), p in posteriors.items()},
        strategy,
        model.name,
        interview.calls,
        interview.unreadable,
        interview.invented,
    )


def _given(pairs: Sequence[Sequence[str]], concepts: Concepts) -> list[Pair]:
    found: dict[frozenset[int], Pair] = {}
    for pair in limited(pairs, "the list of pairs", MAX_PAIRS):
        if isinstance(pair, str) or len(pair) != 2:
            raise CounterfactError(f"a pair needs two concepts, not {pair!r}")
        a, b = (concepts.position(name) for name in pair)
        if a == b:
            raise CounterfactError(f"the pair {pair[0]!r}, {pair[1]!r} is a concept with itself: remove it")
        found.setdefault(frozenset((a, b)), (a, b))
    return list(found.values())


def _constrained(posterior: Posterior, pair: Pair, known: Constraints, names: Sequence[str]) -> Posterior:
    """The posterior given that forbidden directions are impossible."""
    a, b = (names[i] for i in pair)
    forward, backward, none = posterior
    forward, backward = 0.0 if known.against(a, b) else forward, 0.0 if known.against(b, a) else backward
    total = forward + backward + none
    return forward / total, backward / total, none / total


def _edges(
    best: Acyclic,
    posteriors: Mapping[Pair, Posterior],
    reasons: Mapping[Pair, str],
    required: set[Pair],
    names: Sequence[str],
) -> list[Edge]:
    edges = []
    for link in best.edges:
        if link in required:
            confidence, reason = 1.0, "required by the constraints"
        else:
            confidence, reason = _confidence(posteriors, link), reasons.get(link, "")
        edges.append(Edge(names[link[0]], names[link[1]], confidence, reason[:MAX_REASON]))
    return edges


def _broken(best: Acyclic, posteriors: Mapping[Pair, Posterior], names: Sequence[str]) -> tuple[Edge, ...]:
    edges = []
    for number, (cause, effect) in enumerate(best.broken):
        reason = "given up for surer edges with which it closes a cycle"
        if number < len(best.cycles):
            reason += ": " + " -> ".join(names[i] for i in (cause, *best.cycles[number]))
        reason = reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 3] + "..."
        edges.append(Edge(names[cause], names[effect], _confidence(posteriors, (cause, effect)), reason))
    return tuple(edges)


def _confidence(posteriors: Mapping[Pair, Posterior], link: Pair) -> float:
    forward, backward, _ = posteriors.get(link) or posteriors[link[::-1]]
    return forward if link in posteriors else backward
