"""The graph editor by mouse and by keys, in both renderers of the canvas."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from causal_core.bench.editor import large_graph

VILLAGE = {
    "kind": "counterfact.graph",
    "schema_version": 1,
    "concepts": [
        {"name": name, "domain": domain, "value": value, "phrases": {}, "confidence": None, "interval": None}
        for name, domain, value in [
            ("season", ["summer", "winter"], "summer"),
            ("foliage", ["green", "bare"], "green"),
            ("pond", ["water", "ice"], "water"),
            ("car", [], "red"),
        ]
    ],
    "edges": [
        {"source": "season", "target": "foliage", "confidence": 0.9, "reason": "Leaves fall in autumn."},
        {"source": "season", "target": "pond", "confidence": 0.6, "reason": ""},
    ],
    "confounded": [],
    "scm": None,
    "noise": None,
}


def edits(editor) -> dict:
    """The document in the widget; empty where it is an empty text."""
    return json.loads(editor.value) if editor.value else {}


def test_empty_editor_says_what_to_do(canvas):
    editor = canvas.add_editor()
    expect(editor.root.locator(".cf-empty")).to_contain_text("Add a concept to draw a graph by hand")
    assert editor.value == "" and editor.names() == []


def test_a_graph_drawn_by_hand(canvas):
    editor = canvas.add_editor()
    for name in ("rain", "road"):
        editor.add(name)
    expect(editor.root.locator(".cf-empty")).to_be_hidden()
    editor.card("rain").hover()
    editor.drag(editor.card("rain").locator(".cf-handle-edge"), editor.card("road"))
    expect(editor.said).to_have_text("rain \u2192 road is drawn")
    assert editor.edges() == [("rain", "road")]
    document = edits(editor)
    assert [concept["name"] for concept in document["added"]] == ["rain", "road"]
    assert document["edges"] == [{"source": "rain", "target": "road", "present": True}]
    assert set(document["positions"]) == {"rain", "road"}
    # What a node hands to the server is this very text.
    prompt = canvas.page.evaluate("async () => (await app.graphToPrompt()).output")
    (node,) = prompt.values()
    assert node["inputs"]["editor"] == editor.value


def test_rename_change_and_delete_a_concept(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("season").locator(".cf-name").dblclick()
    canvas.page.keyboard.type("time of year")
    canvas.page.keyboard.press("Tab")
    canvas.page.keyboard.type("winter, summer, monsoon")
    canvas.page.keyboard.press("Enter")
    expect(editor.card("time of year")).to_be_focused()
    assert edits(editor)["renamed"] == {"season": "time of year"}
    assert edits(editor)["values"] == {"time of year": {"domain": ["winter", "summer", "monsoon"], "value": None}}
    assert editor.edges() == [("time of year", "foliage"), ("time of year", "pond")]
    now = editor.root.get_by_role("combobox", name="Now")
    now.select_option("winter")
    expect(editor.card("time of year").locator(".cf-value")).to_have_text("winter")
    now.press("Control+z")
    expect(editor.card("time of year").locator(".cf-value")).to_have_text("summer")
    expect(editor.said).to_have_text("Undone: time of year is winter")
    assert "values" in edits(editor)
    editor.card("foliage").locator(".cf-name").click()
    editor.button("Delete").click()
    expect(editor.card("foliage")).to_have_count(0)
    assert edits(editor)["removed"] == ["foliage"] and editor.edges() == [("time of year", "pond")]


def test_what_is_typed_counts_for_the_concept_that_it_was_typed_for(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("season").locator(".cf-name").dblclick()
    canvas.page.keyboard.type("time of year")
    editor.card("pond").locator(".cf-name").click()
    expect(editor.card("pond")).to_be_focused()
    assert edits(editor)["renamed"] == {"season": "time of year"} and "pond" in editor.names()
    editor.root.get_by_label("Name").fill("nothing of this")
    canvas.page.keyboard.press("Escape")
    expect(editor.card("pond")).to_be_focused()
    assert edits(editor)["renamed"] == {"season": "time of year"}


def test_nodes_are_not_pasted_into_the_canvas_from_the_editor(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.widget("(app.canvas.selectNode(node), app.canvas.copyToClipboard())")
    paste = """(element) => element.dispatchEvent(
        new ClipboardEvent('paste', { bubbles: true, cancelable: true, clipboardData: new DataTransfer() })
    )"""
    editor.card("pond").evaluate(paste)
    canvas.page.locator("body").evaluate(paste)
    canvas.page.wait_for_function("() => app.graph.nodes.length > 1")
    assert canvas.page.evaluate("() => app.graph.nodes.length") == 2


def test_edges_reversed_deleted_and_refused(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.edge("season", "foliage").click()
    expect(editor.root.locator(".cf-said:visible")).to_contain_text("90 % sure: Leaves fall in autumn.")
    editor.button("Reverse").click()
    expect(editor.edge("foliage", "season")).to_be_focused()
    assert edits(editor)["edges"] == [{"source": "foliage", "target": "season", "present": True}]
    # pond -> foliage would close the circle
    editor.card("pond").hover()
    editor.drag(editor.card("pond").locator(".cf-handle-edge"), editor.card("foliage"))
    expect(editor.said).to_have_text(
        "Pond \u2192 foliage would make a cycle: pond \u2192 foliage \u2192 season \u2192 pond. "
        "Remove one of these edges first"
    )
    assert len(editor.edges()) == 2
    editor.edge("season", "pond").click()
    canvas.page.keyboard.press("Delete")
    expect(editor.edge("season", "pond")).to_have_count(0)
    assert {"source": "season", "target": "pond", "present": False} in edits(editor)["edges"]


def test_latent_confounders(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("car").hover()
    editor.drag(editor.card("car").locator(".cf-handle-latent"), editor.card("pond"))
    expect(editor.pair("pond", "car")).to_have_attribute("aria-label", "something unseen causes both pond and car")
    assert edits(editor)["confounded"] == [{"pair": ["car", "pond"], "present": True}]
    editor.pair("pond", "car").focus()
    canvas.page.keyboard.press("Delete")
    expect(editor.pair("pond", "car")).to_have_count(0)
    assert editor.value == ""


def test_setting_a_value_shows_what_follows_and_what_is_kept(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("season").locator(".cf-value").click()
    editor.root.get_by_role("menuitemradio", name="winter").click()
    expect(editor.card("season")).to_have_attribute("data-role", "do")
    roles = {name: editor.card(name).get_attribute("data-role") for name in editor.names()}
    assert roles == {"season": "do", "foliage": "follows", "pond": "follows", "car": "kept"}
    expect(editor.said).to_have_text("do(season = winter): 2 can follow, 1 kept")
    canvas.page.keyboard.press("Escape")
    expect(editor.root.locator(".cf-said:visible")).to_contain_text("do(season = winter)")
    assert edits(editor)["do"] == {"season": "winter"}
    # An open concept is set to typed words.
    editor.card("car").locator(".cf-value").click()
    canvas.page.keyboard.type("<b>teal</b>")
    canvas.page.keyboard.press("Enter")
    expect(editor.card("car").locator(".cf-after")).to_have_text("<b>teal</b>")
    assert edits(editor)["do"] == {"car": "<b>teal</b>", "season": "winter"}
    editor.card("season").locator(".cf-value").click()
    editor.root.get_by_role("menuitem", name="Take the intervention back").or_(
        editor.root.get_by_text("Leave season as it is")
    ).click()
    expect(editor.card("foliage")).to_have_attribute("data-role", "kept")


def test_dragging_moves_a_card_and_not_the_node(canvas):
    editor = canvas.add_editor(VILLAGE)
    before, node = editor.card("pond").bounding_box(), editor.widget("[...node.pos]")
    editor.drag(editor.card("pond").locator(".cf-name"), (60, 25))
    after = editor.card("pond").bounding_box()
    assert after["x"] - before["x"] == pytest.approx(60, abs=2) and after["y"] - before["y"] == pytest.approx(25, abs=2)
    assert editor.widget("[...node.pos]") == node and set(edits(editor)["positions"]) == {"pond"}
    # The background moves the view, which is no edit.
    value = editor.value
    stage = editor.root.locator(".cf-stage").bounding_box()
    canvas.page.mouse.move(stage["x"] + 12, stage["y"] + 12)
    canvas.page.mouse.down()
    canvas.page.mouse.move(stage["x"] + 42, stage["y"] + 22, steps=4)
    canvas.page.mouse.up()
    assert editor.card("pond").bounding_box()["x"] - after["x"] == pytest.approx(30, abs=2)
    assert editor.value == value and editor.widget("[...node.pos]") == node


def test_undo_and_redo_stay_inside(canvas):
    editor = canvas.add_editor(VILLAGE)
    canvas.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")
    editor.edge("season", "pond").click()
    canvas.page.keyboard.press("Delete")
    once = editor.value
    canvas.page.keyboard.press("Delete")  # the focus is on season now
    twice = editor.value
    assert editor.names() == ["foliage", "pond", "car"] and once != twice
    element = editor.root.element_handle()
    canvas.page.keyboard.press("Control+z")
    expect(editor.card("season")).to_be_visible()
    assert editor.value == once
    canvas.page.keyboard.press("Control+z")
    expect(editor.edge("season", "pond")).to_have_count(1)
    assert editor.value == ""
    canvas.page.keyboard.press("Control+Shift+Z")
    canvas.page.keyboard.press("Control+y")
    expect(editor.card("season")).to_have_count(0)
    assert editor.value == twice
    # The canvas took nothing back: that would have made the node anew.
    canvas.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert element.evaluate("(element) => element.isConnected")
    # From the canvas, the same keys take back what was done in the editor as part of the workflow.
    canvas.page.evaluate("() => { document.activeElement.blur(); app.canvas.canvas.focus(); }")
    canvas.page.keyboard.press("Control+z")
    expect(editor.card("season")).to_be_visible()


def test_keys_reach_the_editor_and_not_the_canvas(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("car").locator(".cf-name").click()  # selects the node too
    canvas.page.keyboard.press("Delete")
    expect(editor.card("car")).to_have_count(0)
    assert (
        editor.widget("node.graph !== null")
        and len(canvas.page.evaluate("() => app.graph.nodes.map((n) => n.id)")) == 1
    )
    # The page has shortcuts on plain keys: a and w open its sidebar, r reads all nodes again.
    for key in ("w", "a", "Escape", "r"):
        canvas.page.keyboard.press(key)
    canvas.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert canvas.page.evaluate("() => app.extensionManager.sidebarTab.activeSidebarTabId") is None
    assert "concept" in editor.names()
    # With the focus inside, the wheel zooms the graph; with the focus elsewhere, the canvas.
    scale = "() => app.canvas.ds.scale"
    before, world = canvas.page.evaluate(scale), editor.root.locator(".cf-world")
    look = world.get_attribute("style")
    editor.card("pond").hover()
    canvas.page.mouse.wheel(0, -200)
    expect(world).not_to_have_attribute("style", look)
    assert canvas.page.evaluate(scale) == before
    canvas.page.evaluate("() => document.activeElement.blur()")
    canvas.page.mouse.wheel(0, -200)
    canvas.page.wait_for_function(f"(before) => ({scale})() > before", arg=before)


def test_all_of_it_by_keys(canvas):
    """A graph of three concepts with an edge, a reversed edge, a confounder and an intervention, without a mouse."""
    editor = canvas.add_editor()
    press, type_ = canvas.page.keyboard.press, canvas.page.keyboard.type
    editor.button("Concept").first.focus()
    press("Enter")
    type_("rain")
    press("Tab")
    type_("no, yes")
    press("Enter")
    for name in ("road", "mood"):
        press("a")
        type_(name)
        press("Enter")
        expect(editor.card(name)).to_be_focused()

    def go_to(name: str) -> None:
        for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown") * 3:
            if editor.focused() == name:
                return
            press(key)
        assert editor.focused() == name

    go_to("rain")
    press("e")
    expect(editor.said).to_contain_text("What does rain cause?")
    go_to("road")
    press("Enter")
    expect(editor.said).to_have_text("rain \u2192 road is drawn")
    expect(editor.card("rain")).to_be_focused()
    press("Tab")
    expect(editor.edge("rain", "road")).to_be_focused()
    press("r")
    expect(editor.edge("road", "rain")).to_be_focused()
    press("Escape")
    go_to("mood")
    press("l")
    go_to("road")
    press("Enter")
    expect(editor.said).to_contain_text("mood \u2194 road is drawn")
    go_to("rain")
    press("Enter")
    expect(editor.root.get_by_role("menuitemradio", name="no")).to_be_focused()
    press("ArrowRight")
    press("Enter")
    expect(editor.card("rain")).to_have_attribute("data-role", "do")
    place = edits(editor)["positions"]["rain"]
    press("Shift+ArrowDown")
    press("Shift+ArrowDown")
    assert edits(editor)["positions"]["rain"] == [place[0], place[1] + 24]
    press("Control+z")  # one step, however often the key was pressed
    assert edits(editor)["positions"]["rain"] == place
    press("e")
    press("Escape")
    expect(editor.said).to_have_text("No line was drawn")
    document = edits(editor)
    assert [(c["name"], c["domain"]) for c in document["added"]] == [
        ("rain", ["no", "yes"]),
        ("road", []),
        ("mood", []),
    ]
    assert [(e["source"], e["target"]) for e in document["edges"] if e["present"]] == [("road", "rain")]
    assert document["confounded"] == [{"pair": ["mood", "road"], "present": True}] and document["do"] == {"rain": "yes"}


def test_what_screen_readers_are_told(canvas):
    editor = canvas.add_editor(VILLAGE)
    expect(editor.root.get_by_role("group", name="Causal graph: 4 concepts, 2 edges")).to_be_visible()
    expect(editor.card("season")).to_have_attribute("aria-label", "season, summer, causes foliage and pond")
    expect(editor.edge("season", "foliage")).to_have_attribute(
        "aria-label", "season causes foliage, 90 % sure, Leaves fall in autumn."
    )
    unnamed = editor.root.evaluate(
        """(root) => [...root.querySelectorAll('button, input, select, [tabindex]')].filter((element) =>
            element.checkVisibility() && !element.getAttribute('aria-label') && !element.textContent.trim()
            && !element.labels?.length && !element.title).map((element) => element.outerHTML)"""
    )
    assert unnamed == []
    # One stop of the Tab key each: the bar, the concepts, the edges.
    stops = editor.root.evaluate("(root) => [...root.querySelectorAll('[tabindex=\"0\"]')].length")
    assert stops == 3


def test_the_value_makes_the_round_trip(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.card("season").locator(".cf-value").click()
    editor.root.get_by_role("menuitemradio", name="winter").click()
    editor.edge("season", "pond").click()
    editor.button("Reverse").click()
    value = editor.value
    saved = canvas.page.evaluate("() => app.graph.serialize()")
    canvas.clear()
    canvas.load(saved)
    again = type(editor)(canvas)
    # The graph of the last run comes with the workflow, so that the edits can be seen at once.
    expect(again.card("season")).to_have_attribute("data-role", "do")
    assert again.value == value and again.edges() == [("pond", "season"), ("season", "foliage")]


def test_manual_edits_survive_another_graph_until_they_are_reset(canvas):
    editor = canvas.add_editor(VILLAGE)
    editor.edge("season", "pond").click()
    editor.button("Reverse").click()
    editor.add("mood")
    value = editor.value
    other = {**VILLAGE, "edges": [{"source": "car", "target": "pond", "confidence": 0.4, "reason": ""},
                                  {"source": "season", "target": "car", "confidence": 0.8, "reason": ""}]}  # fmt: skip
    editor.widget(f"node.onExecuted({{counterfact_base: [{json.dumps(json.dumps(other))}], counterfact_notes: []}})")
    # pond -> season -> car -> pond: the least sure edge of the new graph gives way
    expect(editor.edge("season", "car")).to_have_count(1)
    assert editor.edges() == [("pond", "season"), ("season", "car")] and editor.value == value
    assert "mood" in editor.names()
    editor.button("1 left out").click()
    expect(editor.root.get_by_role("dialog", name="Notes")).to_contain_text("car -> pond is left out: it makes a cycle")
    canvas.page.keyboard.press("Escape")
    editor.button("Reset").click()
    question = editor.root.get_by_role("alertdialog")
    question.get_by_role("button", name="Keep").click()
    assert editor.value == value
    editor.button("Reset").click()
    question.get_by_role("button", name="Reset").click()
    expect(editor.edge("car", "pond")).to_have_count(1)
    assert editor.value == "" and editor.names() == ["season", "foliage", "pond", "car"]
    canvas.page.keyboard.press("Control+z")
    expect(editor.edge("pond", "season")).to_have_count(1)
    assert editor.value == value


def test_many_concepts_are_laid_out_without_overlap(one_canvas):
    """Of 50 concepts every edge leads forward; 200 take their places too."""
    drawn = json.loads(large_graph().to_json())
    editor = one_canvas.add_editor(drawn)
    expect(editor.root.locator(".cf-card")).to_have_count(50)
    boxes = dict(zip(editor.names(), editor.boxes(), strict=True))
    assert len(boxes) == 50 and len(editor.edges()) == 100
    steps = {boxes[b]["x"] - boxes[a]["x"] for a, b in editor.edges()}
    falls = {boxes[b]["y"] - boxes[a]["y"] for a, b in editor.edges()}
    assert min(steps) > 0 or min(falls) > 0
    more = [{**concept, "name": f"{concept['name']} {i}"} for i in range(3) for concept in drawn["concepts"]]
    told = json.dumps(json.dumps({**drawn, "concepts": drawn["concepts"] + more}))
    editor.widget(f"node.onExecuted({{counterfact_base: [{told}]}})")
    expect(editor.root.locator(".cf-card")).to_have_count(200)
    for i, a in enumerate(boxes := editor.boxes()):
        for b in boxes[:i]:
            apart = (
                a["left"] >= b["right"] or b["left"] >= a["right"] or a["top"] >= b["bottom"] or b["top"] >= a["bottom"]
            )
            assert apart, (a, b)


def test_switching_the_renderer_keeps_everything(canvases):
    canvas = canvases("litegraph")
    canvas.clear()
    editor = canvas.add_editor(VILLAGE)
    editor.edge("season", "pond").click()
    canvas.page.keyboard.press("Delete")
    value = editor.value
    try:
        for vue in (True, False):
            canvas.set("Comfy.VueNodes.Enabled", vue)
            expect(canvas.page.locator(".lg-node .cf-editor")).to_have_count(int(vue))
            expect(editor.card("season")).to_be_visible()
            assert editor.value == value and editor.edges() == [("season", "foliage")]
            editor.card("car").locator(".cf-name").click()
            expect(editor.card("car")).to_be_focused()
    finally:
        canvas.set("Comfy.VueNodes.Enabled", False)
    assert not canvas.errors


def test_markup_in_names_and_values_is_text(one_canvas):
    evil = "<img src=x onerror=alert(1)>"
    base = json.loads(json.dumps(VILLAGE).replace('"green"', json.dumps(evil)))
    base["concepts"][3]["name"] = evil  # a server would not say this
    base["edges"][0]["reason"] = evil
    editor = one_canvas.add_editor(base)
    expect(editor.root.get_by_text(evil, exact=True).first).to_be_visible()
    editor.edge("season", "foliage").click()
    editor.card("foliage").locator(".cf-value").click()
    expect(editor.root.get_by_role("menuitemradio", name=evil)).to_be_visible()
    assert editor.root.locator("img").count() == 0
    one_canvas.page.keyboard.press("Escape")
    editor.card("pond").locator(".cf-name").dblclick()
    one_canvas.page.keyboard.type("<b>pond</b>")
    one_canvas.page.keyboard.press("Enter")
    expect(editor.said).to_contain_text("may only have letters, digits, spaces, _ and - in it")
    expect(editor.card("pond")).to_be_visible()


def test_a_value_from_outside_begins_a_new_history(one_canvas):
    editor = one_canvas.add_editor(VILLAGE)
    editor.edge("season", "pond").focus()
    one_canvas.page.keyboard.press("Delete")
    value = editor.value
    editor.widget("(widget.value = '', 0)")
    expect(editor.edge("season", "pond")).to_have_count(1)
    expect(editor.button("Undo")).to_be_disabled()
    editor.widget(f"(widget.value = {json.dumps(value)}, 0)")
    expect(editor.edge("season", "pond")).to_have_count(0)
    assert editor.value == value


def test_a_value_that_cannot_be_read_is_kept_until_it_is_reset(one_canvas):
    editor = one_canvas.add_editor(VILLAGE, '{"kind": "counterfact.graph_edits", "schema_version": 7}')
    unreadable = '{"kind": "counterfact.graph_edits", "schema_version": 7}'
    expect(editor.said).to_contain_text("cannot be read: this editor reads schema_version 1. Reset forgets them")
    editor.edge("season", "pond").focus()
    one_canvas.page.keyboard.press("Delete")
    expect(editor.edge("season", "pond")).to_have_count(1)
    assert editor.value == unreadable
    editor.button("Reset").click()
    editor.root.get_by_role("alertdialog").get_by_role("button", name="Reset").click()
    expect(editor.said).to_contain_text("Everything changed by hand is forgotten")
    assert editor.value == ""
    one_canvas.page.keyboard.press("Control+z")
    assert editor.value == unreadable
