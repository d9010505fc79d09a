"""The command line itself, and the parts of `counterfact demo` that need no server."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from causal_core import cli
from causal_core.comfyui import demo
from causal_core.errors import CounterfactError


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "importtime", "-m", "causal_core", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class TestHelp:
    def test_lists_the_commands_and_imports_next_to_nothing(self):
        done = run("--help")
        assert done.returncode == 0
        for words in cli.COMMANDS:
            assert " ".join(words) in done.stdout
        imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
        assert {"causal_core.cli", "argparse"} <= imported
        assert not imported & {"torch", "numpy", "PIL", "networkx", "diffusers", "transformers", "tqdm"}
        total = max(int(number) for number in re.findall(r"\| +(\d+) \| causal_core\.cli$", done.stderr, re.MULTILINE))
        assert total < 300_000  # microseconds

    @pytest.mark.parametrize("words", [["demo"], ["studio"], ["world"], ["train"], ["bench"]])
    def test_of_a_command(self, words, capsys):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "--help"])
        assert ended.value.code == 0
        assert "usage: counterfact " + words[0] in capsys.readouterr().out

    @pytest.mark.parametrize("words", [[], ["fly"], ["train"], ["train", "fly"], ["train demo-model"], ["--nope"]])
    def test_no_such_command(self, words, capsys):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


class TestMain:
    @pytest.fixture
    def command(self, monkeypatch):
        """Replaces the `world` command by a module whose main the test sets."""
        module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--n", type=int), main=None)
        monkeypatch.setattr(cli, "_load", lambda name: module)
        return module

    def test_passes_arguments_and_exit_code(self, command):
        command.main = lambda args: args.n
        assert cli.main(["world", "--n", "5"]) == 5

    def test_no_exit_code_is_success(self, command):
        command.main = lambda args: None
        assert cli.main(["world"]) == 0

    def test_mistake_of_the_user(self, command, capsys):
        def main(args):
            raise CounterfactError("--n must be even")

        command.main = main
        assert cli.main(["world"]) == 2
        assert capsys.readouterr().err == "counterfact: --n must be even\n"

    def test_interrupt(self, command):
        def main(args):
            raise KeyboardInterrupt

        command.main = main
        assert cli.main(["world"]) == 130

    def test_missing_package(self, monkeypatch, capsys):
        def missing(name):
            raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

        monkeypatch.setattr(cli.importlib, "import_module", missing)
        assert cli.main(["world"]) == 2
        assert "needs the Python package torch.nn" in capsys.readouterr().err


def test_requirements_are_those_of_the_package(pack_root):
    """requirements.txt is what ComfyUI managers install: the same list, and never torch."""
    project = (pack_root / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE).group(1)
    lines = (pack_root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    assert required == re.findall(r'"(.+?)"', dependencies)
    assert not any(line.startswith("torch") for line in required)


class TestSetInput:
    @pytest.fixture
    def prompt(self):
        return {
            "1": {
                "class_type": "CausalDoIntervention",
                "inputs": {"do": "season = winter", "n": 3, "x": 0.5, "on": True, "how.far": 2, "graph": ["2", 0]},
                "_meta": {"title": "What if 1.5?"},
            },
            "2": {"class_type": "Show", "inputs": {}},
            "3": {"class_type": "Show", "inputs": {}},
        }

    @pytest.mark.parametrize(
        "change, name, value",
        [
            ("CausalDoIntervention.do=season = night", "do", "season = night"),
            ("what if 1.5?.do=", "do", ""),
            ("1.do=7", "do", "7"),
            ("1.n=4", "n", 4),
            ("1.x=2", "x", 2.0),
            ("1.on=False", "on", False),
            ("1.how.far=5", "how.far", 5),
        ],
    )
    def test_keeps_the_type(self, prompt, change, name, value):
        demo.set_input(prompt, change)
        assert prompt["1"]["inputs"][name] == value
        assert type(prompt["1"]["inputs"][name]) is type(value)

    @pytest.mark.parametrize(
        "change, message",
        [
            ("do=x", "NODE.INPUT=VALUE"),
            ("1.do", "NODE.INPUT=VALUE"),
            ("9.do=x", "unknown node .* Known nodes: What if 1.5"),
            ("1.doo=x", "Did you mean 'do'"),
            ("Show.x=1", "several nodes: use one of the ids 2, 3"),
            ("1.graph=x", "linked"),
            ("1.n=1.5", "is not a int"),
            ("1.n=many", "is not a int"),
            ("1.x=true", "is not a float"),
            ("1.on=1", "is not a bool"),
        ],
    )
    def test_mistakes(self, prompt, change, message):
        with pytest.raises(CounterfactError, match=message):
            demo.set_input(prompt, change)


class TestDemo:
    @pytest.mark.parametrize(
        "content, message", [(None, "cannot be read"), (b"{", "not JSON"), (b"\xff\xfe{", "not a text file")]
    )
    def test_unreadable_workflow(self, tmp_path, capsys, content, message, monkeypatch):
        monkeypatch.setattr(demo, "find_pack", lambda: tmp_path)
        path = tmp_path / "w.json"
        if content is not None:
            path.write_bytes(content)
        assert cli.main(["demo", "--workflow", str(path), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err

    def test_results(self, tmp_path):
        pictures = {
            name: Image.new("RGB", (64, 64), colour) for name, colour in (("factual", "red"), ("truth", "blue"))
        }
        masks = {"../evil/../": Image.new("RGB", (64, 64)), "ground": Image.new("RGB", (64, 64))}
        report = {"workflow": "x", "plan": {"do": {"season": "winter"}}, "report": None}
        pages = {name: Image.new("RGB", (900, 300), "white") for name in ("graph", "report")}
        written = demo.write_results(tmp_path, pictures, masks, pages, report)
        assert sorted(path.relative_to(tmp_path).as_posix() for path in written) == [
            "contact.png",
            "factual.png",
            "graph.png",
            "masks/evil.png",
            "masks/ground.png",
            "plan.json",
            "report.json",
            "report.png",
            "truth.png",
        ]
        assert json.loads((tmp_path / "report.json").read_text()) == report
        with Image.open(tmp_path / "contact.png") as sheet:
            assert sheet.width > 3 * demo.TILE
            assert sheet.getpixel((demo.MARGIN + 50, demo.MARGIN + demo.LABEL + 50)) == (255, 0, 0)

    def test_pictures_get_their_names_from_titles(self):
        prompt = {
            "1": {"class_type": "PreviewImage", "_meta": {"title": "Factual"}},
            "2": {"class_type": "PreviewImage", "_meta": {"title": "True counterfactual"}},
            "3": {"class_type": "PreviewImage", "_meta": {"title": "Masks"}},
            "4": {"class_type": "CausalPreviewGraph", "_meta": {"title": "Preview Causal Graph"}},
            "5": {"class_type": "CausalCSGSampler"},
            "6": {"class_type": "SaveImage", "_meta": {"title": "Plain: again/"}},
            "7": {"class_type": "CausalCounterfactualReport", "_meta": {"title": "Counterfactual Report"}},
            "8": {"class_type": "CausalCounterfactualReport", "_meta": {"title": "Report: fused"}},
        }
        outputs = {node: {"images": [{"filename": node}]} for node in "124678"}
        outputs["3"] = {"images": [{"filename": "a"}, {"filename": "b"}]}
        outputs["5"] = {"counterfact_report": [json.dumps({"affected": [{"name": "ground"}]})]}

        class Client:
            def view(self, filename):
                buffer = io.BytesIO()
                Image.new("RGB", (8, 8)).save(buffer, "PNG")
                return buffer.getvalue()

        pictures, masks, pages = demo.fetch_pictures(Client(), prompt, outputs)
        assert list(pictures) == ["factual", "truth", "plain_again"]
        assert list(masks) == ["ground", "mask 2"]
        assert list(pages) == ["graph", "report", "report_fused"]

    def test_progress_counts_nodes_and_their_steps(self):
        from tqdm import tqdm

        prompt = {"1": {"class_type": "Load"}, "2": {"class_type": "Sample", "_meta": {"title": "Counterfactual"}}}
        with tqdm(total=2, file=io.StringIO()) as bar:
            progress = demo.Progress(bar, prompt)
            progress("execution_cached", {"nodes": ["1"]})
            progress("progress_state", {"nodes": {"2": {"value": 5, "max": 20, "state": "running"}}})
            assert bar.n == 1.25
            assert bar.desc == "Counterfactual 5/20"
            progress("progress_state", {"nodes": {"2": {"value": 20, "max": 20, "state": "finished"}}})
            progress("execution_success", {})
            progress("executing", {"node": None})
            assert (bar.n, bar.desc) == (2, "Done")
