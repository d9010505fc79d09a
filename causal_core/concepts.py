"""Concepts: the variables of a causal graph that can be seen in a picture, their values and the phrases that name them.

A concept has a domain of discrete values, or an interval of numbers, or neither (any value). Names and values are
compared without regard to case; the spelling of the list wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import (
    CounterfactError,
    fields,
    finite,
    folded,
    identifier,
    limited,
    read_document,
    text,
    unknown,
    write_document,
)

KIND = "counterfact.concepts"
VERSION = 1
MAX_PHRASE = 200

_INTERVAL = re.compile(r"\s*([-+\w.]+?)\s*\.\.\s*([-+\w.]+)\s*")


@dataclass(frozen=True)
class Concept:
    """One variable of the graph.

    Parameters
    ----------
    name : str
        Letters, digits, spaces, _ and -, at most 80 characters.
    domain : tuple of str
        Discrete values in order; empty for an open or continuous concept.
    value : str, optional
        The factual value; None while it is not known. In a continuous concept, `repr` of a float.
    phrases : mapping from value to tuple of str
        Ways to say a value in a caption, the first is the canonical one. A value without an entry reads "value name".
    confidence : float, optional
        How sure the extractor is of `value`, 0 to 1.
    interval : (float, float), optional
        Lowest and highest number of a continuous concept.

    Raises
    ------
    CounterfactError
        If a name, value, phrase or number is not valid, or `value` is outside the domain (lists the known values).

    Examples
    --------
    >>> Concept("season", ("summer", "winter"), "Winter").phrase()
    'winter season'
    >>> Concept("angle", interval=(0, 90), value="45").value
    '45.0'
    """

    name: str
    domain: tuple[str, ...] = ()
    value: str | None = None
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    confidence: float | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        put = lambda key, value: object.__setattr__(self, key, value)  # noqa: E731  frozen, but normalised once
        put("name", identifier(self.name, "concept name"))
        where = f"concept {self.name!r}"
        domain = tuple(text(v, f"a value of {where}") for v in limited(tuple(self.domain), f"the domain of {where}"))
        if len({folded(v) for v in domain}) < len(domain):
            raise CounterfactError(f"{where} lists a value twice ({', '.join(domain)}): remove one")
        put("domain", domain)
        if self.interval is not None:
            if domain or len(self.interval) != 2:
                raise CounterfactError(f"{where} needs either a list of values or an interval of two numbers")
            low, high = (finite(x, f"a limit of {where}") for x in self.interval)
            if low >= high:
                raise CounterfactError(f"the interval of {where} must rise, not go from {low:g} to {high:g}")
            put("interval", (low, high))
        if self.value is not None:
            put("value", self.match(self.value))
        if self.confidence is not None:
            put("confidence", finite(self.confidence, f"the confidence of {where}", 0.0, 1.0))
        phrases = {}
        for value, ways in self.phrases.items():
            ways = (ways,) if isinstance(ways, str) else tuple(ways)
            if not ways:
                raise CounterfactError(
                    f"{where} has no phrase for {value!r}: write one or leave the value out of its phrases"
                )
            limited(ways, f"the phrases of {where} for {value!r}")
            phrases[self.match(value)] = tuple(text(way, f"a phrase of {where}", MAX_PHRASE) for way in ways)
        put("phrases", phrases)

    def match(self, value: str) -> str:
        """Return `value` as this concept spells it.

        Raises
        ------
        CounterfactError
            If the concept cannot take this value; the message lists the values it can take.
        """
        value = text(value, f"the value of concept {self.name!r}")
        if self.interval is not None:
            try:
                number = float(value)
            except ValueError:
                number = value
            return repr(finite(number, f"the value of concept {self.name!r}", *self.interval))
        for known in self.domain:
            if folded(known) == folded(value):
                return known
        if self.domain:
            raise unknown(f"value of concept {self.name!r}:", value, self.domain, "values")
        return value

    def phrase(self, value: str | None = None) -> str:
        """The canonical words of `value`, by default of the factual value."""
        if value is None and self.value is None:
            raise CounterfactError(f"concept {self.name!r} has no value yet: set one or run the extractor")
        value = self.match(self.value if value is None else value)
        return self.phrases[value][0] if value in self.phrases else f"{value} {self.name}"


@dataclass(frozen=True)
class Concepts:
    """An ordered list of concepts with distinct names; iterating gives the concepts, indexing takes a name.

    Raises
    ------
    CounterfactError
        If the list is empty, too long (500), or has a name twice.

    Examples
    --------
    >>> concepts = parse_concepts("season: summer, winter = summer\\ncar: red, blue = red")
    >>> concepts.names
    ('season', 'car')
    >>> concepts["Season"].value
    'summer'
    >>> concepts.replace("car", value="blue").values()
    {'season': 'summer', 'car': 'blue'}
    """

    items: tuple[Concept, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", limited(tuple(self.items), "the concept list"))
        if not self.items:
            raise CounterfactError(
                "the concept list is empty: write at least one concept, such as 'season: summer, winter'"
            )
        index: dict[str, int] = {}
        for i, concept in enumerate(self.items):
            if folded(concept.name) in index:
                raise CounterfactError(f"the concept {concept.name!r} is listed twice: rename or remove one")
            index[folded(concept.name)] = i
        object.__setattr__(self, "_index", index)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order."""
        return tuple(concept.name for concept in self.items)

    def values(self) -> dict[str, str]:
        """Factual values by name; concepts whose value is not known are left out."""
        return {concept.name: concept.value for concept in self.items if concept.value is not None}

    def position(self, name: str) -> int:
        """Place of a concept in the list; an unknown name raises CounterfactError that lists the known ones."""
        found = self._index.get(folded(name)) if isinstance(name, str) else None  # type: ignore[attr-defined]
        if found is None:
            raise unknown("concept", name, self.names)
        return found

    def __getitem__(self, name: str) -> Concept:
        return self.items[self.position(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and folded(name) in self._index  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def replace(self, name: str, **changes: Any) -> Concepts:
        """A copy in which one concept has other fields."""
        at = self.position(name)
        return Concepts((*self.items[:at], replace(self.items[at], **changes), *self.items[at + 1 :]))

    def settle(self, values: Mapping[str, str]) -> dict[str, str]:
        """Check names and values against the list and return them in its spelling and order."""
        settled = {self.position(name): self[name].match(value) for name, value in values.items()}
        if len(settled) < len(values):
            raise CounterfactError(f"a concept is given twice in {', '.join(values)}: keep one")
        return {self.items[i].name: settled[i] for i in sorted(settled)}

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON data, also a part of the graph and plan documents."""
        return [
            {
                "name": concept.name,
                "domain": list(concept.domain),
                "value": concept.value,
                "phrases": {value: list(ways) for value, ways in concept.phrases.items()},
                "confidence": concept.confidence,
                "interval": None if concept.interval is None else list(concept.interval),
            }
            for concept in self.items
        ]

    @classmethod
    def from_list(cls, data: list[Any]) -> Concepts:
        """The inverse of :meth:`to_list` for untrusted data."""
        spec: dict[str, Any] = {
            "name": str, "domain": (list, []), "value": (str, None), "phrases": (dict, {}), "confidence": (float, None),
            "interval": (list, None),
        }  # fmt: skip
        concepts = []
        for i, item in enumerate(limited(data, "the concept list"), 1):
            values = fields(item, f"concept {i}", **spec)
            for value, ways in values["phrases"].items():
                if not isinstance(ways, list):
                    raise CounterfactError(f"concept {i}: the phrases for {value!r} must be a list of texts")
            concepts.append(Concept(**values))
        return cls(tuple(concepts))

    def to_json(self) -> str:
        """A `counterfact.concepts` document; the same concepts always give the same text."""
        return write_document(KIND, VERSION, {"concepts": self.to_list()})

    @classmethod
    def from_json(cls, document: str) -> Concepts:
        """Read a `counterfact.concepts` document; anything else raises CounterfactError."""
        return cls.from_list(fields(read_document(document, KIND, VERSION), "the document", concepts=list)["concepts"])


def parse_concepts(typed: str) -> Concepts:
    """Read a typed list of concepts, one a line.

    A line is a name, then optionally `: value, value, ...` or `: low .. high`, then optionally `= factual value`. Empty
    lines and everything after a # do not count.

    Examples
    --------
    >>> concepts = parse_concepts('''
    ... season: spring, summer, autumn, winter = Summer   # the cause of much
    ... angle: 0 .. 90 = 30
    ... car = red
    ... ''')
    >>> concepts.values()
    {'season': 'summer', 'angle': '30.0', 'car': 'red'}
    """
    concepts = []
    for line in typed_lines(typed):
        head, has_value, value = line.partition("=")
        name, _, listed = head.partition(":")
        numbers = _INTERVAL.fullmatch(listed)
        domain = () if numbers else tuple(v for v in map(str.strip, listed.split(",")) if v)
        try:
            interval = tuple(float(x) for x in numbers.groups()) if numbers else None
        except ValueError:
            raise CounterfactError(
                f"concept {name.strip()!r}: {listed.strip()!r} is no interval such as 0 .. 90"
            ) from None
        concepts.append(Concept(name, domain, value if has_value else None, interval=interval))
    return Concepts(tuple(concepts))


def typed_lines(typed: str) -> list[str]:
    """The lines of a typed list without comments and empty lines."""
    if not isinstance(typed, str):
        raise CounterfactError(f"expected a typed list, got {type(typed).__name__}")
    lines = (" ".join(line.partition("#")[0].split()) for line in typed.splitlines())
    return limited([line for line in lines if line], "the typed list", 10 * 500)


def caption(concepts: Concepts, values: Mapping[str, str] | None = None) -> str:
    """The canonical phrases of all concepts whose value is known, in their order, joined by commas.

    `values` replace factual values.

    Examples
    --------
    >>> concepts = parse_concepts("season: summer, winter = summer\\ncar: red, blue = red")
    >>> caption(concepts, {"season": "winter"})
    'winter season, red car'
    """
    shown = {**concepts.values(), **concepts.settle(values or {})}
    return ", ".join(concept.phrase(shown[concept.name]) for concept in concepts if concept.name in shown)
