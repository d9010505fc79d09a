"""Pictures of causal graphs and of what an intervention does to them, for people.

Every role has its own border and its own word, so that colour is never the only sign (palette: Okabe and Ito 2008). An
intervention cuts the edges into the concepts it sets (graph surgery, Pearl, Causality, section 3.2.3): they are drawn cut.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import atan2, cos, hypot, pi, sin
from typing import TYPE_CHECKING, NamedTuple

from .errors import CounterfactError, finite
from .graph import CausalGraph
from .layout import Box, Layout, Point, Spacing, arc, layered

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from .plan import CounterfactualPlan, PlanItem

SUPERSAMPLING = 2
MARGIN = 36.0
TALLEST = 3.0  # largest height, in widths

PAPER, CARD = "#FAFAF7", "#FFFFFF"
INK, MUTED, FAINT = "#1D2733", "#66707C", "#B9C0C9"
VERMILLION, BLUE, PURPLE = "#D55E00", "#0072B2", "#CC79A7"

# Fonts that systems have, for scripts that Pillow's own font lacks.
OTHER_FONTS = ("DejaVuSans.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc",
               "msgothic.ttc", "PingFang.ttc")  # fmt: skip


class Look(NamedTuple):
    """How a card looks: border colour and width, fill, the word on its tag, and what the legend says of it."""

    colour: str
    width: float
    fill: str
    tag: str = ""
    legend: str = ""
    double: bool = False
    dashed: bool = False
    solid_tag: bool = True


PLAIN = Look(MUTED, 1.5, CARD)
INTERVENED = Look(VERMILLION, 2.2, "#FDF2EA", "do", "set by the intervention", double=True)
CHANGED = Look(BLUE, 3.0, "#EAF4FA", "changed", "follows and changes")
STEADY = Look(BLUE, 1.6, CARD, "same", "could follow, stays", dashed=True, solid_tag=False)
KEPT = Look(FAINT, 1.2, CARD, "kept", "invariant, must not move", solid_tag=False)


def draw_graph(graph: CausalGraph, plan: CounterfactualPlan | None = None, width: int = 1024) -> Image.Image:
    """Draw a causal graph, and with a plan what changes in it.

    Parameters
    ----------
    graph : CausalGraph
    plan : CounterfactualPlan, optional
        A plan for the same concepts: cards then show values before and after and the role of each concept.
    width : int
        Width of the picture in pixels, 256 to 2048. The height follows from the graph, up to three widths; larger graphs
        are drawn smaller.

    Returns
    -------
    PIL.Image.Image
        RGB. The same input gives the same picture.

    Raises
    ------
    CounterfactError
        If the plan is for other concepts, or the width is out of range.

    Examples
    --------
    >>> draw_graph(CausalGraph.from_edges([("season", "foliage")]), width=512).width
    512
    """
    from PIL import Image

    width = round(finite(width, "the width of the graph picture", 256, 2048))
    if plan is not None and set(plan.concepts.names) != set(graph.concepts.names):
        odd = sorted(set(plan.concepts.names) ^ set(graph.concepts.names))
        raise CounterfactError(f"the plan is for another graph, they differ in {', '.join(odd[:10])}: propagate again")
    scene = _Scene(graph, plan, width)
    image = Image.new("RGB", (width * SUPERSAMPLING, round(scene.height * SUPERSAMPLING)), PAPER)
    scene.paint(image)
    return image.resize((width, max(1, round(scene.height))), Image.Resampling.LANCZOS)
