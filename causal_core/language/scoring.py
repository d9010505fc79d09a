"""How probable texts are as continuations of others, for any transformers model that predicts the next token.

Rows that begin alike are computed together: the shared beginning once, the rest side by side, with padding on the
right, which no earlier token can see.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

import torch

# Rows in one forward pass, and the tokens in all of them together.
MAX_ROWS, MAX_TOKENS = 32, 4096
# A shorter shared beginning is not worth a pass of its own.
MIN_SHARED = 8
# What a pass costs beside its tokens, and what predicting a token costs, in tokens that are read. The second is of the
# smallest models, whose vocabulary is large for them.
PASS_COST, PREDICTION_COST = 8, 0.25


class Continuation(NamedTuple):
    """Tokens, and those that may follow them; neither is empty."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


def continuations(
    prompt: Sequence[int], texts: Sequence[Sequence[int]], start: Sequence[int] = ()
) -> list[Continuation]:
    """Split the tokens of texts that all begin with a prompt where they part from its tokens.

    The tokens of "a b" need not begin with those of "a ": the two may have become one at the seam. All texts are given
    the same head, so that their probabilities can be compared.

    Parameters
    ----------
    prompt : tokens of the prompt alone
    texts : tokens of the prompt and an ending, together
    start : the head where they have none in common

    Examples
    --------
    >>> continuations([1, 2, 3], [[1, 2, 3, 4], [1, 2, 35]])
    [Continuation(head=(1, 2), tail=(3, 4)), Continuation(head=(1, 2), tail=(35,))]
    """
    # One token of each must be left to be predicted, also where an ending has vanished in the prompt.
    kept = min(min(len(commonprefix([list(prompt), list(text)])), len(text) - 1) for text in texts)
    return [Continuation(tuple(text[:kept]) or tuple(start), tuple(text[kept:])) for text in texts]


def log_probabilities(
    module: Any, items: Sequence[Continuation], check: Callable[[], None], done: Callable[[int], None]
) -> list[float]:
    """Natural logarithm of the probability of each tail after its head: the sum over its tokens.

    Parameters
    ----------
    module : a transformers model with a language modelling head
    done : called with the number of items that are finished
    """
    # The last token is never read, only predicted: continuations of one token share a row.
    rows: dict[tuple[int, ...], list[int]] = {}
    for n, (head, tail) in enumerate(items):
        rows.setdefault(head + tail[:-1], []).append(n)
    starts = {row: min(len(items[n].head) for n in members) - 1 for row, members in rows.items()}
    totals, finished = [0.0] * len(items), 0
    for group in _groups(starts, shares(module)):
        check()
        predicted = _predictions(module, group, check)
        for at, n in ((at, n) for at, row in enumerate(group.rows) for n in rows[row]):
            head, tail = items[n]
            start = len(head) - 1 - group.start
            steps = predicted[at, start : start + len(tail)]
            totals[n] = float(steps.gather(1, torch.tensor([tail], device=steps.device).T).sum())
            finished += 1
        done(finished)
    return totals


class Group(NamedTuple):
    """Rows of tokens for one pass.

    Attributes
    ----------
    start : the first token after which predictions are wanted, in any row
    shared : how many tokens all rows begin with, and are read once
    """

    rows: tuple[tuple[int, ...], ...]
    start: int
    shared: int

    @property
    def longest(self) -> int:
        return max(map(len, self.rows))

    @property
    def cost(self) -> float:
        """About how long it takes, in tokens."""
        each = self.longest - self.shared + PREDICTION_COST * (self.longest - self.start)
        return self.shared + len(self.rows) * each + PASS_COST * (2 if self.shared else 1)


def _groups(starts: Mapping[tuple[int, ...], int], sharing: bool) -> list[Group]:
    """Neighbours together, as long as that is cheaper: rows of other lengths and beginnings are a burden."""

    def group(*rows: tuple[int, ...]) -> Group:
        start = min(starts[row] for row in rows)
        shared = min(len(commonprefix(rows)), start) if sharing and len(rows) > 1 else 0
        return Group(rows, start, shared if shared >= MIN_SHARED else 0)

    groups: list[Group] = []
    for row in sorted(starts):
        if groups:
            last = groups[-1]
            both = group(*last.rows, row)
            fits = len(both.rows) <= MAX_ROWS and len(both.rows) * both.longest <= MAX_TOKENS
            if fits and both.cost <= last.cost + group(row).cost:
                groups[-1] = both
                continue
        groups.append(group(row))
    return groups


def _predictions(module: Any, group: Group, check: Callable[[], None]) -> torch.Tensor:
    """Log-probabilities of the token after each token from the group's start on, [rows, tokens, vocabulary]."""
    rows, start, shared = group
    device, longest, cache = module.device, group.longest, None
    if shared:
        cache = module(torch.tensor([rows[0][:shared]], device=device), use_cache=True, **_keep(module, [0]))
        cache = cache.past_key_values
        cache.batch_repeat_interleave(len(rows))
        check()
    padded = [[*row[shared:], *[0] * (longest - len(row))] for row in rows]
    wanted = range(start - shared, longest - shared)
    keep = _keep(module, wanted)
    out = module(torch.tensor(padded, device=device), past_key_values=cache, use_cache=cache is not None, **keep)
    logits = out.logits if keep else out.logits[:, wanted.start :]
    return torch.log_softmax(logits.float(), -1)


def shares(module: Any) -> bool:
    """Whether all layers attend to all that came before, so that a computed beginning can be used for several rows."""
    config = module.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)


def _keep(module: Any, positions: Sequence[int]) -> dict[str, torch.Tensor]:
    """The option that spares a model the vocabulary's predictions where nobody asks, if it knows the option."""
    known = "logits_to_keep" in inspect.signature(module.forward).parameters
    return {"logits_to_keep": torch.tensor(list(positions), device=module.device)} if known else {}
