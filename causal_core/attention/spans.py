"""Finds the tokens of each phrase of a caption, for any tokenizer.

A caption is a list of phrases joined by commas, so the span of a phrase follows from counting the tokens of the phrases
before it. Tokens that an empty text has as well (start, end, padding) are special and never counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import CounterfactError

Tokenizer = Callable[[str], Sequence[int]]
Span = tuple[int, int]


def phrase_spans(tokenize: Tokenizer, phrases: Sequence[str]) -> list[Span]:
    """Half-open token ranges of the phrases in the caption ``", ".join(phrases)``.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included
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
        return [token for token in tokenize(text) if token not in special]

    sequence = list(tokenize(", ".join(phrases)))
    position = next((i for i, token in enumerate(sequence) if token not in special), 0)
    comma = len(content(","))
    spans = []
    for phrase in phrases:
        own = content(phrase)
        if not own:
            raise CounterfactError(f'phrase "{phrase}" has no token that the text encoder knows; use other words')
        if sequence[position : position + len(own)] != own:
            raise CounterfactError(
                f'phrase "{phrase}" is cut off or split by the text encoder; use a shorter caption or fewer concepts'
            )
        spans.append((position, position + len(own)))
        position += len(own) + comma
    return spans
