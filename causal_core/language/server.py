"""A client of any server that speaks OpenAI's chat protocol: llama.cpp, Ollama, LM Studio, vLLM, and services.

What a server sends is not trusted: its length and the time that it may take are limited, redirects are not followed,
and an answer of any other form is an error in plain words. No key is ever part of a name, a message or a log line:
errors are made of our own words, outside of the frames that know the key.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..errors import CounterfactError, finite, shorten
from . import wire
from .model import CHOICES, NOTHING, Answer, Check, Progress, Prompt, Request, Together, ignore
from .trust import KEY_VARIABLE, URL_VARIABLE, Trust, base_url, is_local

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

log = logging.getLogger("counterfact")

MAX_BYTES = 4_000_000
MAX_PARALLEL = 64
CONNECT_SECONDS = 15.0
POLL_SECONDS = 0.05
# A busy server is asked so many times, with waits that double, or that it asks for, up to a limit.
BUSY = 429, 503
TRIES, FIRST_WAIT, MAX_WAIT = 5, 1.0, 30.0
# A server answers so to what it does not understand.
REFUSALS = 400, 422, 500, 501

PROBE = Request(Prompt("Is fire hot? Answer with one word: Yes or No."), choices=("Yes", "No"))


@dataclass(frozen=True)
class Reply:
    """What came back: a status, headers and a body, or the reason why nothing did.

    Headers and body are left out of `repr`, since a server may repeat the key in them.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    problem: str = ""


class Server(Together):
    """A language model behind an OpenAI-compatible server.

    Choices are scored from the most probable first tokens of the answer to a chat prompt.

    Parameters
    ----------
    url : base URL, with or without /v1; "" for the first of the user's own servers, else one on this machine
    model : its name on the server; "" if the server has only one
    trust : which servers on other machines may be used, and the keys; by default what the environment says
    timeout : seconds that one answer may take
    parallel : how many requests of a batch are under way at once
    check : called while the server is asked for its name and abilities, see `LanguageModel.complete`

    Raises
    ------
    CounterfactError
        If the address is none, or is on a machine that the user has not listed.
    """

    sees = True

    def __init__(
        self,
        url: str = "",
        model: str = "",
        trust: Trust | None = None,
        timeout: float = 120.0,
        parallel: int = 4,
        check: Check = ignore,
    ) -> None:
        if find_spec("aiohttp") is None:
            raise CounterfactError(
                "to ask a language server, the Python package aiohttp is needed; run pip install -e '.[llm]' in the "
                "folder of the pack"
            )
        self._trust = Trust.from_environment() if trust is None else trust
        self.url = base_url(url) if url.strip() else self._trust.default
        self._trust.key(self.url)
        self.timeout = finite(timeout, "timeout", 0.1, 3600)
        self.parallel = int(finite(parallel, "parallel", 1, MAX_PARALLEL))
        self._model, self._check = model.strip(), check
        # Fields that this server does not understand, as it turns out.
        self._without: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Server({self.url!r}, {self._model!r})"

    @cached_property
    def model(self) -> str:
        """The model's name on the server, asked for where none was given."""
        if self._model:
            return self._model
        names = wire.models(self._read(_wait(self._in_session(self._models), self._check), "/models"))
        if len(names) != 1:
            known = ", ".join(map(shorten, names[:20])) or "none"
            raise CounterfactError(f"model: name one of the models of {self.url}; it lists these: {known}")
        return _plain(names[0])

    @property
    def name(self) -> str:
        return f"server:{self.url} {self.model}"

    @cached_property
    def scores(self) -> str:
        """Whether the server tells probabilities, found out with one short question."""
        reply = _wait(self._in_session(self._ask, self.model, PROBE), self._check)
        if reply.status in REFUSALS:
            return NOTHING
        known = wire.score(PROBE.choices, wire.first_tokens(self._read(reply)))
        # A model that thinks first begins with neither.
        return CHOICES if any(map(math.isfinite, known)) else NOTHING

    def batch(self, requests: Sequence[Request], progress: Progress = ignore, check: Check = ignore) -> list[Answer]:
        """See `LanguageModel.batch`; `parallel` requests at a time, and the first failure ends all."""
        if not requests:
            return []
        model, waiting = self.model, iter(enumerate(requests))
        answers: dict[int, Answer] = {}

        async def work(session: aiohttp.ClientSession) -> None:
            for n, request in waiting:
                answers[n] = self._answer(request, await self._ask(session, model, request))

        async def everything(session: aiohttp.ClientSession) -> None:
            workers = [asyncio.ensure_future(work(session)) for _ in range(min(self.parallel, len(requests)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()

        told = -1

        def tick() -> None:
            nonlocal told
            check()
            if len(answers) != told:
                told = len(answers)
                progress(told, len(requests))

        _wait(self._in_session(everything), tick)
        return [answers[n] for n in range(len(requests))]

    def _answer(self, request: Request, reply: Reply) -> Answer:
        data = self._read(reply, wire.path(request))
        if not request.choices:
            return wire.text(data)
        known = wire.first_tokens(data)
        if not known:
            raise CounterfactError(
                f"base_url: the server {self.url} does not tell probabilities; choose a strategy that counts votes, or "
                "another server"
            )
        return wire.score(request.choices, known)

    async def _ask(self, session: aiohttp.ClientSession, model: str, request: Request) -> Reply:
        """The reply to a request; fields that the server does not understand are left out in further tries."""
        while True:
            without = self._without
            reply = await self._send(session, wire.path(request), wire.body(model, request, without))
            field = wire.refused(reply.body, without) if reply.status in REFUSALS else None
            if field is None:
                return reply
            log.info("The server %s does not understand %s; doing without", self.url, field)
            self._without |= {field}

    async def _models(self, session: aiohttp.ClientSession) -> Reply:
        return await self._send(session, "/models")

    def _in_session(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> Callable[[], Awaitable[T]]:
        """The same work with a session that ends with it; the key goes into it and nowhere else."""

        async def run() -> T:
            async with _session(self._trust.key(self.url), self.url, self.timeout) as session:
                return await work(session, *arguments)

        return run

    async def _send(self, session: aiohttp.ClientSession, path: str, body: Any = None) -> Reply:
        """Send a request, again and again while the server is busy."""
        reply = Reply()
        for tries in range(TRIES):
            if tries:
                asked = _retry_after(reply.headers.get("Retry-After", ""))
                await asyncio.sleep(min(MAX_WAIT, FIRST_WAIT * 2 ** (tries - 1) if asked is None else asked))
            reply = await self._send_once(session, path, body)
            if reply.status not in BUSY:
                break
        return reply

    async def _send_once(self, session: aiohttp.ClientSession, path: str, body: Any) -> Reply:
        import aiohttp

        method, proxy = "GET" if body is None else "POST", None if is_local(self.url) else _proxy(self.url)
        try:
            async with session.request(
                method, self.url + path, json=body, proxy=proxy, allow_redirects=False
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        return Reply(problem=f"sends more than {MAX_BYTES:,} bytes for one answer; check the address")
                return Reply(response.status, dict(response.headers), bytes(content))
        except aiohttp.ConnectionTimeoutError:
            return Reply(problem="cannot be reached (no connection in time); start it, and check host and port")
        except asyncio.TimeoutError:
            return Reply(problem=f"gave no answer within {self.timeout:g} seconds; raise timeout, or see what keeps it")
        except aiohttp.ClientConnectorDNSError:
            return Reply(problem="cannot be found; check the name in the address, and the network")
        except aiohttp.ClientSSLError:
            return Reply(problem="has no certificate that is trusted here, or no TLS; check it, and http or https")
        except aiohttp.ClientConnectorError as error:
            why = error.os_error.strerror or type(error.os_error).__name__
            return Reply(problem=f"cannot be reached ({why}); start it, and check host and port")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Reply(problem=f"broke off, or does not speak HTTP ({type(error).__name__}); look into its log")

    def _read(self, reply: Reply, path: str = "/chat/completions") -> Any:
        """The JSON of a reply; raises CounterfactError in plain words for anything else."""
        problem = reply.problem or self._problem(reply, path)
        if not problem:
            with contextlib.suppress(ValueError):
                return wire.decode(reply.body)
            what = "a web page" if wire.is_html(reply.body) else "no JSON, or JSON that is cut short"
            problem = f"sent {what}; check that the address is that of an OpenAI-compatible server: many end in /v1"
        raise CounterfactError(f"base_url: the server {self.url} {problem}")

    def _problem(self, reply: Reply, path: str) -> str:
        """What is wrong with a reply according to its status, and what to do; "" for nothing."""
        status = reply.status
        if 200 <= status < 300:
            return ""
        said = self._said(reply)
        if 300 <= status < 400:
            host = urlsplit(reply.headers.get("Location", "")).netloc.rpartition("@")[2]
            where = shorten(_plain(host)) if host else "another page"
            return f"sends us on to {where} ({status}), where we do not go; if you trust that, write its address"
        if status in (401, 403) and not self._trust.key(self.url):
            return (
                f"wants a key ({status}{said}); list its address first in {URL_VARIABLE} and put the key into "
                f"{KEY_VARIABLE}"
            )
        if status in (401, 403):
            return f"does not accept the key ({status}{said}); check {KEY_VARIABLE}"
        if status == 404:
            return f"has no {path}, or not this model ({status}{said}); check base_url (many end in /v1) and model"
        if status in BUSY:
            return f"is still too busy after {TRIES} tries ({status}{said}); try later, or lower parallel"
        if status >= 500:
            return f"failed ({status}{said}); look into its log"
        return f"does not accept the request ({status}{said}); check model"

    def _said(self, reply: Reply) -> str:
        """The server's own words about an error, short, and without the key, which some repeat."""
        words, key = wire.complaint(reply.body), self._trust.key(self.url)
        words = " ".join(_plain(words.replace(key, "...") if key else words).split())
        return f": {words[:200]}" if words else ""


def _session(key: str, url: str, timeout: float) -> aiohttp.ClientSession:
    import aiohttp

    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    return aiohttp.ClientSession(
        headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}),
        connector=aiohttp.TCPConnector(ssl=_tls() if url.startswith("https:") else False),
        timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout)),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        # No password of a .netrc file; proxies of the environment are given with each request.
        trust_env=False,
    )


def _wait(work: Callable[[], Awaitable[T]], tick: Callable[[], None]) -> T:
    """Do asynchronous work in a thread of its own, and end it at once when `tick`, called all the time, raises.

    The caller's thread may run an event loop itself, as ComfyUI's does.
    """
    loop, done = asyncio.new_event_loop(), futures.Future()
    task = loop.create_task(work())

    def run() -> None:
        try:
            done.set_result(loop.run_until_complete(task))
        except BaseException as error:
            done.set_exception(error)
        finally:
            loop.close()

    threading.Thread(target=run, name="counterfact-language-server", daemon=True).start()
    try:
        while not done.done():
            tick()
            futures.wait([done], POLL_SECONDS)
        result = done.result()
        tick()
    except BaseException:
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(task.cancel)
        raise
    return result


def _retry_after(value: str) -> float | None:
    """Seconds to wait according to a Retry-After header, a number or a date; None if it is neither.

    Examples
    --------
    >>> _retry_after("2.5"), _retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), _retry_after("soon")
    (2.5, 0.0, None)
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _proxy(url: str) -> str | None:
    """The proxy that the environment has for an address."""
    parts = urlsplit(url)
    return None if urllib.request.proxy_bypass(parts.hostname) else urllib.request.getproxies().get(parts.scheme)


@lru_cache
def _tls() -> ssl.SSLContext:
    """The system's certificates, and certifi's for Pythons that do not find the system's."""
    context = ssl.create_default_context()
    with contextlib.suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _plain(words: str) -> str:
    """A server's words without what could disturb a terminal or a page."""
    return "".join(c if c.isprintable() else " " for c in words)
