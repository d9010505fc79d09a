"""Questions to a causal graph, as text: ``P(ground | do(season=winter))``, ``P(y_{x=1} | x=0)``.

Notation of Pearl (2009): ``do(x=1)`` sets x for everything in the question, ``y_{x=1}`` is what y would be if x were 1.
A variable without a value stands for all its values; primes, as in ``x'``, tell two of them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .concepts import Concepts
from .errors import CounterfactError, limited, unknown
from .expression import Event, Symbol, Value

LONGEST = 2000

_WORD = re.compile(r"(?:(?!_\{)[^,|(){}=])*")


@dataclass(frozen=True)
class Term:
    """A variable in the world in which ``do`` holds, with its value.

    Attributes
    ----------
    variable : name
    value : one value, or the symbol of all of them
    do : what is set in this variable's world, ordered by name
    """

    variable: str
    value: Value
    do: tuple[Event, ...] = ()

    def __str__(self) -> str:
        world = "_{" + ", ".join(map(_event, self.do)) + "}" if self.do else ""
        if isinstance(self.value, Symbol):
            return self.variable + "'" * self.value.mark + world
        return f"{self.variable}{world}={self.value}"


@dataclass(frozen=True)
class Query:
    """The probability of some terms, given others.

    Raises
    ------
    CounterfactError
        If nothing is asked, or a variable is set in its own world.
    """

    of: tuple[Term, ...]
    given: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        if not self.of:
            raise CounterfactError("query: nothing is asked; write for instance P(y | do(x=1))")
        for term in (*self.of, *self.given):
            if term.variable in dict(term.do):
                raise CounterfactError(
                    f"query: {term} asks for {term.variable} where {term.variable} itself is set; leave one of them out"
                )

    def __str__(self) -> str:
        worlds = {term.do for term in (*self.of, *self.given)}
        if len(worlds) == 1 and (do := worlds.pop()):
            of, given = ([Term(t.variable, t.value) for t in terms] for terms in (self.of, self.given))
            after = [f"do({', '.join(map(_event, do))})", *map(str, given)]
        else:
            of, after = list(self.of), list(map(str, self.given))
        return f"P({', '.join(map(str, of))}{' | ' + ', '.join(after) if after else ''})"

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """What stands for all values: of the outcomes first, then of conditions and interventions."""
        values = [term.value for term in (*self.of, *self.given)]
        values += [value for term in (*self.of, *self.given) for _, value in term.do]
        return tuple(dict.fromkeys(value for value in values if isinstance(value, Symbol)))

    @property
    def settings(self) -> tuple[Symbol, ...]:
        """The symbols of conditions and interventions, for each of whose values there is an answer of its own."""
        values = [term.value for term in self.given] + [x for t in (*self.of, *self.given) for _, x in t.do]
        return tuple(dict.fromkeys(value for value in values if isinstance(value, Symbol)))

    @property
    def outcomes(self) -> tuple[Symbol, ...]:
        """The symbols over which the answer is a distribution: those of outcomes that nothing is set to."""
        return tuple(symbol for symbol in self.symbols if symbol not in self.settings)


def _event(event: Event) -> str:
    name, value = event
    return str(value) if isinstance(value, Symbol) else f"{name}={value}"


def parse_query(typed: str, concepts: Concepts) -> Query:
    """Read a question.

    Parameters
    ----------
    typed : such as ``P(y | do(x=1), z=0)`` or ``P(y_{x=1} | x=0, y=0)``
    concepts : the variables that may occur, and their values

    Raises
    ------
    CounterfactError
        If it cannot be read, with the place marked; for an unknown variable or value (lists the known ones).

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> concepts = parse_concepts("season: summer, winter\\nground: grass, snow")
    >>> print(parse_query("p( Ground | do(season = Winter) )", concepts))
    P(ground | do(season=winter))
    >>> print(parse_query("P(ground_{season=winter} = snow | season=summer)", concepts))
    P(ground_{season=winter}=snow | season=summer)
    """
    return _Reader(typed, concepts).query()


def written(outcomes: str, do: Mapping[str, str], given: str = "") -> str:
    """Write a question in one world as text for :func:`parse_query`.

    Parameters
    ----------
    outcomes, given : typed variables, each with a value or without, divided by commas
    do : what is set

    Raises
    ------
    CounterfactError
        If a part has signs in it that would make the text another question.

    Examples
    --------
    >>> written("ground, shadow", {"season": "winter"}, "time=day")
    'P(ground, shadow | do(season=winter), time=day)'
    """
    for typed in (outcomes, given):
        if sign := re.search(r"[|(){}]", typed):
            raise CounterfactError(
                f"{typed.strip()[:80]!r} has the sign {sign[0]} in it: write variables, with or without a value, and "
                "commas between them; or type the whole question"
            )
    for name, value in do.items():
        # The variable's own name with primes is no value but stands for all of them.
        if not _WORD.fullmatch(value) or value.rstrip("'") == name != value:
            raise CounterfactError(
                f"a question cannot hold the value {value!r} of {name}: rename it, without any of , | ( ) {{ }} = and "
                "without an apostrophe at its end"
            )
    after = [f"do({', '.join(f'{name}={value}' for name, value in do.items())})"] if do else []
    after += [given.strip()] if given.strip() else []
    return f"P({outcomes.strip()}{' | ' + ', '.join(after) if after else ''})"


def as_query(query: Query | str, concepts: Concepts) -> Query:
    """A query as it is, or read from text; raises CounterfactError as :func:`parse_query` does."""
    if isinstance(query, str):
        return parse_query(query, concepts)
    for term in (*query.of, *query.given):
        for name in (term.variable, *dict(term.do)):
            if name not in concepts.names:
                raise unknown("concept in the query:", name, concepts.names, "concepts")
    return query


class _Reader:
    """A recursive descent through the text; ``at`` is the place of the next character."""

    def __init__(self, typed: str, concepts: Concepts) -> None:
        if not isinstance(typed, str) or not typed.strip():
            raise CounterfactError("query: it is empty; write for instance P(y | do(x=1))")
        if len(typed) > LONGEST:
            raise CounterfactError(f"query: it has more than {LONGEST} characters; ask for less at once")
        self.typed, self.concepts, self.at = " ".join(typed.split()), concepts, 0

    def error(self, what: str, at: int | None = None) -> CounterfactError:
        at = self.at if at is None else at
        return CounterfactError(f"query: {what}, at character {at + 1}\n  {self.typed}\n  {' ' * at}^")

    def skip(self) -> None:
        while self.typed[self.at : self.at + 1] == " ":
            self.at += 1

    def taken(self, sign: str) -> bool:
        """Whether the sign comes next; it is passed over."""
        self.skip()
        found = self.typed.startswith(sign, self.at)
        self.at += len(sign) * found
        return found

    def expect(self, sign: str, where: str) -> None:
        if not self.taken(sign):
            raise self.error(f"expected {sign!r} {where}")

    def query(self) -> Query:
        if not (self.taken("P") or self.taken("p")):
            raise self.error("a question begins with P(")
        self.expect("(", "after P")
        of, given = [self.term()], []
        while self.taken(","):
            of.append(self.term())
        do: dict[str, Value] = {}
        if self.taken("|"):
            while True:
                self.skip()
                start = self.at
                if self.begins_do():
                    for name, value in self.assignments(")"):
                        self.add(do, name, value, start)
                else:
                    given.append(self.term())
                if not self.taken(","):
                    break
        self.expect(")", "or ','")
        self.skip()
        if self.at < len(self.typed):
            raise self.error("nothing may come after the closing bracket")
        limited([*of, *given, *do], "the query")
        for term in (*of, *given):
            for name in dict(term.do).keys() & do.keys():
                raise CounterfactError(f"query: {name} is set by do() and once more in {term}; keep one of them")

        def in_world(terms: list[Term]) -> tuple[Term, ...]:
            worlds = (tuple(sorted({**dict(term.do), **do}.items())) for term in terms)
            return tuple(Term(term.variable, term.value, world) for term, world in zip(terms, worlds))

        return Query(in_world(of), in_world(given))

    def begins_do(self) -> bool:
        self.skip()
        found = re.compile(r"do\s*\(", re.IGNORECASE).match(self.typed, self.at)
        self.at = found.end() if found else self.at
        return bool(found)

    def add(self, do: dict[str, Value], name: str, value: Value, at: int) -> None:
        if do.setdefault(name, value) != value:
            raise self.error(f"{name} is set to two values", at)

    def term(self) -> Term:
        self.skip()
        start = self.at
        if self.begins_do():
            raise self.error("do(...) belongs behind the bar, as in P(y | do(x=1))", start)
        name, symbol = self.variable()
        do: dict[str, Value] = {}
        if self.taken("_{"):
            for other, value in self.assignments("}"):
                self.add(do, other, value, start)
        value = self.value(name, symbol) if self.taken("=") else symbol
        return Term(name, value, tuple(sorted(do.items())))

    def assignments(self, end: str) -> list[tuple[str, Value]]:
        found = []
        while True:
            name, symbol = self.variable()
            found.append((name, self.value(name, symbol) if self.taken("=") else symbol))
            if self.taken(end):
                return found
            if not self.taken(","):
                raise self.error(f"expected ',' or {end!r}")

    def word(self) -> tuple[str, int]:
        """What stands up to the next sign, and where it begins."""
        self.skip()
        found = _WORD.match(self.typed, self.at)
        start, self.at = self.at, found.end()
        return found.group().strip(), start

    def variable(self) -> tuple[str, Symbol]:
        """A name, and the symbol of its values."""
        name, start = self.word()
        bare = name.rstrip("'")
        if not bare:
            raise self.error("expected a variable", start)
        try:
            known = self.concepts[bare].name
        except CounterfactError as error:
            raise self.error(str(error), start) from None
        return known, Symbol(known, len(name) - len(bare))

    def value(self, name: str, symbol: Symbol) -> Value:
        """A value of the variable; the name of the variable, primed or not, stands for all of them."""
        word, start = self.word()
        if not word:
            raise self.error(f"expected a value of {name}", start)
        if symbol.mark:
            raise self.error(f"{symbol} stands for all values: leave out its primes or its value", start)
        bare = word.rstrip("'")
        if bare == name and word != bare:
            return Symbol(name, len(word) - len(bare))
        try:
            return self.concepts[name].match(word)
        except CounterfactError as error:
            raise self.error(str(error), start) from None
