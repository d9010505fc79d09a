"""Fit and Load Modular Model, Sample Query and Query Bounds: from a table of labels, and pictures between them, to
answers, captions, pictures and bounds.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from colours import Colours, square
from PIL import Image

ROWS, STEPS = 600, 40
ASKED = "P(shoes | do(rain=yes))"


@pytest.fixture(scope="module")
def core(pack):
    """Parts of the core."""
    concepts, graph = pack("causal_core.concepts"), pack("causal_core.graph")

    def drawn(edges, typed):
        return graph.CausalGraph.from_edges(
            *graph.parse_edges(edges.replace(";", "\n")), concepts.parse_concepts(typed)
        )

    return SimpleNamespace(
        drawn=drawn, concepts=concepts, Records=pack("causal_core.modular.records").Records,
        Model=pack("causal_core.modular.model").ModularModel, identify=pack("causal_core.identify").identify,
        Concepts=concepts.Concepts,
    )  # fmt: skip


@pytest.fixture(scope="module")
def front_door(core):
    """A hidden cause of rain and shoes, but rain acts through the road alone; shoes come first in captions."""
    graph = core.drawn("rain -> road -> shoes; rain <-> shoes", "shoes\nrain: no, yes = no\nroad: dry, wet = dry")
    rain = core.concepts.Concept("rain", ("no", "yes"), "no", {"yes": ("in the rain",)})
    return type(graph)(core.concepts.Concepts((graph.concepts["shoes"], rain, graph.concepts["road"])), graph.edges,
                       graph.confounded)  # fmt: skip


@pytest.fixture(scope="module")
def bow(core):
    """A hidden cause of rain and shoes, and rain acts on shoes."""
    return core.drawn("rain -> shoes; rain <-> shoes", "rain: no, yes\nshoes: clean, muddy")


@pytest.fixture
def place(pack, monkeypatch, tmp_path):
    """ComfyUI's folders, with tables; `place.table` writes another one."""
    import folder_paths

    for name in ("input", "output", "temp", "models"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(
            folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name), raising=False
        )
    folder = pack("nodes.demo").FOLDER
    monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path / "models")], set()))

    def table(name, columns):
        with open(tmp_path / "input" / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values())])

    rng = np.random.default_rng(4)
    season, chance = rng.random(ROWS) < 0.5, rng.random((3, ROWS))
    rain = chance[0] < np.where(season, 0.8, 0.3)
    road = chance[1] < np.where(rain, 0.9, 0.2)
    shoes = chance[2] < 0.1 + 0.4 * road + 0.4 * season
    columns = {"file": [f"{i}.png" for i in range(ROWS)], "rain": np.where(rain, "yes", "no"),
               "road": np.where(road, "wet", "dry"), "shoes": np.where(shoes, "muddy", "clean"),
               "light": np.where(rain, 2.0, 6.0) + chance[1]}  # fmt: skip
    table("labels.csv", columns)
    return SimpleNamespace(
        path=tmp_path, table=table, columns=columns, weights=tmp_path / "models", input=tmp_path / "input",
        run=tmp_path / "output" / "counterfact" / "training",
    )  # fmt: skip


@pytest.fixture
def progress(monkeypatch):
    """What progress bars tell: (value, total); `progress.then` is called after each."""
    import comfy.utils

    seen = SimpleNamespace(told=[], then=lambda: None)

    def hook(value, total, preview, node_id=None):
        seen.told.append((value, total))
        seen.then()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    for limit in ("INTERVAL", "PERCENT"):
        monkeypatch.setattr(comfy.utils, f"PROGRESS_THROTTLE_MIN_{limit}", 0)
    return seen


@pytest.fixture
def fit(pack, front_door):
    """Fit in few steps; keyword arguments as the node has them. Gives the model and the text that the node shows."""
    node = pack("nodes.modular").FitModular

    def run(**changes):
        inputs = {"graph": front_door, "labels": "labels.csv", "name": "wet feet", "states": 2, "steps": STEPS}
        output = node.execute(**{**inputs, **changes})
        return output.args[0], output.ui["text"][0]

    return run


@pytest.fixture
def ask(pack):
    """Run Sample Query; gives its outputs by name, and the text that the node shows as "shown"."""
    return outputs(pack("nodes.modular").SampleQuery)


@pytest.fixture
def bound(pack, bow):
    """Run Query Bounds."""
    run = outputs(pack("nodes.modular").QueryBounds)
    return lambda query=ASKED, graph=bow, labels="labels.csv", **more: run(graph, labels, query, **more)


def outputs(node):
    def run(*args, **inputs):
        output = node.execute(*args, **inputs)
        names = [slot.id for slot in node.GET_SCHEMA().outputs]
        found = dict(zip(names, output.args, strict=True))
        assert output.ui["images"] and found["chart"].shape[0] == 1 and found["chart"].shape[2:] == (1024, 3)
        return {**found, "shown": output.ui["text"][0]}

    return run


def rows_of(table):
    """The cells of the first table in Markdown, without its head."""
    lines = [line for line in table.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


class TestFitting:
    def test_from_a_table_to_an_answer(self, core, place, fit, ask, progress):
        fitted, told = fit(steps=300)
        assert told.split("\n") == [
            "fitted from 600 rows of labels.csv, in this order:",
            "1. rain and shoes together, given road: 600 rows",
            "2. road, given rain: 600 rows",
        ]
        assert fitted.graph.concepts["shoes"].domain == ("clean", "muddy") and fitted.graph.concepts.values() == {}
        data = core.Records.read(place.input / "labels.csv", fitted.graph)
        exact = core.identify(fitted.graph, ASKED).evaluate(data)
        answer = ask(fitted, ASKED, 20_000)
        rows = rows_of(answer["table"])
        assert [row[0] for row in rows] == ["clean", "muddy"]
        assert [float(row[1]) for row in rows] == pytest.approx(exact.tolist(), abs=0.02)
        seen = np.mean(np.array(place.columns["shoes"])[np.array(place.columns["rain"]) == "yes"] == "muddy")
        assert abs(float(rows[1][1]) - seen) > 0.05, "the hidden cause makes seeing another thing than doing"
        assert answer["shown"] == answer["table"] and answer["table"].startswith(f"{ASKED}, from 20000 cases\n")

    def test_the_file_has_all_of_it(self, pack, place, fit, ask, front_door):
        fitted, _ = fit()
        loaded, graph = pack("nodes.modular").LoadModular.execute("wet feet.safetensors").args
        assert graph == loaded.graph == fitted.graph and graph.concepts.names == ("shoes", "rain", "road")
        assert graph.confounded == (("shoes", "rain"),) and set(graph.edges) == set(front_door.edges)
        assert graph.concepts["rain"].phrases == {"yes": ("in the rain",)}
        first, second = (ask(model, ASKED, 500) for model in (fitted, loaded))
        assert torch.equal(first.pop("chart"), second.pop("chart"))
        first.pop("images"), second.pop("images")
        assert first == second
        assert loaded.model.provenance == {
            "rows": ROWS, "method": "likelihood", "steps": STEPS, "seed": 0, "labels": "labels.csv", "experiments": [],
        }  # fmt: skip

    def test_progress_over_all_parts(self, place, fit, progress):
        fit()
        values = [value for value, _ in progress.told]
        assert values == sorted(set(values)) and len(values) > 30
        assert {total for _, total in progress.told} == {200} and values[-2:] == [100, 200], (
            "both rounds, then the road"
        )

    @pytest.mark.parametrize("after", [1, 30, 70])
    def test_cancelled_and_taken_up(self, place, fit, progress, after):
        """In the first round, and in the second one, of the part with the hidden cause."""
        import comfy.model_management as memory

        fit(name="whole")
        progress.told.clear()
        progress.then = lambda: memory.interrupt_current_processing(len(progress.told) >= after)
        with pytest.raises(memory.InterruptProcessingException):
            fit(name="part")
        progress.then = lambda: None
        assert not memory.processing_interrupted() and not (place.weights / "part.safetensors").exists()
        assert list((place.run / "part").rglob("checkpoint.safetensors"))
        before = len(progress.told)
        fit(name="part")
        assert len(progress.told) - before < 101 - after / 2, "it goes on, and does not begin anew"
        whole, part = ((place.weights / f"{name}.safetensors").read_bytes() for name in ("whole", "part"))
        assert whole == part

    def test_raised_by_the_progress_bar_itself(self, place, fit, progress):
        """In ComfyUI it is the hook that raises."""
        import comfy.model_management as memory

        def hook():
            memory.interrupt_current_processing()
            memory.throw_exception_if_processing_interrupted()

        progress.then = hook
        with pytest.raises(memory.InterruptProcessingException):
            fit()
        assert list(place.run.rglob("checkpoint.safetensors"))

    def test_the_same_seed_makes_the_same_file(self, place, fit):
        fit(name="one")
        fit(name="two")
        fit(name="three", seed=1)
        one, two, three = ((place.weights / f"{name}.safetensors").read_bytes() for name in ("one", "two", "three"))
        assert one == two and one != three
        fit(name="one")
        assert (place.weights / "one.safetensors").read_bytes() == one, "what is done already stays as it is"

    def test_adversarially_and_with_numbers(self, core, place, fit, ask):
        graph = core.drawn("rain -> light; rain -> road -> shoes; rain <-> shoes",
                           "rain: no, yes\nlight\nroad: dry, wet\nshoes: clean, muddy")  # fmt: skip
        fitted, told = fit(graph=graph, method="adversarial", steps=3)
        lines = told.split("\n")
        assert "2. road, given rain: 600 rows" in lines
        assert "3. rain and shoes together, matched along with road: 600 rows" in lines
        low, high = fitted.graph.concepts["light"].interval
        assert 2.0 <= low < 2.2 and 6.7 < high <= 7.0
        answer = ask(fitted, "P(light | do(rain=yes))", 300)
        ((name, mean, *_),) = rows_of(answer["table"])
        assert name == "light" and low < float(mean) < high

    def test_numbers_by_likelihood(self, core, place, fit, ask):
        graph = core.drawn("rain -> light", "rain: no, yes\nlight")
        fitted, _ = fit(graph=graph, steps=400)
        answer = ask(fitted, "P(light | do(rain))", 4000)
        (no, _, mean_no, _, *_), (yes, _, mean_yes, sd, *deciles) = rows_of(answer["table"])
        assert (no, yes) == ("no", "yes") and len(deciles) == 9
        assert float(mean_no) == pytest.approx(6.5, abs=0.15) and float(mean_yes) == pytest.approx(2.5, abs=0.15)
        assert float(sd) == pytest.approx(12**-0.5, abs=0.15) and deciles == sorted(deciles, key=float)

    def test_some_labels_are_not_known(self, place, fit):
        place.table("gaps.csv", {**place.columns, "road": ["", "NA", *place.columns["road"][2:]]})
        _, told = fit(labels="gaps.csv")
        assert "2. road, given rain: 598 rows" in told and "from 600 rows" in told

    def test_what_never_occurs_is_told(self, core, place, fit):
        graph = core.drawn("rain -> shoes; road -> shoes", "rain: no, some, yes\nroad: dry, wet\nshoes: clean, muddy")
        _, told = fit(graph=graph)
        assert told.split("\n")[-1] == "2 of 6 combinations of rain, road never occur: shoes is guessed there"


class TestMistakesInFitting:
    @pytest.mark.parametrize("changes, message", [
        ({"labels": "nothing.csv"}, "^labels: there is no 'nothing.csv' in ComfyUI's input folder"),
        ({"labels": "../input/labels.csv"}, "^labels: there is no '../input/labels.csv' in"),
        ({"name": "../mine"}, "^name .*may only have letters"),
        ({"states": 1}, "^states must be a number from 2 to 64"),
        ({"steps": -1}, "^steps must be a number from 0"),
    ])  # fmt: skip
    def test_inputs(self, place, fit, error, changes, message):
        with pytest.raises(error, match=message):
            fit(**changes)
        assert not list(place.weights.iterdir())

    def test_a_bad_cell_is_named(self, place, fit, error):
        place.table("bad.csv", {**place.columns, "rain": ["yes", "perhaps", *place.columns["rain"][2:]]})
        with pytest.raises(error, match="labels bad.csv, column 'rain', line 3: 'perhaps'.*no, yes.*correct the cell"):
            fit(labels="bad.csv")

    def test_a_graph_that_the_table_does_not_know(self, core, place, fit, error):
        with pytest.raises(error, match="labels labels.csv has no column for 'moon'"):
            fit(graph=core.drawn("moon -> rain", "moon: new, full\nrain: no, yes"))

    def test_a_part_that_no_row_knows(self, place, fit, error):
        half = ROWS // 2
        place.table("apart.csv", {**place.columns, "rain": [*place.columns["rain"][:half], *[""] * half],
                                  "road": [*[""] * half, *place.columns["road"][half:]]})  # fmt: skip
        with pytest.raises(error, match="^labels: there is no row that knows rain, road"):
            fit(labels="apart.csv")

    def test_too_many_states_name_the_input_and_leave_the_name_free(self, core, place, fit, error):
        names = ["rain", "road", "shoes", "light"]
        pairs = "; ".join(f"{a} <-> {b}" for a, b in zip(names, names[1:]))
        graph = core.drawn(pairs, "rain: no, yes\nroad: dry, wet\nshoes: clean, muddy\nlight")
        with pytest.raises(error, match="^states: .* hidden causes with 32768 states together, too many to sum over"):
            fit(graph=graph, states=32)
        fit(graph=graph, states=2, steps=2)

    @pytest.mark.parametrize("changes, what", [
        ({"states": 3}, "states"), ({"seed": 1}, "seed"), ({"steps": 50}, "steps"), ({"labels": "more.csv"}, "labels"),
        ({"method": "adversarial"}, "method and steps"),
    ])  # fmt: skip
    def test_a_name_belongs_to_one_run(self, place, fit, error, changes, what):
        place.table("more.csv", {**place.columns, "road": [*place.columns["road"][::-1]]})
        fit(steps=2)
        with pytest.raises(
            error, match=f"^name: run folder .*wet feet is of a run with another .*{what}; choose anoth"
        ):
            fit(**{"steps": 2, **changes, **({"steps": 0} if "method" in changes else {})})
        (place.run / "wet feet" / "run.json").write_text("[")
        with pytest.raises(error, match="^name: run folder .*graph and labels"):
            fit(steps=2)

    def test_another_hidden_cause_is_another_run(self, core, place, fit, error, front_door):
        fit(steps=2)
        with pytest.raises(error, match="^name: .*of a run with another graph; choose another name"):
            fit(steps=2, graph=front_door.with_confounder("rain", "road"))

    def test_foreign_files_are_not_overwritten(self, place, fit, error, weights):
        foreign = weights.read_bytes()
        for name, content in (("drawn", foreign), ("cut", foreign[:5000])):
            (place.weights / f"{name}.safetensors").write_bytes(content)
            (place.run / name).mkdir(parents=True)
            with pytest.raises(
                error, match=f"^name: models/counterfact/{name}.safetensors is there .*no modular model"
            ):
                fit(name=name)
            assert (place.weights / f"{name}.safetensors").read_bytes() == content

    def test_models_of_a_run_that_is_gone_are_not_overwritten(self, place, fit, error):
        fit(steps=2)
        before = (place.weights / "wet feet.safetensors").read_bytes()
        shutil.rmtree(place.run)
        with pytest.raises(error, match="^name: .*the run that made it is not; choose another name"):
            fit(steps=3)
        assert (place.weights / "wet feet.safetensors").read_bytes() == before

    def test_no_room(self, place, fit, error):
        (place.path / "output" / "counterfact").write_text("a file where the folder should be")
        with pytest.raises(error, match="^name: .* cannot be written .*goes on from the last checkpoint"):
            fit()


class TestSampling:
    @pytest.fixture
    def fitted(self, place, fit):
        return fit()[0]

    def test_captions_and_values_are_the_same_cases(self, fitted, ask):
        answer = ask(fitted, ASKED, 500, captions=6)
        cases = json.loads(answer["values"])
        assert len(answer["captions"]) == len(cases) == 6 and len(set(answer["captions"])) > 1
        for caption, worlds in zip(answer["captions"], cases):
            (world,) = worlds
            assert world["do"] == {"rain": "yes"} and world["values"]["rain"] == "yes"
            values = world["values"]
            assert caption == f"{values['shoes']} shoes, in the rain, {values['road']} road"
        again = ask(fitted, ASKED, 2000, captions=2)
        assert again["captions"] == answer["captions"][:2], "the first cases do not depend on how many there are"

    def test_the_same_seed_draws_the_same(self, fitted, ask):
        first, second, other = (ask(fitted, ASKED, 300, seed=seed) for seed in (5, 5, 6))
        assert first["values"] == second["values"] and first["table"] == second["table"] != other["table"]
        assert torch.equal(first["chart"], second["chart"]) and not torch.equal(first["chart"], other["chart"])

    def test_no_captions(self, fitted, ask):
        """An empty list would make the nodes behind it fail."""
        from comfy_execution.graph_utils import ExecutionBlocker

        answer = ask(fitted, ASKED, 100, captions=0)
        assert isinstance(answer["captions"], ExecutionBlocker) and answer["captions"].message is None
        assert json.loads(answer["values"]) == []
        assert len(ask(fitted, ASKED, 3, captions=40)["captions"]) == 3, "there are no more cases than are drawn"

    def test_several_worlds(self, fitted, ask):
        answer = ask(fitted, "P(shoes_{rain=yes} | rain=no)", 400, captions=3)
        for caption, (done, seen) in zip(answer["captions"], json.loads(answer["values"])):
            assert (done["do"], seen["do"]) == ({"rain": "yes"}, {}) and seen["values"]["rain"] == "no"
            assert "in the rain" in caption and f"{done['values']['road']} road" in caption
        assert "of all cases drawn met rain=no" in answer["table"]

    def test_every_setting_in_turn(self, fitted, ask, progress):
        answer = ask(fitted, "P(road | do(rain))", 200, captions=3)
        assert [case[0]["do"]["rain"] for case in json.loads(answer["values"])] == ["no", "yes", "no"]
        assert [row[:2] for row in rows_of(answer["table"])] == [
            ["no", "dry"], ["no", "wet"], ["yes", "dry"], ["yes", "wet"]
        ]  # fmt: skip
        assert progress.told[-2:] == [(1, 2), (2, 2)]

    def test_what_data_cannot_answer_is_refused(self, bow, place, fit, ask, error):
        fitted, _ = fit(graph=bow)
        with pytest.raises(error, match=(
            r"^query: P\(shoes \| do\(rain=yes\)\) cannot be answered from data: rain and shoes share a hidden cause "
            ".*. Query Bounds tells between which numbers"
        )):  # fmt: skip
            ask(fitted, ASKED)
        assert ask(fitted, "P(shoes | rain=yes)", 100)["captions"]

    @pytest.mark.parametrize("values, answered", [(("no", "yes"), True), (("yes", "yes"), False)])
    def test_experiments_in_the_table_count_if_all_values_were_set(
        self, pack, bow, place, fit, ask, error, values, answered
    ):
        rain, shoes = (list(place.columns[name]) for name in ("rain", "shoes"))
        # As the true model has it: 0.34 of the shoes stay clean in a rain that was made, and 0.62 without.
        tried = ["clean"] * 34 + ["muddy"] * 66 + ["clean"] * 62 + ["muddy"] * 38
        done = [values[1]] * 100 + [values[0]] * 100
        place.table(
            "set.csv", {"rain": rain + 3 * done, "shoes": shoes + 3 * tried, "do": [""] * ROWS + ["rain"] * 600}
        )
        fitted, _ = fit(graph=bow, labels="set.csv", states=4, steps=300)
        loaded = pack("nodes.modular").LoadModular.execute("wet feet.safetensors").args[0]
        assert fitted.experiments == loaded.experiments == ((("rain",),) if answered else ())
        if answered:
            clean = float(rows_of(ask(loaded, ASKED, 20_000)["table"])[0][1])
            assert clean == pytest.approx(0.34, abs=0.03), "as in the rows in which rain was set, not as in the others"
        else:
            with pytest.raises(error, match="cannot be answered from data"):
                ask(loaded, ASKED)

    @pytest.mark.parametrize("query, message", [
        ("", "^query: it is empty"),
        ("P(shoos)", r"^query: unknown concept 'shoos'. Did you mean 'shoes'.*character 3\n  P.shoos.\n    \^$"),
        ("P(shoes | do(rain=hail))", "^query: unknown value of concept 'rain': 'hail'.*no, yes"),
        ("P(shoes | do(rain=yes), rain=no)", "^query: "),
    ])  # fmt: skip
    def test_mistakes(self, fitted, ask, error, query, message):
        with pytest.raises(error, match=message):
            ask(fitted, query)

    def test_numbers_out_of_range(self, fitted, ask, error):
        for changes, message in (({"count": 0}, "^count must be"), ({"captions": 5000}, "^captions must be")):
            with pytest.raises(error, match=message):
                ask(fitted, ASKED, **changes)

    def test_a_run_ends_at_once(self, fitted, ask):
        import comfy.model_management as memory

        memory.interrupt_current_processing()
        with pytest.raises(memory.InterruptProcessingException):
            ask(fitted, ASKED)
        assert not memory.processing_interrupted()


@pytest.fixture(scope="module")
def seen(core):
    """A hidden cause of colour and mood, but the colour acts on the mood through the picture alone."""
    return core.drawn("colour -> picture -> mood; colour <-> mood", "colour: red, blue\npicture\nmood: good, bad")


@pytest.fixture
def gallery(place):
    """A folder of coloured squares, and a table in which red ones put people in a good mood; its columns."""
    rng = np.random.default_rng(1)
    red, chance = rng.random(120) < 0.5, rng.random(120)
    good = chance < np.where(red, 0.9, 0.2)
    columns = {
        "file": [f"squares/{i}.png" for i in range(120)], "colour": np.where(red, "red", "blue"),
        "mood": np.where(good, "good", "bad"),
    }  # fmt: skip
    (place.input / "gallery" / "squares").mkdir(parents=True)
    for i, (file, colour) in enumerate(zip(columns["file"], columns["colour"])):
        Image.fromarray(square(colour, 7 * i)).save(place.input / "gallery" / file)
    place.table("gallery.csv", columns)
    return columns


@pytest.fixture
def look(fit, seen, gallery):
    """Fit to the gallery."""
    return lambda **changes: fit(**{
        "graph": seen, "labels": "gallery.csv", "images": "gallery", "picture_size": 16, "steps": 100, **changes
    })  # fmt: skip


@pytest.fixture
def colours(core):
    """A generator that is told the colour."""
    return Colours(core.concepts.parse_concepts("colour: red, blue"))


def bytes_of(images):
    return [picture.tobytes() for picture in (images * 255).round().byte().numpy()]


class TestAPictureInTheMiddle:
    def test_from_a_folder_to_an_answer(self, pack, look, ask, gallery, colours):
        fitted, told = look()
        assert told.split("\n") == [
            "fitted from 120 rows of gallery.csv, in this order:",
            "1. colour and mood together, given picture: 120 rows",
            "2. picture, given colour: drawn by a generator, nothing to learn",
        ]
        loaded, graph = pack("nodes.modular").LoadModular.execute("wet feet.safetensors").args
        assert graph.concepts.names == ("colour", "picture", "mood") and loaded.model.pictures == ("picture",)
        answer = ask(loaded, "P(mood=good | do(colour))", 400, captions=6, pictures=colours)
        red, blue = (float(row[2]) for row in rows_of(answer["table"]))
        good = np.array(gallery["mood"]) == "good"
        for found, colour in ((red, "red"), (blue, "blue")):
            assert found == pytest.approx(good[np.array(gallery["colour"]) == colour].mean(), abs=0.12)
        cases = json.loads(answer["values"])
        assert answer["images"].shape == (6, 16, 16, 3) and answer["images"].dtype == torch.float32
        for number, ((world,), picture) in enumerate(zip(cases, answer["images"])):
            assert world["image"] == number and set(world["values"]) == {"colour", "mood"}
            shown = "red" if picture[0, 0, 0] > picture[0, 0, 2] else "blue"
            assert shown == world["values"]["colour"] == world["do"]["colour"]
        assert all("picture" not in caption for caption in answer["captions"])
        again = ask(loaded, "P(mood=good | do(colour))", 400, captions=6, pictures=colours)
        assert bytes_of(again["images"]) == bytes_of(answer["images"])

    def test_the_pictures_are_those_of_the_cases(self, look, ask, colours):
        """Shown are the pictures of which the mood was read, not others of the same colour."""
        answer = ask(look(steps=2)[0], "P(mood | colour=red)", 9, captions=9, pictures=colours)
        assert len({tuple(shades) for shades in answer["images"].flatten(1)[:, :3].tolist()}) > 3
        drawn = {seed for _, seed in colours.told}
        assert len(colours.told) > len(drawn), "each of them was drawn to be read, and to be shown"

    def test_two_worlds(self, look, ask, colours):
        answer = ask(look(steps=2)[0], "P(mood_{colour=red} | colour=blue)", 5, captions=5, pictures=colours)
        assert len(answer["images"]) == 10
        for case in json.loads(answer["values"]):
            (red, done), (blue, factual) = ((answer["images"][world["image"]], world["do"]) for world in case)
            assert done == {"colour": "red"} and factual == {}
            assert red[0, 0, 0] > 0.8 and blue[0, 0, 2] > 0.8 and red[0, 0, 1] == blue[0, 0, 1], "the same noise"

    def test_the_picture_itself(self, look, ask, colours):
        answer = ask(look(steps=2)[0], "P(picture | do(colour=blue))", 50, captions=3, pictures=colours)
        assert (answer["images"][..., 2] > 0.8).all() and len(answer["images"]) == 3
        assert "picture is a picture, and has no table" in answer["table"] and not rows_of(answer["table"])
        assert len(colours.told) == 3 * 2, "those that are shown, whose mood is told as well, and no others"

    def test_what_depends_on_no_picture_needs_none(self, look, ask):
        from comfy_execution.graph_utils import ExecutionBlocker

        answer = ask(look(steps=2)[0], "P(colour)", 200, captions=2)
        assert isinstance(answer["images"], ExecutionBlocker) and answer["images"].message is None
        assert set(answer["captions"]) <= {"red colour", "blue colour"}
        assert all(set(world["values"]) == {"colour"} for (world,) in json.loads(answer["values"]))

    @pytest.mark.parametrize("query, why", [
        ("P(mood | do(colour=red))", "mood depends on"), ("P(colour | mood=good)", "mood depends on"),
        ("P(picture | do(colour=red))", "is asked for"),
    ])  # fmt: skip
    def test_what_depends_on_a_picture_needs_one(self, look, ask, error, query, why):
        message = f"^pictures: nothing is connected that could draw the picture, which {why}; connect Model as Gener"
        with pytest.raises(error, match=message):
            ask(look(steps=2)[0], query, 20)

    @pytest.mark.parametrize("query, message", [
        ("P(mood | do(picture=a))", "^query: picture is a picture, which cannot be set; set what causes it"),
        ("P(mood | do(picture))", "^query: picture is a picture, which cannot be set"),
        ("P(colour | picture=a)", "^query: picture is a picture, which cannot be given; give labels"),
        ("P(picture=a)", "^query: picture is a picture, and no case has exactly this one"),
        ("P(picture, mood=good)", "^query: picture is a picture, and cannot be asked for together with the value of m"),
    ])  # fmt: skip
    def test_pictures_have_no_values(self, look, ask, error, colours, query, message):
        with pytest.raises(error, match=message):
            ask(look(steps=2)[0], query, 20, pictures=colours)

    def test_the_generator_must_know_what_causes_the_picture(self, core, look, ask, error):
        fitted, _ = look(steps=2)
        for typed, message in (
            ("size: big, small = big", "in the model colour causes the picture, but the generator knows no colour"),
            ("colour: red, blue\nmood: good, bad", "a value of mood, which causes no picture in the model; give mood"),
            ("colour: red, blue\nsize: big, small", "needs a value of size, which is not in the model"),
        ):
            with pytest.raises(error, match=f"^pictures: .*{message}"):
                ask(fitted, "P(mood)", 10, pictures=Colours(core.concepts.parse_concepts(typed)))
        generator = Colours(core.concepts.parse_concepts("Colour: red, blue\nsize: big, small = big"))
        generator.concepts = core.Concepts((core.concepts.Concept("colour", ("red", "green")),))
        with pytest.raises(error, match="^pictures: unknown value of concept 'colour': 'blue'"):
            ask(fitted, "P(mood | do(colour=blue))", 10, pictures=generator)

    def test_it_ends_at_once(self, look, ask, colours):
        import comfy.model_management as memory

        fitted, draw = look(steps=2)[0], colours.sample

        def stopped(values, seeds, check):
            memory.interrupt_current_processing()
            return draw(values, seeds, check)

        colours.sample = stopped
        with pytest.raises(memory.InterruptProcessingException):
            ask(fitted, "P(mood)", 10, pictures=colours)
        assert not colours.told

    def test_mistakes_in_fitting(self, core, look, fit, seen, error, place):
        with pytest.raises(error, match="^images: there is no 'nothing' in ComfyUI's input folder"):
            look(images="nothing")
        with pytest.raises(error, match="^picture_size must be a number from 8 to 128"):
            look(picture_size=500)
        with pytest.raises(error, match="no column for 'picture'.*if picture is a picture, choose its folder in"):
            look(images="none")
        with pytest.raises(error, match="^method: colour, mood cannot be fitted adversarially beside the picture"):
            look(method="adversarial")
        with pytest.raises(error, match="^graph: the picture picture has a hidden cause"):
            look(graph=seen.with_confounder("picture", "mood"))
        assert not list(place.weights.iterdir())
        look(steps=3)

    def test_other_pictures_are_another_run(self, look, place, error):
        look(steps=2)
        look(steps=2)
        Image.fromarray(square("red", 3)).save(place.input / "gallery" / "squares" / "0.png")
        with pytest.raises(error, match="^name: .*of a run with another labels"):
            look(steps=2)

    def test_a_leaf_by_adversarial_fitting(self, core, look, ask, colours):
        graph = core.drawn("colour -> mood; colour -> picture", "colour: red, blue\npicture\nmood: good, bad")
        fitted, told = look(graph=graph, method="adversarial", steps=2)
        assert "drawn by a generator" in told and fitted.model.kinds == {}
        assert len(ask(fitted, "P(mood | do(colour=red))", 20, captions=2, pictures=colours)["images"]) == 2
        assert ask(fitted, "P(mood)", 20)["captions"], "no label depends on it"

    def test_reading_the_folder_can_be_stopped(self, look, place):
        import comfy.model_management as memory

        memory.interrupt_current_processing()
        with pytest.raises(memory.InterruptProcessingException):
            look()
        assert not place.run.exists()

    def test_is_run_anew_when_a_picture_changes(self, pack, place, gallery):
        node, file = pack("nodes.modular").FitModular, place.input / "gallery" / "squares" / "3.png"
        before = node.fingerprint_inputs(labels="gallery.csv", images="gallery", steps=3)
        assert before == node.fingerprint_inputs(labels="gallery.csv", images="gallery", steps=4)
        assert node.fingerprint_inputs(labels="gallery.csv") == node.fingerprint_inputs("gallery.csv", "none") != before
        os.utime(file, (file.stat().st_mtime + 5,) * 2)
        assert node.fingerprint_inputs(labels="gallery.csv", images="gallery") != before

    def test_bounds_refuse_a_picture(self, bound, seen, error, gallery):
        with pytest.raises(error, match="^graph: picture is a picture, and bounds need concepts with a few values"):
            bound("P(mood | do(colour=red))", seen, "gallery.csv")


class TestPicturesOfLabels:
    """The model has no picture: the generator is told the labels of each case."""

    @pytest.fixture
    def painter(self, core):
        """A generator that knows the road as a colour, and the weather has a value."""
        return Colours(core.concepts.parse_concepts("Colour: red, blue\nweather: fair, foul = fair"))

    @pytest.fixture
    def fitted(self, core, place, fit):
        """rain -> colour, and shoes, which no picture shows."""
        colour = np.where(np.array(place.columns["road"]) == "wet", "blue", "red")
        place.table("red.csv", {**place.columns, "colour": colour})
        graph = core.drawn("rain -> colour -> shoes; rain <-> shoes",
                           "rain: no, yes\ncolour: red, blue\nshoes: clean, muddy")  # fmt: skip
        return fit(graph=graph, labels="red.csv", steps=2)[0]

    def test_case_by_case_and_world_by_world(self, fitted, ask, painter):
        answer = ask(fitted, "P(shoes_{rain=yes} | rain=no)", 30, captions=30, pictures=painter)
        cases, pictures = json.loads(answer["values"]), bytes_of(answer["images"])
        assert len(pictures) == 60 and [world["image"] for case in cases for world in case] == list(range(60))
        same = 0
        for case in cases:
            done, seen = (world["values"]["colour"] for world in case)
            first, second = (pictures[world["image"]] for world in case)
            assert (first == second) == (done == seen), "where nothing changes, the picture stays, byte by byte"
            same += done == seen
        assert 0 < same < 30
        assert {frozenset(values) for values, _ in painter.told} == {frozenset({"Colour"})}, "no shoes and no rain"

    def test_the_same_seed_gives_the_same_bytes(self, fitted, ask, painter):
        one, two, other = (
            bytes_of(ask(fitted, "P(shoes)", 300, captions=6, seed=seed, pictures=painter)["images"])
            for seed in (5, 5, 6)
        )
        assert one == two != other and len(set(one)) > 3
        fewer = ask(fitted, "P(shoes)", 100, captions=2, seed=5, pictures=painter)["images"]
        assert bytes_of(fewer) == one[:2]

    def test_no_cases_no_pictures(self, fitted, ask, painter):
        from comfy_execution.graph_utils import ExecutionBlocker

        answer = ask(fitted, "P(shoes)", 20, captions=0, pictures=painter)
        assert isinstance(answer["images"], ExecutionBlocker) and answer["images"].message is None
        assert not painter.told

    def test_a_generator_of_other_things(self, core, fitted, ask, error):
        generator = Colours(core.concepts.parse_concepts("moon: new, full = new"))
        with pytest.raises(error, match=r"^pictures: the generator knows none of the model's concepts \(rain, col"):
            ask(fitted, "P(shoes)", 20, pictures=generator)


def test_workflows_from_before_still_load(pack):
    """New inputs are optional and come after all others, since widgets are saved by their place."""
    nodes = pack("nodes.modular")
    for node, before, outputs in (
        (nodes.FitModular, ["graph", "labels", "name", "method", "states", "steps", "seed"], ["model"]),
        (nodes.SampleQuery, ["model", "query", "count", "captions", "seed"], ["table", "chart", "captions", "values"]),
    ):
        schema = node.GET_SCHEMA()
        assert [slot.id for slot in schema.inputs][: len(before)] == before
        assert all(slot.optional for slot in schema.inputs[len(before) :])
        assert [slot.id for slot in schema.outputs][: len(outputs)] == outputs


class TestBounds:
    def test_no_answer_but_bounds(self, place, bound):
        found = bound("P(shoes=muddy | do(rain=yes))")
        rain, shoes = (np.array(place.columns[name]) for name in ("rain", "shoes"))
        # Whoever was in the rain tells; nobody knows of the others (Manski 1990).
        low = np.mean((rain == "yes") & (shoes == "muddy"))
        assert found["low"] == pytest.approx(low) and found["high"] == pytest.approx(low + np.mean(rain == "no"))
        assert isinstance(found["low"], float) and found["shown"] == found["table"]
        assert rows_of(found["table"]) == [["muddy", f"{found['low']:.4f}", f"{found['high']:.4f}"]]
        assert found["table"].startswith("Bounds on P(shoes=muddy | do(rain=yes)), from 600 rows\n")
        assert "bounds, no answer" in found["table"] and "sharp: " in found["table"]

    def test_several_values(self, place, bound):
        found = bound("P(shoes | do(rain))")
        rows = rows_of(found["table"])
        assert [row[:2] for row in rows] == [["no", "clean"], ["no", "muddy"], ["yes", "clean"], ["yes", "muddy"]]
        assert [f"{found['low']:.4f}", f"{found['high']:.4f}"] == rows[0][2:]

    def test_both_ends_are_the_same_where_data_tell(self, core, place, bound, front_door):
        found = bound(graph=front_door)
        data = core.Records.read(place.input / "labels.csv", front_door)
        exact = core.identify(front_door, ASKED)
        assert found["low"] == pytest.approx(found["high"]) == pytest.approx(float(exact.evaluate(data)[0]))
        assert "both ends are the same" in found["table"] and "bounds, no answer" not in found["table"]

    def test_smoothing(self, place, bound):
        assert bound(smoothing=100.0)["low"] != bound()["low"]

    @pytest.mark.parametrize("query, message", [
        ("", "^query: it is empty"),
        ("P(shoos)", "^query: unknown concept 'shoos'"),
        ("P(light | do(rain=yes))", "^labels: light has no list of values, which bounds need"),
    ])  # fmt: skip
    def test_mistakes(self, core, place, bound, error, query, message):
        graph = core.drawn("rain -> shoes; rain -> light; rain <-> light", "rain: no, yes\nshoes: clean, muddy\nlight")
        with pytest.raises(error, match=message):
            bound(query, graph)

    def test_a_bad_cell_is_named(self, place, bound, error):
        place.table("bad.csv", {**place.columns, "rain": ["yes", "perhaps", *place.columns["rain"][2:]]})
        with pytest.raises(error, match="labels bad.csv, column 'rain', line 3: 'perhaps'"):
            bound(labels="bad.csv")
        with pytest.raises(error, match="^labels: there is no 'nothing.csv'"):
            bound(labels="nothing.csv")


class TestFiles:
    def test_what_is_offered(self, pack, place, fit, weights):
        fit(steps=2)
        (place.weights / "drawn.safetensors").write_bytes(weights.read_bytes())
        (place.weights / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
        nodes = pack("nodes.modular")
        (offered,) = nodes.LoadModular.define_schema().inputs
        assert offered.options == ["front_door", "cut.safetensors", "wet feet.safetensors"]
        assert pack("nodes.demo").presets()[-2:] == ["cut.safetensors", "drawn.safetensors"]
        for node in (nodes.FitModular, nodes.QueryBounds):
            inputs = {slot.id: slot for slot in node.define_schema().inputs}
            assert inputs["labels"].options == ["labels.csv", "confounded_cottage (example)"]

    @pytest.mark.parametrize("name, message", [
        ("cut.safetensors", "^weights: .*cut.safetensors is damaged"),
        ("drawn.safetensors", "^weights: .*expected a JSON document of kind 'counterfact.modular'.*demo-model"),
        ("nothing.safetensors", "^weights: there is no 'nothing.safetensors' in models/counterfact"),
        ("../input/labels.csv", "^weights: there is no "),
        ("odd.safetensors", "^weights: .*experiments"),
        ("less.safetensors", "^weights: .*less.safetensors: the file is damaged .a concept is missing"),
    ])  # fmt: skip
    def test_mistakes_in_loading(self, pack, core, place, error, weights, front_door, name, message):
        (place.weights / "drawn.safetensors").write_bytes(weights.read_bytes())
        (place.weights / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
        model = core.Model.of(core.drawn("rain -> shoes", "rain: no, yes\nshoes: clean, muddy"))
        model.provenance = {"experiments": 5}
        model.save(place.weights / "odd.safetensors")
        model.concepts = core.concepts.Concepts(model.concepts.items[:1])
        model.save(place.weights / "less.safetensors")
        with pytest.raises(error, match=message):
            pack("nodes.modular").LoadModular.execute(name)

    def test_is_run_anew_when_a_file_changes(self, pack, place, fit):
        fit(steps=2)
        nodes = pack("nodes.modular")
        for told, file in (
            (lambda: nodes.LoadModular.fingerprint_inputs("wet feet.safetensors"),
             place.weights / "wet feet.safetensors"),
            (lambda: nodes.FitModular.fingerprint_inputs(labels="labels.csv", steps=3), place.input / "labels.csv"),
            (lambda: nodes.QueryBounds.fingerprint_inputs(labels="labels.csv"), place.input / "labels.csv"),
        ):  # fmt: skip
            before = told()
            assert before == told()
            os.utime(file, (file.stat().st_mtime + 5,) * 2)
            assert told() != before
