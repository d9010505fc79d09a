"""One ComfyUI server, one browser and one page a renderer for all tests of this folder: starting them takes long."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from causal_core.comfyui.browser import add_editor, change_setting, chromium, empty_canvas, open_comfyui
from causal_core.comfyui.server import ComfyServer

SECONDS = 30
RENDERERS = ("litegraph", "vue")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A running Chromium; where there is none and none can be installed, the tests fail, they do not skip."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def server(pack_root: Path, comfy_path: Path) -> Iterator[ComfyServer]:
    """A running server with the pack."""
    with ComfyServer(pack_root, comfy_path) as running:
        yield running


class Canvas:
    """ComfyUI's page in one renderer."""

    def __init__(self, browser: Browser, url: str, renderer: str) -> None:
        self.renderer = renderer
        self.errors: list[str] = []
        self.page: Page = open_comfyui(browser, url, renderer == "vue", on_error=self._on_error)
        self.page.set_default_timeout(SECONDS * 1000)

    def _on_error(self, error: str) -> None:
        # The page logs errors of its own, such as files that a user may have and has not.
        if error.startswith("exception: ") or "counterfact" in error:
            self.errors.append(error)

    def set(self, name: str, value: Any) -> None:
        """Change a setting of the page."""
        change_setting(self.page, name, value)

    def clear(self) -> None:
        """Begin with an empty canvas in its usual place."""
        empty_canvas(self.page)
        expect(self.page.locator(".cf-editor")).to_have_count(0)

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow."""
        self.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)

    def add_editor(self, base: dict[str, Any] | None = None, value: str = "") -> Editor:
        """Put a Build Causal Graph on the canvas, as if a run had told it this graph, with these edits."""
        add_editor(self.page, base and json.dumps(base), value)
        return Editor(self)

    def editor(self) -> Editor:
        """The editor of the only Build Causal Graph on the canvas."""
        return Editor(self)


class Editor:
    """The graph editor of the only Build Causal Graph on the canvas."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas, self.page = canvas, canvas.page
        self.root = self.page.locator(".cf-editor")
        expect(self.root).to_be_visible()

    def widget(self, expression: str) -> Any:
        """What a JavaScript expression of `node` and `widget` gives."""
        return self.page.evaluate(
            f"""() => {{
                const node = app.graph.nodes.find((node) => node.type === 'CausalGraphBuilder');
                const widget = node.widgets.find((widget) => widget.name === 'editor');
                return {expression};
            }}"""
        )

    @property
    def value(self) -> str:
        """The text that goes to the server."""
        return self.widget("widget.value")

    def card(self, name: str) -> Locator:
        """The card of a concept."""
        return self.root.locator(f'.cf-card[data-name="{name}"]')

    def edge(self, source: str, target: str) -> Locator:
        """The line of an edge, as far as it can be clicked."""
        return self.root.locator(f'.cf-hit[data-source="{source}"][data-target="{target}"]')

    def pair(self, first: str, second: str) -> Locator:
        """The line of a latent confounder."""
        return self.root.locator(f'.cf-hit[data-pair="{first}\\a {second}"]')

    def names(self) -> list[str]:
        """Names of all concepts."""
        return self.root.locator(".cf-card").evaluate_all("(cards) => cards.map((card) => card.dataset.name)")

    def edges(self) -> list[tuple[str, str]]:
        """All edges."""
        lines = self.root.locator(".cf-hit[data-source]")
        return sorted(map(tuple, lines.evaluate_all("(all) => all.map(({ dataset: d }) => [d.source, d.target])")))

    def boxes(self) -> list[dict[str, float]]:
        """The boxes of all cards, in the order of the names."""
        cards = self.root.locator(".cf-card")
        return cards.evaluate_all("(cards) => cards.map((card) => card.getBoundingClientRect().toJSON())")

    def button(self, name: str) -> Locator:
        """A button by its words or its title."""
        return self.root.get_by_role("button", name=name)

    @property
    def said(self) -> Locator:
        """What the editor said last, to eyes and screen readers."""
        return self.root.get_by_role("status")

    def add(self, name: str) -> None:
        """Add a concept with the mouse, and type its name."""
        self.button("Concept").first.click()
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")
        expect(self.card(name)).to_be_visible()

    def drag(self, start: Locator, end: Locator | tuple[float, float]) -> None:
        """Press on one thing, move, and let go on another, or some pixels away."""
        box = start.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        if isinstance(end, Locator):
            other = end.bounding_box()
            to = other["x"] + other["width"] / 2, other["y"] + other["height"] / 2
        else:
            to = x + end[0], y + end[1]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move((x + to[0]) / 2, (y + to[1]) / 2, steps=3)
        self.page.mouse.move(*to, steps=3)
        self.page.mouse.up()

    def focused(self) -> str:
        """The name of the concept whose card has the focus, or what else has it."""
        return self.page.evaluate(
            "() => document.activeElement.dataset?.name ?? document.activeElement.getAttribute('aria-label') ?? ''"
        )


@pytest.fixture(scope="session")
def canvases(browser: Browser, server: ComfyServer) -> Callable[[str], Canvas]:
    """The page of a renderer, opened when it is asked for first."""
    opened: dict[str, Canvas] = {}

    def canvas(renderer: str) -> Canvas:
        if renderer not in opened:
            opened[renderer] = Canvas(browser, server.url, renderer)
        return opened[renderer]

    return canvas


@pytest.fixture(params=RENDERERS)
def canvas(request: pytest.FixtureRequest, canvases: Callable[[str], Canvas]) -> Iterator[Canvas]:
    """An empty canvas in either renderer; no error of ours may have come up on it in the end."""
    shown = canvases(request.param)
    shown.clear()
    yield shown
    errors, shown.errors = shown.errors, []
    assert not errors


@pytest.fixture
def one_canvas(canvases: Callable[[str], Canvas]) -> Iterator[Canvas]:
    """An empty canvas in one renderer, for what does not depend on it."""
    shown = canvases("vue")
    shown.clear()
    yield shown
    errors, shown.errors = shown.errors, []
    assert not errors
