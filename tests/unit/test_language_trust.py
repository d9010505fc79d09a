"""Addresses of language servers: what is one, which may be used, and which gets a key."""

from __future__ import annotations

import pytest

from causal_core.errors import CounterfactError
from causal_core.language.trust import DEFAULT_URL, Trust, base_url, is_local

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    "typed, normal",
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080/v1"),
        ("HTTP://LocalHost:80//v1//", "http://localhost/v1"),
        ("https://api.example.org:443/v1/chat/completions", "https://api.example.org/v1"),
        ("https://example.org/V1beta/openai/", "https://example.org/V1beta/openai"),
        ("http://[::1]:11434/v1", "http://[::1]:11434/v1"),
    ],
)
def test_addresses_have_one_form(typed, normal):
    assert base_url(typed) == normal == base_url(normal)


@pytest.mark.parametrize(
    "typed",
    [
        "", "127.0.0.1:8080", "ftp://127.0.0.1/v1", "file:///etc/passwd", "javascript:alert(1)", "ws://127.0.0.1",
        "http://", "http:///v1", "http://127.0.0.1:0/v1", "http://127.0.0.1:65536", "http://127.0.0.1:+80",
        "http://127.0.0.1:80:80", "http://a b/v1", "http://exa\u043cple.org/v1", "http://127.0.0.1\\@example.org/v1",
        "http://127.0.0.1/v1\r\nHost: example.org", "http://127.0.0.1/../v1", "http://[::1/v1", "http://-a/v1",
        "http://a./v1", "http://127.0.0.1/" + "v" * 600, "http://\u0661\u0662\u0667.0.0.1/v1",
    ],
)  # fmt: skip
def test_what_is_no_address(typed):
    with pytest.raises(
        CounterfactError, match="base_url: .*(no http or https|no valid) address; write one such as http"
    ):
        base_url(typed)


@pytest.mark.parametrize(
    "typed",
    [
        f"https://me:{KEY}@example.org/v1",
        f"https://{KEY}@example.org/v1",
        f"https://example.org/v1?key={KEY}",
        f"https://example.org/v1#{KEY}",
        f"http://127.0.0.1:8080@{KEY}/v1",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_repeated(typed):
    with pytest.raises(CounterfactError, match="a key .*COUNTERFACT_LLM_KEY") as caught:
        base_url(typed)
    assert KEY not in str(caught.value) and "example" not in str(caught.value)


@pytest.mark.parametrize(
    "url, local",
    [
        ("http://127.0.0.1/v1", True), ("http://127.8.9.1:5000/v1", True), ("http://localhost:1234/v1", True),
        ("http://[::1]/v1", True), ("https://localhost/v1", True), ("http://0.0.0.0/v1", False),
        ("http://192.168.0.2/v1", False), ("http://10.0.0.1/v1", False), ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False), ("http://2130706433/v1", False), ("http://127.1/v1", False),
        ("http://0x7f000001/v1", False), ("http://[fe80::1]/v1", False), ("http://127.0.0.1e/v1", False),
    ],
)  # fmt: skip
def test_only_this_machine_needs_no_trust(url, local):
    assert is_local(base_url(url)) is local
    if local:
        assert Trust().key(base_url(url)) == ""
    else:
        with pytest.raises(CounterfactError, match="COUNTERFACT_LLM_URL"):
            Trust().key(base_url(url))


def test_only_the_first_listed_server_gets_the_key():
    trust = Trust.of("https://one.example/v1/ http://127.0.0.1:1/v1  https://two.example https://one.example", KEY)
    assert trust.default == "https://one.example/v1" and trust.key("https://one.example/v1") == KEY
    for other in ("http://127.0.0.1:1/v1", "https://two.example/v1", "http://127.0.0.1:8080/v1", "http://localhost/v1"):
        assert trust.key(other) == ""
    # Another scheme, port, host or path may be another's.
    for foreign in ("http://one.example/v1", "https://one.example:8443/v1", "https://one.example/other/v1",
                    "https://api.one.example/v1", "https://one.example/v2"):  # fmt: skip
        with pytest.raises(CounterfactError, match=f"base_url: {foreign} is on another machine.*COUNTERFACT_LLM_URL"):
            trust.key(foreign)
    assert KEY not in repr(trust)


def test_nothing_listed():
    assert Trust().default == DEFAULT_URL == Trust.of(" ").default
    assert Trust.of("", KEY).key(DEFAULT_URL) == ""


def test_each_list_has_its_own_key():
    trust = Trust.of("https://a.example https://b.example", KEY) | Trust.of("https://b.example https://c.example", "kb")
    keys = [trust.key(f"https://{name}.example/v1") for name in "abc"]
    assert keys == [KEY, "kb", ""] and trust.default == "https://a.example/v1"
    assert (Trust() | trust).default == "https://a.example/v1"


def test_environment(monkeypatch):
    monkeypatch.setenv("COUNTERFACT_LLM_URL", "https://one.example")
    monkeypatch.setenv("COUNTERFACT_LLM_KEY", f" {KEY}\n")
    assert Trust.from_environment().key("https://one.example/v1") == KEY
    monkeypatch.setenv("COUNTERFACT_LLM_KEY", f"{KEY}\r\nHost: x")
    with pytest.raises(CounterfactError, match="COUNTERFACT_LLM_KEY has") as caught:
        Trust.from_environment()
    assert KEY not in str(caught.value)
