"""CausalDiffAE in a real server: its templates from end to end, and training that is cancelled and taken up."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from causal_core.autoencoder.model import CausalAutoencoder
from causal_core.errors import CounterfactError


def error(picture, truth):
    """Mean squared difference of two pictures."""
    return np.square(picture.astype(float) - truth).mean()


def values(run, name):
    """What a node's JSON text says of the first picture."""
    return json.loads(run.text(name))[0]


def test_autoencoder(template):
    run, events = template("autoencoder"), []
    run.set("CausalEncode.steps=10")
    run.run(lambda kind, data: events.append((kind, data)))
    factual, found, truth = (run.pictures(title)[0] for title in ("Factual", "Counterfactual", "True counterfactual"))
    assert factual.shape == found.shape == truth.shape == (64, 64, 3)
    assert error(found, truth) < error(factual, truth) / 4
    told = values(run, "Before and after")
    assert told["light"]["after"] == 120 and told["angle"]["before"] == told["angle"]["after"]
    assert told["shadow position"]["after"] - told["shadow position"]["before"] > 1
    read = values(run, "What was read")
    assert {name: change["before"] for name, change in told.items()} == read
    assert run.document("CausalPreviewGraph", "counterfact_graph")["edges"]
    steps = [data["nodes"] for kind, data in events if kind == "progress_state"]
    for name in ("CausalEncode", "CausalDecode"):
        assert len({nodes[run.node(name)]["value"] for nodes in steps if run.node(name) in nodes}) > 5
    run.set("CausalDoIntervention.do=")
    back = run.run().pictures("Counterfactual")[0]
    assert np.abs(back.astype(int) - factual).mean() < 2, "setting nothing gives the picture back"
    assert run.node("CausalEncode") in dict(run.entry["status"]["messages"])["execution_cached"]["nodes"]


@pytest.mark.parametrize("change, message", [
    ("CausalDoIntervention.do=light = 200", "do: the value of concept 'light' must be a number from 60 to 147"),
    ("CausalDoIntervention.do=moon = 1", "do: unknown concept 'moon'"),
    ("Draw scene.size=128", "failed: image: it has 128 x 128 pixels, but the autoencoder was trained on 64 x 64"),
])  # fmt: skip
def test_mistakes_are_told_in_plain_words(server, template, change, message):
    run = template("autoencoder")
    run.set("CausalEncode.steps=2")
    run.set(change)
    with pytest.raises(CounterfactError, match=message):
        run.run()
    assert "Traceback" not in server.log_file.read_text(encoding="utf-8", errors="replace")


def test_traversal(client, template):
    run = template("traversal")
    run.set("CausalEncode.steps=10", "Sweep the angle.count=3")
    run.run()
    for what, count in (("light", 8), ("angle", 3)):
        shown = run.entry["outputs"][run.node(f"Animation of the {what}")]["images"][0]
        animation = Image.open(io.BytesIO(client.view(**shown)))
        assert animation.n_frames == count and animation.size == (64, 64)
        sheet = run.pictures(f"Sheet of the {what}")[0]
        assert sheet.shape[1] > count * 128 and sheet.shape[0] > 128
    factual, frames = run.pictures("Factual")[0], []
    for number in range(animation.n_frames):
        animation.seek(number)
        frames.append(np.array(animation.convert("RGB")))
    # The lamp, in the upper third, stays where it is; the pendulum, below, swings.
    lamps, pendulums = ([error(f[rows], factual[rows]) for f in frames] for rows in (slice(0, 20), slice(24, 60)))
    assert max(lamps) < min(pendulums[0], pendulums[2]) / 4


def test_csg_and_autoencoder(template):
    run = template("csg_and_autoencoder")
    run.set("CausalCSGSampler.steps=8", "CausalEncode.steps=10")
    run.run()
    factual, truth = run.pictures("Factual")[0], run.pictures("True counterfactual")[0]
    for title in ("With CSG", "With the autoencoder"):
        assert error(run.pictures(title)[0], truth) < error(factual, truth) / 3, title
    told = values(run, "Before and after")
    assert told["season"]["after"] == "winter" and told["ground"]["after"] == "snow"
    assert told["house"]["before"] == told["house"]["after"]


def test_training_is_cancelled_and_taken_up(client, server, object_info):
    """Of pictures that are put into the input folder while the server runs; `object_info` is fetched before."""
    folder = server.base_dir / "input" / "dots"
    folder.mkdir()
    table = server.base_dir / "input" / "dots.csv"
    rng, rows = np.random.default_rng(0), ["file,brightness,kind"]
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 16), dtype=np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{number},{('odd', 'even')[number % 2]}")
    table.write_text("\n".join(rows))

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}

    prompt = {
        "1": node("CausalGraphBuilder", edges="brightness -> kind"),
        "2": node(
            "CausalTrainAutoencoder", images="dots", labels="dots.csv", graph=["1", 0], name="dots", size=16, seen=6,
            batch=2,
        ),
        "3": node("PreviewImage", images=["2", 1]),
    }  # fmt: skip
    try:

        def stop(kind, data):
            if kind == "progress_state" and data["nodes"].get("2", {}).get("value", 0) >= 2:
                client.interrupt()

        with pytest.raises(CounterfactError, match="the run was interrupted"):
            client.run(prompt, stop, timeout=120)
        run = server.base_dir / "output" / "counterfact" / "training" / "dots"
        weights = server.base_dir / "models" / "counterfact" / "dots.safetensors"
        assert (run / "checkpoint.safetensors").is_file() and not weights.exists()
        entry = client.run(prompt, timeout=120)
        assert entry["outputs"]["2"]["text"][0].startswith("6 pictures seen, 6 different ones")
        assert entry["outputs"]["2"]["images"] and entry["outputs"]["3"]["images"]
        model = CausalAutoencoder.load(weights)
        assert model.config.channels == 1 and model.provenance["images"] == 6
        offered = client.object_info()["CausalLoadAutoencoder"]["input"]["required"]["weights"][1]["options"]
        assert "dots.safetensors" in offered
        weights.unlink()
    finally:
        table.unlink()
        for picture in folder.iterdir():
            picture.unlink()
        folder.rmdir()


def test_processes_train_together_and_go_on(tmp_path):
    """Two processes share each step, here on the CPU; a longer run goes on from their checkpoint."""
    config = {
        "name": "small", "world": "pendulum", "size": 16, "patch": 4, "widths": [32], "encoder_widths": [8],
        "encoder_hidden": 16, "residual": 2, "batch": 4, "images": 32,
    }  # fmt: skip
    (tmp_path / "small.json").write_text(json.dumps(config), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "--"]
    words = ["causal_core", "train", "autoencoder", "--config", "small.json", "--pictures", "50", "--run", "run"]
    environment = {**os.environ, "COUNTERFACT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def train(*more):
        done = subprocess.run(
            [*launch, *words, *more], cwd=tmp_path, env=environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert train().count("weights: ") == 1, "one process alone writes and tells"
    train("--seen", "48")
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 6], "eight pictures a step"
    model = CausalAutoencoder.load(tmp_path / "run" / "small.safetensors")
    assert model.provenance["images"] == 48 and model.provenance["batch"] == 8
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
