"""The client of OpenAI-compatible servers against one that does everything wrong."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from everywhere import everywhere

from causal_core.errors import CounterfactError
from causal_core.language import server, wire
from causal_core.language.model import CHOICES, NOTHING, Prompt, Request
from causal_core.language.server import Server
from causal_core.language.trust import Trust

KEY = "sk-0123456789abcdef"
ASK = Request(Prompt("What is wet?"), max_tokens=12)
CHOOSE = Request(Prompt("Is fire hot? Answer with one word: Yes or No."), choices=("Yes", "No"))


class Cancelled(Exception):
    """What a check raises."""


class Misbehaving:
    """A server that answers as a function says; keeps paths, headers and bodies of what it was asked."""

    def __init__(self) -> None:
        self.asked, self.behave, self.over = [], None, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.body = json.loads(self.rfile.read(length) or b"null")
                outer.asked.append(self)
                with suppress(OSError):  # the client has gone
                    outer.behave(self)

            do_GET = do_POST

            def reply(self, status=200, body=b"", **headers) -> None:
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content_Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def bad():
    served = Misbehaving()
    yield served
    served.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waits between tries, and nothing from the environment of whoever runs the tests."""
    monkeypatch.setattr(server, "FIRST_WAIT", 0.01)
    for name in ("COUNTERFACT_LLM_URL", "COUNTERFACT_LLM_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def says(text: str):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def tells(**tokens: float):
    top = [{"token": token, "logprob": number} for token, number in tokens.items()]
    return {"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": top}]}}]}


class TestProtocol:
    """What is sent, and how servers differ."""

    def test_request(self, bad):
        bad.behave = lambda http: http.reply(body=says("Rain."))
        picture = np.full((2048, 16, 3), 7, np.uint8)
        asked = Request(Prompt("Look.", "Be brief.", (picture,)), max_tokens=5, temperature=0.5, seed=3)
        assert Server(bad.url, "m", Trust.of(bad.url, KEY)).complete(asked) == "Rain."
        (http,) = bad.asked
        assert (http.command, http.path, http.headers["Authorization"]) == (
            "POST",
            "/v1/chat/completions",
            f"Bearer {KEY}",
        )
        url = http.body["messages"][1]["content"][0]["image_url"]["url"]
        assert url.startswith("data:image/png;base64,") and len(url) < 2000
        assert http.body == {
            "model": "m", "stream": False, "max_tokens": 5, "temperature": 0.5, "seed": 3,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
                                             {"type": "text", "text": "Look."}]},
            ],
        }  # fmt: skip

    def test_no_key_for_other_servers_of_this_machine(self, bad):
        bad.behave = lambda http: http.reply(body=says("Rain."))
        for trust in (Trust(), Trust.of("https://one.example", KEY), Trust.of(f"https://one.example {bad.url}", KEY)):
            Server(bad.url, "m", trust).complete(ASK)
        assert all(http.headers["Authorization"] is None for http in bad.asked)

    def test_no_password_of_a_netrc_file(self, bad, monkeypatch, tmp_path):
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {KEY}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        bad.behave = lambda http: http.reply(body=says("Rain."))
        Server(bad.url, "m").complete(ASK)
        assert bad.asked[0].headers["Authorization"] is None

    def test_proxies_are_for_other_machines(self, bad, monkeypatch):
        proxy = Misbehaving()
        for served in (bad, proxy):
            served.behave = lambda http: http.reply(body=says(http.path))
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        url = "http://one.example:8000/v1"
        assert Server(url, "m", Trust.of(url)).complete(ASK) == f"{url}/chat/completions"
        assert Server(bad.url, "m").complete(ASK) == "/v1/chat/completions"
        proxy.close()

    @pytest.mark.parametrize(
        "listed, message",
        [(["a", "b"], "lists these: 'a', 'b'"), ([], "lists these: none"), ([{}, 5, None], "lists these: none")],
    )
    def test_which_model(self, bad, listed, message):
        bad.behave = lambda http: http.reply(body={"data": [{"id": name} for name in listed]})
        with pytest.raises(CounterfactError, match=f"model: name one of the models of {bad.url}; it {message}"):
            Server(bad.url).complete(ASK)

    @pytest.mark.parametrize("error, field", [
        ("Use 'max_completion_tokens' instead of 'max_tokens'.", "max_completion_tokens"),
        ("Unsupported value: 'temperature' does not support 0.7 with this model.", None),
        ("unknown field seed", None),
    ])  # fmt: skip
    def test_fields_that_a_server_refuses(self, bad, error, field):
        def behave(http):
            refused = next(name for name in wire.OPTIONAL if name in error)
            http.reply(*((400, {"error": {"message": error}}) if refused in http.body else (200, says("Rain."))))

        bad.behave = behave
        model = Server(bad.url, "m")
        hot = replace(ASK, temperature=0.7)
        assert model.batch([hot, hot, hot]) == ["Rain."] * 3
        sent = len(bad.asked)
        assert model.complete(hot) == "Rain." and len(bad.asked) == sent + 1
        assert field is None or bad.asked[-1].body[field] == 12

    def test_fewer_probabilities(self, bad):
        def behave(http):
            if http.body["top_logprobs"] > 5:
                http.reply(400, {"error": {"message": "top_logprobs must be at most 5"}})
            else:
                http.reply(body=tells(Yes=-0.1, No=-3.0))

        bad.behave = behave
        assert Server(bad.url, "m").choice_logprobs(CHOOSE) == pytest.approx((-0.1, -3.0))

    @pytest.mark.parametrize("answer, scores", [
        (tells(Yes=-0.1, No=-3.0), CHOICES),
        (tells(**{"<think>": -0.1}), NOTHING),
        (tells(), NOTHING),
        (says("Yes"), NOTHING),
    ])  # fmt: skip
    def test_what_its_probabilities_are_worth(self, bad, answer, scores):
        bad.behave = lambda http: http.reply(body=answer)
        model = Server(bad.url, "m")
        assert (model.scores, model.scores, len(bad.asked)) == (scores, scores, 1)

    @pytest.mark.parametrize("status", [400, 422, 500, 501])
    def test_a_server_that_knows_no_probabilities(self, bad, status):
        bad.behave = lambda http: http.reply(status, {"detail": "logprobs are not supported"})
        assert Server(bad.url, "m").scores == NOTHING

    def test_a_dead_server_is_no_server_without_probabilities(self, bad):
        bad.behave = lambda http: http.reply(401)
        with pytest.raises(CounterfactError, match="wants a key"):
            Server(bad.url, "m").scores  # noqa: B018

    def test_no_probabilities_after_all(self, bad):
        bad.behave = lambda http: http.reply(body=says("Yes"))
        with pytest.raises(CounterfactError, match="does not tell probabilities; choose a strategy"):
            Server(bad.url, "m").choice_logprobs(CHOOSE)

    def test_only_so_many_at_once(self, bad):
        running, most, lock = [0], [0], threading.Lock()

        def behave(http):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.02)
            with lock:
                running[0] -= 1
            http.reply(body=says(http.body["messages"][0]["content"]))

        bad.behave = behave
        requests = [Request(Prompt(str(n))) for n in range(12)]
        assert Server(bad.url, "m", parallel=3).batch(requests) == [str(n) for n in range(12)]
        assert most == [3]


def page(http):
    http.reply(body=b"<!DOCTYPE html><html><body>Welcome</body></html>", Content_Type="text/html")


def unfinished(http):
    http.reply(body=json.dumps(says("Rain."))[:40].encode())


def nested(http):
    http.reply(body=b"[" * 100_000)


def huge(http):
    http.send_response(200)
    http.end_headers()
    with suppress(OSError):
        while True:
            http.wfile.write(b"x" * 100_000)


def short(http):
    http.reply(body=b"{", Content_Length="1000")
    http.close_connection = True


def rude(http):
    http.wfile.write(b"220 mail.example ESMTP\r\n")
    http.close_connection = True


def silent(http):
    http.close_connection = True


def echo(http):
    http.reply(
        401, {"error": {"message": f"Incorrect API key provided: {http.headers['Authorization']} \x1b[31m\n" * 50}}
    )


FAULTS = {
    "page": (page, "sent a web page; check that the address"),
    "error page": (lambda http: http.reply(404, b"<html>"), r"has no /chat/completions, or not this model \(404\)"),
    "unfinished": (unfinished, "sent no JSON, or JSON that is cut short"),
    "empty": (lambda http: http.reply(), "sent no JSON"),
    "nested": (nested, "sent no JSON"),
    "wrong form": (lambda http: http.reply(body={"choices": [{"message": "Rain."}]}), "has no text where it should be"),
    "list": (lambda http: http.reply(body=[1, 2]), "has no text where it should be"),
    "huge": (huge, "more than 4,000,000 bytes"),
    "short": (short, r"broke off, or does not speak HTTP \(ClientPayloadError\)"),
    "rude": (rude, "broke off, or does not speak HTTP"),
    "silent": (silent, "broke off, or does not speak HTTP"),
    "key refused": (echo, "does not accept the key .401: Incorrect API key provided: Bearer ... .31m Incorrect"),
    "forbidden": (lambda http: http.reply(403, b"no"), r"does not accept the key \(403: no\)"),
    "failed": (lambda http: http.reply(502, b"Bad Gateway"), r"failed \(502: Bad Gateway\); look into its log"),
    "refused": (lambda http: http.reply(400, {"error": "odd"}), r"does not accept .*\(400: odd\); check model"),
    "redirect": (
        lambda http: http.reply(302, Location=f"http://me:{KEY}@evil.example/v1?key={KEY}"),
        r"sends us on to 'evil.example' \(302\), where we do not go; if you trust that",
    ),
    "redirect to itself": (lambda http: http.reply(307, Location="/v1/chat"), "sends us on to another page"),
    "busy": (lambda http: http.reply(429, Retry_After="0"), r"too busy after 5 tries \(429\); try later, or lower"),
    "full": (lambda http: http.reply(503, {"message": "loading"}), r"still too busy after 5 tries \(503: loading\)"),
}  # fmt: skip


class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    def test_plain_words_and_never_the_key(self, bad, name, caplog):
        caplog.set_level(logging.DEBUG)
        bad.behave, message = FAULTS[name]
        model = Server(bad.url, "m", Trust.of(bad.url, KEY), timeout=20)
        with pytest.raises(CounterfactError, match=f"base_url: the server.*{message}") as caught:
            model.complete(ASK)
        assert bad.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        told = everywhere(caught.value) + caplog.text + model.name + repr(model)
        assert KEY not in told and "0123456789" not in told
        assert len(str(caught.value)) < 600 and "\x1b" not in str(caught.value)

    def test_nobody_is_asked_elsewhere(self, bad):
        elsewhere = Misbehaving()
        elsewhere.behave = lambda http: http.reply(body=says("Rain."))
        bad.behave = lambda http: http.reply(308, Location=f"{elsewhere.url}/chat/completions")
        with pytest.raises(CounterfactError, match="sends us on"):
            Server(bad.url, "m", Trust.of(bad.url, KEY)).complete(ASK)
        elsewhere.close()
        assert len(bad.asked) == 1 and not elsewhere.asked

    def test_busy_for_a_while(self, bad):
        bad.behave = lambda http: http.reply(*((429,) if len(bad.asked) < 4 else (200, says("Rain."))))
        assert Server(bad.url, "m").complete(ASK) == "Rain."
        assert len(bad.asked) == 4

    def test_waits_as_long_as_it_is_asked_to_within_limits(self, bad, monkeypatch):
        waits = []

        async def sleep(seconds):
            waits.append(seconds)

        monkeypatch.setattr(server.asyncio, "sleep", sleep)
        asked = iter(["7", "99999", "nan", "soon"])
        bad.behave = lambda http: http.reply(503, Retry_After=next(asked, "0"))
        with pytest.raises(CounterfactError, match="too busy"):
            Server(bad.url, "m").complete(ASK)
        assert waits == [7, server.MAX_WAIT, 0.04, 0.08]

    def test_nobody_there(self, bad):
        bad.close()
        with pytest.raises(CounterfactError, match=r"cannot be reached \(.*\); start it, and check host and port"):
            Server(bad.url, "m").complete(ASK)

    def test_no_such_host(self):
        url = "http://no-such-host.invalid/v1"
        with pytest.raises(CounterfactError, match="cannot be found; check the name"):
            Server(url, "m", Trust.of(url)).complete(ASK)

    def test_no_tls(self, bad):
        bad.behave = silent
        with pytest.raises(CounterfactError, match="no certificate that is trusted here, or no TLS"):
            Server(bad.url.replace("http:", "https:"), "m").complete(ASK)

    def test_takes_too_long(self, bad):
        bad.behave = lambda http: bad.over.wait(20)
        with pytest.raises(CounterfactError, match="gave no answer within 0.2 seconds; raise timeout"):
            Server(bad.url, "m", timeout=0.2).complete(ASK)

    def test_trickles(self, bad):
        def behave(http):
            http.send_response(200)
            http.end_headers()
            while not bad.over.wait(0.01):
                http.wfile.write(b" ")

        bad.behave = behave
        with pytest.raises(CounterfactError, match="gave no answer within 0.3 seconds"):
            Server(bad.url, "m", timeout=0.3).complete(ASK)

    def test_the_first_failure_ends_a_batch(self, bad):
        bad.behave = lambda http: http.reply(500)
        with pytest.raises(CounterfactError, match="failed"):
            Server(bad.url, "m", parallel=2).batch([ASK] * 50)
        assert len(bad.asked) < 10

    @pytest.mark.parametrize("url", ["http://192.168.0.2:8080/v1", "https://api.example.org/v1"])
    def test_foreign_hosts_are_refused_before_anything_is_sent(self, url):
        with pytest.raises(CounterfactError, match=f"base_url: {url} is on another machine"):
            Server(url, "m", Trust.of("https://other.example", KEY))

    def test_the_environment_is_asked(self, bad, monkeypatch):
        monkeypatch.setenv("COUNTERFACT_LLM_URL", bad.url)
        monkeypatch.setenv("COUNTERFACT_LLM_KEY", KEY)
        bad.behave = lambda http: http.reply(body=says("Rain."))
        assert Server(model="m").complete(ASK) == "Rain."
        assert bad.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        assert Server("http://127.0.0.1:1", "m").url == "http://127.0.0.1:1/v1"

    @pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": float("nan")}, {"parallel": 0}, {"parallel": 65}])
    def test_options(self, options):
        with pytest.raises(CounterfactError, match=next(iter(options))):
            Server("http://127.0.0.1", "m", **options)


class TestCancelling:
    """A wait that were not ended would last for many seconds and end in another error."""

    @pytest.fixture
    def check(self, bad):
        def check():
            if bad.asked:
                raise Cancelled

        return check

    @pytest.mark.parametrize("hang", [
        lambda http, over: over.wait(20),
        lambda http, over: http.reply(429, Retry_After="30"),
        lambda http, over: (http.reply(body=b"{", Content_Length="9"), over.wait(20)),
    ])  # fmt: skip
    def test_ends_the_wait(self, bad, check, hang):
        bad.behave = lambda http: hang(http, bad.over)
        with pytest.raises(Cancelled):
            Server(bad.url, "m", timeout=15).complete(ASK, check)

    def test_ends_the_probe(self, bad, check):
        bad.behave = lambda http: bad.over.wait(20)
        with pytest.raises(Cancelled):
            Server(bad.url, "m", timeout=15, check=check).scores  # noqa: B018

    def test_closes_the_connection(self, bad, check):
        closed = threading.Event()

        def behave(http):
            # Nothing more comes from the client but the end of the connection.
            if http.rfile.read(1) == b"":
                closed.set()

        bad.behave = behave
        with pytest.raises(Cancelled):
            Server(bad.url, "m", timeout=15).batch([ASK] * 4, check=check)
        assert closed.wait(10)


@pytest.mark.parametrize(
    "choices, known, scores",
    [
        (("Yes", "No"), {" Yes": 0.5, "\u2581No": 0.25}, (0.5, None)),
        (("Yes", "No"), {"Y": 0.5, "Yes": 0.125, "Nobody": 0.25}, (0.625, None)),
        (("Yes", "Yesterday"), {"Ye": 0.5, "Yes": 0.25, "Yest": 0.125}, (0.25, 0.125)),
        (("A", "B"), {"A": 0.5, "An": 0.25, "B)": 0.125}, (0.5, 0.125)),
        (("it rains", "it snows"), {"it": 0.5, "\n": 0.25, "": 0.125}, (None, None)),
        (("1", "10"), {"1": 0.5, "10": 0.25}, (0.5, 0.25)),
    ],
)
def test_first_tokens_of_choices(choices, known, scores):
    found = wire.score(choices, {token: float(np.log(share)) for token, share in known.items()})
    assert found == tuple(pytest.approx(np.log(share)) if share else float("-inf") for share in scores)


@pytest.mark.parametrize("number", [float("nan"), float("-inf"), 5.0, 10**400, -(10**400), "-1", None, [], "\ud800"])
def test_odd_probabilities_are_left_out(number):
    assert wire.first_tokens(tells(Yes=-0.5, No=number)) == {"Yes": -0.5}


@pytest.mark.parametrize(
    "message, found",
    [
        ({"content": "Rain."}, "Rain."),
        ({"content": "half \ud83c"}, "half ?"),
        ({"content": [{"type": "text", "text": "Ra"}, {"type": "image"}, {"text": "in."}, 5]}, "Rain."),
        ({"content": None, "refusal": "No."}, ""),
        ({"reasoning_content": "Hm."}, ""),
    ],
)
def test_texts(message, found):
    assert wire.text({"choices": [{"message": message}]}) == found
