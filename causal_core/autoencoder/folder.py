"""A folder of anybody's pictures, with a CSV file of labels and a causal graph, as data for training.

Pictures may be grey or in colour, of any size and kind: each is scaled until its shorter side fits and cut to its
central square, transparent parts become white. They are decoded when first asked for and kept while there is room.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import CounterfactError, finite
from ..graph import CausalGraph, read_graph
from .data import spread
from .labels import read_labels

log = logging.getLogger("counterfact")

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
CACHE_BYTES = 2 << 30
NAMED = 5


class FolderSource:
    """Pictures of a folder and their labels; see :class:`causal_core.autoencoder.data.Source`.

    Parameters
    ----------
    images : folder; pictures in folders below it count, hidden files and links that lead out of it do not
    labels : CSV file as :mod:`.labels` describes; without one no picture has labels
    graph : causal graph of the labels, or the JSON file of one
    size : side of the pictures in pixels
    labelled : share of the pictures whose labels are used, 0 to 1
    resize : whether pictures of another size are scaled and cut; otherwise they are an error
    channels : 3, or 1 for grey pictures alone; without it 1 if all pictures are grey, else 3
    check : called before each picture is opened, which takes long for many; may raise to end it
    few : see :func:`.labels.read_labels`

    Attributes
    ----------
    channels : 1 or 3
    left_out : why a picture cannot be read, by its name

    Raises
    ------
    CounterfactError
        If there is no readable picture, or labels or graph are not right. Single pictures that cannot be read are
        counted, named and left out.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path | None,
        graph: str | Path | CausalGraph | None,
        size: int,
        labelled: float = 1.0,
        resize: bool = True,
        channels: int | None = None,
        check: Callable[[], object] = lambda: None,
        few: int = 0,
    ) -> None:
        self.folder, self.size, self.resize = Path(images), int(finite(size, "size", 1, 8192)), resize
        if graph is None:
            raise CounterfactError("graph: a folder of images needs the causal graph of its labels, a JSON file")
        graph = graph if isinstance(graph, CausalGraph) else read_graph(graph)
        if graph.confounded:
            log.warning(
                "graph: an autoencoder knows no hidden causes, so what these do to each other may be learnt wrong: %s",
                ", ".join(f"{a} <-> {b}" for a, b in graph.confounded[:NAMED]),
            )
        found = _pictures(self.folder)
        read = read_labels(Path(labels) if labels is not None else None, graph, found, few)
        self.coding = read.coding
        self.left_out: dict[str, str] = {}
        modes = []
        for name in found:
            check()
            modes.append(self._mode(name))
        kept = [i for i, mode in enumerate(modes) if mode]
        if self.left_out:
            count = f"{len(self.left_out)} of {len(found)}"
            told = _told(f"{count} pictures cannot be read and are left out", self.left_out)
            if not kept:
                raise CounterfactError(told)
            log.warning(told)
        self.names = [found[i] for i in kept]
        self.labels, self.free = read.places[kept], read.free[kept]
        self.labels[~spread(range(len(kept)), finite(labelled, "labelled", 0.0, 1.0))] = torch.nan
        self._kept: dict[int, np.ndarray] = {}
        self._room = CACHE_BYTES
        self.channels = 3 if channels == 3 else self._channels([modes[i] for i in kept])
        if channels == 1 != self.channels:
            raise CounterfactError("images: some are in colour, the trained weights are of grey ones; make them grey")
        self.key = f"folder-{self.size}-{len(self)}-{self._digest()}-{labelled:g}"
        self._read(0)

    def __len__(self) -> int:
        return len(self.names)

    def refresh(self) -> int:
        """The number of pictures: a folder is read once."""
        return len(self)

    def batch(self, indices: Sequence[int]) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """Pictures uint8 [B, size, size, channels], labels [B, width], free [B, variables].

        In place of a picture that turns out to be damaged comes the next one that is not, with its own labels.
        """
        chosen, pictures = zip(*(self._read(int(i)) for i in indices))
        return np.stack(pictures), self.labels[list(chosen)], self.free[list(chosen)]

    def readable(self, index: int) -> bool:
        """Whether a picture can be decoded; it is, and one that is damaged is left out from then on."""
        return self._picture(index) is not None

    def _read(self, index: int) -> tuple[int, np.ndarray]:
        """A picture and its number, or the next that can be read."""
        for at in range(index, index + len(self)):
            picture = self._picture(at % len(self))
            if picture is not None:
                return at % len(self), picture
        raise CounterfactError(f"images: none of the {len(self)} pictures in {self.folder} can be read")

    def _picture(self, index: int) -> np.ndarray | None:
        if index in self._kept:
            return self._kept[index]
        picture = self._decoded(index)
        if picture is None:
            return None
        picture = np.repeat(picture, self.channels, -1) if picture.shape[-1] == 1 else picture
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._kept[index] = picture
        return picture

    def _decoded(self, index: int) -> np.ndarray | None:
        """A picture of the folder; None if it turns out to be damaged."""
        name = self.names[index]
        if name in self.left_out:
            return None
        try:
            with _opened(self.folder / name) as image:
                return square(image, self.size)
        except Exception as error:  # decoders of damaged files raise nearly anything
            self.left_out[name] = _reason(error)
        log.warning(_told("one more picture cannot be read and is left out", {name: self.left_out[name]}))
        return None

    def _mode(self, name: str) -> str | None:
        """Pillow's mode of a picture; None if it cannot be opened."""
        try:
            with _opened(self.folder / name) as image:
                width, height, mode = *image.size, image.mode
        except Exception as error:  # as above
            self.left_out[name] = _reason(error)
            return None
        if not self.resize and (width, height) != (self.size, self.size):
            raise CounterfactError(
                f"images: {name} has {width} x {height} pixels, not {self.size} x {self.size}: choose another size, or "
                "allow resizing"
            )
        return mode

    def _channels(self, modes: Sequence[str]) -> int:
        """1 if all pictures are grey; those that may be in colour are decoded until one is."""
        for index, mode in enumerate(modes):
            if mode in ("1", "L") or mode.startswith("I"):
                continue
            picture = self._decoded(index)
            if picture is not None and picture.shape[-1] == 3:
                return 3
        return 1

    def _digest(self) -> str:
        """Of everything that is learnt from, save the pixels, for which the sizes of the files must stand."""
        sizes = [(name, (self.folder / name).stat().st_size) for name in self.names]
        digest = hashlib.sha256(json.dumps([sizes, self.coding.to_dict(), self.resize]).encode())
        digest.update(self.labels.numpy().tobytes())
        digest.update(self.free.numpy().tobytes())
        return digest.hexdigest()[:16]


def square(image: Image.Image, size: int) -> np.ndarray:
    """The central square of a picture, uint8 [size, size, 1] if it is grey, else [size, size, 3].

    Raises
    ------
    OSError, ValueError and others of Pillow
        If the picture is damaged, or of a kind that has no fixed range of brightness.
    """
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its pixels are 32-bit numbers, save it with 8 or 16 bits")
    image.draft(image.mode, (2 * size, 2 * size))  # a large JPEG need not be decoded in full
    image = _opaque(ImageOps.exif_transpose(image))
    pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
    if pixels.ndim == 2:
        return pixels[..., None]
    return pixels[..., :1] if (pixels == pixels[..., :1]).all() else pixels


def _opaque(image: Image.Image) -> Image.Image:
    """A picture in mode L or RGB, on white where it is transparent."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _opened(path: Path) -> Image.Image:
    """A picture whose header has been read; one beyond Pillow's limit for decompression bombs is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


def _pictures(folder: Path) -> list[str]:
    """Paths of the pictures below a folder, sorted, with forward slashes."""
    if not folder.is_dir():
        raise CounterfactError(f"images: there is no folder {folder}")
    root = folder.resolve()
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(place, name)
            if name.startswith(".") or not name.lower().endswith(SUFFIXES) or not path.is_file():
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                log.warning("images: %s is a link that leads out of the folder, it is left out", path)
                continue
            names.append(path.relative_to(folder).as_posix())
    if not names:
        raise CounterfactError(f"images: there is no picture in {folder}: it needs files such as .png, .jpg or .webp")
    return sorted(names)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a kind that is read"
    return " ".join(str(error)[:100].split()) or type(error).__name__


def _told(what: str, reasons: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name} ({why})" for name, why in list(reasons.items())[:NAMED])
    return f"images: {what}: {shown}{' ...' if len(reasons) > NAMED else ''}"
