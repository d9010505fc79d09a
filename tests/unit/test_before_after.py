"""The pictures of a report: before and after, and all regions on one picture."""

from __future__ import annotations

import numpy as np
import pytest

from causal_core import draw_regions
from causal_core.draw import BLUE, CHANGED, INTERVENED, KEPT, STEADY, VERMILLION
from causal_core.draw_regions import ANGLES, COLOURS, MOST, overlay
from causal_core.draw_report import HEAT, ReportRow, before_after
from causal_core.errors import CounterfactError

ROWS = [
    ReportRow("season", "summer", "winter", 0.4, "winter", "intervened"),
    ReportRow("pond", "open", "frozen", 0.1, "open", "descendant"),
    ReportRow("weather", "clear", "clear", None, None, "descendant"),
    ("car", "red", "red", None, "red"),
]


@pytest.fixture
def pictures():
    rng = np.random.default_rng(3)
    source = rng.random((40, 60, 3)) * 0.2 + 0.4
    edited = source.copy()
    edited[10:20, 30:50] = 0.0
    return source, edited


@pytest.fixture
def region():
    found = np.zeros((10, 15))
    found[2:5, 7:13] = 1.0
    return found


def near(picture, colour: str, within: int = 6) -> np.ndarray:
    """Which pixels have about this colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(np.asarray(picture).astype(int) - rgb) <= within).all(-1)


def test_same_bytes_every_time(pictures, region):
    first, second = (before_after(*pictures, {"pond": region}, ROWS) for _ in range(2))
    assert first.mode == "RGB" and first.width == 1024 and first.tobytes() == second.tobytes()


def test_numbers_may_be_bytes(pictures):
    bytes_ = [np.round(picture * 255).astype(np.uint8) for picture in pictures]
    same = [picture.astype(np.float64) / 255 for picture in bytes_]
    assert before_after(*bytes_, {}, []).tobytes() == before_after(*same, {}, []).tobytes()


def test_difference_is_hot_where_something_changed(pictures):
    strongest = near(before_after(*pictures, {}, []), HEAT[-1], 3)
    rows, columns = strongest.any(1).nonzero()[0], strongest.any(0).nonzero()[0]
    # The third picture begins at 692 and at 84, and is 307 pixels wide for 60.
    scale = 307 / 60
    found = (columns[0] - 692) / scale, (rows[0] - 84) / scale
    assert found == pytest.approx((30, 10), abs=1.0)
    calm = before_after(pictures[0], pictures[0] + 0.01 * np.sign(pictures[1] - 0.5), {}, [])
    assert not near(calm, HEAT[-1], 3)[84:288].any() and not near(calm, VERMILLION)[84:288].any()


def test_regions_have_the_colour_of_the_role(pictures, region):
    def colours(name):
        picture = before_after(*pictures, {name: region}, ROWS)
        body = np.asarray(picture)[360:500, :260]
        return near(body, BLUE, 40).sum(), near(body, VERMILLION, 40).sum()

    for name, blue in (("season", False), ("pond", True), ("unknown", True)):
        found = colours(name)
        assert (found[0] > 20 * (found[1] + 1)) if blue else (found[1] > 20 * (found[0] + 1))


def test_rows_look_like_cards():
    looks = [ReportRow(*row).look for row in ROWS]
    assert looks == [INTERVENED, CHANGED, STEADY, KEPT]


def test_more_of_everything_is_higher(pictures, region):
    heights = [
        before_after(*pictures, regions, rows, width=512, notes=notes).height
        for regions, rows, notes in (
            ({}, [], []), ({"pond": region}, [], []), ({"pond": region}, ROWS, []), ({"pond": region}, ROWS, ["done"])
        )
    ]  # fmt: skip
    assert heights[0] < heights[1] < heights[2] < heights[3]


def test_long_lists_are_cut(pictures, region):
    regions = {f"c{i}": region for i in range(60)}
    rows = [ReportRow("name " * 16, "before " * 11, "after " * 13, 0.5, "read " * 16, "descendant")] * 300
    picture = before_after(*pictures, regions, rows, "title " * 40, 512)
    assert picture.width == 512 and picture.height < 2000


@pytest.mark.parametrize("shape", [(200, 10, 3), (10, 200, 3), (1, 1, 3)])
def test_shapes(shape, region):
    picture = np.full(shape, 0.5)
    assert before_after(picture, picture, {"pond": region}, ROWS, width=512).height < 1000


@pytest.mark.parametrize("change, message", [
    ({"edited": np.zeros((40, 61, 3))}, "edited: it is 61 x 40 pixels, but the source is 60 x 40"),
    ({"source": np.zeros((1, 40, 60, 3))}, r"source: a picture has the shape \[H, W, 3\]"),
    ({"regions": {"pond": np.zeros((1, 4, 4))}}, "regions: the one of 'pond' has the shape"),
    ({"width": 100}, "width of the report picture"),
    ({"width": float("nan")}, "width of the report picture"),
])  # fmt: skip
def test_bad_input_is_named(pictures, change, message):
    given = {"source": pictures[0], "edited": pictures[1], "regions": {}, "rows": [], **change}
    with pytest.raises(CounterfactError, match=message):
        before_after(**given)


def table_pixels(pictures, seen: str | None) -> tuple[int, int]:
    """How many pixels of a table's last column are blue, and how many vermillion."""
    picture = before_after(*pictures, {}, [ReportRow("pond", "open", "frozen", 0.1, seen)])
    return tuple(int(near(np.asarray(picture)[-80:, 820:], colour, 40).sum()) for colour in (BLUE, VERMILLION))


def test_what_was_read_again_is_ticked_or_crossed(pictures):
    ticked, crossed = (table_pixels(pictures, seen) for seen in ("frozen", "open"))
    assert ticked[0] > 10 and not ticked[1]
    assert crossed[1] > 10 and not crossed[0]
    assert table_pixels(pictures, None) == (0, 0)


class TestOverlay:
    def test_small_pictures_are_enlarged(self, pictures, region):
        drawn = overlay(pictures[0], {"pond": region})
        assert drawn.shape == (341, 512, 3) and drawn.dtype == np.float32 and 0 <= drawn.min() and drawn.max() <= 1
        assert np.array_equal(drawn, overlay(pictures[0], {"pond": region}))
        large = np.full((700, 300, 3), 0.5)
        assert overlay(large, {}).shape == large.shape

    def test_each_region_has_its_colour_where_it_is(self, pictures, region):
        other = np.flipud(region)
        drawn = overlay(pictures[0], {"season": region, "pond": other})
        both = 255 * drawn
        upper, lower = (near(both, colour, 40).sum(1) for colour in COLOURS[:2])
        middle = len(upper) // 2
        assert upper[:middle].sum() > 300 > upper[middle:].sum() and lower[middle:].sum() > 300 > lower[:middle].sum()

    def test_nothing_is_drawn_far_from_the_regions(self, pictures, region):
        # The region ends two thirds down; the name is at it.
        plain, drawn = overlay(pictures[0], {}), overlay(pictures[0], {"pond": region})
        assert np.array_equal(plain[230:], drawn[230:]) and np.abs(plain - drawn)[:200].max() > 0.3

    def test_an_empty_region_is_named(self, pictures, region):
        plain, drawn = overlay(pictures[0], {}), overlay(pictures[0], {"wind": np.zeros((10, 15))})
        assert (np.abs(plain - drawn).max(-1) > 0.1)[-30:, :150].any() and np.array_equal(plain[:-40], drawn[:-40])

    def test_names_do_not_cover_each_other(self, region):
        from causal_core.draw_regions import _places

        regions = {f"concept {i}": region for i in range(12)}
        boxes = [box for box, _ in _places(regions, (512.0, 341.0), []).values()]
        for i, box in enumerate(boxes):
            assert box.width / 2 <= box.x <= 512 - box.width / 2 and box.height / 2 <= box.y <= 341 - box.height / 2
            for other in boxes[:i]:
                apart = abs(box.x - other.x) >= (box.width + other.width) / 2
                assert apart or abs(box.y - other.y) >= (box.height + other.height) / 2

    def test_styles_differ_without_colour(self):
        from causal_core.draw_regions import _style

        assert len({_style(number) for number in range(MOST)}) == MOST
        assert len({_style(number)[1] for number in range(8)}) == len(ANGLES)

    @pytest.mark.parametrize("shape", [(200, 10, 3), (10, 200, 3), (1, 1, 3)])
    def test_shapes(self, shape, region):
        assert max(overlay(np.full(shape, 0.5), {"pond " * 16: region}).shape) == 512

    def test_more_regions_than_can_be_told_apart_are_counted(self, pictures, region, monkeypatch):
        monkeypatch.setattr(draw_regions, "MOST", 2)
        few, many = ({f"c{i}": region for i in range(n)} for n in (2, 4))
        drawn = overlay(pictures[0], few), overlay(pictures[0], many)
        changed = (np.abs(drawn[0] - drawn[1]) > 0.1).any(-1)
        assert changed[-40:, :150].any()

    @pytest.mark.parametrize("source, region, message", [
        (np.zeros((8, 8)), np.ones((4, 4)), "source: a picture has the shape"),
        (np.zeros((8, 8, 3)), np.ones((1, 4, 4)), "regions: the one of 'pond' has the shape"),
    ])  # fmt: skip
    def test_bad_input_is_named(self, source, region, message):
        with pytest.raises(CounterfactError, match=message):
            overlay(source, {"pond": region})
