"""The nodes of CausalDiffAE compute what the core computes, ComfyUI manages their memory, and they can be stopped."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

STEPS = 3


@pytest.fixture(scope="module")
def core(pack):
    """Parts of the core."""
    names = {"model": "CausalAutoencoder", "config": "AutoencoderConfig", "coding": "Coding"}
    found = {name: getattr(pack(f"causal_core.autoencoder.{name}"), kind) for name, kind in names.items()}
    return SimpleNamespace(**found, concepts=pack("causal_core.concepts"), graph=pack("causal_core.graph").CausalGraph)


@pytest.fixture(scope="module")
def graph(core):
    """sun -> shade -> mood, and the wind."""
    concepts = core.concepts.parse_concepts(
        "mood: low, fair, high\nsun: 0 .. 10\nshade: -2 .. 2\nwind: no, yes"
    )  # fmt: skip
    return core.graph.from_edges([("sun", "shade"), ("shade", "mood")], concepts=concepts)


@pytest.fixture(scope="module")
def tiny(core, graph):
    """A model of 16 pixels with random weights."""

    def build(seed=0, **changes):
        config = core.config(
            "tiny", size=16, patch=2, widths=(32, 32), encoder_widths=(8, 16), encoder_hidden=16, residual=3
        )
        with torch.inference_mode(False):
            torch.manual_seed(seed)
            return core.model(replace(config, **changes), core.coding.of(graph)).eval().requires_grad_(False)

    return build


@pytest.fixture(scope="module")
def nodes(pack):
    pack("nodes.demo").register_folder()
    return pack("nodes.autoencoder")


@pytest.fixture(scope="module")
def managed(pack, tiny):
    """The same model as ComfyUI's nodes have it."""
    return pack("nodes.autoencoder_memory").ManagedAutoencoder(tiny())


@pytest.fixture(scope="module")
def image():
    return torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def latent(nodes, managed, image):
    with torch.inference_mode():
        return nodes.Encode.execute(managed, image, STEPS).args[0]


@pytest.fixture
def do(pack):
    """An intervention of names and values."""
    return lambda **values: pack("causal_core.plan").Intervention(values)


@pytest.fixture
def progress(monkeypatch):
    """What progress bars tell: (value, total, preview); `progress.then` is called after each."""
    import comfy.utils

    told = []
    seen = SimpleNamespace(told=told, then=lambda: None)

    def hook(value, total, preview, node_id=None):
        told.append((value, total, preview))
        seen.then()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return seen


def signed(image):
    return image.movedim(-1, 1) * 2 - 1


class TestTheSameAsTheCore:
    def test_encode(self, tiny, nodes, managed, image):
        expected = tiny().encode(signed(image), STEPS)
        latent, graph, values = nodes.Encode.execute(managed, image, STEPS).args
        for name in ("z", "u", "residual", "noise"):
            assert torch.equal(getattr(latent, name), getattr(expected, name)), name
        read = json.loads(values)
        assert len(read) == 2 and list(read[0]) == list(managed.model.coding.names)
        sun = managed.model.coding.values(expected.z[1])["sun"]
        assert read[1]["sun"] == pytest.approx(float(sun), rel=1e-4) and read[1]["wind"] in ("no", "yes")
        assert graph.concepts["wind"].value == read[0]["wind"] and 0.5 <= graph.concepts["wind"].confidence <= 1
        assert [(e.source, e.target) for e in graph.edges] == [("sun", "shade"), ("shade", "mood")]
        assert graph.concepts["sun"].interval == (0.0, 10.0)

    def test_decode(self, tiny, nodes, managed, image, latent, do):
        model = tiny()
        expected = model.encode(signed(image), STEPS)
        new = model.intervened(expected, {"sun": "9", "mood": "high"})
        for strength in (1.0, 2.5):
            found = nodes.Decode.execute(managed, latent, do(Sun="9", mood="HIGH"), strength).args[0]
            truth = (model.decode(expected, new, strength).movedim(1, -1) + 1) / 2
            assert found.shape == image.shape and torch.allclose(found, truth, atol=1e-6)
        again = nodes.Decode.execute(managed, latent, do(sun="9", mood="high"), 2.5).args[0]
        assert torch.equal(again, found)

    def test_nothing_set_or_no_strength_gives_the_picture_as_encoded(self, tiny, nodes, managed, image, latent, do):
        model = tiny()
        expected = (model.decode(model.encode(signed(image), STEPS)).movedim(1, -1) + 1) / 2
        for intervention, strength in ((None, 1.0), (do(), 1.0), (do(sun="9"), 0.0)):
            assert torch.equal(nodes.Decode.execute(managed, latent, intervention, strength).args[0], expected)

    def test_what_follows_is_told(self, nodes, managed, latent, do):
        _, values, plan = nodes.Decode.execute(managed, latent, do(sun="9")).args
        first = json.loads(values)[0]
        assert first["sun"]["after"] == 9.0 != first["sun"]["before"]
        assert first["shade"]["after"] != first["shade"]["before"] and first["wind"]["after"] == first["wind"]["before"]
        items = {item.name: item for item in plan.items}
        assert {name: item.role for name, item in items.items()} == {
            "sun": "intervened", "shade": "descendant", "mood": "descendant", "wind": "invariant",
        }  # fmt: skip
        assert float(items["shade"].counterfactual) == first["shade"]["after"]
        assert "mechanism" in items["shade"].reason

    def test_pictures_of_a_batch_do_not_depend_on_each_other(self, nodes, managed, image, latent, do):
        alone = nodes.Encode.execute(managed, image[1:], STEPS).args[0]
        assert torch.allclose(alone.noise, latent.noise[1:], atol=1e-4)
        both, one = (nodes.Decode.execute(managed, which, do(sun="2")).args[0] for which in (latent, alone))
        assert torch.allclose(both[1:], one, atol=1e-4)


class TestOtherNodes:
    def test_graph_of_a_picture(self, pack, nodes, managed, image):
        plan_nodes, graph_nodes = pack("nodes.intervention"), pack("nodes.graph")
        graph = nodes.Encode.execute(managed, image, 1).args[1]
        asked = plan_nodes.DoIntervention.execute(graph, "sun = 9, mood = low").args[0]
        plan = plan_nodes.Propagate.execute(graph, asked, "shade = 1.5").args[0]
        assert [item.name for item in plan.affected][:2] == ["sun", "shade"]
        assert pack("causal_core.draw").draw_graph(graph, plan).width == 1024
        assert graph_nodes.GraphBuilder.execute(graph=graph).args[0] == graph

    def test_numbers_out_of_range(self, pack, nodes, managed, image, error):
        ask = pack("nodes.intervention").DoIntervention.execute
        graph = nodes.Encode.execute(managed, image, 1).args[1]
        with pytest.raises(error, match="do: the value of concept 'sun' must be a number from 0 to 10, not 12"):
            ask(graph, "sun = 12")
        with pytest.raises(error, match="do: the value of concept 'sun' must be a finite number, not 'bright'"):
            ask(graph, "sun = bright")

    @pytest.mark.parametrize("world, asked", [
        ("cottage", "season = winter"), ("pendulum", "angle = 20"), ("digits", "thickness = 4"),
        ("circuit", "arm = 0.5"),
    ])  # fmt: skip
    def test_scenes_of_all_worlds(self, pack, world, asked):
        draw = pack("nodes.demo").DemoScene.execute
        assert world in pack("nodes.demo").DemoScene.define_schema().inputs[0].options
        image, caption, concepts, graph = draw(world, 4, 64).args
        intervention = pack("nodes.intervention").DoIntervention.execute(graph, asked).args[0]
        truth, _, after, _ = draw(world, 4, 64, intervention).args
        assert image.shape == truth.shape == (1, 64, 64, 3) and not torch.equal(image, truth)
        name, value = asked.split(" = ")
        assert after[name].value == after[name].match(value) != concepts[name].value and caption


class TestMistakes:
    def test_values_out_of_range(self, nodes, managed, latent, do, error):
        with pytest.raises(error, match=r"intervention: sun = 12 is outside 0\.\.10, .* or allow clamping"):
            nodes.Decode.execute(managed, latent, do(sun="12"))
        clamped = nodes.Decode.execute(managed, latent, do(sun="12"), clamp=True)
        assert torch.equal(clamped.args[0], nodes.Decode.execute(managed, latent, do(sun="10")).args[0])
        assert clamped.args[2].intervention.do == {"sun": "10.0"}

    @pytest.mark.parametrize("values, message", [
        ({"moon": "1"}, "intervention: unknown variable of the autoencoder 'moon'.*sun, shade, mood"),
        ({"sun": "bright"}, "intervention: sun: 'bright' is no number"),
        ({"mood": "odd"}, "intervention: unknown value .*'odd'.*low, fair, high"),
    ])  # fmt: skip
    def test_values_that_do_not_exist(self, nodes, managed, latent, do, error, values, message):
        with pytest.raises(error, match=message):
            nodes.Decode.execute(managed, latent, do(**values))

    @pytest.mark.parametrize("shape, message", [
        ((1, 16, 24, 3), "image: it has 24 x 16 pixels, but the autoencoder was trained on 16 x 16; set resize to"),
        ((1, 8, 8, 3), "image: it has 8 x 8 pixels"),
    ])  # fmt: skip
    def test_pictures_of_another_size(self, nodes, managed, error, shape, message):
        with pytest.raises(error, match=message):
            nodes.Encode.execute(managed, torch.rand(shape), STEPS)

    def test_pictures_that_are_no_numbers(self, nodes, managed, image, error):
        broken = image.clone()
        broken[0, 3, 3, 0] = torch.nan
        with pytest.raises(error, match="image: it has pixels that are no numbers"):
            nodes.Encode.execute(managed, broken, STEPS)

    def test_steps(self, nodes, managed, image, error):
        with pytest.raises(error, match="steps must be a whole number from 1 to 1000"):
            nodes.Encode.execute(managed, image, 0)

    def test_latents_of_another_autoencoder(self, pack, tiny, nodes, latent, error):
        other = pack("nodes.autoencoder_memory").ManagedAutoencoder(tiny(seed=1))
        for node, more in ((nodes.Decode, ()), (nodes.Traversal, ("sun", 2))):
            with pytest.raises(error, match="latent: it was encoded by another autoencoder"):
                node.execute(other, latent, *more)
        same = pack("nodes.autoencoder_memory").ManagedAutoencoder(tiny())
        assert nodes.Decode.execute(same, latent).args[0].shape == (2, 16, 16, 3)


class TestFitting:
    def test_scaled_and_cut_as_for_training(self, pack, nodes, managed):
        pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
        expected = pack("causal_core.autoencoder.folder").square(Image.fromarray(pixels), 16)
        image = torch.from_numpy(pixels).float()[None] / 255
        found = nodes.pictures(image, managed.model.config, True)
        assert torch.allclose(found, signed(torch.from_numpy(expected.copy()).float()[None] / 255), atol=1e-6)
        assert nodes.Encode.execute(managed, image, 1, "fit").args[0].noise.shape == (1, 3, 16, 16)

    def test_what_fits_is_left_alone(self, nodes, managed, image):
        for fit in (False, True):
            assert torch.equal(nodes.pictures(image, managed.model.config, fit), signed(image))
        transparent = torch.cat([image, torch.rand(2, 16, 16, 1)], -1)
        assert torch.equal(nodes.pictures(transparent, managed.model.config, False), signed(image))
        grey = nodes.pictures(image[..., :1], managed.model.config, False)
        assert torch.equal(grey, signed(image[..., :1]).expand(-1, 3, -1, -1))

    def test_grey_autoencoders(self, pack, tiny, nodes, image, error):
        model = pack("nodes.autoencoder_memory").ManagedAutoencoder(tiny(channels=1))
        with pytest.raises(error, match="image: it is in colour, but the autoencoder was trained on grey pictures"):
            nodes.Encode.execute(model, image, 1)
        grey = image[..., :1].expand(-1, -1, -1, 3)
        latent = nodes.Encode.execute(model, grey, 1).args[0]
        assert latent.noise.shape == (2, 1, 16, 16)
        found = nodes.Decode.execute(model, latent).args[0]
        assert found.shape == grey.shape and torch.equal(found[..., 0], found[..., 2])
        green = torch.zeros(1, 16, 16, 3)
        green[..., 1] = 1
        assert torch.allclose(nodes.pictures(green, model.model.config, True), torch.tensor(2 * 0.587 - 1))


class TestTraversal:
    def test_frames(self, nodes, managed, latent, do):
        frames, sheet, shown = nodes.Traversal.execute(managed, latent, "SUN", 3).args
        assert frames.shape == (3, 16, 32, 3) and shown == "0.0\n5.0\n10.0"
        middle = nodes.Decode.execute(managed, latent, do(sun="5")).args[0]
        assert torch.allclose(frames[1], torch.cat(list(middle), 1), atol=1e-5)
        assert sheet.shape[0] == 1 and sheet.shape[3] == 3 and sheet.shape[2] > 3 * 128 and sheet.shape[1] > 2 * 128

    def test_values(self, nodes, managed, latent):
        def run(*more):
            return nodes.Traversal.execute(managed, latent, *more).args[2].split("\n")

        assert run("mood", 9) == ["low", "fair", "high"] and run("mood", 9, "High, low") == ["high", "low"]
        assert run("sun", 3, "2 .. 4") == ["2.0", "3.0", "4.0"] and run("sun", 9, "7, 1.5") == ["7.0", "1.5"]

    def test_no_strength_changes_nothing(self, nodes, managed, latent):
        frames = nodes.Traversal.execute(managed, latent, "sun", 2, strength=0.0).args[0]
        assert torch.equal(frames[0], frames[1])

    @pytest.mark.parametrize("variable, values, message", [
        ("moon", "", "variable: unknown variable of the autoencoder 'moon'"),
        ("sun", "2 .. 40", "values: the value of concept 'sun' must be a number from 0 to 10, not 40"),
        ("sun", "-1", "values: .*'sun' must be a number from 0 to 10, not -1"),
        ("sun", "4 .. 2", "values: .*must rise"),
        ("sun", "bright", "values: .*'sun' must be a finite number, not 'bright'"),
        ("mood", "1 .. 2", "values: unknown value of concept 'mood'.*low, fair, high"),
    ])  # fmt: skip
    def test_mistakes(self, nodes, managed, latent, error, variable, values, message):
        with pytest.raises(error, match=message):
            nodes.Traversal.execute(managed, latent, variable, 3, values)


class TestInterruption:
    def runs(self, nodes, managed, image, latent, do):
        return (
            lambda: nodes.Encode.execute(managed, image, 40),
            lambda: nodes.Decode.execute(managed, replace(latent, steps=40), do(sun="9")),
            lambda: nodes.Traversal.execute(managed, replace(latent, steps=40), "sun", 4),
        )

    @pytest.mark.parametrize("which", range(3))
    def test_a_run_ends_at_once(self, nodes, managed, image, latent, do, progress, which):
        import comfy.model_management as memory

        progress.then = memory.interrupt_current_processing
        with pytest.raises(memory.InterruptProcessingException):
            self.runs(nodes, managed, image, latent, do)[which]()
        assert len(progress.told) == 1 and not memory.processing_interrupted()
        progress.then = lambda: None
        assert nodes.Decode.execute(managed, latent).args[0].shape == image.shape

    def test_progress_and_previews(self, nodes, managed, image, latent, progress, monkeypatch):
        from comfy.cli_args import LatentPreviewMethod, args

        monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
        nodes.Decode.execute(managed, latent)
        assert [told[:2] for told in progress.told] == [(n, STEPS) for n in range(1, STEPS + 1)]
        kind, picture, _ = progress.told[-1][2]
        assert kind == "JPEG" and picture.size == (32, 16)
        progress.told.clear()
        monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.NoPreviews)
        nodes.Decode.execute(managed, latent)
        assert progress.told[-1] == (STEPS, STEPS, None)
        nodes.Encode.execute(managed, image, STEPS)
        assert progress.told[-1][0] == progress.told[-1][1] > STEPS


class TestMemory:
    def test_comes_and_goes(self, nodes, managed, image, latent):
        import comfy.model_management as memory

        def loaded():
            return any(one.model is managed.patcher for one in memory.current_loaded_models)

        nodes.Decode.execute(managed, latent)
        assert loaded() and managed.patcher.model_size() > 0
        memory.unload_all_models()
        assert not loaded()
        assert torch.equal(nodes.Encode.execute(managed, image, STEPS).args[0].noise, latent.noise) and loaded()

    def test_no_layer_minds_where_its_weights_are(self, managed):
        layers = [module for module in managed.model.modules() if list(module.parameters(recurse=False))]
        assert len(layers) > 20 and all(layer.comfy_cast_weights for layer in layers)

    def test_loaded_in_part(self, pack, tiny, nodes, image, latent):
        import comfy.model_management as memory

        half = pack("nodes.autoencoder_memory").ManagedAutoencoder(tiny())
        size = half.patcher.model_size()
        half.patcher.patch_model(half.patcher.load_device, lowvram_model_memory=size // 2)
        assert half.patcher.model.model_lowvram and 0 < half.patcher.loaded_size() < size
        assert any(hasattr(module, "prev_comfy_cast_weights") for module in half.model.modules())
        found = nodes.Encode.execute(half, image, STEPS).args[0]
        assert torch.equal(found.noise, latent.noise) and torch.equal(found.z, latent.z)
        memory.unload_all_models()

    def test_many_pictures_in_little_memory(self, pack, nodes, managed, image, latent, progress, monkeypatch):
        each = pack("nodes.autoencoder_memory").working_bytes(managed.model.config)
        monkeypatch.setattr(managed.patcher, "get_free_memory", lambda device: 1.5 * each)
        many = image[[0, 1, 0]]
        found = nodes.Encode.execute(managed, many, STEPS).args[0]
        assert progress.told[-1][0] % 3 == 0 and torch.allclose(found.noise[:2], latent.noise, atol=1e-4)
        decoded = nodes.Decode.execute(managed, found).args[0]
        assert torch.equal(decoded[0], decoded[2]) and decoded.shape == many.shape

    def test_what_is_asked_for_grows_with_the_picture(self, pack, core):
        need = pack("nodes.autoencoder_memory").working_bytes
        assert need(core.config(size=128)) == 4 * need(core.config(size=64))


class TestLoading:
    @pytest.fixture
    def folder(self, nodes, pack, tiny, weights, tmp_path, monkeypatch):
        """models/counterfact with an autoencoder, a text-to-image model, a checkpoint and things that are none."""
        import folder_paths
        from safetensors.torch import save_file

        bundled, own = tmp_path / "bundled", tmp_path / "models"
        bundled.mkdir()
        own.mkdir()
        monkeypatch.setattr(nodes, "BUNDLED", bundled)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, pack("nodes.demo").FOLDER, ([str(own)], set()))
        tiny().save(own / "mine.safetensors")
        (own / "model.safetensors").write_bytes(weights.read_bytes())
        (own / "cut.safetensors").write_bytes((own / "mine.safetensors").read_bytes()[:-9])
        document = json.dumps({"kind": "counterfact.autoencoder-training"})
        save_file({"x": torch.zeros(1)}, own / "checkpoint.safetensors", {"counterfact": document})
        save_file({"x": torch.zeros(1)}, own / "other.safetensors", {"counterfact": "{"})
        (own / "notes.txt").write_text("nothing")
        return own

    def test_what_is_offered(self, pack, nodes, folder):
        offered = nodes.LoadAutoencoder.define_schema().inputs[0]
        assert offered.default == "pendulum"
        assert offered.options == ["pendulum", *(f"{n}.safetensors" for n in ("cut", "mine", "other"))]
        others = [f"{name}.safetensors" for name in ("cut", "model", "other")]
        assert pack("nodes.demo").presets()[-3:] == others

    def test_load(self, nodes, folder, image):
        model, graph = nodes.LoadAutoencoder.execute("mine.safetensors").args
        assert graph.concepts.values() == {} and graph.concepts["mood"].domain == ("low", "fair", "high")
        assert nodes.Encode.execute(model, image, 1).args[0].made_by == model.identity

    @pytest.mark.parametrize("name, message", [
        ("pendulum", "weights: there is no file .*pendulum.safetensors; install the pack again"),
        ("cut.safetensors", "weights: .*cut.safetensors is damaged"),
        ("model.safetensors", "weights: .*expected a JSON document of kind 'counterfact.autoencoder'.*demo-model"),
        ("other.safetensors", "weights: .*other.safetensors is damaged"),
        ("../nothing", "weights: there is no file .*bundled.nothing.safetensors"),
    ])  # fmt: skip
    def test_mistakes(self, nodes, folder, error, name, message):
        with pytest.raises(error, match=message):
            nodes.LoadAutoencoder.execute(name)

    def test_is_loaded_anew_when_the_file_changes(self, nodes, folder):
        told = nodes.LoadAutoencoder.fingerprint_inputs
        before = told("mine.safetensors")
        assert before == told("mine.safetensors") and told("pendulum") == "missing"
        os.utime(folder / "mine.safetensors", (1, 1))
        assert told("mine.safetensors") != before


class TestTraining:
    @pytest.fixture
    def place(self, pack, nodes, monkeypatch, tmp_path):
        """ComfyUI's folders, with eight pictures and their labels."""
        import folder_paths

        for name in ("input", "output", "temp"):
            (tmp_path / name).mkdir()
            monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, pack("nodes.demo").FOLDER, ([str(tmp_path / "models")], set())
        )
        run = pack("nodes.autoencoder_run")
        small = {"patch": 2, "widths": (32, 32), "encoder_widths": (8, 16), "encoder_hidden": 16, "residual": 3}
        monkeypatch.setattr(run, "AutoencoderConfig", partial(run.AutoencoderConfig, **small))
        monkeypatch.setattr(run, "SAMPLE_STEPS", 1)
        monkeypatch.setattr(run, "SAMPLE_COLUMNS", 2)
        images = tmp_path / "input" / "sky" / "small"
        images.mkdir(parents=True)
        rng, rows = np.random.default_rng(0), ["file,sun,mood"]
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (16, 20, 3), dtype=np.uint8)).save(images / f"{i}.png")
            rows.append(f"small/{i}.png,{i},{('low', 'high')[i % 2]}")
        (images / "broken.png").write_bytes(b"no picture")
        (tmp_path / "input" / "labels.csv").write_text("\n".join(rows))
        return tmp_path

    @pytest.fixture
    def train(self, pack, core):
        """Train on six batches of two; keyword arguments as the node has them."""
        graph = core.graph.from_edges([("sun", "mood")])
        node = pack("nodes.autoencoder_train").TrainAutoencoder

        def run(**changes):
            inputs = {"images": "sky", "labels": "labels.csv", "name": "my sky", "size": 16, "seen": 12, "batch": 2}
            return node.execute(**{**inputs, "graph": graph, **changes})

        return run

    def test_from_folder_to_picture(self, nodes, place, train, progress, image, managed):
        # What was computed before, in a mode in which nothing is learnt, does not get into the way.
        nodes.Encode.execute(managed, image, 1)
        done = train()
        model, samples = done.args
        assert (place / "models" / "my sky.safetensors").is_file() and "my sky.safetensors" in nodes.presets()
        assert (place / "output" / "counterfact" / "training" / "my sky" / "checkpoint.safetensors").is_file()
        assert model.model.provenance["images"] == 12 and model.model.provenance["pictures"] == 8
        told = done.ui["text"][0]
        assert told.startswith("12 pictures seen, 8 different ones\nleft out: small/broken.png (")
        assert samples.shape[0] == 1 and samples.shape[3] == 3 and done.ui["images"]
        assert progress.told[-1][:2] == (12, 12) and progress.told[-1][2][1].size == samples.shape[1:3][::-1]
        loaded = nodes.LoadAutoencoder.execute("my sky.safetensors").args[0]
        assert loaded.identity == model.identity and loaded.model.coding.variables[0].interval == (0.0, 7.0)
        assert nodes.Encode.execute(loaded, image, 1).args[0].made_by == model.identity
        more = train(seen=14).args[0]
        assert more.model.provenance["images"] == 14 and more.identity != model.identity

    def test_cancelled_and_taken_up(self, place, train, progress):
        import comfy.model_management as memory

        whole = train(name="whole").args[0]
        folder = place / "output" / "counterfact" / "training" / "part"
        progress.then = memory.interrupt_current_processing
        with pytest.raises(memory.InterruptProcessingException):
            train(name="part")
        progress.then = lambda: None
        assert not memory.processing_interrupted() and not (place / "models" / "part.safetensors").exists()
        saved = (folder / "checkpoint.safetensors").read_bytes()
        assert b'\\"images\\": 2' in saved[:100_000], "one step was made, and kept"
        assert train(name="part").args[0].identity == whole.identity

    def test_raised_by_the_progress_bar_itself(self, place, train, progress):
        """In ComfyUI it is the hook that raises."""
        import comfy.model_management as memory

        def hook():
            memory.interrupt_current_processing()
            memory.throw_exception_if_processing_interrupted()

        progress.then = hook
        with pytest.raises(memory.InterruptProcessingException):
            train()
        assert (place / "output" / "counterfact" / "training" / "my sky" / "checkpoint.safetensors").is_file()

    @pytest.mark.parametrize("changes, message", [
        ({"images": "nowhere"}, "images: there is no 'nowhere' in ComfyUI's input folder"),
        ({"images": ".."}, "images: there is no '..' in"),
        ({"images": "/etc"}, "images: there is no '/etc' in"),
        ({"labels": "../labels.csv"}, "labels: there is no '../labels.csv' in"),
        ({"labels": "sky"}, "labels: there is no 'sky' in"),
        ({"name": "../mine"}, "name .*may only have letters"),
        ({"name": " "}, "name is empty"),
        ({"size": 18}, "size 18 must be a multiple"),
    ])  # fmt: skip
    def test_mistakes(self, place, train, error, changes, message):
        with pytest.raises(error, match=message):
            train(**changes)

    def test_a_graph_that_the_labels_do_not_know(self, core, place, train, error):
        with pytest.raises(error, match="labels labels.csv has no column for 'moon'"):
            train(graph=core.graph.from_edges([("moon", "mood")]))

    def test_names_are_not_taken_twice(self, pack, place, train, error, weights):
        train(seen=2)
        with pytest.raises(error, match="name: run folder .*another config"):
            train(batch=4)
        (place / "models" / "mine.safetensors").write_bytes(weights.read_bytes())
        with pytest.raises(error, match="name: models/counterfact/mine.safetensors is there already and is no auto"):
            train(name="mine")

    def test_no_room(self, place, train, error):
        (place / "output" / "counterfact").write_text("a file where the folder should be")
        with pytest.raises(error, match="name: .* cannot be written .*goes on from the last checkpoint"):
            train()

    def test_trained_weights_may_be_the_start(self, core, pack, place, train, error):
        first = train().args[0]
        graph = pack("nodes.autoencoder").graph_of(first.model.coding)
        found = train(name="later", start=first, graph=graph, learning_rate=0.05).args[0]
        before, after = (m.model.encoder.head.weight for m in (first, found))
        assert torch.allclose(before, after, atol=0.02) and not torch.equal(before, after)
        assert found.model.provenance["start"] == first.model.provenance
        with pytest.raises(error, match="size: the autoencoder to start from has 16 pixels"):
            train(name="larger", start=first, graph=graph, size=32)

    def test_what_goes_wrong_in_the_run_is_not_in_its_name(self, pack, place, train, error, monkeypatch):
        def diverged(*_):
            raise error("training diverged")

        monkeypatch.setattr(pack("causal_core.autoencoder.train").Trainer, "losses", diverged)
        with pytest.raises(error, match="^training diverged"):
            train()

    def test_offers_and_fingerprints(self, pack, place):
        node = pack("nodes.autoencoder_train").TrainAutoencoder
        inputs = {slot.id: slot for slot in node.define_schema().inputs}
        assert inputs["images"].options == ["sky", "sky/small"] and inputs["labels"].options == ["labels.csv"]
        told = node.fingerprint_inputs
        before = told(images="sky", labels="labels.csv", seen=5)
        assert before == told(images="sky", labels="labels.csv", seen=6)
        os.utime(place / "input" / "labels.csv", (1, 1))
        assert told(images="sky", labels="labels.csv") != before
        later = told(images="sky", labels="labels.csv")
        os.utime(next((place / "input" / "sky" / "small").iterdir()), (1, 1))
        assert told(images="sky", labels="labels.csv") != later, "a picture in a folder below has changed"

    def test_weights_of_a_run_that_is_gone_are_not_overwritten(self, place, train, error):
        train()
        train(seen=14)
        shutil.rmtree(place / "output" / "counterfact" / "training")
        with pytest.raises(error, match="name: .*the run that made it is not; choose another name"):
            train()
