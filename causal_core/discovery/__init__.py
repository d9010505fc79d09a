"""Which concept causes which: a language model is asked, its answers become votes, and the votes an acyclic graph."""

from .constraints import Constraints, parse_constraints
from .oracle import Oracle
from .run import STRATEGIES, Discovery, discover

__all__ = ["STRATEGIES", "Constraints", "Discovery", "Oracle", "discover", "parse_constraints"]
