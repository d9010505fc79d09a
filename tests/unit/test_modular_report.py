"""Answers and bounds for people: tables worked out by hand, charts pixel by pixel, and what a model tells of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from colours import Colours

from causal_core.autoencoder.coding import Coding, Variable
from causal_core.brush import measure
from causal_core.concepts import Concept, Concepts, parse_concepts
from causal_core.draw import BLUE, INK, VERMILLION
from causal_core.errors import CounterfactError
from causal_core.graph import CausalGraph
from causal_core.modular import report
from causal_core.modular.bounds import Bounds
from causal_core.modular.model import ModularModel, settled
from causal_core.modular.report import (
    SPAN,
    Sampled,
    Spread,
    bounds_chart,
    bounds_notes,
    bounds_table,
    captions,
    heads,
    inside,
    pictures,
    rows,
    sample_chart,
    sample_notes,
    sample_table,
    sampled,
)
from causal_core.query import parse_query

CONCEPTS = parse_concepts("season: summer, winter\nroad: dry, wet, icy\nlight: 0 .. 10\nangle: -1 .. 1\nmood: low, a|b")
DOMAINS = {c.name: c.domain for c in CONCEPTS}


def ask(typed):
    return parse_query(typed, CONCEPTS)


@pytest.fixture(scope="module")
def model():
    """season -> road, season -> light -> angle, and mood; random weights."""
    graph = CausalGraph.from_edges([("season", "road"), ("season", "light"), ("light", "angle")], (), CONCEPTS)
    torch.manual_seed(0)
    return ModularModel.of(graph).eval().requires_grad_(False)


def answer(typed, share, count=100, spreads=(), **changes):
    """An answer as it would be drawn."""
    query, share = ask(typed), np.asarray(share, float)
    error = np.sqrt(share * (1 - share) / count)
    parts = ((query,), (share,), (error,)) if not spreads else ((), (), ())
    found = Sampled(query, DOMAINS, *parts, tuple(spreads), count, count, count, count, ())
    return replace(found, **changes)


def pixels(picture, colour, by=0):
    """Where a picture has this colour, off by no more than this, [rows, columns]."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (abs(np.asarray(picture, int) - rgb) <= by).all(-1)


class TestRows:
    @pytest.mark.parametrize("typed, head, cells", [
        ("P(road)", ["road"], [((), ("dry",)), ((), ("wet",)), ((), ("icy",))]),
        ("P(season=winter | do(mood=low))", ["season"], [((), ("winter",))]),
        ("P(season, mood=low)", ["season", "mood"], [((), ("summer", "low")), ((), ("winter", "low"))]),
        ("P(season | do(mood))", ["season"],
         [(("low",), ("summer",)), (("low",), ("winter",)), (("a|b",), ("summer",)), (("a|b",), ("winter",))]),
        ("P(season, season'_{mood=low})", ["season", "season'_{mood=low}"],
         [((), (a, b)) for a in ("summer", "winter") for b in ("summer", "winter")]),
        ("P(season_{mood=low}, season_{mood=a})", None, None),
    ])  # fmt: skip
    def test_cells(self, typed, head, cells):
        if head is None:
            with pytest.raises(CounterfactError):
                ask(typed)
            return
        query = ask(typed)
        assert heads(query) == head
        assert [(row.settled, row.asked) for row in rows(query, DOMAINS)] == cells

    def test_a_symbol_that_is_set_and_asked_for_is_no_setting(self):
        query = ask("P(road_{season=winter, mood}, mood_{season=summer})")
        cells = list(rows(query, DOMAINS))
        assert all(not row.settled and len(row.asked) == 2 for row in cells) and len(cells) == 6
        shape = [len(DOMAINS[symbol.variable]) for symbol in query.symbols]
        assert sorted(row.at for row in cells) == list(np.ndindex(*shape))

    def test_places_are_those_of_the_array(self):
        query = ask("P(road | do(season, mood))")
        share = np.random.default_rng(0).random((3, 2, 2))
        assert [symbol.variable for symbol in query.symbols] == ["road", "mood", "season"]
        for row in rows(query, DOMAINS):
            (road,), (mood, season) = row.asked, row.settled
            at = DOMAINS["road"].index(road), DOMAINS["mood"].index(mood), DOMAINS["season"].index(season)
            assert share[row.at] == share[at]


class TestTables:
    def test_an_answer(self):
        found = answer("P(road | do(season=winter))", [0.2, 0.3, 0.5])
        assert sample_table(found).split("\n") == [
            "P(road | do(season=winter)), from 100 cases", "",
            "| road | probability | standard error |", "| --- | --- | --- |",
            "| dry | 0.2000 | 0.0400 |", "| wet | 0.3000 | 0.0458 |", "| icy | 0.5000 | 0.0500 |", "",
            "- a standard error is that of counting 100 cases; how well the model was fitted is not in it",
        ]  # fmt: skip

    def test_settings_and_signs(self):
        lines = sample_table(answer("P(season=winter | do(mood))", [0.25, 0.75])).split("\n")
        assert lines[2] == "| mood | season | probability | standard error |"
        assert lines[4:6] == ["| low | winter | 0.2500 | 0.0433 |", "| a\\|b | winter | 0.7500 | 0.0433 |"]

    def test_numbers(self):
        values = np.arange(101) / 10
        spreads = [Spread(("summer",), "light", values), Spread(("winter",), "light", values + 1)]
        lines = sample_table(answer("P(light | do(season))", [], 101, spreads)).split("\n")
        assert lines[2].startswith("| season | outcome | mean | standard deviation | 10 % | 20 % |")
        assert lines[4].startswith("| summer | light | 5 | 2.915 | 1 | 2 |") and lines[4].endswith("| 8 | 9 |")
        assert lines[5].startswith("| winter | light | 6 | 2.915 | 2 | 3 |") and len(lines) == 6

    def test_notes(self):
        found = answer("P(road | season=winter)", [0.2, 0.3, 0.5], drawn=400)
        assert sample_notes(found)[0] == "25 % of all cases drawn met season=winter; the others are left out"
        assert not any("only" in note for note in sample_notes(found))
        rare = replace(found, count=300, fewest=7)
        assert "only 7 such cases were found, not 300: what is given is rare" in sample_notes(rare)

    def test_long_answers_are_cut_to_what_is_likeliest(self, monkeypatch):
        monkeypatch.setattr(report, "MOST_ROWS", 2)
        monkeypatch.setattr(report, "MOST_BARS", 2)
        found = answer("P(road)", [0.5, 0.1, 0.4])
        lines = sample_table(found).split("\n")
        assert [line[:6] for line in lines[4:6]] == ["| dry ", "| icy "]
        assert "and 1 more, each of them no likelier than these" in lines
        assert sample_chart(found).height < sample_chart(answer("P(road)", [0.5, 0.1, 0.4])).height + 30

    def test_bounds(self):
        found = Bounds(ask("P(season | do(mood=low))"), np.array([0.2, 0.3]), np.array([0.7, 0.8]), True, 0.0)
        lines = bounds_table(found, DOMAINS, 40).split("\n")
        assert lines[0] == "Bounds on P(season | do(mood=low)), from 40 rows"
        assert lines[2:6] == [
            "| season | at least | at most |", "| --- | --- | --- |", "| summer | 0.2000 | 0.7000 |",
            "| winter | 0.3000 | 0.8000 |",
        ]  # fmt: skip
        assert lines[7].startswith("- bounds, no answer: ") and lines[8].startswith("- sharp: ")

    @pytest.mark.parametrize("high, sharp, slack, said, unsaid", [
        (0.9, True, 0.0, ["bounds, no answer", "sharp: "], ["not known", "same", "contradict"]),
        (0.9, False, 0.0, ["bounds, no answer", "not known to be sharp"], ["same", "contradict"]),
        (0.2, True, 0.0, ["both ends are the same"], ["no answer", "sharp", "contradict"]),
        (0.9, True, 0.0123, ["bounds, no answer", "changed by 0.0123 in all"], ["same"]),
    ])  # fmt: skip
    def test_what_bounds_are_said_to_be(self, high, sharp, slack, said, unsaid):
        told = "\n".join(bounds_notes(Bounds(ask("P(season=winter)"), np.array(0.2), np.array(high), sharp, slack)))
        assert all(words in told for words in said) and not any(words in told for words in unsaid)


class TestDrawing:
    def test_shares_and_errors(self, model):
        found = sampled(model, ask("P(road | do(season))"), 400)
        (share,), (error,) = found.shares, found.errors
        exact = torch.stack([row.softmax(-1) for row in model.mechanism("road").scores])
        assert share.shape == (3, 2) and np.abs(share - exact.T.numpy()).max() < 5 * error.max()
        assert error == pytest.approx(np.sqrt(share * (1 - share) / 400)) and found.cases == 800

    def test_what_was_not_met_may_still_happen(self, model):
        found = sampled(model, ask("P(season=winter | season=summer)"), 99)
        assert found.shares[0] == 0.0 and found.errors[0] == pytest.approx((0.01 * 0.99 / 99) ** 0.5)

    def test_conditions(self, model):
        found = sampled(model, ask("P(season | road=icy)"), 300, kept=3)
        assert found.cases == found.fewest == 300 < found.drawn
        assert all(values["road"] == "icy" for ((_, values),) in found.first)

    def test_an_outcome_that_something_is_set_to_is_that_of_the_case(self, model):
        query = ask("P(road_{season}, season_{mood=low})")
        found = sampled(model, query, 200, kept=20)
        assert len(found.first) == 20 and found.shares[0].sum() == pytest.approx(1.0)
        for (done, values), (_, seen) in found.first:
            assert done["season"] == values["season"] == seen["season"]

    def test_numbers(self, model):
        found = sampled(model, ask("P(light, road | do(season))"), 300, kept=2)
        assert [(s.settled, s.asked, len(s.values)) for s in found.spreads] == [
            (("summer",), "light", 300), (("winter",), "light", 300)
        ]  # fmt: skip
        assert [str(part) for part in found.parts] == ["P(road | do(season))"] and found.shares[0].shape == (3, 2)
        assert found.shares[0].sum(0) == pytest.approx(1.0)
        (world,) = found.first[0]
        assert world[1]["light"] == pytest.approx(float(found.spreads[0].values[0]), rel=1e-3)
        table = sample_table(found)
        assert "each outcome is shown by itself" in table and "| summer | dry |" in table

    def test_the_same_noise_everywhere(self, model):
        first, second = (sampled(model, ask(f"P(light | do(season={s}))"), 50, 3) for s in ("summer", "winter"))
        both = sampled(model, ask("P(light | do(season))"), 50, 6)
        assert np.array_equal(both.spreads[0].values, first.spreads[0].values)
        assert np.array_equal(both.spreads[1].values, second.spreads[0].values)
        assert both.first == tuple(case for pair in zip(first.first, second.first) for case in pair)
        assert sampled(model, ask("P(light)"), 50, seed=1).spreads[0].values[0] != first.spreads[0].values[0]

    def test_it_tells_how_far_it_is_and_can_be_stopped(self, model):
        told = []
        sampled(model, ask("P(road | do(season))"), 10, progress=lambda *done: told.append(done))
        assert told == [(1, 2), (2, 2)]
        with pytest.raises(ZeroDivisionError):
            sampled(model, ask("P(road)"), 10, check=lambda: 1 / 0)

    @pytest.mark.parametrize("typed, message", [
        ("P(road | do(light))", "query: light is a number, and there is no end .* such as light=..."),
        ("P(light=3)", "query: light is a number, and no case has exactly this one"),
        ("P(light, season=winter)", "query: light is a number, and cannot be asked .* season; put that behind the bar"),
        ("P(light_{season}, season_{mood=low})", "query: light is a number, and cannot be asked for together"),
        ("P(light_{season=winter}, light_{season=summer})", "query: light is asked for twice.*write light'"),
        ("P(road | light=3)", "query: light is a number"),
    ])  # fmt: skip
    def test_questions_about_numbers_that_have_no_answer(self, model, typed, message):
        with pytest.raises(CounterfactError, match=message):
            sampled(model, ask(typed), 10)

    def test_too_many_combinations(self, model, monkeypatch):
        monkeypatch.setattr(report, "MOST_CELLS", 5)
        with pytest.raises(CounterfactError, match="query: it asks for 6 combinations of values, more than 5"):
            sampled(model, ask("P(road | do(season))"), 10)

    def test_captions_stay_in_the_range(self, model):
        case = (({}, {"season": "winter", "road": "icy", "light": 10.4, "angle": -1.2, "mood": "low"}),)
        found = answer("P(road)", [0.2, 0.3, 0.5], first=(case,))
        assert captions(found, CONCEPTS) == ["winter season, icy road, 10.0 light, -1.0 angle, low mood"]
        assert found.first[0][0][1]["light"] == 10.4


COLOURED = parse_concepts("colour: red, blue\npicture\nmood: good, bad\nweather: fair, foul")


def wonder(typed):
    return parse_query(typed, COLOURED)


@pytest.fixture
def seeing():
    """weather -> colour -> picture -> mood, random weights, and a generator that draws the colour."""
    variables = (
        Variable("weather", ("fair", "foul")), Variable("colour", ("red", "blue")), Variable("picture", side=8),
        Variable("mood", ("good", "bad")),
    )  # fmt: skip
    torch.manual_seed(0)
    blind = ModularModel(Coding(variables, ((), (0,), (1,), (2,)))).eval().requires_grad_(False)
    blind.concepts = settled(COLOURED, blind.coding)
    generator = Colours(parse_concepts("colour: red, blue"))
    return blind.plugged({"picture": generator}), generator, blind


class TestPictures:
    def test_labels_behind_a_picture_are_left_out_where_it_cannot_be_drawn(self, seeing):
        drawing, _, blind = seeing
        query = wonder("P(colour | do(weather=foul))")
        for model, names in ((blind, {"colour", "weather"}), (drawing, {"colour", "weather", "mood"})):
            found = sampled(model, query, 40, kept=3)
            assert all(set(values) == names for ((_, values),) in found.first) and found.pictures == ()
        assert captions(sampled(blind, query, 40, kept=1), blind.concepts)[0].endswith("colour, foul weather")
        ((_, values),) = sampled(blind, wonder("P(weather | do(mood=bad))"), 40, kept=1).first[0]
        assert values["mood"] == "bad", "what is set depends on nothing"

    def test_only_what_is_asked_for_is_drawn(self, seeing):
        model, generator, _ = seeing
        sampled(model, wonder("P(colour | do(weather))"), 40)
        assert not generator.told
        sampled(model, wonder("P(colour | do(weather))"), 40, kept=3)
        assert len(generator.told) == 3
        sampled(model, wonder("P(mood_{colour=red} | weather=fair)"), 40)
        assert len(generator.told) == 43

    def test_case_by_case_and_world_by_world(self, seeing):
        model, generator, _ = seeing
        found = sampled(model, wonder("P(mood_{colour}, colour_{weather=fair} | weather=foul)"), 200, kept=5)
        generator.told.clear()
        shown = pictures(model, found, generator)
        assert shown.shape == (5 * 3, 16, 16, 3) and len(generator.told) == 15
        for case, row in zip(found.first, shown.reshape(5, 3, 16, 16, 3)):
            for (_, values), picture in zip(case, row):
                assert (picture[0, 0, 0] > picture[0, 0, 2]) == (values["colour"] == "red")
            assert len({picture[0, 0, 1] for picture in row}) == 1, "one case, one seed"
        assert len({row[0, 0, 0, 1] for row in shown.reshape(5, 3, 16, 16, 3)}) > 1

    def test_labels_are_told_where_the_model_has_no_picture(self, model):
        drawn = []

        class Listener:
            def sample(self, values, seeds, check):
                drawn.extend(zip(values, seeds, strict=True))
                return np.zeros((len(values), 4, 4, 3), np.uint8)

        found = sampled(model, ask("P(road | do(season))"), 30, kept=4)
        assert pictures(model, found, Listener()).shape == (4, 4, 4, 3)
        assert [values["season"] for values, _ in drawn] == ["summer", "winter", "summer", "winter"]
        (a, one), (b, same), (_, other), _ = drawn
        assert one == same != other and 0 <= one < 2**63, "the same case under both settings"
        assert a["mood"] == b["mood"] and float(a["light"]) != float(b["light"])
        again = sampled(model, ask("P(mood)"), 500, kept=1)
        pictures(model, again, Listener())
        assert drawn[-1][1] == one, "a case is itself in every question"

    def test_numbers_are_moved_inside(self):
        assert inside(CONCEPTS, {"light": "10.4", "angle": -3, "road": "icy"}) == {
            "light": "10.0", "angle": "-1.0", "road": "icy"
        }  # fmt: skip

    def test_a_picture_is_asked_for(self, seeing):
        model, generator, _ = seeing
        found = sampled(model, wonder("P(picture, mood | do(colour=red))"), 40, kept=1)
        assert found.pictures == ("picture",) and [str(part) for part in found.parts] == ["P(mood | do(colour=red))"]
        assert sample_notes(found)[-2:] == [
            "picture is a picture, and has no table: look at some of the cases",
            "pictures are among the outcomes, so that each outcome is shown by itself",
        ]
        alone = sampled(model, wonder("P(picture)"), 40)
        assert alone.parts == () and sample_chart(alone).width == 1024
        assert sample_table(alone).startswith("P(picture), from 40 cases\n\n- picture is a picture")

    @pytest.mark.parametrize("typed, message", [
        ("P(mood | do(picture=x))", "query: picture is a picture, which cannot be set; set what causes it"),
        ("P(picture=x)", "query: picture is a picture, and no case has exactly this one"),
        ("P(picture, mood=bad)", "query: picture is a picture, and cannot be asked .* mood; put that behind the bar"),
        ("P(picture_{colour=red}, picture_{colour=blue})", "query: picture is asked for twice.*nor are two pictures"),
        ("P(mood | picture=x)", "query: picture is a picture, which cannot be given"),
    ])  # fmt: skip
    def test_questions_that_pictures_cannot_answer(self, seeing, typed, message):
        with pytest.raises(CounterfactError, match=message):
            sampled(seeing[0], wonder(typed), 10)


class TestCharts:
    def test_bars_are_as_long_as_shares(self):
        picture = sample_chart(answer("P(road)", [0.2, 0.3, 0.5], count=10**9))
        assert picture.size[0] == 1024 and picture.mode == "RGB"
        longest = [band.any(0).sum() for band in np.array_split(pixels(picture, BLUE)[90:180], 3)]
        assert longest[1] / longest[0] == pytest.approx(1.5, rel=0.03)
        assert longest[2] / longest[0] == pytest.approx(2.5, rel=0.03)

    def test_whiskers(self):
        near, far = (sample_chart(answer("P(season)", [0.4, 0.6], count=n)) for n in (10**6, 100))
        lines = [pixels(one, INK, 60)[85:150, 110:880].any(0).sum() for one in (near, far)]
        # Two standard errors of 0.049 to either side, at two places, on an axis to 1.
        assert lines[0] < 10 and lines[1] == pytest.approx(2 * 4 * 0.049 * 806, rel=0.1)

    def test_the_same_gives_the_same_picture_in_other_sizes(self):
        found = answer("P(road | do(season))", np.full((3, 2), 1 / 3))
        assert sample_chart(found).tobytes() == sample_chart(found).tobytes()
        assert sample_chart(found, 512).size[0] == 512
        assert sample_chart(found, 512).size[1] == pytest.approx(sample_chart(found).size[1] / 2, abs=2)
        with pytest.raises(CounterfactError, match="the width of the chart must be a number from 256 to 2048"):
            sample_chart(found, 100)

    def test_bounds_are_spans_and_dashed_where_they_may_be_narrower(self):
        found = Bounds(ask("P(season=winter)"), np.array(0.25), np.array(0.75), True, 0.0)
        firm, loose = (bounds_chart(replace(found, sharp=sharp), DOMAINS) for sharp in (True, False))
        ends = np.flatnonzero(pixels(firm, BLUE)[85:125].any(0))
        inside = np.flatnonzero(pixels(firm, SPAN)[85:125].any(0))
        left = 36 + max(60.0, measure("season = winter", 14) + 14) + 10
        wide = 1024 - 36 - 150 - left
        assert (ends[0], ends[-1]) == pytest.approx((left + 0.25 * wide, left + 0.75 * wide), abs=3)
        assert (
            ends[0] < inside[0] and inside[-1] < ends[-1] and not pixels(firm, INK)[108, inside[0] : inside[-1]].any()
        )
        assert pixels(loose, BLUE)[85:125].sum() < 0.85 * pixels(firm, BLUE)[85:125].sum()

    def test_bounds_that_are_one_number_are_one_mark(self):
        found = Bounds(ask("P(season=winter)"), np.array(0.25), np.array(0.25), True, 0.0)
        picture = bounds_chart(found, DOMAINS)
        ends = np.flatnonzero(pixels(picture, BLUE, 60)[85:125].any(0))
        assert ends[-1] - ends[0] < 5 and not pixels(picture, SPAN).any()

    def test_histograms(self):
        values = np.concatenate([np.linspace(0, 1, 900), np.linspace(9, 10, 100)])
        spreads = [Spread((), "light", values)]
        picture = sample_chart(answer("P(light)", [], 1000, spreads))
        blue = pixels(picture, BLUE)
        columns = blue.sum(0)
        assert columns[36:130].max() > 6 * columns[900:990].max() > 0 and not columns[200:800].any()
        mean = np.flatnonzero(pixels(picture, VERMILLION, 60).any(0)).mean()
        assert mean == pytest.approx(36 + 952 * values.mean() / 10, abs=3)

    @pytest.mark.parametrize("values", [np.zeros(50), np.full(50, 1e9), np.array([3.0])])
    def test_numbers_that_are_all_the_same(self, values):
        assert sample_chart(answer("P(light)", [], 50, [Spread((), "light", values)])).width == 1024

    def test_long_names_and_many_panels(self):
        long = parse_concepts("a: " + ", ".join(f"{'long ' * 12}{i}" for i in range(45)) + "\nb: 0, 1")
        query = parse_query("P(a | do(b))", long)
        share = np.full((45, 2), 1 / 45)
        found = Sampled(query, {c.name: c.domain for c in long}, (query,), (share,), (share / 10,), (), 9, 9, 9, 9, ())
        assert sample_chart(found).height < 2000
        many = [Spread((str(i),), "light", np.random.default_rng(i).random(30)) for i in range(30)]
        assert sample_chart(answer("P(light | do(season))", [], 30, many)).height < 4000


class TestWhatAModelTells:
    def test_its_graph_comes_back_from_the_file(self, tmp_path):
        concepts = Concepts((
            Concept("late", ("no", "yes"), "yes", {"yes": ("late",), "no": ("in time",)}),
            Concept("early", interval=(0, 5), value="2", phrases={"3": ("just so",)}), Concept("other", ("a", "b")),
        ))  # fmt: skip
        graph = CausalGraph.from_edges([("early", "late")], [("other", "late"), ("early", "other")], concepts)
        model = ModularModel.of(graph, states=2)
        model.save(tmp_path / "model.safetensors")
        for found in (model.graph(), ModularModel.load(tmp_path / "model.safetensors").graph()):
            assert found.concepts.names == ("late", "early", "other") and found.concepts.values() == {}
            assert found.concepts["late"].phrases == concepts["late"].phrases
            assert found.concepts["early"].phrases == {"3.0": ("just so",)}
            assert found.concepts["early"].interval == (0.0, 5.0)
            assert found.edges == graph.edges and set(found.confounded) == set(graph.confounded)

    def test_concepts_take_what_a_table_gave_them(self):
        graph = CausalGraph.from_edges([("early", "late")], (), parse_concepts("early: no, yes\nlate: no, yes"))
        coding = ModularModel.of(graph).coding
        typed = Concepts((
            Concept("late", (), "maybe", {"yes": ("late",), "maybe": ("perhaps",)}), Concept("early", ("no", "yes")),
        ))  # fmt: skip
        found = settled(typed, coding)
        assert found["late"] == Concept("late", ("no", "yes"), phrases={"yes": ("late",)})
        assert found.names == ("late", "early")
        with pytest.raises(CounterfactError, match="'moon'"):
            settled(Concepts((Concept("moon"),)), coding)
