"""What to do without when memory runs out, so that an edit goes on slower rather than not at all.

ComfyUI estimates beforehand how many captions fit into memory at once. Where it is wrong, one thing after the other is
saved, and stays saved for the run: a way that has failed once would fail at every step.
"""

from __future__ import annotations

import logging

import comfy.model_management

from ..causal_core.errors import CounterfactError

log = logging.getLogger("counterfact")

# As attention and allocators word it that do not raise PyTorch's own error: ComfyUI's split attention, MPS, the CPU.
_WORDS = ("not enough memory", "out of memory", "can't allocate memory")


class OutOfMemory(CounterfactError, comfy.model_management.OOM_EXCEPTION):
    """Nothing is left to be saved; ComfyUI sees its own error in it, too, and unloads all models."""


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    told = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)
    return comfy.model_management.is_oom(error) or told


class Savings:
    """What a run does without.

    Attributes
    ----------
    rows : evaluate one caption at a time
    layers : capture attention in coarse layers only
    maps : capture no attention
    notes : the same in words, in the order in which it came
    """

    def __init__(self) -> None:
        self.rows = self.layers = self.maps = False
        self.notes: list[str] = []

    def more(self, captured: bool, coarser: bool) -> None:
        """Free what can be freed, and save one thing more.

        Parameters
        ----------
        captured : whether attention was captured in the attempt that failed
        coarser : whether coarse layers alone would take less

        Raises
        ------
        OutOfMemory
            If everything is saved already.
        """
        comfy.model_management.soft_empty_cache(True)
        if not self.rows:
            self.rows = True
            self._note("captions are evaluated one at a time, which takes longer and gives the same")
        elif captured and coarser and not self.layers:
            self.layers = True
            self._note("attention is captured in coarse layers only")
        elif captured:
            self.maps = True
            self._note("attention is captured no longer; regions come from the size of changes and from masks")
        else:
            raise OutOfMemory(
                "latent: memory ran out, even with one caption at a time and without attention; use a smaller picture, "
                "the fused mode or fewer concepts, and close other programs that use the same memory"
            )

    def _note(self, text: str) -> None:
        self.notes.append(f"memory ran out: {text}")
        log.warning("%s", self.notes[-1])
