"""What If, Do and Propagate Consequences inside ComfyUI, with a language model that answers from a table."""

from __future__ import annotations

import json

import pytest

from causal_core.language.model import OneByOne

ANSWERS = {
    'the "weather" is "rain". Nothing else decides the "street"': "wet",
    'the "weather" is "clear". Nothing else decides the "street"': "dry",
    'the "street" is "wet". Nothing else decides the "shoes"': "muddy",
    'the "street" is "dry". Nothing else decides the "shoes"': "clean",
    'the "weather" is "rain". Nothing else decides the "mood"': "gloomy",
    'the "weather" is "clear". Nothing else decides the "mood"': "merry",
}


class Words(OneByOne):
    """Answers in JSON what is in the table, and that "poured" means rain."""

    name, scores, sees = "words", "nothing", False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def complete(self, request, check=lambda: None):
        check()
        self.asked.append(request.prompt.text)
        if "poured" in request.prompt.text:
            return '{"weather": "rain"}'
        return next((json.dumps({"value": v}) for k, v in ANSWERS.items() if k in request.prompt.text), "{}")


@pytest.fixture(scope="module")
def nodes(pack):
    """Node classes by id."""
    return {node.GET_SCHEMA().node_id: node for node in pack("nodes.intervention").NODES}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Answers are kept here, and nowhere else."""
    monkeypatch.setenv("COUNTERFACT_CACHE", str(tmp_path))


@pytest.fixture
def error(pack):
    return pack("causal_core.errors").CounterfactError


@pytest.fixture
def graph(pack):
    """weather -> street -> shoes and weather -> mood, without mechanisms."""
    concepts = pack("causal_core.concepts").parse_concepts(
        "weather: clear, rain = clear\nstreet: dry, wet = dry\nshoes: clean, muddy = clean\nmood = merry"
    )
    edges = [("weather", "street"), ("street", "shoes"), ("weather", "mood")]
    return pack("causal_core.graph").CausalGraph.from_edges(edges, concepts=concepts)


@pytest.fixture
def rain(pack):
    return pack("causal_core.plan").Intervention({"weather": "rain"})


@pytest.fixture
def ask(nodes):
    return lambda *args, **inputs: nodes["CausalWhatIf"].execute(*args, **inputs)


@pytest.fixture
def propagate(nodes):
    return lambda *args, **inputs: nodes["CausalPropagate"].execute(*args, **inputs)


def values(plan) -> dict[str, str]:
    return {item.name: item.counterfactual for item in plan.items}


def test_every_slot_explains_itself_here_and_in_the_help(nodes, pack_root):
    assert set(nodes) == {"CausalDoIntervention", "CausalWhatIf", "CausalPropagate"}
    for name, node in nodes.items():
        schema = node.GET_SCHEMA()
        page = (pack_root / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n") and "counterfactual" in schema.search_aliases
        for slot in (*schema.inputs, *schema.outputs):
            assert slot.tooltip.endswith(".") and f"| {slot.id} |" in page or f"| {slot.display_name} |" in page, slot


def test_inputs_were_only_appended(nodes):
    names = [slot.id for slot in nodes["CausalPropagate"].GET_SCHEMA().inputs]
    assert names == ["graph", "intervention", "consequences", "decay", "llm"]
    assert [slot.id for slot in nodes["CausalDoIntervention"].GET_SCHEMA().inputs] == ["graph", "do", "previous"]


class TestWhatIf:
    def test_words_alone(self, ask, graph):
        model = Words()
        output = ask(graph, "What if it rained?", model)
        assert output.args[0].do == {"weather": "rain"} and not model.asked
        assert output.args[1] == "do(weather = rain)\nweather: clear -> rain" and output.ui == {
            "text": [output.args[1]]
        }

    def test_model_helps_and_is_asked_once(self, ask, graph):
        model = Words()
        for _ in range(2):
            assert ask(graph, "What if it poured?", model).args[0].do == {"weather": "rain"}
        assert len(model.asked) == 1

    def test_model_is_only_loaded_if_it_can_help(self, nodes, graph):
        needed = nodes["CausalWhatIf"].check_lazy_status
        assert needed(graph=graph, sentence="What if it rained?", llm=None) == []
        assert needed(graph=graph, sentence="What if Santa came?", llm=None) == ["llm"]
        assert needed(graph=graph, sentence="What if Santa came?", llm=Words()) == []
        assert needed(graph=graph, sentence="What if Santa came?") == []

    def test_it_joins_others(self, ask, nodes, graph, rain):
        both = ask(graph, "What if the mood were sad?", previous=rain).args[0]
        assert both.do == {"weather": "rain", "mood": "sad"}
        assert nodes["CausalDoIntervention"].execute(graph, "shoes = muddy", both).args[0].do == {
            **both.do, "shoes": "muddy"
        }  # fmt: skip

    @pytest.mark.parametrize(("sentence", "message"), [
        ("", "sentence: the question is empty"),
        ("What if Santa came?", r"sentence: .*about nothing in the graph.*weather \(clear, rain\)"),
        ("What if the weather were different?", "sentence: .*weather = clear, weather = rain"),
        ("What if it were clear?", "previous: .*contradicts"),
    ])  # fmt: skip
    def test_mistakes(self, ask, graph, rain, error, sentence, message):
        with pytest.raises(error, match=message):
            ask(graph, sentence, None, rain)

    def test_a_model_that_understands_nothing(self, ask, graph, error):
        with pytest.raises(error, match="^'What if Santa came.' is about nothing in the graph"):
            ask(graph, "What if Santa came?", Words())


class TestPropagate:
    def test_model_says_what_follows(self, propagate, graph, rain):
        output = propagate(graph, rain, llm=Words())
        plan, before, after, document = output.args
        assert values(plan) == {"weather": "rain", "street": "wet", "shoes": "muddy", "mood": "gloomy"}
        assert "wet because weather = rain (language model, 0." in output.ui["text"][0]
        assert after == "rain weather, wet street, muddy shoes, gloomy mood" and json.loads(document)["items"]

    def test_without_a_model_all_is_as_before(self, propagate, graph, rain):
        plan = propagate(graph, rain, "street = wet", 0.5).args[0]
        assert values(plan) == {"weather": "rain", "street": "wet", "shoes": "clean", "mood": "merry"}

    def test_what_is_fixed_by_hand_wins(self, propagate, graph, rain):
        model = Words()
        plan = propagate(graph, rain, "street = dry\nmood = calm", 0.85, model).args[0]
        assert values(plan) == {"weather": "rain", "street": "dry", "shoes": "clean", "mood": "calm"}
        assert not model.asked

    def test_same_question_costs_nothing(self, propagate, graph, rain):
        model = Words()
        first = propagate(graph, rain, llm=model).args[0]
        asked = len(model.asked)
        assert propagate(graph, rain, llm=model).args[0] == first and len(model.asked) == asked > 0

    def test_model_is_only_loaded_if_it_is_needed(self, pack, nodes, graph, rain, error):
        needed = nodes["CausalPropagate"].check_lazy_status
        assert needed(graph=graph, intervention=rain, consequences="", decay=0.85, llm=None) == ["llm"]
        assert needed(graph=graph, intervention=rain, consequences="", decay=0.85) == []
        assert needed(graph=graph, intervention=rain, llm=Words()) == []
        fixed = "street = wet\nshoes = muddy\nmood = sad"
        assert needed(graph=graph, intervention=rain, consequences=fixed, llm=None) == []
        world = pack("causal_core.worlds").get_world("cottage")
        do = pack("causal_core.plan").Intervention({"season": "winter"})
        assert needed(graph=world.scene_graph(world.sample(302)), intervention=do, llm=None) == []
        with pytest.raises(error, match="consequences: unknown concept 'dragon'"):
            needed(graph=graph, intervention=rain, consequences="dragon = red", llm=None)

    def test_errors_of_the_model_are_named(self, propagate, graph, rain, error):
        model = Words()

        def refuse(requests, progress=None, check=None):
            raise error("the server does not answer")

        model.batch = refuse
        with pytest.raises(error, match="llm: the server does not answer"):
            propagate(graph, rain, llm=model)

    def test_it_shows_progress_and_can_be_interrupted(self, propagate, graph, rain, monkeypatch):
        import comfy.model_management
        import comfy.utils

        seen = []
        monkeypatch.setattr(
            comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total))
        )
        propagate(graph, rain, llm=Words())
        assert seen and seen[-1][0] == seen[-1][1]

        model = Words()
        model.name = "other words"  # nothing of it is kept
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            propagate(graph, rain, llm=model)
