"""Readers of pictures learn, and keep what they learnt in a file."""

from causal_core.worlds import get_world
from causal_core.worlds.dataset import SceneData
from causal_core.worlds.reader import Reader, train


def test_training_learns_and_is_deterministic(tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))
    data = SceneData(get_world("cottage"), 64, 128)
    data.render()
    first, second = train(data, 128, batch=32), train(data, 128, batch=32)
    assert all((a == b).all() for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    first.save(tmp_path / "reader.safetensors")
    again = Reader.load(tmp_path / "reader.safetensors")
    assert again.domains == first.domains and again.provenance["images"] == 128
