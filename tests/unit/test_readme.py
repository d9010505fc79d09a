"""What the README shows must run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_python_example_draws_a_winter(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    names: dict = {}
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102
    source = names["world"].render(names["scene"], 64)
    drawn = np.asarray(Image.open(tmp_path / "winter.png"))
    assert (drawn == names["found"].picture).all() and (drawn != source).any()
    assert "season" in names["found"].regions


@pytest.mark.parametrize("page", ["README.md", "causal_core/guidance/README.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        assert ((ROOT / page).parent / link).exists(), link
