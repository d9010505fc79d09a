"""The client of OpenAI-compatible servers against a real one: llama.cpp's own, with SmolLM2."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xllamacpp
from everywhere import everywhere

from causal_core.errors import CounterfactError
from causal_core.language.model import CHOICES, Prompt, Request
from causal_core.language.server import Server
from causal_core.language.smollm2 import gguf
from causal_core.language.trust import Trust

KEY = "sk-0123456789abcdef"
ASK = Request(Prompt("What is wet?"), max_tokens=12)
CHOOSE = Request(Prompt("Is fire hot? Answer with one word: Yes or No."), choices=("Yes", "No"))


class Cancelled(Exception):
    """What a check raises."""


@pytest.fixture(scope="module")
def real():
    """llama.cpp's own server with SmolLM2."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.model_alias = str(gguf()), ["smollm2"]
    parameters.n_ctx, parameters.n_parallel, parameters.warmup, parameters.n_gpu_layers = 2048, 2, False, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.api_keys, parameters.verbosity = [KEY], -1
    return xllamacpp.Server(parameters)


@pytest.fixture(scope="module")
def trust(real):
    return Trust.of(real.listening_address, KEY)


@pytest.fixture(scope="module")
def model(real, trust):
    return Server(real.listening_address, trust=trust)


class TestRealServer:
    def test_tells_its_name_and_abilities(self, model, real):
        assert model.name == f"server:{real.listening_address}/v1 smollm2"
        assert model.scores == CHOICES and model.sees

    def test_writes(self, model):
        said = model.complete(ASK)
        assert said.strip() and said == model.complete(ASK)
        assert model.complete(Request(Prompt("The capital of France is", chat=False), max_tokens=3)).startswith(
            " Paris"
        )
        hot = replace(ASK, temperature=1.5)
        assert len({model.complete(replace(hot, seed=seed)) for seed in (1, 2, 3)}) > 1
        assert model.complete(replace(hot, seed=1)) == model.complete(replace(hot, seed=1))

    def test_a_system_prompt_matters(self, model):
        asked = Request(Prompt("Who are you?"), max_tokens=12)
        pirate = replace(asked, prompt=Prompt("Who are you?", system="You are a pirate called Anne. Say Arr."))
        assert model.complete(asked) != model.complete(pirate)

    def test_scores(self, model):
        yes, no = model.choice_logprobs(CHOOSE)
        assert -10 < yes <= 0 and -10 < no <= 0 and yes != no
        assert model.choice_logprobs(replace(CHOOSE, choices=("No", "Yes", "Xylophone"))) == (no, yes, float("-inf"))

    def test_a_batch_keeps_its_order(self, model):
        told = []
        requests = [CHOOSE, replace(ASK, max_tokens=1), CHOOSE, replace(ASK, max_tokens=4)]
        found = model.batch(requests, lambda done, total: told.append((done, total)))
        assert found[0] == found[2] and found[3].startswith(found[1]) and told[-1] == (4, 4)
        assert told == sorted(set(told)) and model.batch([]) == []

    def test_can_be_cancelled_in_the_middle(self, model):
        calls = []

        def check():
            calls.append(1)
            if len(calls) > 3:
                raise Cancelled

        with pytest.raises(Cancelled):
            model.complete(Request(Prompt("Count to 1000."), max_tokens=1500), check)
        assert model.complete(replace(ASK, max_tokens=1))

    def test_takes_no_picture(self, model):
        with pytest.raises(CounterfactError, match="image"):
            model.complete(replace(ASK, prompt=Prompt("What is it?", images=(np.zeros((8, 8, 3), np.uint8),))))

    def test_needs_the_key(self, real):
        with pytest.raises(CounterfactError, match="wants a key.*first in COUNTERFACT_LLM_URL.*COUNTERFACT_LLM_KEY"):
            Server(real.listening_address, "smollm2", Trust()).complete(ASK)
        with pytest.raises(CounterfactError, match="does not accept the key .*check COUNTERFACT_LLM_KEY") as caught:
            Server(real.listening_address, "smollm2", Trust.of(real.listening_address, KEY + "X")).complete(ASK)
        assert KEY not in everywhere(caught.value)

    def test_wrong_path(self, real, trust):
        url = f"{real.listening_address}/v2"
        with pytest.raises(CounterfactError, match="has no /chat/completions.*base_url .many end in /v1. and model"):
            Server(url, "smollm2", Trust.of(url, KEY)).complete(ASK)
