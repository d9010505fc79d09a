"""Finds the tokens of each phrase of a caption, for any tokenizer.

A caption is a list of phrases joined by commas, so a phrase's tokens follow from counting those of the caption before
it. Tokens that an empty text has as well (start, end, padding) are special and never counted, wherever they stand: text
encoders that read long captions in sections put them in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import CounterfactError

Tokenizer = Callable[[str], Sequence[int]]
Span = tuple[int, int]

# Texts that no vocabulary has: what a tokenizer makes of both alike stands for no word.
_NONSENSE = (("qzxvkj", "jkvxzq"), ("\ue000", "\ue001"))


def phrase_span(tokenize: Tokenizer, phrases: Sequence[str], number: int) -> Span:
    """Half-open token range of one of the phrases in the caption ``", ".join(phrases)``.

    A phrase that the border between two sections divides has its larger part as its range, or the later one of two
    equal parts, where English has its nouns.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included, sections one after another
    phrases : the phrases of the caption, in order
    number : which of them, from 0

    Returns
    -------
    (start, end)
        Positions in the token sequence of the whole caption.

    Raises
    ------
    CounterfactError
        The phrase has no token of its own, or the caption is cut off before its end.

    Examples
    --------
    >>> words = {"<s>": 0, "</s>": 1, "bare": 3, "tree": 4, "red": 5, "car": 6}
    >>> def tokenize(text):
    ...     return [0] + [words.get(w, 2) for w in text.replace(",", "").split()] + [1]
    >>> phrase_span(tokenize, ["bare tree", "red car"], 1)
    (3, 5)
    >>> phrase_span(tokenize, ["bare tree", "Hund"], 1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    causal_core.errors.CounterfactError: phrase "Hund" has no token that the text encoder knows; use other words
    """
    special = set(tokenize(""))

    def content(text: str) -> list[int]:
        """Positions of the tokens that are not special."""
        return [i for i, token in enumerate(tokenize(text)) if token not in special]

    def filled(text: str) -> bool:
        """Whether a text leaves no room for more."""
        return len(content(f"{text}, {phrase}")) == len(content(text))

    phrase, before, upto = phrases[number], ", ".join(phrases[:number]), ", ".join(phrases[: number + 1])
    # After a comma, as in the caption: some tokenizers spell the first word of a text in another way.
    length = len(content(f", {phrase}")) - len(content(","))
    start, end = len(content(f"{before},")) if number else 0, len(content(upto))
    # The second: longer by itself than what is read, so that its length is not known.
    if length > 0 and filled(upto) and (end - start < length or filled(f", {phrase}")):
        raise CounterfactError(
            f'phrase "{phrase}" is cut off by the text encoder; use a shorter caption: fewer concepts or fewer words'
        )
    if min(length, end - start) < 1 or set(tokenize(phrase)) <= special | _unknown(tokenize):
        raise CounterfactError(f'phrase "{phrase}" has no token that the text encoder knows; use other words')
    return _largest_part(content(", ".join(phrases))[start:end])


def phrase_spans(tokenize: Tokenizer, phrases: Sequence[str]) -> list[Span]:
    """The ranges of all phrases, see :func:`phrase_span`."""
    return [phrase_span(tokenize, phrases, number) for number in range(len(phrases))]


def _unknown(tokenize: Tokenizer) -> set[int]:
    """Tokens that stand for whatever is not in the vocabulary."""
    made = [[list(tokenize(text)) for text in pair] for pair in _NONSENSE]
    return {token for first, second in made if first == second for token in first}


def _largest_part(positions: Sequence[int]) -> Span:
    """The longest run of consecutive positions, the last one of equals."""
    best = run = (positions[0], positions[0] + 1)
    for position in positions[1:]:
        run = (run[0], position + 1) if position == run[1] else (position, position + 1)
        if run[1] - run[0] >= best[1] - best[0]:
            best = run
    return best
