"""Model as Generator and Autoencoder as Generator: what ComfyUI's own nodes and the core draw, and how they are run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

WINTER, SUMMER = {"season": "winter"}, {"season": "summer"}
TYPED = "season: summer, winter\nhouse: red, blue = red"


@pytest.fixture(scope="module")
def graph(pack):
    concepts = pack("causal_core.concepts").parse_concepts(TYPED)
    return pack("causal_core.graph").CausalGraph.from_edges([("season", "house")], (), concepts)


@pytest.fixture
def generator(pack, comfy_model, graph):
    """A generator of 64 pixels in few steps; keyword arguments as Model as Generator has them."""
    node = pack("nodes.generator").ModelAsGenerator
    parts = {"model": comfy_model.model, "clip": comfy_model.clip, "vae": comfy_model.vae, "graph": graph}

    def make(**changes):
        sizes = {"width": 64, "height": 64, "steps": 3, "cfg": 2.0}
        return node.execute(**{**parts, **sizes, **changes}).args[0]

    return make


@pytest.fixture(scope="module")
def managed(pack):
    """An autoencoder of 16 pixels with random weights, and its core model."""
    config, coding = pack("causal_core.autoencoder.config"), pack("causal_core.autoencoder.coding")
    variables = (coding.Variable("sun", interval=(0.0, 10.0)), coding.Variable("wind", ("no", "yes")))
    sizes = config.AutoencoderConfig(
        "tiny", size=16, patch=2, widths=(32, 32), encoder_widths=(8, 16), encoder_hidden=16, residual=3
    )

    def build():
        with torch.inference_mode(False):
            torch.manual_seed(0)
            autoencoder = pack("causal_core.autoencoder.model").CausalAutoencoder
            return autoencoder(sizes, coding.Coding(variables, ((), ()))).eval().requires_grad_(False)

    return SimpleNamespace(core=build(), node=pack("nodes.autoencoder_memory").ManagedAutoencoder(build()))


@pytest.fixture
def progress(monkeypatch):
    """What progress bars tell: (value, total, preview); `progress.then` is called after each."""
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    seen = SimpleNamespace(told=[], then=lambda: None)

    def hook(value, total, preview, node_id=None):
        seen.told.append((value, total, preview))
        seen.then()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    for limit in ("INTERVAL", "PERCENT"):
        monkeypatch.setattr(comfy.utils, f"PROGRESS_THROTTLE_MIN_{limit}", 0)
    return seen


def far(a, b):
    """The largest difference in grey levels; rounding makes one or two."""
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


class TestModelAsGenerator:
    @pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde"])
    def test_the_picture_is_that_of_ksampler(self, comfy_model, generator, sampler):
        import comfy.sample

        found = generator(sampler_name=sampler, style="a drawing", negative="night").sample([WINTER], [7])
        texts = ("a drawing, winter season, red house", "night")
        clip = comfy_model.clip
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts)
        empty = comfy.sample.fix_empty_latent_channels(comfy_model.model, torch.zeros(1, 4, 8, 8), 8)
        noise = comfy.sample.prepare_noise(empty, 7)
        latent = comfy.sample.sample(
            comfy_model.model, noise, 3, 2.0, sampler, "normal", positive, negative, empty, seed=7, disable_pbar=True
        )  # fmt: skip
        expected = comfy_model.vae.decode(latent)[0] * 255
        assert found.dtype == np.uint8 and found.shape == (1, 64, 64, 3)
        assert far(found[0], expected.round().clamp(0, 255)) == 0

    @pytest.mark.parametrize("sampler", ["euler", "euler_ancestral"])
    def test_a_picture_depends_on_its_values_and_seed_alone(self, generator, sampler):
        one = generator(sampler_name=sampler, steps=3, cfg=30.0)
        values, seeds = [WINTER, SUMMER, WINTER, WINTER, {**WINTER, "house": "blue"}], [3, 3, 4, 3, -1]
        found = one.sample(values, seeds)
        assert far(found[0], found[3]) <= 2 and min(far(found[0], other) for other in found[[1, 2, 4]]) > 5
        assert far(one.sample(values[::-1], seeds[::-1])[::-1], found) <= 2, "in another order"
        for i in (1, 2, 4):
            assert far(one.sample(values[i : i + 1], seeds[i : i + 1])[0], found[i]) <= 2, "and alone"
        assert np.array_equal(one.sample(values, seeds), found)

    def test_which_samplers_take_several_pictures(self, generator):
        """As found by sampling with each: the others draw noise, or choose their steps, for all pictures at once."""
        several, alone = "dpmpp_2m dpm_fast ddim uni_pc deis", "dpm_adaptive dpmpp_sde ddpm lcm er_sde sa_solver"
        for names, steady in ((several, True), (alone, False)):
            assert {generator(sampler_name=name).steady for name in names.split()} == {steady}

    def test_no_weight_is_changed(self, pack, weights, generator):
        before = generator().fingerprint()
        generator().sample([WINTER, SUMMER], [1, 2])
        assert generator().fingerprint() == before and len(before) == 64
        # Of this kind, weights in memory are changed while the model is loaded.
        patched, key = pack("nodes.demo_model").load(weights, disable_dynamic=True)[0], "diffusion_model.out.2.bias"
        patched.add_patches({key: ("diff", (torch.ones_like(patched.model.state_dict()[key]),))}, 1.0)
        other = generator(model=patched)
        assert far(other.sample([WINTER], [1]), generator().sample([WINTER], [1])) > 20
        assert other.fingerprint() == before, "what is patched on is put back"

    def test_each_caption_is_encoded_once(self, pack, comfy_model, generator, monkeypatch):
        told = Counter()
        tokenize = comfy_model.clip.tokenize

        def counted(text, *rest, **more):
            told[text] += 1
            return tokenize(text, *rest, **more)

        monkeypatch.setattr(comfy_model.clip, "tokenize", counted)
        one = generator(steps=1)
        told.clear()
        one.sample([WINTER, SUMMER, WINTER], [1, 2, 3])
        one.sample([SUMMER], [4])
        assert told == {"": 1, "winter season, red house": 1, "summer season, red house": 1}

    def test_pictures_of_a_caption_are_sampled_together_but_not_too_many(self, pack, generator, monkeypatch, progress):
        import comfy.sample

        sizes, sample = [], comfy.sample.sample

        def measured(model, noise, *rest, **more):
            sizes.append(len(noise))
            return sample(model, noise, *rest, **more)

        monkeypatch.setattr(comfy.sample, "sample", measured)
        found = generator(steps=1).sample([WINTER, SUMMER] * 9, range(18))
        assert sizes == [8, 1, 8, 1] and len(found) == 18
        assert progress.told == [(1, 4, None), (2, 4, None), (3, 4, None), (4, 4, None)]
        sizes.clear()
        generator(steps=1, sampler_name="euler_ancestral").sample([WINTER] * 3, range(3))
        assert sizes == [1, 1, 1]

    def test_one_at_a_time_when_memory_runs_out(self, generator, monkeypatch):
        import comfy.model_management as memory
        import comfy.sample

        sample, failed = comfy.sample.sample, []

        def little(model, noise, *rest, **more):
            if len(noise) > 1:
                failed.append(len(noise))
                raise memory.OOM_EXCEPTION("out of memory")
            return sample(model, noise, *rest, **more)

        expected = generator(steps=1).sample([WINTER] * 4 + [SUMMER] * 4, range(8))
        monkeypatch.setattr(comfy.sample, "sample", little)
        found = generator(steps=1).sample([WINTER] * 4 + [SUMMER] * 4, range(8))
        assert far(found, expected) <= 2 and failed == [4], "what has failed once is not tried again"

        def none(*_, **__):
            raise memory.OOM_EXCEPTION("out of memory")

        monkeypatch.setattr(comfy.sample, "sample", none)
        with pytest.raises(memory.OOM_EXCEPTION):
            generator(steps=1).sample([WINTER] * 2, range(2))

    def test_it_ends_within_a_step(self, generator, progress):
        import comfy.model_management as memory

        def hook():
            memory.interrupt_current_processing()
            memory.throw_exception_if_processing_interrupted()

        progress.then = hook
        with pytest.raises(memory.InterruptProcessingException):
            generator(steps=50).sample([WINTER], [1])
        assert len(progress.told) == 1
        with pytest.raises(ZeroDivisionError):
            generator().sample([WINTER], [1], lambda: 1 / 0)

    def test_the_causes_of_a_picture_make_its_caption(self, pack, generator):
        graphs, concepts = pack("causal_core.graph"), pack("causal_core.concepts")
        typed = concepts.parse_concepts("mood: good, bad\nseason: summer, winter\npicture\nhouse: red, blue\nwind = no")
        edges = [("house", "picture"), ("season", "picture"), ("picture", "mood")]
        one = generator(graph=graphs.CausalGraph.from_edges(edges, (), typed))
        assert one.concepts.names == ("season", "house")
        label = typed.replace("picture", domain=("small", "large"))
        assert "picture" in generator(graph=graphs.CausalGraph.from_edges(edges, (), label)).concepts

    def test_mistakes(self, pack, comfy_model, generator, graph, error, scene):
        graphs, concepts = pack("causal_core.graph"), pack("causal_core.concepts")
        alone = graphs.CausalGraph.from_edges([("picture", "mood")], (), concepts.parse_concepts("picture\nmood: a, b"))
        clip = SimpleNamespace(
            tokenize=lambda text: text, encode_from_tokens_scheduled=lambda _: [[torch.zeros(1, 3, 10), {}]]
        )
        csg = pack("nodes.steer").ApplyCSG.execute(comfy_model.model, comfy_model.clip, scene.plan, 1.0).args[0]
        for changes, message in (
            ({"sampler_name": "eular"}, "^unknown sampler_name 'eular'. Did you mean 'euler'"),
            ({"scheduler": "none"}, "^unknown scheduler 'none'"),
            ({"steps": 0}, "^steps must be"), ({"width": 8}, "^width must be"), ({"cfg": float("nan")}, "^cfg must be"),
            ({"clip": clip}, "^clip: it makes 10 numbers a token, but the model reads 64"),
            ({"vae": SimpleNamespace(latent_channels=4)}, "^vae: it decodes 4 channels, but the model makes 24"),
            ({"model": csg}, "^model: it comes from Apply CSG to Model"),
            ({"graph": alone}, "^graph: nothing causes the picture"),
        ):  # fmt: skip
            with pytest.raises(error, match=message):
                generator(**changes)
        with pytest.raises(error, match="^values: season missing"):
            generator().sample([{}], [1])

    def test_from_the_demo_scene(self, pack, generator, scene):
        """Concepts of the scene that a case says nothing of keep their values."""
        one = generator(graph=scene.graph)
        assert one.concepts.values() == scene.graph.concepts.values()
        assert one.sample([{"season": "winter"}], [1]).shape == (1, 64, 64, 3)


class TestAutoencoderAsGenerator:
    VALUES = [{"sun": "3", "wind": "no"}, {"sun": "9", "wind": "yes"}, {"sun": "3", "wind": "no"}]

    @pytest.fixture
    def decoder(self, pack, managed):
        return pack("nodes.generator").AutoencoderAsGenerator.execute(managed.node, 4).args[0]

    def test_the_same_as_the_core(self, pack, managed, decoder):
        expected = pack("causal_core.modular.images").DecoderSampler(managed.core, 4)
        assert far(decoder.sample(self.VALUES, [1, 2, 3]), expected.sample(self.VALUES, [1, 2, 3])) <= 1
        assert decoder.concepts.names == ("sun", "wind") and not decoder.concepts.values()

    def test_no_weight_is_changed(self, decoder):
        before = decoder.fingerprint()
        found = decoder.sample(self.VALUES, [1, 2, 3])
        assert decoder.fingerprint() == before and far(found[0], found[2]) > 2
        assert far(decoder.sample(self.VALUES[2:], [3])[0], found[2]) <= 1

    def test_progress(self, decoder, progress):
        decoder.sample(self.VALUES * 4, range(12))
        # Two batches: eight pictures, and four. A preview would hide the chart of the node that asks for them.
        assert progress.told == [(i + 1, 8, None) for i in range(8)]

    def test_it_ends_within_a_step(self, decoder, progress):
        import comfy.model_management as memory

        progress.then = memory.interrupt_current_processing
        with pytest.raises(memory.InterruptProcessingException):
            decoder.sample(self.VALUES, [1, 2, 3])
        assert len(progress.told) == 1

    def test_it_answers_questions(self, pack, decoder):
        """From a modular model of its variables to pictures of its cases; a number beyond its range is moved inside."""
        concepts, graphs = pack("causal_core.concepts"), pack("causal_core.graph")
        typed = concepts.parse_concepts("wind: no, yes\nsun: 0 .. 10\nmood: good, bad")
        model = pack("causal_core.modular.model").ModularModel.of(
            graphs.CausalGraph.from_edges([("wind", "sun"), ("sun", "mood")], (), typed)
        )
        fitted = pack("nodes.modular").FittedModel.of(model)
        output = pack("nodes.modular").SampleQuery.execute(fitted, "P(mood | do(wind))", 50, 12, pictures=decoder)
        assert output.args[4].shape == (12, 16, 16, 3)

    def test_mistakes(self, pack, managed, decoder, error):
        with pytest.raises(error, match="^steps must be"):
            pack("nodes.generator").AutoencoderAsGenerator.execute(managed.node, 0)
        with pytest.raises(error, match="^values: wind missing"):
            decoder.sample([{"sun": "3"}], [1])


def test_nothing_is_shared_between_two_generators(generator):
    """A generator is what its inputs make it: another one of the same MODEL changes nothing."""
    one = generator(steps=1)
    before = one.sample([WINTER], [1])
    replace(one, cfg=7.0, style="night").sample([WINTER], [1])
    assert np.array_equal(one.sample([WINTER], [1]), before)
