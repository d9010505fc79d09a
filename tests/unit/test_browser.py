"""Finding a Chromium: what the user names, what the machine has, what can be installed, and the words if none of it."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from causal_core.comfyui import browser
from causal_core.errors import CounterfactError


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any browser, whose installers all fail; gives the commands that were tried."""
    monkeypatch.delenv("COUNTERFACT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser.os, "geteuid", lambda: 0, raising=False)
    tried = []

    def run(command, **options):
        tried.append(command)
        return SimpleNamespace(returncode=1, stdout="", stderr="no network")

    monkeypatch.setattr(subprocess, "run", run)
    return tried


def executable(path):
    path.write_text("")
    path.chmod(0o755)
    return str(path)


def test_the_named_browser_comes_first_then_path(bare, monkeypatch, tmp_path):
    assert browser.find_chromium() is None
    found = executable(tmp_path / "chromium-browser")
    assert browser.find_chromium() == found
    named = executable(tmp_path / "mine")
    monkeypatch.setenv("COUNTERFACT_CHROMIUM", named)
    assert browser.find_chromium() == named
    monkeypatch.setenv("COUNTERFACT_CHROMIUM", str(tmp_path / "gone"))
    with pytest.raises(CounterfactError, match="COUNTERFACT_CHROMIUM is .*gone, which is no file"):
        browser.find_chromium()


def test_playwrights_own_is_tried_before_the_systems(bare, tmp_path):
    executable(tmp_path / "apt-get")
    with pytest.raises(CounterfactError, match="(?s)put it on PATH, or name it by COUNTERFACT_CHROMIUM.*no network"):
        browser.install_chromium()
    assert bare == [[sys.executable, "-m", "playwright", "install", "chromium"], ["apt-get", "update"]]


def test_without_root_the_system_is_left_alone(bare, monkeypatch, tmp_path):
    executable(tmp_path / "apt-get")
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(CounterfactError, match="none could be installed"):
        browser.install_chromium()
    assert len(bare) == 1
