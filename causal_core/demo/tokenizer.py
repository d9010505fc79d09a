"""A word tokenizer with a fixed vocabulary: one word, one token, so that a phrase's tokens are known exactly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import CounterfactError

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")


def words(text: str) -> list[str]:
    """The lower-case words of a text.

    >>> words("Snow, on the GROUND")
    ['snow', 'on', 'the', 'ground']
    """
    return re.findall(r"[a-z]+", text.lower())


class WordTokenizer:
    """Ids of words, between a start and an end id.

    >>> tokenizer = WordTokenizer(["red", "house"], max_length=6)
    >>> tokenizer.encode("Red house")
    [1, 4, 5, 2, 0, 0]

    Parameters
    ----------
    vocabulary : the known words, in the order of their ids from 4 on
    max_length : length of every encoding; longer texts lose their last words
    """

    def __init__(self, vocabulary: Iterable[str], max_length: int = 64) -> None:
        self.vocabulary = tuple(vocabulary)
        self.max_length = max_length
        self.ids = {word: i for i, word in enumerate((*SPECIAL, *self.vocabulary))}

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, padded to `max_length`."""
        ids = [self.ids.get(word, UNKNOWN) for word in words(text)][: self.max_length - 2]
        return [START, *ids, END] + [PAD] * (self.max_length - 2 - len(ids))

    def spans(self, text: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
        """Where each phrase's tokens are in :meth:`encode` of the text: [first, last + 1).

        Phrases are looked for one after the other, so that a word that occurs twice finds its own place; a phrase that
        is out of order is looked for from the beginning.

        Raises
        ------
        CounterfactError
            If a phrase is not in the text, or the text was cut before it.
        """
        text_words = words(text)[: self.max_length - 2]
        found, start = [], 0
        for phrase in phrases:
            wanted = words(phrase)
            places = [*range(start, len(text_words)), *range(start)] if wanted else []
            at = next((i for i in places if text_words[i : i + len(wanted)] == wanted), None)
            if at is None:
                raise CounterfactError(
                    f'the caption does not hold the phrase "{phrase}" within its first {self.max_length - 2} words: '
                    "use the phrase as the graph states it, or shorten the caption"
                )
            start = at + len(wanted)
            found.append((at + 1, start + 1))
        return found
