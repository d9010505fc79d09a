"""Where phrases are in the tokens of a caption, for text encoders that read it whole, in sections or in part."""

from __future__ import annotations

import re

import pytest

from causal_core.attention.spans import phrase_span, phrase_spans
from causal_core.errors import CounterfactError

START, END, PAD = "<start>", "<end>", "<pad>"


def sections(room, pad=PAD):
    """A tokenizer of words and commas that reads ``room`` of them at a time."""

    def tokenize(text):
        words = re.findall(r"\w+|[^\w\s]+", text)
        parts = [words[i : i + room] for i in range(0, len(words), room)] or [[]]
        return [token for part in parts for token in (START, *part, END, *[pad] * (room - len(part)))]

    return tokenize


def cut(room):
    """A tokenizer that reads the first ``room`` words and commas and forgets the rest."""
    return lambda text: sections(room)(text)[: room + 2]


def read(tokenize, phrases):
    """The tokens that the spans of the phrases point at."""
    tokens = list(tokenize(", ".join(phrases)))
    return [" ".join(tokens[start:end]) for start, end in phrase_spans(tokenize, phrases)]


@pytest.mark.parametrize("pad", [PAD, END])
@pytest.mark.parametrize("room", [3, 4, 7, 75])
def test_phrases_of_every_section_are_found(room, pad):
    phrases = ["a tree", "red", "old car", "snow", "a pond", "smoke"]
    found = read(sections(room, pad), phrases)
    for phrase, tokens in zip(phrases, found):
        assert tokens in phrase and tokens
    assert [t for p, t in zip(phrases, found) if " " not in p] == ["red", "snow", "smoke"]
    if room in (7, 75):
        assert found == phrases


def test_a_phrase_across_a_border_is_watched_where_most_of_it_is():
    assert read(sections(5), ["red", "a small old car", "snow"]) == ["red", "a small old", "snow"]
    assert read(sections(4), ["red", "a small old car", "snow"]) == ["red", "old car", "snow"]
    assert read(sections(3), ["red", "a small old car", "snow"]) == ["red", "small old car", "snow"]
    assert read(sections(2), ["red", "a small old car", "snow"]) == ["red", "old car", "snow"]


def test_punctuation_that_runs_into_the_comma_moves_nothing():
    assert read(sections(75), ["wow!", "red car", "smoke"]) == ["wow !,", "red car", "smoke"]


def test_a_first_word_may_be_spelled_in_another_way():
    def tokenize(text):
        # As byte-level tokenizers do: a word takes the space before it, and without one falls into pieces.
        return [
            token
            for word in re.findall(r" ?\w+|,", text)
            for token in ([word] if word[0] in " ," else [word[:1], word[1:]])
        ]

    assert read(tokenize, ["snow", "red car", "smoke"]) == ["s now", " red  car", " smoke"]


@pytest.mark.parametrize("room", [2, 3, 4, 5])
def test_what_the_text_encoder_cuts_off_is_named(room):
    phrases = ["snow", "red car", "smoke"]
    whole = {2: 1, 3: 1, 4: 2, 5: 2}[room]
    assert [phrase_span(cut(room), phrases, n) for n in range(whole)] == [(1, 2), (3, 5)][:whole]
    for number in range(whole, 3):
        lost = f'phrase "{phrases[number]}" is cut off by the text encoder; use a shorter caption'
        with pytest.raises(CounterfactError, match=lost):
            phrase_span(cut(room), phrases, number)
    assert phrase_spans(cut(6), phrases) == [(1, 2), (3, 5), (6, 7)]


def test_a_first_word_that_is_shorter_without_a_space_is_not_cut_off():
    def tokenize(text):
        # Byte-level vocabularies have some words only as they stand at the beginning of a text.
        return [
            token for word in re.findall(r" ?\w+|,", text) for token in ([" s", "now"] if word == " snow" else [word])
        ]

    assert phrase_spans(tokenize, ["snow", "red"]) == [(0, 1), (2, 3)]
    assert phrase_spans(tokenize, ["red", "snow"]) == [(0, 1), (2, 4)]


@pytest.mark.parametrize("phrase", ["", "  ", "?!"])
def test_a_phrase_without_tokens_is_named(phrase):
    def tokenize(text):
        return [START, *re.findall(r"\w+", text), END]

    with pytest.raises(CounterfactError, match="has no token that the text encoder knows; use other words"):
        phrase_span(tokenize, ["red car", phrase], 1)


def test_unknown_words_are_no_tokens_unless_known_ones_are_with_them():
    known = {"red", "car", "snow"}

    def tokenize(text):
        # One token for every unknown word, after the mark of a new word, as SentencePiece has it for foreign scripts.
        parts = re.findall(r"[^\s,]+|,", text)
        return [t for p in parts for t in ([p] if p in known or p == "," else ["_", "<unknown>"])] + [END]

    assert phrase_span(tokenize, ["red Auto", "snow"], 0) == (0, 3)
    for phrases in (["Schnee", "red car"], ["red car", "roter Wagen"]):
        with pytest.raises(CounterfactError, match="no token that the text encoder knows"):
            phrase_spans(tokenize, phrases)
