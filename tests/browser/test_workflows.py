"""The page as a whole: templates open, settings are there, and an edited graph leads to a counterfactual picture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import expect

from causal_core.edits import GraphEdits
from causal_core.worlds import get_world

FILES = sorted((Path(__file__).parents[2] / "workflows").glob("*.json"))
RUN_SECONDS = 120
MOST_STEPS_BACK = 20

MISSING = """(types) => types.filter((type) => !LiteGraph.registered_node_types[type])"""
FIND = """(title) => app.graph.nodes.find((node) => [node.title, node.type].includes(title))"""


def workflow(name: str) -> dict:
    return json.loads((FILES[0].parent / f"{name}.json").read_text(encoding="utf-8"))


def test_every_template_opens(canvas):
    for file in FILES:
        canvas.clear()
        saved = workflow(file.stem)
        canvas.load(saved)
        types = [node["type"] for node in saved["nodes"]]
        canvas.page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(types))
        notes = {"Note", "MarkdownNote"}
        assert canvas.page.evaluate(MISSING, sorted(set(types) - notes)) == [], file.stem
        editors = types.count("CausalGraphBuilder")
        mounted = "() => app.graph.nodes.filter((n) => n.widgets?.some((w) => w.element?.matches('.cf-editor'))).length"
        assert canvas.page.evaluate(mounted) == editors, file.stem
        assert not canvas.errors, file.stem


def test_the_quickstart_shows_the_graph_of_its_scene_before_the_first_run(canvas):
    saved = workflow("quickstart")
    seed = next(node["widgets_values"][0] for node in saved["nodes"] if node.get("title") == "Scene seed")
    world = get_world("cottage")
    graph = world.scene_graph(world.sample(seed))
    canvas.load(saved)
    editor = canvas.editor()
    expect(editor.card("season")).to_be_visible()
    assert canvas.page.evaluate("() => Object.keys(app.nodeOutputs)") == []
    words = {name: editor.card(name).locator(".cf-value").text_content() for name in editor.names()}
    assert words == graph.concepts.values()
    assert editor.edges() == sorted((edge.source, edge.target) for edge in graph.edges)
    assert editor.value == ""


def test_settings_of_the_language_model(one_canvas):
    page = one_canvas.page
    page.evaluate("() => app.extensionManager.command.execute('Comfy.ShowSettingsDialog')")
    dialog = page.get_by_role("dialog")
    dialog.get_by_placeholder("Search Settings").first.fill("language model")
    key = dialog.get_by_role("textbox", name="Key of the first of these servers")
    expect(key).to_have_attribute("type", "password")
    try:
        key.fill("not to be seen")
        key.press("Tab")
        page.wait_for_function(
            "() => app.extensionManager.setting.get('Counterfact.LanguageModel.Key') === 'not to be seen'"
        )
        assert page.evaluate("() => app.extensionManager.setting.get('Counterfact.LanguageModel.URL')") == ""
        assert "not to be seen" not in page.evaluate("() => JSON.stringify(app.graph.serialize())")
    finally:
        one_canvas.set("Counterfact.LanguageModel.Key", "")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def test_an_edited_graph_leads_to_its_counterfactual_picture(canvas):
    """In the quickstart, do(time = night) is chosen in the editor, and smoke no longer follows from the temperature."""
    page = canvas.page
    canvas.load(workflow("quickstart"))
    page.wait_for_function(f"() => ({FIND})('CausalGraphBuilder') && ({FIND})('Counterfactual')")
    page.evaluate(
        f"""() => {{
            const find = {FIND};
            const set = (node, name, value) => {{ find(node).widgets.find((w) => w.name === name).value = value; }};
            set('CausalConceptExtractor', 'mode', 'keep given values');
            set('CausalCSGSampler', 'steps', 3);
            // The intervention of the editor takes the place of the Do node's.
            const builder = find('CausalGraphBuilder');
            const output = builder.outputs.findIndex((slot) => slot.name === 'intervention');
            for (const node of app.graph.nodes) {{
                const asked = (input) => input.name === 'intervention' && input.link !== null;
                const slot = node.inputs?.findIndex(asked) ?? -1;
                if (slot >= 0) builder.connect(output, node, slot);
            }}
            for (const node of app.graph.nodes.filter((n) => n.type === 'CausalDoIntervention')) app.graph.remove(node);
            builder.setSize([560, 760]);
            app.canvas.centerOnNode(builder);
        }}"""
    )

    def run() -> dict:
        page.evaluate(
            """async () => {
                const ends = ['execution_success', 'execution_error', 'execution_interrupted'];
                window.counterfactEnd = null;
                for (const end of ends) {
                    app.api.addEventListener(end, () => { window.counterfactEnd ??= end; }, { once: true });
                }
                if (!(await app.queuePrompt(0))) window.counterfactEnd = 'refused';
            }"""
        )
        page.wait_for_function("() => window.counterfactEnd", timeout=RUN_SECONDS * 1000)
        assert page.evaluate("() => window.counterfactEnd") == "execution_success"
        return page.evaluate(
            f"""() => Object.fromEntries(['Factual', 'Counterfactual'].map((title) => {{
                const node = ({FIND})(title);
                return [title, app.nodeOutputs[node.id].images[0]];
            }}))"""
        )

    run()
    editor = canvas.editor()
    expect(editor.card("season")).to_be_visible()
    assert editor.value == "" and ("temperature", "smoke") in editor.edges()
    editor.card("time").locator(".cf-value").click()
    editor.root.get_by_role("menuitemradio", name="night").click()
    expect(editor.card("time")).to_have_attribute("data-role", "do")
    editor.edge("temperature", "smoke").focus()
    page.keyboard.press("Delete")
    expect(editor.edge("temperature", "smoke")).to_have_count(0)
    edits = GraphEdits.from_json(editor.value)
    assert edits.do == {"time": "night"} and edits.edges == {("temperature", "smoke"): False}

    shown = run()
    expect(editor.button("left out")).to_be_visible()  # the mechanism of smoke went with its cause
    result = json.loads(page.evaluate(f"() => app.nodeOutputs[({FIND})('CausalGraphBuilder').id].counterfact_graph[0]"))
    assert ["temperature", "smoke"] not in [[edge["source"], edge["target"]] for edge in result["edges"]]
    report = page.evaluate(f"() => app.nodeOutputs[({FIND})('CausalCSGSampler').id].counterfact_report[0]")
    assert json.loads(report)["do"] == {"time": "night"}

    # The canvas takes the change back, not what the run has told.
    page.evaluate("() => { document.activeElement.blur(); app.canvas.canvas.focus(); }")
    tracker = "app.extensionManager.workflow.activeWorkflow.changeTracker"
    edge = editor.edge("temperature", "smoke")
    for _ in range(MOST_STEPS_BACK):  # Vue adds steps of its own, for sizes of nodes, also while one is taken back
        page.keyboard.press("Control+z")
        page.wait_for_function(f"() => !{tracker}._restoringState")
        try:
            edge.wait_for(state="attached", timeout=1000)
            break
        except PlaywrightTimeout:
            assert page.evaluate(f"() => {tracker}.undoQueue.length"), "nothing is left to take back"
    expect(edge).to_have_count(1)
    expect(editor.card("season")).to_be_visible()

    page.evaluate(f"() => {{ app.canvas.ds.scale = 1; app.canvas.centerOnNode(({FIND})('Counterfactual')); }}")
    name = shown["Counterfactual"]["filename"]
    if canvas.renderer == "vue":
        picture = page.locator(f'img[src*="{name}"]').first
        expect(picture).to_be_visible()
        page.wait_for_function("(name) => document.querySelector(`img[src*='${name}']`).naturalWidth === 64", arg=name)
    else:
        page.wait_for_function(f"() => ({FIND})('Counterfactual').imgs?.[0]?.naturalWidth === 64")
        assert name in page.evaluate(f"() => ({FIND})('Counterfactual').imgs[0].src")
    bytes_of = """async (image) => {
        const answer = await app.api.fetchApi('/view?' + new URLSearchParams(image));
        return [...new Uint8Array(await answer.arrayBuffer())];
    }"""
    assert page.evaluate(bytes_of, shown["Counterfactual"]) != page.evaluate(bytes_of, shown["Factual"])


@pytest.mark.parametrize("name", ["CausalGraphBuilder", "CausalPreviewGraph"])
def test_help_pages_are_served_with_their_pictures(one_canvas, name):
    page = one_canvas.page.evaluate(
        "async (name) => (await fetch(`/extensions/counterfact/docs/${name}.md`)).text()", name
    )
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        found = one_canvas.page.evaluate(
            "async (url) => (await fetch(url)).status", f"/extensions/counterfact/docs/{picture}"
        )
        assert found == 200, picture
