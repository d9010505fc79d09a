"""Answers that are kept on disk: when the model is asked, and when it need not be."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest

from causal_core.errors import CounterfactError
from causal_core.language import answers
from causal_core.language.answers import Cached
from causal_core.language.backends import open_model
from causal_core.language.model import CHOICES, Prompt, Request, Together
from causal_core.language.server import Server

TEXT = Request(Prompt("What is wet?"))
CHOICE = Request(Prompt("Is rain wet?"), choices=("Yes", "No", "Maybe"))
PICTURE = np.zeros((2, 3, 3), np.uint8)


class Counting(Together):
    """Tells how often it was asked, and never the same twice."""

    scores, sees = CHOICES, True

    def __init__(self, name: str = "counting") -> None:
        self.name, self.asked = name, []

    def batch(self, requests, progress=lambda done, total: None, check=lambda: None):
        found = []
        for request in requests:
            check()
            self.asked.append(request)
            number = float(len(self.asked))
            found.append((-number, -0.5, -math.inf) if request.choices else f"answer {number:.0f} \u00e9\U0001f327")
            progress(len(found), len(requests))
        return found


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def cached(model, tmp_path):
    return Cached(model, tmp_path)


def test_the_same_question_is_asked_once(cached, model, tmp_path):
    assert (cached.name, cached.scores, cached.sees) == ("counting", CHOICES, True)
    first = cached.complete(TEXT), cached.choice_logprobs(CHOICE)
    assert first == ("answer 1 \u00e9\U0001f327", (-2.0, -0.5, -math.inf))
    assert (cached.complete(TEXT), cached.choice_logprobs(CHOICE)) == first
    # So does another process.
    again = Cached(Counting(), tmp_path)
    assert again.batch([CHOICE, TEXT]) == [first[1], first[0]]
    assert (cached.asked, again.asked, len(model.asked)) == (2, 0, 2)


def test_every_part_of_a_question_counts(cached, model):
    questions = [
        TEXT,
        replace(TEXT, max_tokens=9),
        replace(TEXT, temperature=0.5),
        replace(TEXT, temperature=0.5, seed=1),
        replace(TEXT, prompt=Prompt("What is wet!")),
        replace(TEXT, prompt=Prompt("What is wet?", system="Be brief.")),
        replace(TEXT, prompt=Prompt("What is wet?", chat=False)),
        replace(TEXT, prompt=Prompt("What is wet?", images=(PICTURE,))),
        replace(TEXT, prompt=Prompt("What is wet?", images=(PICTURE + 1,))),
        replace(TEXT, prompt=Prompt("What is wet?", images=(PICTURE.reshape(3, 2, 3),))),
        replace(TEXT, prompt=Prompt("What is wet?", images=(PICTURE, PICTURE))),
        replace(TEXT, prompt=Prompt("is wet?", system="What")),
        replace(TEXT, choices=("Yes", "No", "Maybe")),
        replace(TEXT, choices=("Yes", "No, Maybe", "")),
    ]
    first = cached.batch(questions)
    assert model.asked == questions and cached.batch(questions) == first and model.asked == questions


def test_another_model_has_other_answers(cached, tmp_path):
    other = Cached(Counting("other"), tmp_path)
    cached.complete(TEXT)
    other.complete(TEXT)
    assert other.asked == 1


def test_the_seed_counts_only_where_something_is_drawn(cached, model):
    for seed in (1, 2):
        cached.complete(replace(TEXT, seed=seed))
        cached.choice_logprobs(replace(CHOICE, seed=seed, temperature=0.7, max_tokens=seed))
    assert len(model.asked) == 2


def test_a_batch_asks_for_what_is_missing(cached, model):
    cached.complete(TEXT)
    told = []
    questions = [TEXT, CHOICE, replace(TEXT, seed=3), replace(TEXT, max_tokens=3), CHOICE]
    found = cached.batch(questions, lambda done, total: told.append((done, total)))
    assert model.asked == [TEXT, CHOICE, questions[3]]
    assert found[0] == found[2] and found[1] == found[4] and found[1][0] == -2.0
    assert told[0] == (3, 5) and told[-1] == (5, 5)


def test_what_is_known_when_a_run_ends_stays_known(cached, model, monkeypatch):
    monkeypatch.setattr(answers, "CHUNK", 2)
    questions = [replace(TEXT, max_tokens=n) for n in range(1, 8)]

    def cancel():
        if len(model.asked) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached.batch(questions, check=cancel)
    cached.batch(questions)
    # Two pairs were whole; of the third, nothing is kept.
    assert len(model.asked) == 5 + 3


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"answer": 5}', b'{"answer": ["a", 1, 2]}', b'{"answer": [1, 2]}',
     b'{"answer": [NaN, 1, 2]}', b'{"answer": {"a": 1}}', b'{"answer": null}', b'{"answer": ' + b"[" * 100_000],
)  # fmt: skip
def test_damaged_files_count_as_missing(cached, model, tmp_path, content):
    cached.batch([TEXT, CHOICE])
    for file in tmp_path.rglob("*.json"):
        file.write_bytes(content)
    cached.batch([TEXT, CHOICE])
    cached.batch([TEXT, CHOICE])
    assert len(model.asked) == 4


def test_an_answer_that_cannot_be_kept_is_still_given(model, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cached = Cached(model, tmp_path / "file")
    assert cached.complete(TEXT).startswith("answer 1") and cached.batch([TEXT])[0].startswith("answer 2")
    assert "could not be kept" in caplog.text


def test_many_at_once(tmp_path):
    questions = [replace(TEXT, max_tokens=n) for n in range(1, 30)]
    found = []

    def ask():
        found.append(Cached(Counting(), tmp_path).batch(questions))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled = Cached(Counting(), tmp_path)
    assert len(settled.batch(questions)) == 29 and settled.asked == 0 and len(found) == 6
    assert not list(tmp_path.rglob(".part-*"))


def test_answers_lie_in_the_cache_folder(model, monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    Cached(model).complete(TEXT)
    assert list((tmp_path / "answers").rglob("*.json"))


class TestOpening:
    def test_server(self, monkeypatch):
        monkeypatch.delenv("COUNTERFACT_LLM_URL", raising=False)
        model = open_model("server", url="http://127.0.0.1:1234", model="qwen", timeout=5, parallel=2)
        assert isinstance(model, Server) and model.name == "server:http://127.0.0.1:1234/v1 qwen"

    @pytest.mark.parametrize(
        "name, options, message",
        [
            ("nothing", {}, "--backend: there is no 'nothing'; use 'smollm2', 'server', or the path"),
            ("smollm2", {"url": "http://127.0.0.1", "model": "a"}, "smollm2 takes no model, url: only 'server' does"),
            ("", {}, "--backend"),
        ],
    )
    def test_mistakes(self, name, options, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CounterfactError, match=message):
            open_model(name, **options)
