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


def phrase_spans(tokenize: Tokenizer, phrases: Sequence[str]) -> list[Span]:
    """Half-open token ranges of the phrases in the caption ``", ".join(phrases)``.

    A phrase that the border between two sections divides has its larger part as its range, or the later one of two
    equal parts, where English has its nouns.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included, sections one after another
    phrases : the phrases of the caption, in order

    Returns
    -------
    list of (start, end)
        Positions in the token sequence of the whole caption.

    Raises
    ------
    CounterfactError
        A phrase has no token of its own, or the caption is cut off before its end.

    Examples
    --------
    >>> words = {"<s>": 0, "</s>": 1, "bare": 2, "tree": 3, "red": 4, "car": 5}
    >>> def tokenize(text):
    ...     return [0] + [words[w] for w in text.replace(",", "").split()] + [1]
    >>> phrase_spans(tokenize, ["bare tree", "red car"])
    [(1, 3), (3, 5)]
    """
    special = set(tokenize(""))

    def content(text: str) -> list[int]:
        """Positions of the tokens that are not special."""
        return [i for i, token in enumerate(tokenize(text)) if token not in special]

    caption = content(", ".join(phrases))
    comma = len(content(","))
    spans = []
    for number, phrase in enumerate(phrases):
        # After a comma, as in the caption: some tokenizers spell the first word of a text in another way.
        length = len(content(f", {phrase}")) - comma
        if length < 1:
            raise CounterfactError(f'phrase "{phrase}" has no token that the text encoder knows; use other words')
        start = len(content(", ".join(phrases[:number]) + ",")) if number else 0
        end = len(content(", ".join(phrases[: number + 1])))
        if end - start < length or end > len(caption):
            raise CounterfactError(
                f'phrase "{phrase}" is cut off by the text encoder; use a shorter caption or fewer concepts'
            )
        spans.append(_largest_part(caption[start:end]))
    return spans


def _largest_part(positions: Sequence[int]) -> Span:
    """The longest run of consecutive positions, the last one of equals."""
    best = run = (positions[0], positions[0] + 1)
    for position in positions[1:]:
        run = (run[0], position + 1) if position == run[1] else (position, position + 1)
        if run[1] - run[0] >= best[1] - best[0]:
            best = run
    return best
