"""A picture in the middle of the graph: read, fitted through, drawn by a generator that stays as it is."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from causal_core import cli
from causal_core.autoencoder.coding import Coding, Variable
from causal_core.autoencoder.config import AutoencoderConfig
from causal_core.autoencoder.model import CausalAutoencoder
from causal_core.concepts import Concept, Concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, parse_edges
from causal_core.modular.fit import Effort, LikelihoodTraining, fit
from causal_core.modular.idgen import Sampler
from causal_core.modular.model import ModularModel
from causal_core.modular.records import Records
from causal_core.modular.sample import answer, ask, draw
from causal_core.modular.sight import looked
from causal_core.query import parse_query

SIDE = 8
EDGES = "kind -> picture -> word; kind <-> word"


class Squares:
    """Draws dark and light squares: of the kind, but for one case in five; notes what it was told."""

    def __init__(self):
        self.told = []

    def sample(self, values, seeds, check=lambda: None):
        check()
        self.told += list(zip(values, seeds))
        return np.stack([square(v["kind"], np.random.default_rng(s)) for v, s in zip(values, seeds)])

    def fingerprint(self):
        return ""


def square(kind, rng):
    light = (kind == "light") != (rng.random() < 0.2)
    return np.clip(rng.normal(180 if light else 70, 10, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def graph_of(edges=EDGES):
    directed, pairs = parse_edges(edges.replace(";", "\n"))
    concepts = Concepts((Concept("kind", ("dark", "light")), Concept("picture"), Concept("word", ("no", "yes"))))
    return CausalGraph.from_edges(directed, pairs, concepts)


def world(count, seed=0, do=None):
    """Columns of cases: a hidden cause makes the kind light and the word yes; a light picture makes it no."""
    rng = np.random.default_rng(seed)
    hidden = rng.random(count) < 0.5
    kinds = np.where(rng.random(count) < np.where(hidden, 0.8, 0.2), "light", "dark")
    kinds = np.full(count, do) if do else kinds
    pictures = np.stack([square(kind, rng) for kind in kinds])
    light = pictures.mean((1, 2, 3)) > 125
    words = np.where(rng.random(count) < 0.1 + 0.5 * hidden + 0.3 * ~light, "yes", "no")
    return {"kind": kinds.tolist(), "word": words.tolist(), "picture": pictures}


@pytest.fixture(scope="module")
def model():
    data = Records.of(Coding.of(graph_of(), {"picture": SIDE}), world(4000))
    return fit(graph_of(), data, effort=Effort(200, 256, 0.03, 1), states=3)


def test_through_a_picture_a_hidden_cause_does_no_harm(model):
    query = parse_query("P(word=yes | do(kind))", graph_of().concepts)
    found = answer(model.plugged({"picture": Squares()}), query, 4000)
    truth = [np.mean(np.array(world(20_000, 1, kind)["word"]) == "yes") for kind in ("dark", "light")]
    columns = world(20_000, 2)
    words, kinds = np.array(columns["word"]), np.array(columns["kind"])
    seen = [np.mean(words[kinds == kind] == "yes") for kind in ("dark", "light")]
    assert np.abs(found - truth).max() < 0.03
    assert np.abs(np.array(seen) - truth).max() > 0.12  # seeing is not doing


def test_the_same_case_has_the_same_picture_in_every_world(model):
    generator = Squares()
    query = parse_query("P(word_{kind=light}=yes, word_{kind=dark}=yes)", graph_of().concepts)
    cases = draw(model.plugged({"picture": generator}), query, 30)
    half = len(generator.told) // 2
    first, second = generator.told[:half], generator.told[half:]
    assert [seed for _, seed in first] == [seed for _, seed in second]
    assert {v["kind"] for v, _ in first} == {"light"} and {v["kind"] for v, _ in second} == {"dark"}
    assert len({seed for _, seed in first}) == 30
    world_ = (("kind", "light"),)
    shown = model.plugged({"picture": generator}).drawn("picture", cases.noise, cases.worlds[world_])
    assert shown.shape == (30, SIDE, SIDE, 3)
    assert generator.told[2 * half :] == first
    assert "picture" not in cases.worlds[world_]


def test_pictures_are_drawn_only_where_a_label_depends_on_them(model):
    generator = Squares()
    plugged = model.plugged({"picture": generator}, lambda: 1 / 0)
    concepts = graph_of().concepts
    answer(plugged, parse_query("P(kind)", concepts), 10)
    assert not generator.told
    with pytest.raises(ZeroDivisionError):
        answer(plugged, parse_query("P(word | do(kind))", concepts), 10)


def test_many_cases_are_the_same_as_few_of_them(model, monkeypatch):
    noise = model.noise(40, torch.Generator().manual_seed(3))
    whole = model.plugged({"picture": Squares()}).propagate(noise, {})
    monkeypatch.setattr("causal_core.modular.model.CHUNK", 7)
    parts = model.plugged({"picture": Squares()}).propagate(noise, {})
    assert all(torch.equal(whole[name], parts[name]) for name in ("kind", "word"))


def test_the_file_of_a_model_knows_its_picture_but_not_its_generator(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = ModularModel.load(tmp_path / "m.safetensors")
    assert again.pictures == ("picture",)
    with pytest.raises(CounterfactError, match="picture is a picture, and nothing here can draw it"):
        ask(again, graph_of(), "P(word | do(kind))", 10)
    query = parse_query("P(word | do(kind))", graph_of().concepts)
    for one in (model, again):
        one = one.plugged({"picture": Squares()})
        assert np.array_equal(answer(one, query, 50), answer(again.plugged({"picture": Squares()}), query, 50))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("kind -> picture -> word; kind <-> picture", "the picture picture has a hidden cause"),
        ("kind -> picture; picture -> word; word <-> picture", "the picture picture has a hidden cause"),
    ],
)
def test_a_picture_with_a_hidden_cause_is_refused(edges, message):
    with pytest.raises(CounterfactError, match=message):
        ModularModel(Coding.of(graph_of(edges), {"picture": SIDE}), graph_of(edges).confounded)


def test_what_cannot_be_done_with_pictures_is_said(model):
    concepts = graph_of().concepts
    data = Records.of(Coding.of(graph_of(), {"picture": SIDE}), world(20))
    with pytest.raises(CounterfactError, match="cannot be fitted adversarially beside the picture picture"):
        fit(graph_of(), data, method="adversarial", effort=Effort(1, 4, 0.1, 1))
    with pytest.raises(CounterfactError, match="picture is a number or a picture"):
        data.joint(["picture"], {})
    with pytest.raises(CounterfactError, match="picture is a picture, which cannot be given"):
        draw(model, parse_query("P(word | picture=light)", concepts), 5)
    with pytest.raises(CounterfactError, match="picture is a picture and has no value to type"):
        draw(model, parse_query("P(word | do(picture=light))", concepts), 5)
    for side in (-1, 257, True, 1.5):
        with pytest.raises(CounterfactError, match="side of 'v'"):
            Variable("v", side=side)


@pytest.fixture
def folder(tmp_path):
    columns = world(12)
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["file", "kind", "word", "mark"])
        for i, picture in enumerate(columns["picture"]):
            Image.fromarray(picture).resize((20, 16)).save(tmp_path / f"{i:02}.png")
            out.writerow([f"{i:02}.png", columns["kind"][i], columns["word"][i], i % 2])
    return tmp_path


def test_rows_and_pictures_of_a_folder(folder):
    data = Records.read(folder / "labels.csv", graph_of(), images=folder, side=SIDE)
    columns = world(12)
    assert data.coding.variables[data.coding.index("picture")].side == SIDE
    split = ModularModel(data.coding, graph_of().confounded).split(data.places)
    assert split["kind"].argmax(1).tolist() == [["dark", "light"].index(kind) for kind in columns["kind"]]
    brightness = split["picture"].mean(1)
    assert torch.allclose(brightness, torch.tensor(columns["picture"].mean((1, 2, 3)) / 127.5 - 1).float(), atol=0.05)
    assert data.free.all()


def test_a_damaged_picture_is_left_out_with_its_labels(folder):
    good = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(good[: len(good) - 40])
    data = Records.read(folder / "labels.csv", graph_of(), images=folder, side=SIDE)
    split = ModularModel(data.coding, graph_of().confounded).split(data.places)
    assert torch.equal(split["picture"][3], split["picture"][4])  # the next one takes its place
    assert torch.equal(split["word"][3], split["word"][4])


def test_a_folder_whose_graph_has_no_picture_gives_labels(folder):
    edges, pairs = parse_edges("kind -> word\nword -> mark")
    graph = CausalGraph.from_edges(edges, pairs)
    data = Records.read(folder / "labels.csv", graph, images=folder)
    assert set(data.domains) == {"kind", "word", "mark"}
    assert data.domains["mark"] == ("0", "1")  # a few numbers are values, as in a table
    assert len(data) == 12


def test_looking_keeps_the_central_square():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 255
    assert looked(wide[None], 4).tolist() == [[1.0] * 48]


def test_the_command_fits_a_folder_and_draws_with_an_autoencoder(folder, capsys):
    config = AutoencoderConfig(size=8, patch=2, widths=(32,), encoder_widths=(8, 8), encoder_hidden=8)
    CausalAutoencoder(config, Coding((Variable("kind", ("dark", "light")),), ((),))).save(folder / "a.safetensors")
    given = ["train", "modular", "--images", str(folder), "--labels", str(folder / "labels.csv"), "--edges", EDGES]
    given += ["--side", str(SIDE), "--steps", "3", "--run", str(folder / "run"), "--samples", "9"]
    asking = ["--ask", "P(word | do(kind=dark))"]
    assert cli.main([*given, *asking]) == 2
    assert "--ask: an answer goes through the picture picture; add --generator" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert cli.main([*given, *asking, "--generator", str(folder / "a.safetensors")]) == 0
    assert "word=no: " in capsys.readouterr().out
    assert ModularModel.load(folder / "run" / "modular.safetensors").pictures == ("picture",)


def test_samplers_of_one_question_go_through_the_picture_too():
    data = Records.of(Coding.of(graph_of(), {"picture": SIDE}), world(4000))
    query = "P(word=yes | do(kind))"
    sampler = Sampler(graph_of(), query, data, Effort(200, 256, 0.03, 1), generators={"picture": Squares()})
    truth = [np.mean(np.array(world(20_000, 1, kind)["word"]) == "yes") for kind in ("dark", "light")]
    assert np.abs(sampler.answer(4000) - truth).max() < 0.03


def test_conditions_behind_a_picture_are_met_by_the_same_cases_whatever_is_asked_for(model, monkeypatch):
    plugged = model.plugged({"picture": Squares()})
    query = parse_query("P(kind | word=yes)", graph_of().concepts)
    few, many = (draw(plugged, query, count).noise.own["kind"] for count in (5, 300))
    assert torch.equal(few, many[:5])
    monkeypatch.setattr("causal_core.modular.sample.CHUNK", 64)
    generator = Squares()
    draw(model.plugged({"picture": generator}), query, 5)
    assert len(generator.told) == 64 + 5  # to find them, and to know them whole


def test_what_looks_at_a_picture_learns_too_but_more_slowly():
    data = Records.of(Coding.of(graph_of(), {"picture": SIDE}), world(64))
    whole = ModularModel(data.coding, graph_of().confounded, states=3)
    training = LikelihoodTraining(whole, ["kind", "word"], data, Effort(5, 64, 0.03, 1), 0)
    before = {name: parameter.detach().clone() for name, parameter in training.parameters.items()}
    for _ in range(3):
        training.advance(5)
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in training.parameters.items()}
    eyes = [size for name, size in moved.items() if ".eyes." in name]
    assert eyes and 0 < min(eyes) and max(eyes) < 0.1 * max(moved.values())
