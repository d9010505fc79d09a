"""What an expert knows before any model is asked: required edges, forbidden edges, and tiers in time.

There is no edge from a concept of a later tier to one of an earlier tier (the tiered background knowledge of
constraint-based discovery, as in Spirtes, Glymour and Scheines 2000).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ..concepts import Concepts, typed_lines
from ..errors import CounterfactError
from ..graph import CausalGraph, parse_edges

_TIER = re.compile(r"(first|then)\s*:(.*)", re.IGNORECASE)
_NOT = re.compile(r"not\s+", re.IGNORECASE)

Pair = tuple[str, str]


@dataclass(frozen=True)
class Constraints:
    """Edges that must or must not be there, and the order of concepts in time.

    Parameters
    ----------
    required, forbidden : pairs (cause, effect)
    tiers : groups of concepts, the earliest first; concepts in none of them are free

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season\\nfoliage\\nsmoke")
    >>> known = Constraints(required=(("Season", "foliage"),), tiers=(("season",), ("smoke",))).settle(concepts)
    >>> known.required, known.against("smoke", "season"), known.against("season", "smoke")
    ((('season', 'foliage'),), "'season' comes in an earlier tier than 'smoke'", None)
    """

    required: tuple[Pair, ...] = ()
    forbidden: tuple[Pair, ...] = ()
    tiers: tuple[tuple[str, ...], ...] = ()

    def settle(self, concepts: Concepts) -> Constraints:
        """The same constraints in the spelling of the list.

        Raises
        ------
        CounterfactError
            For unknown concepts, a concept in two tiers, and contradictions: an edge that is required and forbidden,
            required edges that make a cycle or go back in time.
        """
        spelled = Constraints(
            _spelled(self.required, concepts),
            _spelled(self.forbidden, concepts),
            tuple(tuple(dict.fromkeys(concepts[name].name for name in tier)) for tier in self.tiers),
        )
        for number, tier in enumerate(spelled.tiers):
            for name in tier:
                if spelled._tier[name] != number:
                    raise CounterfactError(f"constraints: {name!r} is in two tiers: keep it in one of them")
        for cause, effect in spelled.required:
            if why := spelled.against(cause, effect):
                raise CounterfactError(
                    f"the constraint '{cause} -> {effect}' is contradicted: {why}; remove one of the two"
                )
        try:
            CausalGraph.from_edges(spelled.required, concepts=concepts)
        except CounterfactError as error:
            raise CounterfactError(f"the required edges of the constraints contradict each other: {error}") from None
        return spelled

    @cached_property
    def _tier(self) -> dict[str, int]:
        return {name: number for number, tier in enumerate(self.tiers) for name in tier}

    @cached_property
    def _forbidden(self) -> frozenset[Pair]:
        return frozenset(self.forbidden)

    def against(self, cause: str, effect: str) -> str | None:
        """What forbids this edge, None if nothing does; names as the settled constraints spell them."""
        if (cause, effect) in self._forbidden:
            return f"the line 'not {cause} -> {effect}'"
        if cause in self._tier and effect in self._tier and self._tier[cause] > self._tier[effect]:
            return f"{effect!r} comes in an earlier tier than {cause!r}"
        return None


def parse_constraints(typed: str, concepts: Concepts) -> Constraints:
    """Read typed constraints, one a line.

    `a -> b` requires an edge (or a chain of them), `not a -> b` forbids it; `first: a, b` and then any number of lines
    `then: c, d` are tiers in time. Empty lines and everything after a # do not count.

    Raises
    ------
    CounterfactError
        If a line cannot be read, names an unknown concept, or contradicts another; the message quotes the line.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season\\ntime\\ntemperature\\nsmoke")
    >>> parse_constraints('''
    ... season -> temperature -> smoke
    ... not smoke -> season
    ... first: season, time   # nothing in the picture causes these
    ... then: temperature
    ... ''', concepts)  # doctest: +NORMALIZE_WHITESPACE
    Constraints(required=(('season', 'temperature'), ('temperature', 'smoke')), forbidden=(('smoke', 'season'),),
                tiers=(('season', 'time'), ('temperature',)))
    """
    required: list[Pair] = []
    forbidden: list[Pair] = []
    tiers: list[tuple[str, ...]] = []
    for line in typed_lines(typed):
        try:
            if tier := _TIER.fullmatch(line):
                if (tier[1].lower() == "first") != (not tiers):
                    raise CounterfactError("the tiers start with one line 'first: ...', 'then: ...' lines follow")
                names = [name.strip() for name in tier[2].split(",") if name.strip()]
                if not names:
                    raise CounterfactError("it names no concept: write them after the colon, with commas between them")
                tiers.append(tuple(concepts[name].name for name in names))
                continue
            known = line.partition("->")[0].strip() in concepts  # a concept may well be called "not ..."
            negated = not known and _NOT.match(line)
            edges, confounded = parse_edges(line[negated.end() :] if negated else line)
            if confounded:
                raise CounterfactError("a latent confounder is no constraint: draw it in the graph")
            (forbidden if negated else required).extend(_spelled([(e.source, e.target) for e in edges], concepts))
        except CounterfactError as error:
            raise CounterfactError(f"constraint {line[:80]!r}: {error}") from None
    return Constraints(tuple(required), tuple(forbidden), tuple(tiers)).settle(concepts)


def _spelled(pairs: Iterable[Pair], concepts: Concepts) -> tuple[Pair, ...]:
    spelled = tuple(dict.fromkeys((concepts[cause].name, concepts[effect].name) for cause, effect in pairs))
    for cause, effect in spelled:
        if cause == effect:
            raise CounterfactError(f"'{cause} -> {effect}' pairs a concept with itself: remove it")
    return spelled
