"""Run a real ComfyUI, headless, with this pack and nothing else in it, and stop it whatever happens.

ComfyUI is a child process with folders of its own: nothing is written into its source tree, into the user's own ComfyUI
or into a database, and nothing is fetched from the network.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import CounterfactError
from .client import ComfyClient
from .locate import find_comfyui, is_cached, is_comfyui

log = logging.getLogger("counterfact")

PACK_NAME = "counterfact"
HOST = "127.0.0.1"
STOP_SECONDS = 10.0
TAIL_LINES = 20


class ServerDied(CounterfactError):
    """ComfyUI ended by itself; the message has its exit code and the last lines of its log."""


class ComfyServer:
    """A ComfyUI process as a context manager: ready inside the block, gone after it.

    Parameters
    ----------
    pack_dir : the folder of the node pack; it appears in ComfyUI as custom node `counterfact`
    comfy_path : the ComfyUI to run, by default the one that `find_comfyui` finds
    base_dir : ComfyUI's models, input, output, user and temp folders and `server.log`; by default a temporary folder
        that is removed at the end
    port : TCP port on 127.0.0.1; 0 picks a free one
    extra_args : further command line arguments for ComfyUI's main.py
    cpu : True runs on the CPU, False on the GPU; None decides by `COUNTERFACT_DEVICE` (cpu or cuda), else by looking
    timeout : seconds that the start may take
    on_wait : called about five times a second during the start, with the seconds since its beginning

    Raises
    ------
    CounterfactError
        On entry, if a package is missing, the port is taken or the start takes too long.
    ServerDied
        On entry and from `check_alive`, if the process has ended.
    """

    def __init__(
        self,
        pack_dir: Path,
        comfy_path: Path | None = None,
        base_dir: Path | None = None,
        port: int = 0,
        extra_args: Sequence[str] = (),
        cpu: bool | None = None,
        timeout: float = 240.0,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.pack_dir = Path(pack_dir).absolute()
        self.comfy_path = comfy_path
        self.base_dir = Path(base_dir).absolute() if base_dir else None
        self.port = port
        self.extra_args = tuple(extra_args)
        self.cpu = cpu
        self.timeout = timeout
        self.on_wait = on_wait
        self.process: subprocess.Popen | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """Address of the server, such as http://127.0.0.1:8188."""
        return f"http://{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        """Everything that ComfyUI prints."""
        return self.base_dir / "server.log"

    def client(self) -> ComfyClient:
        """A client of this server, which notices when the process ends."""
        return ComfyClient(self.url, self.check_alive)

    def __enter__(self) -> ComfyServer:
        _check_packages()
        free = self.port == 0
        if not free:
            _check_port(self.port)
        self.comfy_path = Path(self.comfy_path).absolute() if self.comfy_path else find_comfyui()
        try:
            self._prepare()
            for attempts_left in (2, 1, 0) if free else (0,):
                if free:
                    self.port = _free_port()
                self._launch()
                try:
                    self._wait_ready()
                    return self
                except ServerDied:
                    # Between the choice of a free port and its use, another program may have taken it.
                    if not attempts_left or not _taken(self.port):
                        raise
            raise AssertionError("the last attempt returns or raises")
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Do nothing while the process runs.

        Raises
        ------
        ServerDied
            If it has ended.
        """
        code = self.process.poll() if self.process else None
        if self.process and code is None:
            return
        state = "is not running" if code is None else f"stopped with exit code {code}{_signal_name(code)}"
        raise ServerDied(f"ComfyUI {state}. The last lines of its log:\n{self.log_tail()}")

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log, without colours."""
        try:
            written = self.log_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no log)"
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(written.splitlines()[-lines:])) or "(empty log)"

    def peak_mb(self) -> float:
        """The most memory that the process has had in use, in MB (2**20 bytes); where only the present use can be
        read, that.
        """
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        import psutil

        memory = psutil.Process(self.process.pid).memory_info()
        return getattr(memory, "peak_wset", memory.rss) / 2**20

    def stop(self) -> None:
        """End the process and all that it started; remove the folders if they are temporary. May be called twice."""
        try:
            if self.process and self.process.poll() is None:
                self._send(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_SECONDS)
        finally:
            if self.process:
                # Also after a regular end: children of ComfyUI may have outlived it.
                self._send(getattr(signal, "SIGKILL", signal.SIGTERM))
                self.process.wait()
            self.process = None
            self._cleanup.close()

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, number)
            elif self.process.poll() is None:
                self.process.terminate()

    def _prepare(self) -> None:
        if self.base_dir is None:
            temporary = tempfile.TemporaryDirectory(prefix="counterfact-", ignore_cleanup_errors=True)
            self.base_dir = Path(self._cleanup.enter_context(temporary))
        elif is_comfyui(self.base_dir):
            raise CounterfactError(f"--base-dir {self.base_dir} is a ComfyUI: name a folder of its own for our files")
        custom_nodes = self.base_dir / "custom_nodes"
        for folder in (custom_nodes, self.base_dir / "input", self.base_dir / "no_frontend"):
            folder.mkdir(parents=True, exist_ok=True)
        _place_pack(self.pack_dir, custom_nodes / PACK_NAME)

    def _launch(self) -> None:
        command = [sys.executable, str(self.comfy_path / "main.py"), "--listen", HOST, "--port", str(self.port)]
        command += ["--base-directory", str(self.base_dir), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK_NAME, "--disable-api-nodes"]
        command += ["--disable-auto-launch", "--preview-method", "latent2rgb"]
        if not has_frontend():
            command += ["--front-end-root", str(self.base_dir / "no_frontend")]
        if self.cpu if self.cpu is not None else not _gpu_usable():
            command.append("--cpu")
        command += self.extra_args
        environment = dict(
            os.environ, PYTHONUNBUFFERED="1", PYTHONIOENCODING="utf-8", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
        )
        # Threads beyond the physical cores, or that share them with other programs, make small models much slower.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
        if not is_cached(self.comfy_path):
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.base_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches us alone, and we can end the whole group.
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        client = self.client()
        start = time.monotonic()
        while (seconds := time.monotonic() - start) < self.timeout:
            self.check_alive()
            if self.on_wait:
                self.on_wait(seconds)
            # No answer yet, or not from our process but from one that has taken its port.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                if str(self.base_dir) in client.system_stats(patience=0)["system"]["argv"]:
                    return
            time.sleep(0.2)
        raise CounterfactError(
            f"ComfyUI did not answer within {self.timeout:g} seconds. The last lines of its log:\n{self.log_tail()}"
        )


def has_frontend() -> bool:
    """Whether ComfyUI's web pages are installed."""
    return importlib.util.find_spec("comfyui_frontend_package") is not None


def _check_packages() -> None:
    missing = [name for name in ("torch", "aiohttp", "requests") if importlib.util.find_spec(name) is None]
    if missing:
        raise CounterfactError(
            f"ComfyUI needs Python packages that are not installed ({', '.join(missing)}): "
            "run pip install -e '.[comfyui]' in the folder of the pack"
        )


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise CounterfactError(f"--port must be from 1 to 65535 (or 0 for a free one), not {port}")
    if _taken(port):
        raise CounterfactError(
            f"port {port} cannot be used: another program listens on it, or it is reserved; "
            "stop that program, or choose another port with --port (0 picks a free one)"
        )


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        if os.name == "posix":  # as servers do, so that a port that was just given up counts as free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _gpu_usable() -> bool:
    """Whether torch sees a GPU. Only asked where there is a driver, since importing torch takes seconds."""
    device = os.environ.get("COUNTERFACT_DEVICE", "").lower()
    if device not in ("", "cpu", "cuda"):
        raise CounterfactError(f"COUNTERFACT_DEVICE must be cpu or cuda, not {device!r}")
    if device:
        return device == "cuda"
    if shutil.which("nvidia-smi") is None:
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True).returncode == 0


def _place_pack(pack: Path, link: Path) -> None:
    """Make the pack appear at `link`, by a symbolic link, or as a copy where the system allows none."""
    copied = link / ".copied-by-counterfact"
    if link.is_symlink():
        link.unlink()
    elif copied.is_file():
        shutil.rmtree(link)
    elif link.exists():
        raise CounterfactError(f"--base-dir already has {link}, which is no link of ours: choose another --base-dir")
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        log.info("Copying the pack to %s, since links are not allowed here", link)
        shutil.copytree(pack, link, ignore=shutil.ignore_patterns(".git", "__pycache__", "tests"))
        copied.touch()


def _signal_name(code: int) -> str:
    try:
        return f" ({signal.Signals(-code).name})" if code < 0 else ""
    except ValueError:
        return ""
