"""Turn a workflow as the editor saves it into the prompt that ComfyUI's server runs.

A saved workflow has nodes with links and bare lists of widget values; a prompt has named inputs. The names and order of
the widgets come from `/object_info`. Follows what the editor of ComfyUI 0.30.0 does when a person presses Run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import CounterfactError, limited, shorten, unknown

MUTED, BYPASSED = 2, 4
NOTES = ("Note", "MarkdownNote")
MAX_NODES = 5_000
MAX_LINKS = 50_000

WIDGET_TYPES = frozenset(
    "INT FLOAT BOOLEAN STRING MARKDOWN COMBO COLOR IMAGECOMPARE BOUNDING_BOX CHART GALLERIA PAINTER TEXTAREA CURVE "
    "RANGE BOUNDING_BOXES COLORS COMFY_DYNAMICCOMBO_V3".split()
)
CONTROL_WORDS = ("fixed", "increment", "decrement", "randomize", "increment-wrap")

Source = tuple[str, int]


def is_prompt(workflow: Any) -> bool:
    """Whether a document already is a prompt in API format: node ids over classes and inputs."""
    return (
        isinstance(workflow, dict)
        and bool(workflow)
        and all(isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in workflow.values())
    )


def ui_to_api(workflow: Any, object_info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Convert a saved workflow into a prompt.

    Reroutes and primitives are resolved, muted nodes left out, bypassed nodes bridged from an input of the same type to
    the output, notes dropped.

    Parameters
    ----------
    workflow : the parsed JSON of a saved workflow, of format 0.4 or 1; untrusted
    object_info : what the server answers to GET /object_info

    Returns
    -------
    dict
        By node id: `class_type`, `inputs` by name (values, or [node id, output slot]) and the title in `_meta`.

    Raises
    ------
    CounterfactError
        If the document is no workflow, names unknown nodes (all are listed), has subgraphs or broken links.

    Examples
    --------
    >>> info = {"Steps": {"input": {"required": {"seed": ["INT", {"control_after_generate": True}], "n": ["INT", {}]}}}}
    >>> node = {"id": 3, "type": "Steps", "widgets_values": [7, "fixed", 20]}
    >>> ui_to_api({"nodes": [node], "links": []}, info)
    {'3': {'class_type': 'Steps', 'inputs': {'seed': 7, 'n': 20}, '_meta': {'title': 'Steps'}}}
    """
    graph = _Graph(workflow)
    real = [node for node in graph.nodes.values() if node["type"] not in (*NOTES, "Reroute", "PrimitiveNode")]
    active = [node for node in real if node.get("mode") not in (MUTED, BYPASSED)]
    if graph.subgraphs.intersection(node["type"] for node in active):
        raise CounterfactError(
            "the workflow has subgraphs: unpack them in the editor (right click, Unpack) and save again"
        )
    missing = sorted({node["type"] for node in active} - set(object_info))
    if missing:
        raise CounterfactError(
            f"the workflow has nodes that this ComfyUI does not know: {', '.join(map(shorten, missing))}; "
            "install the packs they come from, or remove them"
        )
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": {**_widget_inputs(node, object_info[node["type"]]), **graph.linked_inputs(node)},
            "_meta": {"title": node.get("title") or object_info[node["type"]].get("display_name") or node["type"]},
        }
        for node in active
    }


class _Graph:
    """The checked nodes and links of a workflow."""

    def __init__(self, workflow: Any) -> None:
        if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
            raise CounterfactError("this is no saved workflow: a JSON object with a list of nodes is expected")
        self.nodes: dict[str, dict[str, Any]] = {}
        for node in limited(workflow["nodes"], "the workflow's list of nodes", MAX_NODES):
            _check_node(node)
            if str(node["id"]) in self.nodes:
                raise CounterfactError(f"the workflow has two nodes with the id {shorten(node['id'])}")
            self.nodes[str(node["id"])] = node
        links = workflow.get("links") or []
        if not isinstance(links, list):
            raise CounterfactError("the workflow's links must be a list")
        self.links = dict(map(_read_link, limited(links, "the workflow's list of links", MAX_LINKS)))
        definitions = workflow.get("definitions")
        listed = definitions.get("subgraphs") if isinstance(definitions, dict) else None
        self.subgraphs = {
            part["id"] for part in listed or () if isinstance(part, dict) and isinstance(part.get("id"), str)
        }

    def linked_inputs(self, node: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a node that get their values over links, as a prompt states them."""
        result: dict[str, Any] = {}
        for slot in node.get("inputs") or ():
            source = self.source(slot, slot.get("type"))
            if source is None:
                continue
            origin = self.nodes[source[0]]
            if origin["type"] == "PrimitiveNode":
                values = origin.get("widgets_values")
                if isinstance(values, list) and values:
                    result[slot["name"]] = _wrapped(values[0])
            else:
                result[slot["name"]] = [*source]
        return result

    def source(self, slot: dict[str, Any] | None, wanted: Any) -> Source | None:
        """The node and output that feed an input slot, through reroutes and bypassed nodes; None if nothing does."""
        seen = set()
        while slot is not None and slot.get("link") is not None:
            link = slot["link"]
            if link not in self.links:
                raise CounterfactError(
                    f"the workflow's input {slot['name']!r} has a link {shorten(link)} that is not there"
                )
            origin_id, output = self.links[link]
            if origin_id not in self.nodes:
                raise CounterfactError(f"the workflow's link {link} comes from node {origin_id}, which is not there")
            if link in seen:
                raise CounterfactError(f"the workflow's links run in a circle through node {origin_id}")
            seen.add(link)
            origin = self.nodes[origin_id]
            inputs = origin.get("inputs") or []
            if origin.get("mode") == MUTED:
                return None
            if origin.get("mode") == BYPASSED:
                slot = _bridge(origin, output, wanted)
            elif origin["type"] == "Reroute":
                slot = inputs[0] if inputs else None
            else:
                return origin_id, output
        return None


def _check_node(node: Any) -> None:
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        raise CounterfactError(f"the workflow's nodes must be objects with a type, not {shorten(node)}")
    if isinstance(node.get("id"), bool) or not isinstance(node.get("id"), (int, str)):
        raise CounterfactError(f"the workflow's node {node['type']!r} has no id")
    where = f"node {shorten(node['id'])} of the workflow"
    if not isinstance(node.get("title") or "", str):
        raise CounterfactError(f"{where} has a title that is not text")
    for key in ("inputs", "outputs"):
        slots = node.get(key) or []
        if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
            raise CounterfactError(f"{where}: {key!r} must be a list of objects")
    for slot in node.get("inputs") or []:
        if not isinstance(slot.get("name"), str) or not isinstance(slot.get("link"), (int, type(None))):
            raise CounterfactError(f"{where} has an input without a name, or with a link that is not a number")


def _read_link(link: Any) -> tuple[int, Source]:
    """(link id, (origin node id, origin slot)) of a link, which is a list in format 0.4 and an object in format 1."""
    if isinstance(link, dict):
        link = [link.get("id"), link.get("origin_id"), link.get("origin_slot")]
    if (
        not isinstance(link, list)
        or len(link) < 3
        or not isinstance(link[0], int)
        or not isinstance(link[1], (int, str))
        or not isinstance(link[2], int)
        or link[2] < 0
    ):
        raise CounterfactError(f"the workflow has a malformed link: {shorten(link)}")
    return link[0], (str(link[1]), link[2])


def _bridge(node: dict[str, Any], output: int, wanted: Any) -> dict[str, Any] | None:
    """The input that a bypassed node passes on to an output: the one beside it if the type fits, else the first fit."""
    inputs, outputs = node.get("inputs") or [], node.get("outputs") or []
    given = outputs[output].get("type") if output < len(outputs) else wanted
    at_place = inputs[output] if output < len(inputs) else None
    if wanted in ("*", "", None):
        return at_place or (inputs[0] if inputs else None)
    fitting = [slot for slot in inputs if _fits(slot.get("type"), given) and _fits(slot.get("type"), wanted)]
    if any(slot is at_place for slot in fitting):
        return at_place
    exact = [slot for slot in inputs if slot.get("type") == wanted]
    return next(iter(exact + fitting), None)


def _fits(a: Any, b: Any) -> bool:
    """Whether two slot types may be connected: equal, a wildcard, or lists divided by commas that share one."""
    if a in ("*", "", 0, None) or b in ("*", "", 0, None):
        return True
    first, second = (set(str(kind).lower().split(",")) for kind in (a, b))
    return bool(first & second)


def _widget_inputs(node: dict[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The node's widget values by input name."""
    values = node.get("widgets_values") or []
    specs = _ordered_specs(info.get("input") or {}, info.get("input_order") or {})
    if isinstance(values, dict):
        named = ((name, values.get(name, _default(spec))) for name, spec in _widgets_by_name(specs, values))
        return {name: _wrapped(value) for name, value in named if value is not None}
    if not isinstance(values, list):
        raise CounterfactError(
            f"node {shorten(node['id'])} of the workflow: widgets_values must be a list or an object"
        )
    result = {}
    queue = list(values)
    pending = list(specs)
    while pending:
        name, spec = pending.pop(0)
        kind, options = _kind(spec)
        if not _is_widget(kind, options):
            continue
        # The workflow may be older than an input that the node has got since.
        value = queue.pop(0) if queue else _default(spec)
        if value is not None:
            result[name] = _wrapped(value)
        if _has_control(name, kind, options) and queue and queue[0] in CONTROL_WORDS:
            queue.pop(0)
            # Beside the control word, lists of choices have a text that filters them.
            if kind == "COMBO" and queue and isinstance(queue[0], str):
                queue.pop(0)
        pending = [*_chosen_specs(name, kind, options, value), *pending]
    return result


def _widgets_by_name(specs: list[tuple[str, Any]], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, spec in specs:
        kind, options = _kind(spec)
        if _is_widget(kind, options):
            yield name, spec
            yield from _widgets_by_name(_chosen_specs(name, kind, options, values.get(name)), values)


def _ordered_specs(inputs: Mapping[str, Any], order: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(name, spec) of the inputs in the order of the editor: required before optional ones, hidden ones not at all."""
    result = []
    for group in ("required", "optional"):
        specs = inputs.get(group) or {}
        names = order.get(group) or []
        names = [*(name for name in names if name in specs), *(name for name in specs if name not in names)]
        result += [(name, specs[name]) for name in names]
    return result


def _chosen_specs(name: str, kind: str, options: Mapping[str, Any], value: Any) -> list[tuple[str, Any]]:
    """The inputs that a dynamic combo shows for its present choice; they follow it directly."""
    if kind != "COMFY_DYNAMICCOMBO_V3":
        return []
    choices = {choice.get("key"): choice.get("inputs") or {} for choice in options.get("options") or ()}
    if not isinstance(value, str) or value not in choices:
        raise unknown(f"choice of the input {name!r}:", value, choices, "choices")
    return [(f"{name}.{inner}", spec) for inner, spec in _ordered_specs(choices[value], {})]


def _kind(spec: Any) -> tuple[str, Mapping[str, Any]]:
    """Type and options of an input; a list of choices in place of a type is a COMBO."""
    kind, options = spec[0], (spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {})
    return ("COMBO" if isinstance(kind, list) else str(options.get("widgetType") or kind)), options


def _default(spec: Any) -> Any:
    """The value that the editor gives a new widget; None if it is not known."""
    options = _kind(spec)[1]
    choices = spec[0] if isinstance(spec[0], list) else options.get("options") or [None]
    first = choices[0].get("key") if isinstance(choices[0], dict) else choices[0]
    return options.get("default", first)


def _is_widget(kind: str, options: Mapping[str, Any]) -> bool:
    # A widgetType stands for a widget that some pack adds to the editor.
    return (kind in WIDGET_TYPES or "widgetType" in options) and not options.get("forceInput")


def _has_control(name: str, kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the editor adds "control after generate", whose value is saved but no input of the node."""
    return bool(options.get("control_after_generate", kind == "INT" and name in ("seed", "noise_seed")))


def _wrapped(value: Any) -> Any:
    """A prompt states lists in a wrapper, since a bare list is a link."""
    return {"__value__": value} if isinstance(value, list) else value
