"""Plans in words."""

from __future__ import annotations

import pytest

from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph, parse_edges
from causal_core.instruction import NOTHING, instruction, keep
from causal_core.plan import CounterfactualPlan, Intervention, PlanItem, propagate
from causal_core.worlds import get_world


@pytest.fixture(scope="module")
def cottage():
    """Plans for a summer scene of the cottage world."""
    world = get_world("cottage")
    graph = world.scene_graph(world.sample(302))
    return lambda **do: propagate(graph, Intervention(do))


def said(before: str, after: str, name: str = "thing", **more) -> str:
    """What is done to one concept whose value goes from a to b, by its phrases."""
    concept = Concept(name, value="a", phrases={"a": before, "b": after}, **more)
    graph = CausalGraph(Concepts((concept,)))
    return instruction(propagate(graph, Intervention({name: "b"}))).partition(". Keep")[0]


def typed(concepts: str, edges: str = "", consequences: dict | None = None, **do) -> str:
    concepts = parse_concepts(concepts)
    graph = CausalGraph.from_edges(*parse_edges(edges), concepts=concepts) if edges else CausalGraph(concepts)
    return instruction(propagate(graph, Intervention(do), consequences)).partition(". Keep")[0]


def test_causes_come_first_and_consequences_say_why(cottage):
    assert instruction(cottage(season="winter")) == (
        "Change the season from summer to winter. Because of that, change the air from warm to cold and the tree from "
        "leafy to bare. As a result of this, change the ground from green grass to snowy ground and the pond from open "
        "to frozen, and let there be a smoking chimney. Keep the clear sky, the lamp that is off, the short shadows, "
        "the day time, the dark windows, the yellow house, the green door, the red car, the house on the left, and the "
        "camera exactly as they are, and change nothing else."
    )


def test_short_style(cottage):
    assert instruction(cottage(season="winter"), "short") == (
        "Change the season to winter; because of that: cold air, bare tree, snowy ground, frozen pond, smoking "
        "chimney. Keep everything else exactly as it is."
    )
    assert "no shadows" in instruction(cottage(time="night"), "short")
    assert instruction(cottage(lamp="on"), "short") == "Turn the lamp on. Keep everything else exactly as it is."


def test_several_interventions(cottage):
    words = instruction(cottage(car="none", umbrella="open", house="blue"))
    assert words.startswith("Add an open umbrella, change the house from yellow to blue, and remove the red car. Keep ")


def test_nothing_changes(cottage):
    assert instruction(cottage()) == instruction(cottage(season="summer"), "short", 1) == NOTHING == keep(cottage())


def test_keep_is_the_end_of_the_instruction(cottage):
    plan = cottage(time="night")
    assert instruction(plan).endswith(". " + keep(plan))
    kept = keep(plan)
    assert kept.startswith("Keep the dark windows, the lamp that is off, ") and "the red car" in kept
    assert "umbrella" not in kept and "falling" not in kept and "night" not in kept and "no " not in kept


def test_camera_is_kept_unless_it_moves(cottage):
    assert "the camera" in keep(cottage(house="blue"))
    assert "the camera" not in keep(cottage(layout="right"))
    graph = CausalGraph(parse_concepts("camera angle: low, high = low\ncar = red"))
    assert keep(propagate(graph, Intervention({"camera angle": "high"}))).startswith("Keep the red car unchanged, and")


@pytest.mark.parametrize("before, after, expected", [
    ("red hat", "blue hat", "Change the hat from red to blue"),
    ("a red hat", "an orange hat", "Change the hat from red to orange"),
    ("man with a red hat", "man with a blue hat", "Change the hat from red to blue"),
    ("lamp off", "lamp on", "Turn the lamp on"),
    ("door open", "door closed", "Change the door from open to closed"),
    ("in summer", "in winter", "Change the thing from summer to winter"),
    ("by day", "at night", "Change the thing from day to night"),
    ("a cat", "a dog", "Change the thing from a cat to a dog"),
    ("cat on the roof", "dog on the roof", "Change the thing from cat on the roof to dog on the roof"),
    ("tree", "bare tree", "Change the thing from tree to bare tree"),
    ("quiet thing", "loud thing", "Change the thing from quiet to loud"),
    ("no thing", "red thing", "Add a red thing"),
    ("no thing", "old things", "Add old things"),
    ("without thing", "an open thing", "Add an open thing"),
    ("nothing there", "snow falling", "Let there be snow falling"),
    ("no traffic", "two red cars", "Let there be two red cars"),
    ("no hat", "hour glass", "Let there be an hour glass"),
    ("red thing", "no thing", "Remove the red thing"),
    ("smoking chimney", "no chimney", "Remove the thing"),
    ("her thing", "nothing", "Remove her thing"),
    ("Rain.", "Sun!", "Change the thing from Rain to Sun"),
])  # fmt: skip
def test_phrases_of_many_shapes(before, after, expected):
    assert said(before, after) == expected


@pytest.mark.parametrize("concepts, do, expected", [
    ("glasses: no, yes = no", {"glasses": "yes"}, "Add glasses"),
    ("smiling: no, yes = no", {"smiling": "yes"}, "Add smiling"),
    ("ring: no, yes = no", {"ring": "yes"}, "Add a ring"),
    ("hat: none, hat = none", {"hat": "hat"}, "Add a hat"),
    ("hat: none, hat = hat", {"hat": "none"}, "Remove the hat"),
    ("umbrella: absent, present = absent", {"umbrella": "present"}, "Add an umbrella"),
    ("street lights: on, off = off", {"street lights": "on"}, "Turn the street lights on"),
    ("angle: 0 .. 90 = 30", {"angle": "45"}, "Change the angle from 30 to 45"),
    ("age: young, old", {"age": "old"}, "Change the age to old"),
    ("hair colour = black", {"hair colour": "red"}, "Change the hair colour from black to red"),
])  # fmt: skip
def test_values_without_phrases(concepts, do, expected):
    assert typed(concepts, **do) == expected


def test_each_depth_has_its_sentence():
    names = "abcde"
    concepts = "\n".join(f"{name}: low, high = low" for name in names)
    edges = "\n".join(f"{x} -> {y}" for x, y in zip(names, names[1:]))
    words = typed(concepts, edges, dict.fromkeys("bcde", "high"), a="high")
    assert words == (
        "Change the a from low to high. Because of that, change the b from low to high. As a result of this, change "
        "the c from low to high. In turn, change the d from low to high. In turn, change the e from low to high"
    )


def test_words_are_limited(cottage):
    plan = cottage(season="winter", time="night")
    lengths = []
    for limit in range(17, 120):
        for style in ("full sentence", "short"):
            words = instruction(plan, style, limit)
            assert len(words.split()) <= limit and words.startswith("Change the season ") and "Keep " in words
            if style == "full sentence":
                lengths.append(len(words.split()))
    assert lengths == sorted(lengths) and len(set(lengths)) > 8
    assert instruction(plan, words=200) == instruction(plan)
    # What could have followed is kept by name for longest, distant consequences are the first to go.
    assert "leafy to bare" in instruction(plan, words=75) and "bare tree" in instruction(plan, words=60)
    assert "Keep the clear sky, the dark windows," in instruction(plan, words=60)
    assert "cold air" in instruction(plan, words=23) and "chimney" not in instruction(plan, words=23)


def test_too_few_words(cottage):
    with pytest.raises(CounterfactError, match="words: the intervention alone needs 12 words, more than the 5 allowed"):
        instruction(cottage(time="night"), words=5)


def test_unknown_style(cottage):
    with pytest.raises(CounterfactError, match="unknown style 'poem'.*Known styles: full sentence, short"):
        instruction(cottage(), "poem")


def test_consequence_without_a_value():
    concepts = parse_concepts("season: summer, winter = summer\nmood = calm\nsky: clear, grey = clear")
    items = (
        PlanItem("season", "summer", "winter", "intervened", 0, 1.0),
        PlanItem("mood", "calm", None, "descendant", 1, 0.8),
        PlanItem("sky", "clear", "clear", "invariant"),
    )
    plan = CounterfactualPlan(concepts, Intervention({"season": "winter"}), items)
    assert "Because of that, adapt the mood. Keep the clear sky and the camera" in instruction(plan)
    assert "because of that: another mood." in instruction(plan, "short")


def test_consequences_alone():
    concepts = parse_concepts("season = winter\nsky: clear, grey = clear")
    items = (
        PlanItem("season", "winter", "winter", "intervened", 0, 1.0),
        PlanItem("sky", "clear", "grey", "descendant", 1, 0.8),
    )
    plan = CounterfactualPlan(concepts, Intervention({"season": "winter"}), items)
    assert instruction(plan).startswith("Change the sky from clear to grey. Keep the winter season and the camera")
    assert instruction(plan, "short").startswith("Show grey sky. Keep everything else")


def test_untrusted_names_stay_one_plain_line(cottage):
    text = cottage(season="winter").to_json().replace("snowy ground", "snow\\n\\nIgnore")
    with pytest.raises(CounterfactError, match="control characters"):
        CounterfactualPlan.from_json(text)
    text = text.replace("snow\\n\\nIgnore", "snow   {evil} <b> %s (x:9)")
    words = instruction(CounterfactualPlan.from_json(text))
    assert words.isprintable() and "snow {evil} <b> %s (x:9)" in words


def test_same_plan_same_words(cottage):
    plan = cottage(season="winter")
    assert instruction(CounterfactualPlan.from_json(plan.to_json())) == instruction(plan)
