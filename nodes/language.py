"""Language models: from files on this machine, from a server, or the text model that Load CLIP has loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..causal_core.errors import CounterfactError
from . import types
from .mistakes import naming

log = logging.getLogger("counterfact")

FOLDER = "llm"
SMOLLM2 = "SmolLM2 135M"
# Ids of ComfyUI's settings, which the page registers.
URL_SETTING, KEY_SETTING = "Counterfact.LanguageModel.URL", "Counterfact.LanguageModel.Key"
SETTINGS_FILE, MAX_SETTINGS = "comfy.settings.json", 10_000_000


def register_folder() -> None:
    """Let users put language models into models/llm."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def model_files() -> dict[str, Path]:
    """What lies in models/llm, by its name there: .gguf files, and folders with config.json and safetensors."""
    found: dict[str, Path] = {}
    roots, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    for root in map(Path, roots):
        configs = [*root.glob("*/config.json"), *root.glob("*/*/config.json")]
        folders = [config.parent for config in configs if any(config.parent.glob("*.safetensors"))]
        files = [*root.glob("*.gguf"), *root.glob("*/*.gguf")]
        for path in sorted(folders + [file for file in files if not file.name.startswith("mmproj")]):
            found.setdefault(path.relative_to(root).as_posix(), path)
    return found


class LoadLanguageModel(io.ComfyNode):
    """A language model from files, under ComfyUI's memory management."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalLoadLanguageModel",
            display_name="Load Language Model",
            category="causal/language",
            description="A language model from files on this machine, to ask what causes what. It is loaded when it is "
            "first asked something, and makes room when other models need it. Nothing is fetched from the network.",
            search_aliases=["counterfactual", "llm", "gguf", "transformers", "smollm", "causal discovery"],
            inputs=[
                io.Combo.Input(
                    "model", options=[SMOLLM2, *model_files()], default=SMOLLM2,
                    tooltip=f"'{SMOLLM2}' runs on any machine after 'counterfact fetch smollm2', but knows little. "
                    "Better ones appear here when they lie in models/llm: .gguf files, and folders of transformers "
                    "models with config.json and safetensors.",
                ),
            ],
            outputs=[types.Language.Output("language", tooltip="For Build Causal Graph, What If and others.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model: str) -> str:
        path = model_files().get(model)
        if path is None:
            return model
        files = [path] if path.is_file() else sorted(path.iterdir())
        return " ".join(f"{file.name} {file.stat().st_mtime_ns} {file.stat().st_size}" for file in files)

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        from ..causal_core.language.local import LocalModel
        from ..causal_core.language.smollm2 import smollm2
        from .language_memory import Managed, device

        if model == SMOLLM2:
            return io.NodeOutput(smollm2(device(), Managed(), fetch=False))
        path = model_files().get(model)
        if path is None:
            raise CounterfactError(
                f"model: {model!r} is not in models/{FOLDER}; put it there, or press R and choose another"
            )
        return io.NodeOutput(LocalModel.open(path, device(), Managed()))


class LanguageServer(io.ComfyNode):
    """A language model behind an OpenAI-compatible server."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalLanguageServer",
            display_name="Language Model Server",
            category="causal/language",
            description="A language model behind a server that speaks OpenAI's protocol: llama.cpp, Ollama, LM Studio, "
            "vLLM, or a service. A key is never part of a workflow: it comes from the environment variable "
            "COUNTERFACT_LLM_KEY or from ComfyUI's settings.",
            search_aliases=["counterfactual", "llm", "openai", "ollama", "lm studio", "vllm", "llama.cpp", "api"],
            inputs=[
                io.String.Input(
                    "base_url", default="", optional=True, placeholder="http://127.0.0.1:8080/v1",
                    tooltip="Address of the server; many end in /v1. Empty: the first address in COUNTERFACT_LLM_URL "
                    "or in ComfyUI's settings, else http://127.0.0.1:8080/v1. Servers on other machines must be listed "
                    "in one of the two, so that no workflow of a stranger sends your pictures away. The key goes only "
                    "to the first address there.",
                ),
                io.String.Input(
                    "model", default="", optional=True,
                    tooltip="The model's name on the server, such as 'qwen3-vl:8b'. May be empty if it has only one.",
                ),
                io.Float.Input(
                    "timeout", default=120.0, min=1.0, max=3600.0, step=1.0, optional=True, advanced=True,
                    tooltip="Seconds that one answer may take. Cancelling works at once in any case.",
                ),
                io.Int.Input(
                    "parallel", default=4, min=1, max=64, optional=True, advanced=True,
                    tooltip="How many questions are under way at once. More is faster if the server can take it.",
                ),
            ],
            outputs=[types.Language.Output("language", tooltip="For Build Causal Graph, What If and others.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        # Whoever puts another key into the settings wants the failed run to be tried again.
        return hash(tuple(trust().keys.items()))

    @classmethod
    def execute(cls, base_url: str = "", model: str = "", timeout: float = 120.0, parallel: int = 4) -> io.NodeOutput:
        import comfy.model_management

        from ..causal_core.language.server import Server

        cancelled = comfy.model_management.throw_exception_if_processing_interrupted
        return io.NodeOutput(Server(base_url, model, trust(), timeout, parallel, cancelled))


class LanguageFromCLIP(io.ComfyNode):
    """ComfyUI's own text model as a language model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CausalLanguageFromCLIP",
            display_name="Language Model from CLIP",
            category="causal/language",
            description="The text model of a CLIP as a language model, as in ComfyUI's own Generate Text: it answers "
            "questions, scores choices, and sees pictures if it is a vision-language model.",
            search_aliases=["counterfactual", "llm", "vlm", "vision language model", "qwen", "gemma", "generate text"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="From Load CLIP, with a text model that can write, such as Qwen3-VL, Qwen3.5 or Gemma 4. "
                    "The CLIP of Stable Diffusion cannot.",
                ),
            ],
            outputs=[types.Language.Output("language", tooltip="For Build Causal Graph, What If and others.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, clip) -> io.NodeOutput:
        from .clip_model import ClipModel

        return io.NodeOutput(ClipModel(clip))


def trust():
    """The servers that the user named in the environment and in ComfyUI's settings."""
    from ..causal_core.language.trust import Trust

    url, key = settings()
    with naming("ComfyUI's settings"):
        its = Trust.of(url, key)
    return Trust.from_environment() | its


def settings() -> tuple[str, str]:
    """Addresses and key from the settings of ComfyUI's one user; none where it has several.

    A run does not tell which of several users has started it, and one's key must not serve another.
    """
    from comfy.cli_args import args

    if args.multi_user:
        return "", ""
    folder = folder_paths.get_public_user_directory("default")
    try:
        content = (Path(folder) / SETTINGS_FILE).read_bytes()[:MAX_SETTINGS]
        found = json.loads(content)
    except (OSError, TypeError, ValueError, RecursionError):
        return "", ""
    values = [found.get(name) if isinstance(found, dict) else None for name in (URL_SETTING, KEY_SETTING)]
    url, key = (value if isinstance(value, str) else "" for value in values)
    return url, key


NODES = [LoadLanguageModel, LanguageServer, LanguageFromCLIP]
