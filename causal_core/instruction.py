"""A counterfactual plan in words for editors that follow instructions: what to change, what follows, what to keep.

Such editors draw more of the consequences if the text spells them out (PICABench, ICLR 2026: short against explicit
prompts), so causes come first and each depth of the graph has its sentence. Concepts have names and phrases of any
shape: the grammar here is small, and a phrase that it does not understand is quoted as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, takewhile
from typing import NamedTuple

from .concepts import Concept
from .errors import CounterfactError, folded, unknown
from .plan import CounterfactualPlan, PlanItem

STYLES = FULL, SHORT = "full sentence", "short"
NOTHING = "Change nothing: keep the picture exactly as it is."
REST = "everything else"
CONNECTIVES = "Because of that", "As a result of this", "In turn"

ABSENT = frozenset("none no absent nothing missing gone without false".split())
PRESENT = frozenset("yes present there true".split())
SWITCHED = frozenset(("on", "off"))
NEGATIONS = frozenset("no not without nothing none nobody".split())
ARTICLES = frozenset("a an the".split())
DETERMINERS = ARTICLES | frozenset(
    "some any many few several each every both all one two three four five six seven eight nine ten "
    "my your his her its our their this that these those".split()
)
PREPOSITIONS = frozenset(
    "about above across after against along among around as at before behind below beneath beside between beyond by "
    "down during for from in inside into near of off on onto out outside over past through to toward towards under up "
    "with within without".split()
)
# What is not counted, as far as pictures go, and what is although it ends in -ing.
UNCOUNTED = frozenset(
    "air clothing cloth dirt dust fabric fire fog foliage food frost fur furniture glitter gold grass gravel ground "
    "hail hair ice jewelry lace leather light lighting lightning litter makeup mist moonlight moss mud paint rain "
    "rubble rust sand scenery shade silver smoke snow steam straw sunlight sunshine traffic vegetation water weather "
    "wind wood spring summer autumn fall winter day night dawn dusk noon midday midnight morning evening".split()
)
COUNTED = frozenset("building ceiling drawing earring king painting ring string swing wing".split())
FRAMING = frozenset("camera view viewpoint perspective framing zoom composition layout".split())


class Clause(NamedTuple):
    """One thing to do: a verb, and what it is done to; things with one verb share it."""

    verb: str
    what: str


def instruction(plan: CounterfactualPlan, style: str = FULL, words: int = 0) -> str:
    """Say a plan as one instruction.

    Parameters
    ----------
    plan : CounterfactualPlan
    style : {"full sentence", "short"}
        "short" names the new states only.
    words : int
        Most words that the instruction may have, 0 for any number. First what stays is named no longer (it is then part
        of "everything else"), then the style becomes short, then the most distant consequences are left out.

    Returns
    -------
    str
        One line. The same plan always gives the same text.

    Raises
    ------
    CounterfactError
        For an unknown style, or if not even the intervention fits.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> from causal_core.graph import CausalGraph
    >>> from causal_core.plan import Intervention, propagate
    >>> concepts = parse_concepts("season: summer, winter = summer\\npond: open, frozen = open\\ncar = red")
    >>> graph = CausalGraph.from_edges([("season", "pond")], concepts=concepts)
    >>> plan = propagate(graph, Intervention({"season": "winter"}), {"pond": "frozen"})
    >>> instruction(plan)  # doctest: +NORMALIZE_WHITESPACE
    'Change the season from summer to winter. Because of that, change the pond from open to frozen. Keep the red car and
    the camera exactly as they are, and change nothing else.'
    >>> instruction(plan, "short")
    'Change the season to winter; because of that: frozen pond. Keep everything else exactly as it is.'
    """
    if style not in STYLES:
        raise unknown("style", style, STYLES)
    if not plan.affected:
        return NOTHING
    follows = [item for item in plan.affected if item.role != "intervened"]
    consequences = sorted(follows, key=lambda item: item.depth or 0)
    fewest = ""
    for candidate in _candidates(plan, style, _kept(plan), consequences):
        if words <= 0 or len(candidate.split()) <= words:
            return candidate
        fewest = candidate
    raise CounterfactError(
        f"words: the intervention alone needs {len(fewest.split())} words, more than the {words} allowed; allow more, "
        "or 0 for any number"
    )


def keep(plan: CounterfactualPlan) -> str:
    """The part of the instruction that names what must stay, by the phrases of the invariants.

    What is absent and stays absent is not named: naming a thing invites an editor to draw it.
    """
    return _keep(_kept(plan), everything=False) if plan.affected else NOTHING


def _candidates(
    plan: CounterfactualPlan, style: str, kept: Sequence[str], consequences: Sequence[PlanItem]
) -> Iterable[str]:
    """Instructions from the one that says most to the one that says least."""

    def keeping(said: str) -> Iterable[str]:
        return (f"{said} {_keep(kept[:count], everything=True)}" for count in range(len(kept) - 1, -1, -1))

    if style == FULL:
        said = _full(plan, consequences)
        yield f"{said} {_keep(kept, everything=False)}"
        yield from keeping(said)
        yield from keeping(_short(plan, consequences))
    for count in range(len(consequences), -1, -1):
        yield f"{_short(plan, consequences[:count])} {_keep((), everything=True)}"


def _full(plan: CounterfactualPlan, consequences: Sequence[PlanItem]) -> str:
    sentences = [_sentence(_clause(plan.concepts[item.name], item) for item in _intervened(plan))]
    for number, (_, items) in enumerate(groupby(consequences, key=lambda item: item.depth)):
        said = _sentence(_clause(plan.concepts[item.name], item) for item in items)
        connective = CONNECTIVES[min(number, len(CONNECTIVES) - 1)]
        # Only consequences can change if what is set keeps its value: there is no "that" then.
        sentences.append(f"{connective}, {said}" if sentences[0] else said)
    return " ".join(f"{_capital(said)}." for said in sentences if said)


def _short(plan: CounterfactualPlan, consequences: Sequence[PlanItem]) -> str:
    said = _sentence(_clause(plan.concepts[item.name], item, short=True) for item in _intervened(plan))
    follows = ", ".join(_state(plan.concepts[item.name], item) for item in consequences)
    if not said:
        return f"Show {follows or 'the same'}."
    return f"{_capital(said)}; because of that: {follows}." if follows else f"{_capital(said)}."


def _keep(kept: Sequence[str], everything: bool) -> str:
    """A sentence that keeps these things, and all others too."""
    if everything:
        return f"Keep {_joined([*kept, REST])} exactly as {'they are' if kept else 'it is'}."
    state = "exactly as they are" if len(kept) > 1 else "unchanged"
    return f"Keep {_joined(kept)} {state}, and change nothing else." if kept else _keep((), everything=True)


def _intervened(plan: CounterfactualPlan) -> list[PlanItem]:
    return [item for item in plan.affected if item.role == "intervened"]


def _kept(plan: CounterfactualPlan) -> list[str]:
    """What must stay, the most endangered first: what could have followed, then all the rest, and the camera."""
    named = {True: [], False: []}
    for item in plan.invariant:
        concept = plan.concepts[item.name]
        if not _is_absent(concept, item.factual):
            named[item.role == "descendant"].append(_definite(concept, item.factual))
    moved = {word for item in plan.affected for word in folded(item.name).split()} & FRAMING
    kept = [*named[True], *named[False], *(() if moved else ("the camera",))]
    return list(dict.fromkeys(kept))


def _clause(concept: Concept, item: PlanItem, short: bool = False) -> Clause:
    """What to do about one concept."""
    before, after = item.factual, item.counterfactual
    if after is None:
        return Clause("adapt", f"the {concept.name}")
    if _is_absent(concept, after):
        gone = None if short or not _names(concept, before) else before
        return Clause("remove", _definite(concept, gone))
    if before is None:
        return Clause("change", f"the {concept.name} to {_plain([_words(concept, after)], concept)[0]}")
    if _is_absent(concept, before):
        # A phrase without the concept's name tells what the whole looks like: nobody wants another smoking chimney.
        verb = "add" if _names(concept, after) else "let there be"
        return Clause(verb, _indefinite(_words(concept, after)))
    subject, old, new = _difference(concept, _words(concept, before), _words(concept, after))
    if folded(new) in SWITCHED:
        return Clause("turn", f"the {subject} {new}")
    return Clause("change", f"the {subject} to {new}" if short else f"the {subject} from {old} to {new}")


def _difference(concept: Concept, old: Sequence[str], new: Sequence[str]) -> tuple[str, str, str]:
    """What changes, from what, to what: the words that two phrases share are what changes.

    The rest must be plain modifiers, as in "red hat" and "blue hat"; otherwise the concept's name is what changes.
    """
    start = _shared(old, new)
    end = _shared(old[start:][::-1], new[start:][::-1])
    subject = old[len(old) - end :] if end else _without_article(old[:start])
    rest = [_without_article(words[start : len(words) - end]) for words in (old, new)]
    plain = all(words and not {folded(word) for word in words} & (PREPOSITIONS - SWITCHED) for words in rest)
    whole = subject and folded(subject[0 if end else -1]) not in PREPOSITIONS | DETERMINERS
    if plain and whole and (end or len(rest[0]) == len(rest[1]) == 1):
        return " ".join(subject), " ".join(rest[0]), " ".join(rest[1])
    return concept.name, *_plain((old, new), concept)


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words two phrases begin with together."""
    return len(list(takewhile(bool, (folded(x) == folded(y) for x, y in zip(a, b)))))


def _plain(phrases: Sequence[Sequence[str]], concept: Concept) -> list[str]:
    """Phrases after "from" and "to": without the concept's name at the same end of all, and a preposition before."""
    name = concept.name.split()
    cut = len(name)
    if all(len(words) > cut and _shared(words, name) == cut for words in phrases):
        phrases = [words[cut:] for words in phrases]
    elif all(len(words) > cut and _shared(words[::-1], name[::-1]) == cut for words in phrases):
        phrases = [words[:-cut] for words in phrases]
    return [" ".join(words[1:] if len(words) > 1 and folded(words[0]) in PREPOSITIONS else words) for words in phrases]


def _without_article(words: Sequence[str]) -> Sequence[str]:
    return words[1:] if len(words) > 1 and folded(words[0]) in ARTICLES else words


def _state(concept: Concept, item: PlanItem) -> str:
    """The new state of a consequence, as a caption says it."""
    if item.counterfactual is None:
        return f"another {concept.name}"
    words = _words(concept, item.counterfactual)
    if _is_absent(concept, item.counterfactual) and folded(words[0]) not in NEGATIONS:
        return f"no {concept.name}"
    return " ".join(words)


def _words(concept: Concept, value: str) -> list[str]:
    """The words of a value: its phrase, or value and name; a value that only says that the thing is there, the name."""
    if value in concept.phrases:
        return concept.phrase(value).rstrip(".,;:!? ").split() or [concept.name]
    if concept.interval is not None:
        return [*concept.name.split(), "at", f"{float(value):g}"]
    if folded(value) in PRESENT or folded(value) == folded(concept.name):
        return concept.name.split()
    return (f"{concept.name} {value}" if folded(value) in SWITCHED else f"{value} {concept.name}").split()


def _definite(concept: Concept, value: str | None) -> str:
    """A thing that is in the picture: "the red car"."""
    name = concept.name.split()
    words = name if value is None else _without_article(_words(concept, value))
    if folded(words[0]) in PREPOSITIONS:  # "in summer" is no thing, "the summer season" is
        words = [*words[1:], *name]
    if folded(words[-1]) in SWITCHED and len(words) > 1:
        words = [*words[:-1], "that", "are" if _is_plural(words[-2]) else "is", words[-1]]
    return " ".join(words if folded(words[0]) in DETERMINERS else ["the", *words])


def _indefinite(words: Sequence[str]) -> str:
    """A thing that comes into the picture: "a red car", "an open umbrella", "long shadows", "smoke"."""
    first = folded(words[0])
    if first in DETERMINERS or first in PREPOSITIONS or first[0].isdigit():
        return " ".join(words)
    head = list(takewhile(lambda word: folded(word) not in PREPOSITIONS, words))
    last = folded(head[-2] if len(head) > 1 and head[-1].endswith("ing") else head[-1])
    doing = last.endswith("ing") and last not in COUNTED
    if doing or last in UNCOUNTED or _is_plural(last) or last.endswith(("tion", "ness", "ity", "fall", "wear")):
        return " ".join(words)
    vowel = first[0] in "aeiou" and not first.startswith(("uni", "use", "eu", "one", "ufo"))
    return " ".join(["an" if vowel or first.startswith(("hour", "honest")) else "a", *words])


def _is_plural(word: str) -> bool:
    word = folded(word)
    return word in ("people", "children", "men", "women") or (word[-1] == "s" and word[-2:] not in ("ss", "us", "is"))


def _is_absent(concept: Concept, value: str | None) -> bool:
    """Whether a value says that the thing is not there."""
    if value is None:
        return False
    first = folded(concept.phrases[value][0].split()[0]) if value in concept.phrases else folded(value).split()[0]
    return folded(value) in ABSENT or first in NEGATIONS


def _names(concept: Concept, value: str | None) -> bool:
    """Whether the words of a value name the concept, in the singular or the plural."""
    if value is None:
        return False
    name = folded(concept.name)
    words = folded(" ".join(_words(concept, value)))
    return any(f" {form} " in f" {words} " for form in (name, f"{name}s", f"{name}es"))


def _sentence(clauses: Iterable[Clause]) -> str:
    """Clauses in their order, those with one verb together."""
    by_verb: dict[str, list[str]] = {}
    for clause in clauses:
        by_verb.setdefault(clause.verb, []).append(clause.what)
    return _joined([f"{verb} {_joined(what)}" for verb, what in by_verb.items()])


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _joined(parts: Sequence[str]) -> str:
    if len(parts) > 2 or any(" and " in part for part in parts[:-1]):
        return f"{', '.join(parts[:-1])}, and {parts[-1]}"
    return " and ".join(parts)
