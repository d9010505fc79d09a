"""``counterfact demo`` and ``counterfact studio``: a workflow in a real ComfyUI, from start to pictures on disk, and
the same ComfyUI left running for a person.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from ..cache import cache_dir
from ..errors import CounterfactError, shorten, unknown
from .client import ComfyClient, Prompt, node_title
from .convert import is_prompt, ui_to_api
from .locate import find_comfyui, find_pack
from .server import ComfyServer, has_frontend

if TYPE_CHECKING:
    from tqdm import tqdm

QUICKSTART = Path("workflows", "quickstart.json")
MAX_WORKFLOW_BYTES = 20_000_000

# What the titles of a workflow's nodes stand for among the written files; other titles name their files themselves.
FILES = {
    "factual": "factual", "counterfactual": "counterfactual", "true counterfactual": "truth",
    "preview causal graph": "graph", "counterfactual report": "report",
}  # fmt: skip
MASKS_TITLE = "masks"
PAGES = "CausalPreviewGraph", "CausalCounterfactualReport"  # nodes that draw diagrams and tables, not a picture

TILE, MASK_TILE, MARGIN, LABEL = 256, 120, 16, 26
PAPER, INK, QUIET = (250, 249, 246), (34, 34, 34), (110, 110, 110)

Pictures = dict[str, Image.Image]


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``counterfact demo``."""
    parser.add_argument(
        "--out", type=Path, default=Path("counterfact-demo"), help="folder for the pictures and reports"
    )
    parser.add_argument("--workflow", type=Path, help="workflow JSON, as saved by ComfyUI or in API format")
    parser.add_argument("--port", type=int, default=0, help="port for ComfyUI on 127.0.0.1; 0 picks a free one")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input; NODE is a title, class or id, for instance 'CausalDoIntervention.do=time = night'",
    )


def demo(args: argparse.Namespace) -> int:
    """Run a workflow and write what it made."""
    from tqdm import tqdm

    pack = find_pack()
    workflow = args.workflow or pack / QUICKSTART
    document = _read_workflow(workflow)
    _make_folder(args.out)
    comfy = find_comfyui()
    start = time.monotonic()
    with ExitStack() as stack:
        with tqdm(bar_format="Starting ComfyUI: {elapsed}", mininterval=_interval()) as waiting:
            server = ComfyServer(pack, comfy, port=args.port, on_wait=lambda seconds: waiting.update())
            stack.enter_context(server)
        ready = time.monotonic()
        client = server.client()
        prompt = document if is_prompt(document) else ui_to_api(document, client.object_info())
        for change in args.set:
            set_input(prompt, change)
        style = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}]"
        with tqdm(total=len(prompt), bar_format=style, mininterval=_interval(), miniters=0) as bar:
            outputs = client.run(prompt, Progress(bar, prompt))["outputs"]
        pictures, masks, pages = fetch_pictures(client, prompt, outputs)
        report = {
            "workflow": workflow.name,
            "seconds": round(time.monotonic() - start, 2),
            "seconds_start": round(ready - start, 2),
            "peak_mb": round(server.peak_mb(), 1),
            "report": _document(outputs, "counterfact_report"),
            "plan": _document(outputs, "counterfact_plan"),
        }
    written = write_results(args.out, pictures, masks, pages, report)
    print("\n".join(map(str, written)))
    return 0


def add_studio_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``counterfact studio``."""
    parser.add_argument("--port", type=int, default=8188, help="port on 127.0.0.1; 0 picks a free one")
    parser.add_argument("--base-dir", type=Path, help="folder for ComfyUI's models, input, output and settings")


def studio(args: argparse.Namespace) -> int:
    """Keep a ComfyUI with the pack running until it is interrupted."""
    if not has_frontend():
        raise CounterfactError(
            "ComfyUI's web pages are not installed: run pip install comfyui-frontend-package==1.47.12"
        )
    base_dir = args.base_dir or cache_dir() / "studio"
    print("Starting ComfyUI ...", flush=True)
    with ComfyServer(find_pack(), base_dir=base_dir, port=args.port) as server:
        print(f"ComfyUI runs at {server.url}; its files are in {base_dir}")
        print("Open Workflow > Browse Templates > counterfact to start. Ctrl-C here stops it.", flush=True)
        while True:
            time.sleep(0.5)
            server.check_alive()


class Progress:
    """Shows the messages of a run on a bar that counts nodes, the running one by its own steps."""

    def __init__(self, bar: tqdm, prompt: Prompt) -> None:
        self.bar = bar
        self.prompt = prompt
        self.done: dict[str, float] = {}
        self.doing = ""

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        doing = self.doing
        if kind == "execution_cached":
            self.done.update(dict.fromkeys(data.get("nodes") or (), 1.0))
        elif kind == "progress_state":
            for node_id, state in (data.get("nodes") or {}).items():
                most = state.get("max") or 1
                self.done[node_id] = 1.0 if state.get("state") == "finished" else min(state["value"] / most, 1.0)
                if state.get("state") == "running":
                    doing = node_title(self.prompt, node_id) + (f" {state['value']:g}/{most:g}" if most > 1 else "")
        elif kind == "executing":
            doing = node_title(self.prompt, data["node"]) if data.get("node") else doing
        elif kind == "execution_success":
            doing = "Done"
        if doing != self.doing:
            self.doing = doing
            self.bar.set_description_str(doing, refresh=sys.stderr.isatty())
        self.bar.update(min(sum(self.done.values()), self.bar.total) - self.bar.n)


def set_input(prompt: Prompt, change: str) -> None:
    """Change one input value of a prompt in place, as ``--set`` states it.

    The value keeps the type of the value it replaces.

    Examples
    --------
    >>> prompt = {"4": {"class_type": "CausalDoIntervention", "inputs": {"do": "season = winter"}}}
    >>> set_input(prompt, "CausalDoIntervention.do=season = spring")
    >>> prompt["4"]["inputs"]
    {'do': 'season = spring'}
    """
    key, separator, typed = change.partition("=")
    if not separator or "." not in key:
        raise CounterfactError(f"--set {shorten(change)} is not of the form NODE.INPUT=VALUE")
    names = {}
    for node_id, node in prompt.items():
        for name in (node_id, node["class_type"], node_title(prompt, node_id)):
            names.setdefault(name.lower(), set()).add(node_id)
    # Titles and input names may have dots in them.
    dots = [match.start() for match in re.finditer(r"\.", key)]
    splits = [(key[:dot].strip(), key[dot + 1 :].strip()) for dot in dots]
    known = [(node, name) for node, name in splits if node.lower() in names]
    if not known:
        raise unknown("node of --set:", splits[-1][0], (node_title(prompt, node_id) for node_id in prompt), "nodes")
    node_name, input_name = known[0]
    matching = sorted(names[node_name.lower()])
    if len(matching) > 1:
        raise CounterfactError(f"--set {node_name!r} means several nodes: use one of the ids {', '.join(matching)}")
    inputs = prompt[matching[0]].setdefault("inputs", {})
    if input_name not in inputs:
        raise unknown(f"input of {node_name!r} in --set:", input_name, inputs, "inputs")
    if isinstance(inputs[input_name], list):
        raise CounterfactError(f"--set {key}: this input is linked to another node; change the value there")
    inputs[input_name] = _typed(typed.strip(), inputs[input_name], key)


def fetch_pictures(
    client: ComfyClient, prompt: Prompt, outputs: Mapping[str, Any]
) -> tuple[Pictures, Pictures, Pictures]:
    """Fetch the pictures of a run.

    Returns
    -------
    tuple
        Pictures by file stem, masks by region name, and pages (the graph, reports) by file stem.
    """
    affected = (_document(outputs, "counterfact_report") or {}).get("affected") or ()
    pictures: Pictures = {}
    masks: Pictures = {}
    pages: Pictures = {}
    for node_id, output in outputs.items():
        images = [Image.open(io.BytesIO(client.view(**entry))).convert("RGB") for entry in output.get("images") or ()]
        title = node_title(prompt, node_id)
        if title.lower() == MASKS_TITLE:
            # The masks have the order of the report's affected concepts; what is more comes from further pictures.
            names = [str(concept["name"]) for concept in affected]
            names += [f"mask {number}" for number in range(len(names) + 1, len(images) + 1)]
            masks.update(zip(names, images, strict=False))
        else:
            stem = FILES.get(title.lower(), _file_stem(title))
            for number, image in enumerate(images):
                taken = number or stem in pictures or stem in pages
                found = pages if prompt[node_id]["class_type"] in PAGES else pictures
                found[f"{stem}_{number + 1}" if taken else stem] = image
    if not pictures and not pages:
        raise CounterfactError("the workflow made no pictures: give it a Save Image or Preview Image node")
    return pictures, masks, pages


def write_results(
    folder: Path, pictures: Pictures, masks: Pictures, pages: Pictures, report: dict[str, Any]
) -> list[Path]:
    """Write the pictures, `plan.json`, `report.json` and the contact sheet; returns the paths."""
    files = {f"{stem}.png": image for stem, image in (pictures | pages).items()}
    files |= {f"masks/{_file_stem(name)}.png": image for name, image in masks.items()}
    files["contact.png"] = contact_sheet(pictures, masks, pages.get("graph"), report)
    documents = {"report.json": report}
    if report.get("plan") is not None:
        documents["plan.json"] = report["plan"]
    try:
        if masks:
            (folder / "masks").mkdir(exist_ok=True)
        for name, image in files.items():
            image.save(folder / name)
        for name, document in documents.items():
            text = json.dumps(document, indent=2, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CounterfactError(f"--out {folder} cannot be written: {error}") from error
    return [folder / name for name in (*files, *documents)]


def contact_sheet(
    pictures: Pictures, masks: Pictures, graph: Image.Image | None, report: Mapping[str, Any]
) -> Image.Image:
    """One picture of everything: pictures in a row, masks below, the graph at the foot."""
    done = (report.get("plan") or {}).get("do") or {}
    captions = {stem: stem.replace("_", " ").capitalize() for stem in pictures}
    captions |= {"truth": "True counterfactual"}
    if done:
        captions["counterfactual"] = f"do({', '.join(f'{name} = {value}' for name, value in done.items())})"
    order = sorted(pictures, key=lambda stem: [*FILES.values(), stem].index(stem))
    rows = [[(captions[stem], _enlarged(pictures[stem], TILE)) for stem in order]]
    row_of_masks = [(name, _enlarged(mask, MASK_TILE)) for name, mask in masks.items()]
    width = max(MARGIN + max(len(rows[0]), 3) * (TILE + MARGIN), MARGIN + 4 * (MASK_TILE + MARGIN))
    fitting = (width - MARGIN) // (MASK_TILE + MARGIN)
    rows += [row_of_masks[n : n + fitting] for n in range(0, len(row_of_masks), fitting)]
    if graph is not None:
        scale = min(1.0, (width - 2 * MARGIN) / graph.width)
        size = (round(graph.width * scale), round(graph.height * scale))
        rows.append([("Causal graph", graph.resize(size, Image.Resampling.LANCZOS))])
    rows = [row for row in rows if row]
    height = MARGIN + sum(LABEL + max(image.height for _, image in row) + MARGIN for row in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    y = MARGIN
    for number, row in enumerate(rows):
        font = ImageFont.load_default(size=16 if number == 0 else 13)
        x = MARGIN
        for label, image in row:
            draw.text((x, y), _shortened(label, font, image.width), fill=INK if number == 0 else QUIET, font=font)
            sheet.paste(image, (x, y + LABEL))
            x += image.width + MARGIN
        y += LABEL + max(image.height for _, image in row) + MARGIN
    return sheet


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _shortened(label: str, font: Any, width: int) -> str:
    if font.getlength(label) <= width:
        return label
    while label and font.getlength(label + "...") > width:
        label = label[:-1]
    return label + "..."


def _file_stem(name: str) -> str:
    """A region or title as a file name; anything that could lead elsewhere becomes an underscore."""
    return re.sub(r"[^\w-]+", "_", name)[:80].strip("_").lower() or "unnamed"


def _typed(typed: str, present: Any, key: str) -> Any:
    """The typed text as a value of the type that is there now."""
    if isinstance(present, str):
        return typed
    try:
        value = json.loads(typed.lower() if isinstance(present, bool) else typed)
    except ValueError:
        value = None
    same = isinstance(value, bool) == isinstance(present, bool)
    if isinstance(present, float) and same and isinstance(value, (int, float)):
        return float(value)
    if not same or not isinstance(value, type(present)):
        raise CounterfactError(f"--set {key}: {shorten(typed)} is not a {type(present).__name__} like {present!r}")
    return value


def _document(outputs: Mapping[str, Any], key: str) -> Any:
    """The JSON document that a node put under `key` of its outputs; None if no node did."""
    found = [output[key][0] for output in outputs.values() if output.get(key)]
    return json.loads(found[0]) if found else None


def _read_workflow(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_WORKFLOW_BYTES:
            raise CounterfactError(f"--workflow {path} is larger than {MAX_WORKFLOW_BYTES // 10**6} MB: not a workflow")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError) as error:
        raise CounterfactError(f"--workflow {path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise CounterfactError(f"--workflow {path} is not a text file: {error}") from error
    except json.JSONDecodeError as error:
        raise CounterfactError(f"--workflow {path} is not JSON: {error}") from error


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CounterfactError(f"--out {path} cannot be made: {error}") from error


def _interval() -> float:
    # Without a terminal each update is a line of its own.
    return 0.2 if sys.stderr.isatty() else 30.0
