"""From the phrases of concepts to one caption and the tokens of each phrase in it, for any tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache

from ..attention.spans import Span, Tokenizer, phrase_span
from ..concepts import Concepts, caption
from ..errors import CounterfactError

log = logging.getLogger("counterfact")


def caption_spans(
    tokenize: Tokenizer, concepts: Concepts, values: Mapping[str, str] | None = None
) -> tuple[str, dict[str, Span]]:
    """The caption of concepts, and where each one's phrase is among its tokens.

    Parameters
    ----------
    tokenize : function from a text to its token ids, special tokens and padding included, sections one after another
    concepts : those without a value are not in the caption
    values : replace factual values

    Returns
    -------
    caption : the phrases in the order of the concepts, joined by commas
    spans : half-open token range of each phrase by concept. Phrases that are cut off, or have no token that the text
        encoder knows, are left out with a warning in the log.

    Examples
    --------
    >>> from causal_core.concepts import parse_concepts
    >>> from causal_core.demo.tokenizer import WordTokenizer
    >>> tokenizer = WordTokenizer(["green", "tree", "red", "car"], max_length=8)
    >>> caption_spans(tokenizer.encode, parse_concepts("tree: green, bare = green\\ncar: red, blue = red"))
    ('green tree, red car', {'tree': (1, 3), 'car': (3, 5)})
    """
    tokenize = cache(tokenize)
    shown = {**concepts.values(), **concepts.settle(values or {})}
    phrases = {concept.name: concept.phrase(shown[concept.name]) for concept in concepts if concept.name in shown}
    spans, unread = {}, []
    for number, name in enumerate(phrases):
        try:
            spans[name] = phrase_span(tokenize, list(phrases.values()), number)
        except CounterfactError as error:
            unread.append(str(error))
    if unread:
        log.warning("The text encoder does not read all of the caption: %s", "; ".join(unread))
    return caption(concepts, values), spans
