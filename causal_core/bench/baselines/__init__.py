"""Known editing methods on the same denoiser, the same noise levels and the same captions as ours.

Each method is a function of a :class:`Setting`; :func:`edited` runs it and counts its evaluations.
"""

from __future__ import annotations

from .caption_swap import ddim, edit_friendly, img2img
from .inpaint import inpaint_true_mask, latent_mask
from .prompt_to_prompt import p2p
from .semantic import leditspp, sega
from .setting import Method, Outcome, Setting, edited

BASELINES: dict[str, Method] = {
    "img2img": img2img,
    "ddim": ddim,
    "p2p": p2p,
    "sega": sega,
    "leditspp": leditspp,
    "edit_friendly": edit_friendly,
    "inpaint_true_mask": inpaint_true_mask,
}

__all__ = ["BASELINES", "Method", "Outcome", "Setting", "edited", "latent_mask"]
