"""A Chromium without a window, driven by Playwright, for what can only be seen in ComfyUI's page.

Any Chromium of the machine will do; where there is none, Playwright's own or the system's is installed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CounterfactError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

log = logging.getLogger("counterfact")

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Nothing is fetched, and nothing asks for a graphics card.
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TAIL = 300
OPEN_SECONDS = 120


def find_chromium() -> str | None:
    """The path of a Chromium: COUNTERFACT_CHROMIUM, else one of the usual names on PATH; None if there is none.

    Raises
    ------
    CounterfactError
        If COUNTERFACT_CHROMIUM names no file.
    """
    if named := os.environ.get("COUNTERFACT_CHROMIUM"):
        if not Path(named).is_file():
            raise CounterfactError(f"COUNTERFACT_CHROMIUM is {named}, which is no file: name a Chromium, or unset it")
        return named
    return next(filter(None, map(shutil.which, NAMES)), None)


def install_chromium() -> str | None:
    """Install a Chromium; its path, or None for Playwright's own, which Playwright finds by itself.

    Raises
    ------
    CounterfactError
        If none can be installed; the message has the last words of what was tried.
    """
    attempts = [[[sys.executable, "-m", "playwright", "install", "chromium"]]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        attempts.append([["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]])
    tried = []
    for commands in attempts:
        for command in commands:
            log.info("No Chromium here, trying: %s", " ".join(command))
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            tried.append(f"{' '.join(command)}: {(done.stdout + done.stderr)[-TAIL:].strip()}")
            if done.returncode:
                break
        else:
            return find_chromium()
    raise CounterfactError(
        "there is no Chromium, and none could be installed: install one and put it on PATH, or name it by "
        "COUNTERFACT_CHROMIUM.\n" + "\n".join(tried)
    )


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium, gone after the block.

    Raises
    ------
    CounterfactError
        If Playwright or a Chromium is missing and cannot be installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise CounterfactError("the browser is driven by Playwright: run pip install playwright") from None
    executable = find_chromium() or install_chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        try:
            yield running
        finally:
            running.close()


def open_comfyui(
    browser: Browser, url: str, vue: bool, size: tuple[int, int] = (1280, 1000),
    on_error: Callable[[str], None] = lambda error: None,
) -> Page:  # fmt: skip
    """A page of its own with ComfyUI in it, ready for use; it waits for things for two minutes unless told otherwise.

    Parameters
    ----------
    url : of the server
    vue : whether Vue draws the nodes, or LiteGraph
    size : width and height in pixels
    on_error : told every exception that nothing catches, and every error that the page logs, with the address it is of
    """
    page = browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()
    page.set_default_timeout(1000 * OPEN_SECONDS)
    page.on("pageerror", lambda error: on_error(f"exception: {error}"))
    page.on("console", lambda m: on_error(f"{m.location.get('url', '')}: {m.text}") if m.type == "error" else None)
    # Told to the server beforehand: on its first start, the page opens the browser of templates over the canvas.
    for name, value in {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": vue}.items():
        page.request.post(f"{url}/settings/{name}", data=json.dumps(value))
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_function(
        "() => window.app?.extensionManager?.setting && window.LiteGraph?.registered_node_types.CausalGraphBuilder"
        # At its start the page shows a workflow, or the browser of templates: before that, it is not ready.
        " && app.canvas && (app.graph.nodes.length || document.querySelector('[role=dialog]'))"
    )
    empty_canvas(page)
    return page


def change_setting(page: Page, name: str, value: Any) -> None:
    """Change one of ComfyUI's settings."""
    page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])


def empty_canvas(page: Page) -> None:
    """Close what lies over the canvas, take all nodes off it, and show it in its usual place."""
    dialog = page.locator("[role=dialog]")
    while dialog.count():
        page.keyboard.press("Escape")
        dialog.first.wait_for(state="detached")
    page.evaluate(
        """() => {
            app.canvas.deselectAll?.();
            app.graph.clear();
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [0, 0];
            document.activeElement?.blur();
        }"""
    )


def add_editor(page: Page, base: str | None, value: str = "") -> None:
    """Put a Build Causal Graph on the canvas.

    Parameters
    ----------
    base : a `counterfact.graph` document that its editor shows, as if a run had told it; None for none
    value : the text of its editor
    """
    page.evaluate(
        """([base, value]) => {
            const node = LiteGraph.createNode('CausalGraphBuilder');
            node.pos = [200, 80];
            app.graph.add(node);
            if (base) node.onExecuted({ counterfact_base: [base], counterfact_notes: [] });
            node.widgets.find((widget) => widget.name === 'editor').value = value;
            app.canvas.setDirty(true, true);
        }""",
        [base, value],
    )
    page.locator(".cf-editor").wait_for()
