"""What questions in plain words are about, and a language model that says what it is told to."""

from __future__ import annotations

from causal_core.concepts import Concepts
from causal_core.language.model import NOTHING
from causal_core.worlds import get_world


def summer() -> Concepts:
    """The concepts of a summer scene with a yellow house and a red car."""
    world = get_world("cottage")
    return world.concepts({**world.sample(302).values, "house": "yellow", "car": "red", "time": "day"})


class Fake:
    """Gives one text, or scores by a function of (prompt, choice)."""

    name, sees = "fake", False

    def __init__(self, answer="", scores=NOTHING, score=lambda prompt, choice: 0.0) -> None:
        self.answer, self.scores, self.score, self.asked = answer, scores, score, []

    def complete(self, request, check=lambda: None):
        check()
        self.asked.append(request)
        return self.answer

    def batch(self, requests, progress=lambda done, total: None, check=lambda: None):
        check()
        self.asked += requests
        return [tuple(self.score(request.prompt.text, choice) for choice in request.choices) for request in requests]
