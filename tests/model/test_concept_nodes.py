"""Extract Concepts: by hand, with the diffusion model, with a language model, and where each concept is."""

from __future__ import annotations

import json
import math

import pytest
import torch

from causal_core.language.model import OneByOne

KEEP, SCORE, ASK = "keep given values", "score with the model", "ask a language model"
TYPED = "house: red, yellow, white\npond: water, ice = water\nmood = calm"


@pytest.fixture
def node(pack):
    return pack("nodes.concepts").ConceptExtractor


@pytest.fixture
def run(node):
    """Run the node; returns its outputs."""
    return lambda mode, **inputs: node.execute(mode, **inputs).args


@pytest.fixture
def parts(comfy_model, scene):
    """What it takes to read a picture with the diffusion model."""
    return {
        "model": comfy_model.model, "clip": comfy_model.clip, "vae": comfy_model.vae, "image": scene.images[:1]
    }  # fmt: skip


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))


class Seeing(OneByOne):
    """A language model with one prepared answer."""

    name, scores, sees = "test:seeing", "nothing", True

    def __init__(self, answer):
        self.answer, self.requests = json.dumps(answer), []

    def complete(self, request, check=lambda: None):
        check()
        self.requests.append(request)
        return self.answer


def picture(scene):
    """The first picture as uint8 [H, W, 3]."""
    return (scene.images[0] * 255).round().byte().numpy()


@pytest.mark.parametrize("levels", [1, 3])
def test_comfyui_reads_what_diffusers_reads(pack, run, parts, reference, scene, levels):
    """The same captions, noise and decisions; confidences differ by rounding alone."""
    concepts = pack("causal_core.concepts").parse_concepts(TYPED.replace(" = water", ""))
    settings = pack("causal_core.extraction.classifier").Settings(levels=levels)
    theirs = pack("causal_core.extraction.picture").read_picture(reference, picture(scene), concepts, 5, settings)
    ours = run(SCORE, **parts, typed=concepts.to_json(), levels=levels, seed=5)[0]
    assert ours.values() == theirs.concepts.values()
    for name in ("house", "pond"):
        assert ours[name].confidence == pytest.approx(theirs.concepts[name].confidence, abs=0.01)


def test_comfyui_finds_the_regions_that_diffusers_finds(pack, run, parts, reference, scene):
    concepts = scene.graph.concepts
    finder = pack("causal_core.extraction.picture").regions_in_picture
    theirs = finder(reference, picture(scene), concepts, ["house", "pond"], 5)
    one = run(KEEP, **parts, concepts=concepts, seed=5, find_regions=True)[2]
    assert one.shape == (17, 64, 64)
    for name, region in theirs.items():
        # Pictures are rounded to 8 bits by no VAE of ours, but clipped in both.
        assert torch.allclose(one[concepts.position(name)], region, atol=0.02)


def test_what_is_typed_wins_and_is_not_read(run, parts):
    found = run(SCORE, **parts, typed=TYPED.replace("water, ice = water", "water, ice = ice"), levels=1)[0]
    assert found["pond"].value == "ice" and found["pond"].confidence is None
    assert found["house"].value in found["house"].domain and found["house"].confidence > 0
    document = found.replace("house", value="white", confidence=None).to_json()
    assert run(SCORE, typed=document)[0].values() == {"house": "white", "pond": "ice", "mood": "calm"}


def test_connected_values_are_read_again_unless_they_are_kept(run, parts, scene):
    known = scene.graph.concepts
    assert run(KEEP, concepts=known)[0] == known
    found = run(SCORE, **parts, concepts=known, levels=1)[0]
    assert all(concept.confidence is not None for concept in found)


def test_a_picture_without_concepts_gets_some_proposed(run, scene):
    llm = Seeing([{"name": "lamp", "values": ["on", "off"], "value": "on", "confidence": 0.7}])
    found, document, regions, _ = run(ASK, image=scene.images[:1], llm=llm)
    assert found["lamp"].value == "on" and json.loads(document)["concepts"][0]["confidence"] == 0.7
    sent = llm.requests[0].prompt.images[0]
    assert sent.shape == (64, 64, 3) and (sent == picture(scene)).all()
    assert regions.shape == (1, 64, 64) and not regions.any()


def test_a_language_model_reads_what_is_not_given_and_is_asked_once(run, scene):
    llm = Seeing({"house": "red", "pond": "ice", "mood": "sad"})
    for _ in range(2):
        found = run(ASK, image=scene.images[:1], llm=llm, typed=TYPED)[0]
        assert found.values() == {"house": "red", "pond": "water", "mood": "calm"}
    assert len(llm.requests) == 1, "the same question about the same picture costs nothing the second time"


def test_mistakes_of_a_language_model_name_its_input(run, scene, error):
    with pytest.raises(error, match="llm: .*no usable answer, twice"):
        run(ASK, image=scene.images[:1], llm=Seeing([]))
    blind = Seeing([])
    blind.sees = False
    with pytest.raises(error, match="llm: test:seeing cannot look at pictures"):
        run(ASK, image=scene.images[:1], llm=blind, typed=TYPED)
    with pytest.raises(error, match="image: it is a batch of 2"):
        run(ASK, image=scene.images, llm=blind, typed=TYPED)
    with pytest.raises(error, match=f"llm: connect it, or set mode to '{KEEP}'"):
        run(ASK, image=scene.images[:1], typed=TYPED)


def test_only_what_is_needed_is_asked_for(node, scene):
    nothing = dict.fromkeys(("model", "clip", "vae", "image", "llm"))
    status = lambda mode, **inputs: node.check_lazy_status(mode=mode, **nothing, **inputs)  # noqa: E731
    diffusion = ["model", "clip", "vae", "image"]
    assert status(KEEP) == [] and status(SCORE) == diffusion and status(ASK) == ["image", "llm"]
    given = "house: red, white = red\nmood = calm"
    assert status(SCORE, typed=given) == status(ASK, typed=given) == []
    assert status(SCORE, typed="house: red, white") == diffusion
    assert status(SCORE, concepts=scene.graph.concepts) == diffusion
    assert status(KEEP, typed=given, find_regions=True) == diffusion
    assert status(KEEP, typed=given, masks=torch.zeros(1, 4, 4)) == ["image"]
    assert status(SCORE, typed="car: red, red") == diffusion, "execute tells what is wrong with it"
    assert node.check_lazy_status(mode=SCORE, model=None, image=None, typed="") == ["model", "image"]


def test_masks_by_hand_take_the_place_of_what_is_found(run, parts):
    masks = torch.zeros(2, 32, 32)
    masks[0, :8], masks[1, 24:] = 1, 1
    *_, regions, overlay = run(KEEP, **parts, typed=TYPED, masks=masks, masks_of="pond, mood")
    assert regions.shape == (3, 64, 64) and overlay.shape == (1, 512, 512, 3)
    assert not regions[0].any() and (regions[1, :15] == 1).all() and not regions[1, 17:].any()
    joined = run(KEEP, typed=TYPED, masks=masks, masks_of="Pond")[2]
    assert joined.shape == (3, 32, 32) and joined[1].sum() == masks.sum() and not joined[2].any()
    with_found = run(KEEP, **parts, typed=TYPED + "\nhouse2 = x", masks=masks, masks_of="pond, pond", find_regions=True)
    assert torch.equal(with_found[2][1], run(KEEP, **parts, typed=TYPED, masks=masks, masks_of="pond")[2][1])
    assert with_found[2][2].any(), "the others are looked for"


@pytest.mark.parametrize("inputs, message", [
    ({"masks": torch.zeros(2, 8, 8)}, "masks: there are 2 masks for 3 concepts .*name the concept of each"),
    ({"masks": torch.zeros(2, 8, 8), "masks_of": "a, b, c"}, "masks_of: unknown concept 'a'"),
    ({"masks": torch.zeros(3, 8, 8), "masks_of": "pond, mood"}, "masks: there are 3 masks for 2 concepts"),
    ({"masks_of": "pond"}, "masks: masks_of names concepts, but no masks are connected"),
    ({"find_regions": True}, "model, clip, vae, image: connect them, or turn find_regions off"),
    ({"typed": '{"kind": "x"}'}, "typed: expected a JSON document of kind 'counterfact.concepts'"),
])  # fmt: skip
def test_masks_and_inputs_that_do_not_fit_are_named(run, error, inputs, message):
    with pytest.raises(error, match=message):
        run(KEEP, **{"typed": TYPED, **inputs})


def test_interrupting_ends_a_reading_at_once(run, parts):
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run(SCORE, **parts, typed=TYPED)
    llm = Seeing([])
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run(ASK, image=parts["image"], llm=llm)
    assert not llm.requests


def test_many_captions_are_denoised_in_parts(pack, run, parts, monkeypatch):
    typed = TYPED.replace("house: red, yellow, white", "house: red, yellow, white, blue, green")
    whole = run(SCORE, **parts, typed=typed, levels=1)[0]
    monkeypatch.setattr(pack("nodes.reading"), "BATCH", 2)
    in_parts = run(SCORE, **parts, typed=typed, levels=1)[0]
    assert in_parts["house"].value == whole["house"].value
    assert in_parts["house"].confidence == pytest.approx(whole["house"].confidence, abs=0.01)


def test_spans_of_phrases_in_captions_of_several_clip_sections(pack):
    """ComfyUI cuts long captions into sections of 77 tokens, each with its own start and end."""
    from comfy.sd1_clip import SD1Tokenizer

    tokenizer, world = SD1Tokenizer(), pack("causal_core.worlds").get_world("cottage")
    tokenize = lambda text: [  # noqa: E731
        token for section in tokenizer.tokenize_with_weights(text)["l"] for token, _ in section
    ]
    concepts = world.concepts(world.sample(3).values)
    typed = pack("causal_core.concepts").parse_concepts("\n".join(f"thing {i} = big green dotted" for i in range(12)))
    both = type(concepts)((*concepts, *typed))
    text, spans = pack("causal_core.extraction.captions").caption_spans(tokenize, both)
    ids = tokenize(text)
    assert len(ids) == 77 * math.ceil(len(ids) / 77) > 77 and set(spans) == set(both.names)
    for concept in both:
        start, end = spans[concept.name]
        said, phrase = tokenizer.clip_l.tokenizer.decode(ids[start:end]), concept.phrase()
        # CLIP has a token a digit. A phrase on the border between two sections has its larger part.
        said, phrase = said.replace(" ", ""), phrase.replace(" ", "")
        assert said == phrase or (
            len(said) >= len(phrase) / 2 and said in phrase and (start % 77 == 1 or end % 77 == 76)
        )


def test_flow_models_get_their_own_noise_levels(pack, run, parts, monkeypatch):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    rows, seen = pack("nodes.denoise").Rows, []
    estimates = rows._estimates
    monkeypatch.setattr(
        rows, "_estimates", lambda self, x, sigma, *rest: (seen.append(sigma), estimates(self, x, sigma, *rest))[1]
    )
    flow = ModelSamplingSD3().patch(parts["model"], 3.0)[0]
    found, _, regions, _ = run(SCORE, **{**parts, "model": flow}, typed=TYPED, levels=2, find_regions=True)
    assert found["house"].confidence and torch.isfinite(regions).all() and regions[0].any()
    assert seen and all(0.5 < sigma < 1 for sigma in seen)
