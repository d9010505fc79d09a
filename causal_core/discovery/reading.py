"""What a model's free text says: a letter, yes or no, names, or edges; None for whatever cannot be read.

Answers come from outside and may be anything. A reader gives a valid result about the very concepts that were asked
about, or None. Final answers stand in `<Answer>` tags, as in the prompts of Kiciman et al. (2023).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from ..errors import folded

# Of a longer answer only the end is looked at, where the final answer stands.
MAX_ANSWER = 20_000
MAX_REASON = 200

_TAG = re.compile(r"<(/?)\s*answer\s*>", re.IGNORECASE)
# "A" alone or before a full stop, a colon, a bracket or a new line; before other words it may be an article.
_LETTER = re.compile(r"[\s\"'(*\[]*([A-Z])(?:[\s\"'*\])]*$|[\"'*]*[.):\]\n])")
_MARKED_LETTER = re.compile(r"(?i:\b(?:answer|option)(?: is)?)\s*:?\s*[\"'(*\[]*([A-Z])(?=[\"'*]*(?:$|[.):\]\n]))")
_WORD = re.compile(r"[^\W\d_]+")
_ARROW = re.compile("->|\u2192")
_BETWEEN = re.compile(r"[,;\n]")
_NOTHING = {"none", "nothing", "no", "no edges", "n/a", "empty"}
_QUOTES = "\"'`*[](){}. \t\r\n\u201c\u201d"


def tagged(answer: str) -> list[str]:
    """What stands in the tags of an answer, in order; a last tag may lack its end, as in an answer that was cut short.

    Examples
    --------
    >>> tagged("It may be <Answer>A</Answer>, no: <answer> B")
    ['A', 'B']
    """
    answer = answer[-MAX_ANSWER:]
    found, start = [], None
    for tag in _TAG.finditer(answer):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            found.append(answer[start : tag.start()].strip())
            start = None
    if start is not None:
        found.append(answer[start:].strip())
    return found


def letter(answer: str, letters: Sequence[str]) -> str | None:
    """The one letter that an answer chooses; None if there is none of `letters`, or tags with different ones.

    Examples
    --------
    >>> letter("Rain makes streets wet. <Answer>A</Answer>", "ABC"), letter("(b) it is", "ABC"), letter("B.", "ABC")
    ('A', None, 'B')
    >>> letter("<Answer>A</Answer> or <Answer>B</Answer>", "ABC") is letter("A street gets wet", "ABC") is None
    True
    """
    contents = tagged(answer)
    if contents:
        found = [_LETTER.match(content.upper() if len(content) == 1 else content) for content in contents]
    else:
        found = [_LETTER.match(answer[:MAX_ANSWER]) or _MARKED_LETTER.search(answer[-MAX_ANSWER:])]
    chosen = {match[1] for match in found if match} & set(letters)
    return chosen.pop() if len(chosen) == 1 else None


def yes_or_no(answer: str) -> bool | None:
    """Whether an answer says yes.

    Examples
    --------
    >>> yes_or_no("Yes."), yes_or_no("<Answer>no</Answer>"), yes_or_no("Yes and no"), yes_or_no("Perhaps")
    (True, False, None, None)
    """
    said = {content.strip(_QUOTES).casefold() for content in tagged(answer)} & {"yes", "no"}
    if not said:
        words = [word.casefold() for word in _WORD.findall(answer[:MAX_REASON])[:3]]
        if words[:1] in (["yes"], ["no"]) and words[1:2] not in (["and"], ["or"]):
            said = {words[0]}
    return said.pop() == "yes" if len(said) == 1 else None


def names(answer: str, known: Mapping[str, int]) -> tuple[set[int], int] | None:
    """The concepts that an answer lists in its last tag.

    Parameters
    ----------
    known : numbers of the concepts by folded name

    Returns
    -------
    their numbers and how many other things were listed; None without a tag, or if nothing that is listed is known

    Examples
    --------
    >>> known = {"season": 0, "chimney smoke": 1}
    >>> names('<Answer>"Season", unicorns</Answer>', known), names("<Answer>none</Answer>", known)
    (({0}, 1), (set(), 0))
    >>> names("season", known) is names("<Answer>unicorns</Answer>", known) is None
    True
    """
    contents = tagged(answer)
    if not contents:
        return None
    if contents[-1].strip(_QUOTES).casefold() in _NOTHING and "none" not in known:
        return set(), 0
    parts = [part for part in map(_name, _BETWEEN.split(contents[-1])) if part]
    found = {known[part] for part in parts if part in known}
    return (found, sum(part not in known for part in parts)) if found else None


def edges(answer: str, known: Mapping[str, int]) -> tuple[set[tuple[int, int]], int] | None:
    """The edges that an answer lists in its last tag, `a -> b` with commas, semicolons or lines between them.

    Returns
    -------
    pairs (cause, effect) and how many parts were no edge between known concepts; None without a tag, if nothing that is
    listed is an edge, or if the edges make a cycle

    Examples
    --------
    >>> known = {"season": 0, "smoke": 1}
    >>> edges("<Answer>season -> smoke, season -> unicorns</Answer>", known)
    ({(0, 1)}, 1)
    >>> edges("<Answer>season -> smoke; smoke -> season</Answer>", known) is None
    True
    """
    contents = tagged(answer)
    if not contents:
        return None
    if contents[-1].strip(_QUOTES).casefold() in _NOTHING:
        return set(), 0
    found: set[tuple[int, int]] = set()
    odd = 0
    for part in _BETWEEN.split(contents[-1]):
        chain = [_name(name) for name in _ARROW.split(part)]
        if chain == [""]:
            continue
        if len(chain) > 1 and all(name in known for name in chain) and len(set(chain)) == len(chain):
            found |= {(known[cause], known[effect]) for cause, effect in zip(chain, chain[1:])}
        else:
            odd += 1
    return (found, odd) if found and not _cyclic(found) else None


def reason(answer: str) -> str:
    """The first line of an answer that is no final answer, as one printable line of at most `MAX_REASON` characters.

    Examples
    --------
    >>> reason("\\n**Rain** wets\\x00 streets.\\nSo: <Answer>A</Answer>"), reason("<Answer>A</Answer>")
    ('**Rain** wets streets.', '')
    """
    for line in _TAG.split(answer[:MAX_ANSWER])[0].splitlines():
        line = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", line))
        line = " ".join(line.split())
        if sum(c.isalpha() for c in line) > 3:
            return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3].rstrip() + "..."
    return ""


def _name(part: str) -> str:
    return folded(part.strip(_QUOTES))


def _cyclic(links: set[tuple[int, int]]) -> bool:
    rest = set(links)
    while rest:
        effects = {effect for _, effect in rest}
        kept = {(cause, effect) for cause, effect in rest if cause in effects}
        if len(kept) == len(rest):
            return True
        rest = kept
    return False
