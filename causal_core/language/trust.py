"""Which servers pictures and texts may be sent to, and which of them gets the user's key.

A workflow may come from a stranger, so the address in it proves nothing: what goes to another machine, and the key,
must be told outside of the workflow. Servers on this machine are open to every workflow, but get no key for that.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import CounterfactError, shorten

URL_VARIABLE, KEY_VARIABLE = "COUNTERFACT_LLM_URL", "COUNTERFACT_LLM_KEY"
DEFAULT_URL = "http://127.0.0.1:8080/v1"
MAX_URL = 500

# As strict as this, so that nothing can be read in two ways: host and port are what they look like.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"(?P<path>(/[\w.~%+@-]*)*)",
    re.IGNORECASE | re.ASCII,
)
_PORTS = {"http": 80, "https": 443}


def base_url(typed: str) -> str:
    """The base URL of an OpenAI-compatible server in its one normal form.

    Parameters
    ----------
    typed : with or without the /v1 at its end; "/chat/completions" may follow, as copied from documentation

    Raises
    ------
    CounterfactError
        If it is no plain http or https address, or has a user, a password, or a query in it. The message never repeats
        these.

    Examples
    --------
    >>> base_url("HTTP://LocalHost:80"), base_url("https://example.org/openai/v1/")
    ('http://localhost/v1', 'https://example.org/openai/v1')
    """
    typed = typed.strip()
    scheme, _, rest = typed.partition("://")
    host = re.split(r"[/?#\\]", rest)[0]
    if "@" in host or "?" in rest or "#" in rest:
        raise CounterfactError(
            "base_url: the address may not have a user, a password, a key or a question mark in it, since workflows "
            f"are shared; write only the address, and put the key into {KEY_VARIABLE}"
        )
    if scheme.lower() not in _PORTS:
        raise CounterfactError(
            f"base_url: {shorten(typed)} is no http or https address; write one such as {DEFAULT_URL}"
        )
    match = _URL.fullmatch(typed)
    if match is None or len(typed) > MAX_URL or not 0 < int(match["port"] or 1) < 65536 or ".." in match["path"]:
        raise CounterfactError(f"base_url: {shorten(typed)} is no valid address; write one such as {DEFAULT_URL}")
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), int(match["port"] or 0)
    path = re.sub(r"/(chat/)?completions/*$", "", re.sub("/+", "/", match["path"])).rstrip("/") or "/v1"
    return f"{scheme}://{host}{f':{port}' if port not in (0, _PORTS[scheme]) else ''}{path}"


def is_local(url: str) -> bool:
    """Whether a base URL is of this very machine, by its number or as "localhost".

    Examples
    --------
    >>> is_local("http://127.0.0.1:8080/v1"), is_local("http://localhost.example.org/v1")
    (True, False)
    """
    host = _URL.fullmatch(url)["host"].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Trust:
    """The servers that the user named herself, outside of any workflow.

    Attributes
    ----------
    keys : base URL to the key that it gets, "" for none
    """

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, urls: str, key: str = "") -> Trust:
        """Trust in base URLs with spaces between them; only the first gets the key.

        Raises
        ------
        CounterfactError
            For an address that is none, or a key with characters that cannot be sent.
        """
        keys = dict.fromkeys(map(base_url, urls.split()), "")
        if keys and key.strip():
            if not re.fullmatch(r"[!-~]+", key.strip()):
                raise CounterfactError(f"{KEY_VARIABLE} has spaces or unusual characters in it: copy the key again")
            keys[next(iter(keys))] = key.strip()
        return cls(keys)

    @classmethod
    def from_environment(cls) -> Trust:
        """What the environment variables COUNTERFACT_LLM_URL and COUNTERFACT_LLM_KEY say."""
        return cls.of(os.environ.get(URL_VARIABLE, ""), os.environ.get(KEY_VARIABLE, ""))

    def __or__(self, other: Trust) -> Trust:
        """Trust in the servers of both; this one's come first."""
        urls = dict.fromkeys([*self.keys, *other.keys])
        return Trust({url: self.keys.get(url) or other.keys.get(url, "") for url in urls})

    @property
    def default(self) -> str:
        """The server to use where none is named."""
        return next(iter(self.keys), DEFAULT_URL)

    def key(self, url: str) -> str:
        """The key for a base URL, "" for none.

        Raises
        ------
        CounterfactError
            If nothing may be sent there.
        """
        if url not in self.keys and not is_local(url):
            raise CounterfactError(
                f"base_url: {url} is on another machine, and a workflow alone may not choose where texts and pictures "
                f"are sent; if you trust it, list it in the environment variable {URL_VARIABLE} before the start "
                "(addresses with spaces between them), or in ComfyUI's settings under Counterfact"
            )
        return self.keys.get(url, "")
