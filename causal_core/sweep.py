"""Independent tasks, run here or on a Ray cluster; what is finished is kept.

A task is a pure function of its key, the JSON object of all that the result depends on. So it does not matter where it
runs, in which order, or how often: a task whose worker was killed is started again, and a sweep that was stopped goes
on with what its folder lacks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import CounterfactError

Key = Mapping[str, Any]
Work = Callable[[Key], Any]
# Runs tasks by name; their names and results come as they end.
Place = Callable[[Work, Mapping[str, Key]], Iterator[tuple[str, Any]]]

RETRIES = 5
# Seconds until a cluster answers.
PATIENCE = 5.0


def here(work: Work, tasks: Mapping[str, Key]) -> Iterator[tuple[str, Any]]:
    """One after the other, in this process."""
    for name, key in tasks.items():
        yield name, work(key)


def on_cluster(address: str, cpus: int = 1) -> Place:
    """All at once on a Ray cluster, on whose machines Counterfact is installed.

    A task whose worker dies is started again up to ``RETRIES`` times. Whatever ends the sweep ends its tasks.

    Parameters
    ----------
    address : ``HOST:PORT``, or ``auto`` for the cluster of this machine
    cpus : of the cluster's CPUs, for each task

    Raises
    ------
    CounterfactError
        When the tasks are run: there is no Ray or no cluster, the cluster fails, or a task raises one.
    """

    def place(work: Work, tasks: Mapping[str, Key]) -> Iterator[tuple[str, Any]]:
        if not tasks:
            return
        ray = connected(address)
        try:
            start = ray.remote(num_cpus=cpus, max_retries=RETRIES)(work)
            running = {start.remote(key): name for name, key in tasks.items()}
            while running:
                (done,), _ = ray.wait(list(running))
                yield running.pop(done), ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CounterfactError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise CounterfactError(f"the Ray cluster gave up; run the command again. Ray says: {error}") from error
        finally:
            ray.shutdown()

    return place


def connected(address: str) -> ModuleType:
    """Ray, connected to a cluster that is there already.

    Raises
    ------
    CounterfactError
        If Ray is not installed or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise CounterfactError(
            "--ray needs the Python package ray, which is not installed: "
            "run pip install -e '.[ray]' in the folder of the pack"
        ) from None
    known = (os.environ.get("RAY_ADDRESS") or None) if address == "auto" else address
    # Ray itself tries for minutes, and starts a cluster of its own where it is told nothing.
    if known is not None and not _listens(known):
        raise CounterfactError(
            f"--ray: nothing answers at {known!r}: give the HOST:PORT of a cluster, as ray start --head prints it"
        )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise CounterfactError(
            f"--ray: there is no Ray cluster to connect to: start one with ray start --head. Ray says: {error}"
        ) from error
    finally:
        # Ray takes SIGTERM for a crash and aborts; with the handler that was there the sweep ends in good order.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    return ray


def _listens(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True


def sweep(work: Work, keys: Sequence[Key], folder: Path | None = None, place: Place = here) -> list[Any]:
    """The results of tasks, in the order of their keys.

    Parameters
    ----------
    work : gives a key's result, a JSON value other than null; pure
    keys : all that each result depends on; equal ones are one task
    folder : where finished results are kept, and found again; nowhere if None
    place : what runs the tasks

    Raises
    ------
    CounterfactError
        If the folder cannot be written to, or as ``place`` and ``work`` do.

    Examples
    --------
    >>> sweep(lambda key: key["x"] ** 2, [{"x": 3}, {"x": 2}])
    [9, 4]
    """
    from tqdm import tqdm

    names = [named(key) for key in keys]
    tasks = dict(zip(names, keys))
    found = {} if folder is None else _kept(folder, tasks)
    missing = {name: key for name, key in tasks.items() if name not in found}
    with closing(place(work, missing)) as ended, tqdm(total=len(tasks), initial=len(found), disable=None) as bar:
        for name, result in ended:
            found[name] = result
            if folder is not None:
                _keep(folder, name, tasks[name], result)
            bar.update()
    return [found[name] for name in names]


def named(key: Key) -> str:
    """A name for a key, another one for any other key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _kept(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """What a folder has of these results; a damaged file counts as none."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names:
        try:
            document = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            if named(document["key"]) == name and document["result"] is not None:
                found[name] = document["result"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _keep(folder: Path, name: str, key: Key, result: Any) -> None:
    """Write a result; a reader never sees half a file."""
    part = folder / f"{name}.{os.getpid()}.part"
    with _writing(folder):
        try:
            part.write_text(json.dumps({"key": key, "result": result}), encoding="utf-8")
            os.replace(part, folder / f"{name}.json")
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CounterfactError(f"results cannot be kept in {folder}: {error}; name another folder") from error
