"""Replies of any kind to the client of OpenAI-compatible servers."""

from __future__ import annotations

import json
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from random_json import anything

from causal_core.errors import CounterfactError
from causal_core.language import server, wire
from causal_core.language.server import Reply, Server
from causal_core.language.trust import base_url, is_local

FUZZ = settings(max_examples=300, derandomize=True, deadline=None, database=None)


FIELDS = "choices message content text logprobs top_logprobs token logprob data id error".split()


def random_reply(rng):
    """Any JSON, or the form of a right answer with anything in its place."""

    def odd(depth=3):
        return anything(rng, [*FIELDS, "Yes", "No"], depth)

    top = [{"token": odd(1), "logprob": odd(1)} for _ in range(rng.randrange(4))]
    logprobs = {"content": [{"top_logprobs": rng.choice([top, odd()])}]}
    right = {"choices": [{"message": {"content": odd()}, "logprobs": rng.choice([logprobs, logprobs, odd()])}]}
    return rng.choice([odd(), right])


class TestFuzz:
    @settings(FUZZ, max_examples=100)
    @given(st.randoms(use_true_random=True))
    def test_any_json(self, rng):
        """1000 replies."""
        for _ in range(10):
            self.check_reply(random_reply(rng))

    def check_reply(self, data):
        model = Server("http://127.0.0.1:1", "m")
        content = json.dumps(data).encode()
        # Whole, cut short, and as an error.
        for status, body in ((200, content), (200, content[:-3]), (400, content), (404, content)):
            for read in (wire.text, wire.first_tokens, wire.models):
                with suppress(CounterfactError):
                    found = read(model._read(Reply(status, {}, body)))
                    assert isinstance(found, (str, dict, list))
                    str(found).encode()
        for number in wire.score(("Yes", "No"), wire.first_tokens(data)):
            assert number <= 1.1

    @FUZZ
    @given(st.integers(100, 599), st.binary(max_size=60), st.dictionaries(
        st.sampled_from(["Location", "Retry-After"]), st.text(max_size=20)))  # fmt: skip
    def test_any_reply(self, status, body, headers):
        with suppress(CounterfactError):
            Server("http://127.0.0.1:1", "m")._read(Reply(status, headers, body))
        wait = server._retry_after(headers.get("Retry-After", ""))
        assert wait is None or wait >= 0


@FUZZ
@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://127.0.0.1", "http://[::1]:"]))
def test_anything_typed_is_an_address_or_an_error(typed, start):
    try:
        url = base_url(start + typed)
    except CounterfactError as error:
        assert "base_url: " in str(error)
    else:
        assert base_url(url) == url and is_local(url) in (True, False)
