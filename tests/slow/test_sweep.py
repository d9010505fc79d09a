"""Sweeps of tasks: the same results on a cluster, whatever is killed or stopped, and none computed twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from causal_core import cli
from causal_core.bench import modular
from causal_core.errors import CounterfactError
from causal_core.sweep import here, named, on_cluster, sweep

# Functions inside a test go to the workers by value; what they need, they import themselves.


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers that --ray finds by itself, hidden from every other process."""
    # The paths of sockets may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        from ray.cluster_utils import Cluster

        handler = signal.getsignal(signal.SIGTERM)
        few = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        made = Cluster(True, head_node_args={"num_cpus": 2, "object_store_memory": 80_000_000, **few})
        try:
            yield
        finally:
            made.shutdown()
            signal.signal(signal.SIGTERM, handler)


SMALL = (
    "bench modular --parts queries --queries frontdoor --n 2 --methods formula ours idgen "
    "--rows 500 --samples 500 --steps 5"
).split()


def bench(*options: str) -> dict[str, float]:
    """The metrics of a small sweep."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.json")
        assert cli.main([*SMALL, *options, "--json", str(path)]) == 0
        return json.loads(path.read_text())["metrics"]


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.endswith(".seconds")}


def test_the_bench_gives_the_same_on_a_cluster(cluster):
    alone = bench()
    modular.drawn.cache_clear()
    assert untimed(bench("--ray")) == untimed(alone) and len(untimed(alone)) == 12
    assert modular.drawn.cache_info().misses == 0, "something was computed in this process"


def test_a_killed_worker_is_replaced_and_results_keep_their_order(cluster, tmp_path):
    killed, second = str(tmp_path / "killed"), str(tmp_path / "second")

    def square(key):
        import os
        import pathlib
        import signal
        import time

        if key["x"] == 0:
            # Ends last, and only if the second task runs at the same time.
            until = time.monotonic() + 60
            while not os.path.exists(second) and time.monotonic() < until:
                time.sleep(0.05)
        if key["x"] == 1:
            if not os.path.exists(killed):
                pathlib.Path(killed).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            pathlib.Path(second).touch()
        return {"square": key["x"] ** 2, "alone": key["x"] == 0 and not os.path.exists(second)}

    keys = [{"x": x} for x in range(4)]
    found = sweep(square, keys, tmp_path / "run", on_cluster("auto"))
    assert found == [{"square": x**2, "alone": False} for x in range(4)] and os.path.exists(killed)
    assert sweep(lambda key: pytest.fail("computed again"), keys, tmp_path / "run") == found


@pytest.fixture
def interruptible():
    """Ctrl-C ends what runs, also in the background of a shell, where processes begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ended", ["mistake", "interrupt"])
def test_what_ends_a_sweep_ends_its_tasks(cluster, interruptible, tmp_path, ended):
    running, calls = tmp_path / "pid", tmp_path / "calls"
    paths = str(running), str(calls)

    def work(key):
        import os
        import pathlib
        import time

        from causal_core.errors import CounterfactError

        if key["x"] == 0:
            pathlib.Path(paths[0] + ".part").write_text(str(os.getpid()))
            os.rename(paths[0] + ".part", paths[0])
            time.sleep(60)
        while not os.path.exists(paths[0]):
            time.sleep(0.05)
        with open(paths[1], "a") as file:
            file.write("called\n")
        if key["wrong"]:
            raise CounterfactError("rows: too few; give more")
        time.sleep(60)

    def interrupt():
        while not calls.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    keys = [{"x": x, "wrong": ended == "mistake"} for x in range(2)]
    handler = signal.getsignal(signal.SIGTERM)
    if ended == "interrupt":
        threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(CounterfactError if ended == "mistake" else KeyboardInterrupt) as raised:
        sweep(work, keys, None, on_cluster("auto"))
    if ended == "mistake":
        assert type(raised.value) is CounterfactError and str(raised.value) == "rows: too few; give more"
    assert calls.read_text() == "called\n" and signal.getsignal(signal.SIGTERM) is handler
    until = time.monotonic() + 30
    while alive(int(running.read_text())) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(int(running.read_text()))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def recorded(calls: list[int]):
    """Squares, and a list of what was computed."""

    def square(key):
        calls.append(key["x"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return key["x"] ** 2

    return square


def test_a_stopped_sweep_goes_on(tmp_path):
    keys, calls = [{"x": x, "seed": 1} for x in range(5)], []
    with pytest.raises(KeyboardInterrupt):
        sweep(recorded(calls), keys, tmp_path)
    assert calls == [0, 1, 2]
    assert sweep(recorded(calls), keys, tmp_path) == [0, 1, 4, 9, 16]
    assert calls == [0, 1, 2, 2, 3, 4]
    assert sweep(recorded(calls), [keys[3], keys[1], keys[3]], tmp_path) == [9, 1, 9]
    assert len(calls) == 6 and len(list(tmp_path.iterdir())) == 5


def test_another_configuration_has_results_of_its_own(tmp_path):
    one, other = ({"x": 2, "seed": seed} for seed in (1, 2))
    assert sweep(lambda key: key["seed"], [one], tmp_path) == [1]
    # Not even when a file was renamed.
    (tmp_path / f"{named(other)}.json").write_text((tmp_path / f"{named(one)}.json").read_text())
    assert sweep(lambda key: key["seed"], [other, one], tmp_path) == [2, 1]


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"key": {"x": 2}}', '{"key": {"x": 2}, "result": null}'])
def test_a_damaged_result_is_computed_again(tmp_path, damage):
    key = {"x": 2}
    assert sweep(lambda key: 4, [key], tmp_path) == [4]
    (path,) = tmp_path.iterdir()
    path.write_text(damage)
    assert sweep(lambda key: 5, [key], tmp_path) == [5]
    assert sweep(lambda key: pytest.fail("computed again"), [key], tmp_path) == [5]


def test_equal_tasks_are_one():
    calls = []
    assert sweep(recorded(calls), [{"x": 3}, {"x": 3}]) == [9, 9]
    assert calls == [3]


def test_a_folder_that_cannot_be_written_is_told_before_work_begins(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CounterfactError, match="name another folder"):
        sweep(lambda key: pytest.fail("begun"), [{"x": 2}], tmp_path / "file")


def test_a_finished_bench_needs_no_cluster(tmp_path, nobody, capsys):
    kept = ["--run", str(tmp_path)]
    assert bench(*kept) == bench(*kept, "--ray", nobody)
    capsys.readouterr()
    for other in (["--seed", "2"], ["--rows", "501"], ["--samples", "501"], ["--steps", "6"], ["--n", "3"]):
        assert cli.main([*SMALL, *kept, "--ray", nobody, *other]) == 2
        assert "nothing answers" in capsys.readouterr().err


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_without_a_cluster_the_remedy_is_told(nobody, monkeypatch):
    import ray

    # It would try for minutes.
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("tried to connect"))
    for address in (nobody, f"ray://{nobody}", "", "local", "nonsense", "127.0.0.1:999999"):
        with pytest.raises(CounterfactError, match="ray start --head"):
            sweep(len, [{}], None, on_cluster(address))
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(CounterfactError, match="ray start --head"):
        sweep(len, [{}], None, on_cluster("auto"))


def test_where_no_cluster_is_found_none_is_started(monkeypatch):
    import ray

    def init(address, **options):
        assert address == "auto"
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(CounterfactError, match="ray start --head.*Could not find"):
        sweep(len, [{}], None, on_cluster("auto"))


def test_without_ray_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CounterfactError, match="pip install"):
        sweep(len, [{}], None, on_cluster("auto"))
    assert sweep(len, [{}], None, here) == [0]
