"""A wet street and what follows from it, for a language model that answers from a table."""

from __future__ import annotations

import json
import math
import re

from causal_core.concepts import parse_concepts
from causal_core.discovery.mechanisms import language_mechanism
from causal_core.graph import CausalGraph
from causal_core.language.model import TEXT
from causal_core.plan import Intervention, propagate

RAIN = Intervention({"weather": "rain"})


def street(**values) -> CausalGraph:
    """weather -> street -> shoes, weather -> mood (any words), weather -> noise (a number); no mechanisms."""
    shown = {"weather": "clear", "street": "dry", "shoes": "clean", "mood": "merry", "noise": "30", **values}
    equal = {name: f" = {value}" if value else "" for name, value in shown.items()}
    concepts = parse_concepts(
        f"weather: clear, rain{equal['weather']}\nstreet: dry, wet, flooded{equal['street']}\n"
        f"shoes: clean, muddy{equal['shoes']}\nmood{equal['mood']}\nnoise: 0 .. 100{equal['noise']}"
    )
    edges = [("weather", "street"), ("street", "shoes"), ("weather", "mood"), ("weather", "noise")]
    return CausalGraph.from_edges(edges, concepts=concepts)


class Table:
    """Answers for prompts that have certain words in them: probabilities by value, or a text.

    A question about the same words is answered in the same way, whatever its form.
    """

    name, sees = "table", False

    def __init__(self, rows: dict[str, object], scores: str = TEXT) -> None:
        self.rows, self.scores, self.asked = rows, scores, []

    def row(self, prompt: str):
        words = re.sub(r'"', "", prompt).lower()
        return next((row for key, row in self.rows.items() if all(w in words for w in key.split(" & "))), {})

    def choice_logprobs(self, request, check=lambda: None):
        row = self.row(request.prompt.text)
        row = {} if isinstance(row, str) else row
        named = dict(re.findall(r'^([A-Z])\. "(.*)"$', request.prompt.text, re.MULTILINE))
        values = [named.get(choice, choice.strip()) for choice in request.choices]
        return tuple(math.log(row[v]) if row.get(v) else -math.inf for v in values)

    def complete(self, request, check=lambda: None):
        row = self.row(request.prompt.text)
        said = row if isinstance(row, str) else json.dumps({"value": max(row, key=row.get)}) if row else ""
        # A text model goes on with a sentence.
        return said if request.prompt.chat else re.sub(r'\{"value": "?(.*?)"?\}', r" \1. And so on", said)

    def batch(self, requests, progress=lambda done, total: None, check=lambda: None):
        check()
        self.asked += requests
        progress(len(requests), len(requests))
        return [self.choice_logprobs(r) if r.choices else self.complete(r) for r in requests]


STREET = {
    "weather is clear & the street": {"dry": 0.8, "wet": 0.15, "flooded": 0.05},
    "weather is rain & the street": {"dry": 0.1, "wet": 0.8, "flooded": 0.1},
    "street is dry & the shoes": {"clean": 0.9, "muddy": 0.1},
    "street is wet & the shoes": {"clean": 0.2, "muddy": 0.8},
}


def plan(model, graph=None, do=RAIN, fixed=None):
    """Items by name."""
    graph = graph or street()
    return {i.name: i for i in propagate(graph, do, fixed, mechanism=language_mechanism(graph, model)).items}
