"""Pictures: places of numbers in closed form, and what is drawn of a row."""

import math
import sys
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import changed, items, record, row, written

from mechdrift.findings.figures import Shown
from mechdrift.report.pictures import Picture, Point, drawn, heat_map, series, strip
from mechdrift.report.svg import Scale, scale
from mechdrift.report.text import pictures_of
from mechdrift.report.whole import read_whole
from mechdrift.verdict.limits import Limit


def shapes(drawing: str, kind: str) -> list[dict[str, str]]:
    """Attributes of the shapes of a class."""
    root = ElementTree.fromstring(drawing)  # noqa: S314, our own
    return [each.attrib for each in root.iter() if kind in each.get("class", "").split()]


def test_a_scale_is_linear_and_stops_at_its_ends() -> None:
    up = Scale(1.0, 3.0, 100.0, 0.0)
    assert [up(number) for number in (1.0, 1.5, 2.0, 3.0, 9.0, -9.0)] == [100, 75, 50, 0, 0, 100]
    assert Scale(0.0, 1.0, 0, 1).ticks() == pytest.approx([0, 0.5, 1])


FINITE = st.floats(allow_nan=False, allow_infinity=False)
NEXT = math.nextafter(1.0, 2.0)
EXTREME = [[1.8e307], [-sys.float_info.max, sys.float_info.max], [5e-324], [5e-324, 1e-323], [0.0, 5e-324], [1.0, NEXT], [0.0]]


def require_sound(numbers: list[float], drawn: Scale) -> None:
    """By exact arithmetic: the ends stand where 6% of room puts them, or all in the middle; ticks are few and within."""
    low, high = Fraction(min(numbers)), Fraction(max(numbers))
    apart = high - low > max(abs(low), abs(high)) / 10_000
    places = [drawn(number) for number in sorted(numbers)]
    assert places == sorted(places)
    if apart:
        assert [places[0], places[-1]] == pytest.approx([100 * 6 / 112, 100 * 106 / 112])
    else:
        assert places == pytest.approx([50] * len(places), abs=0.05)
    ticks = drawn.ticks()
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted({*ticks})
    assert all(drawn.low <= tick <= drawn.high for tick in ticks)


@given(st.lists(FINITE, min_size=1), st.lists(st.sampled_from([None, math.nan, math.inf, -math.inf])))
def test_a_scale_holds_all_finite_numbers(numbers: list[float], none: list[float | None]) -> None:
    found = scale([*none, *numbers], 0, 100)
    assert found
    require_sound(numbers, found)


@given(FINITE, st.integers(1, 40), st.lists(st.integers(0, 40)))
def test_a_scale_holds_neighbouring_floats(start: float, steps: int, more: list[int]) -> None:
    """Drawn apart, or as one number, wherever on the line of floats they lie."""
    numbers = [start, *(start - math.copysign(step * math.ulp(start), start) for step in [steps, *more])]
    found = scale(numbers, 0, 100)
    assert found
    require_sound(numbers, found)


@pytest.mark.parametrize("numbers", EXTREME, ids=str)
def test_a_scale_holds_the_ends_of_the_floats(numbers: list[float]) -> None:
    found = scale(numbers, 0, 100)
    assert found
    require_sound(numbers, found)


@pytest.mark.parametrize("numbers", [[], [None], [math.nan, math.inf, None]])
def test_of_no_number_there_is_no_scale(numbers: list[float | None]) -> None:
    assert scale(numbers, 0, 100) is None


@given(st.lists(FINITE, min_size=2, max_size=5))
def test_labels_of_ticks_differ(numbers: list[float]) -> None:
    """Each says one number; those under the least normal float have no six digits, and are told apart by what they have."""
    found = scale(numbers, 0, 100)
    assert found
    labels = [f"{tick:.6g}" for tick in found.ticks()]
    assert len({*labels}) == len(labels)


def test_a_strip_has_its_estimate_between_limit_and_no_change() -> None:
    drawing = strip(row("a.b", 0.9))
    assert drawing
    (point,) = shapes(drawing, "point")
    (limit,), (null,) = shapes(drawing, "limit"), shapes(drawing, "null")
    assert float(point["cx"]) == pytest.approx((float(limit["x1"]) + float(null["x1"])) / 2, abs=0.02)  # 0.9, of 0.8 and 1
    assert strip(row("a.b", None)) is None


def test_a_series_marks_what_it_is_told_to() -> None:
    points = [Point(f"run {place}", value, value - 0.01, value + 0.01) for place, value in enumerate([1.0, 0.9, 0.7])]
    points.insert(1, Point("gone", None, None, None))
    picture = series(points, row("a.b"), "a.b", "run", 3)
    assert picture
    drawn, (marked,) = shapes(picture.drawing, "point"), shapes(picture.drawing, "marked")
    assert len(drawn) == 3
    assert (marked["cx"], marked["cy"]) == (drawn[2]["cx"], drawn[2]["cy"])
    assert float(drawn[0]["cy"]) < float(drawn[1]["cy"]) < float(drawn[2]["cy"])  # less is lower
    assert picture.caption.endswith("marked: run 2")
    assert [line[:2] for line in picture.lines] == [("run 0", "1.000"), ("gone", "-"), ("run 1", "0.900"), ("run 2", "0.700")]
    assert series([Point("x", None, None, None)], row("a.b"), "a.b", "run") is None


def opacity(picture: Picture, kind: str) -> list[float]:
    return [float(cell["fill-opacity"]) for cell in shapes(picture.drawing, kind)]


def test_a_heat_map_tells_sign_strength_and_what_is_no_number() -> None:
    picture = heat_map("m", ["a", "b"], np.array([[0.5, -1.0], [np.nan, 0.0]]), "block")
    assert (opacity(picture, "more"), opacity(picture, "less")) == ([0.5, 0.0], [1.0])
    assert len(shapes(picture.drawing, "unknown")) == 1
    assert picture.lines == (("0", "0.5", "-1"), ("1", "-", "0"))
    near_one = heat_map("m", ["a"], np.array([[1.0], [1.001], [1.002]]), "block")
    assert opacity(near_one, "more") == [0, 0.5, 1]  # from the least on, or all would look the same
    empty = heat_map("m", [], np.zeros((0, 0)), "block")
    assert not empty.lines


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_a_heat_map_of_no_number_is_drawn(bad: float) -> None:
    assert len(shapes(heat_map("m", ["a", "b"], np.array([[bad, -bad]]), "block").drawing, "unknown")) == 2


@pytest.mark.parametrize("size", [sys.float_info.max, 1.8e307, 1e-300, 5e-324])
def test_a_heat_map_of_any_size_has_the_same_colours(size: float) -> None:
    picture = heat_map("m", ["a", "b"], np.array([[size, -size]]), "block")
    assert (opacity(picture, "more"), opacity(picture, "less")) == ([1], [1])


@pytest.mark.parametrize("size", [sys.float_info.max, 1.8e307, 1e-300, 5e-324])
def test_a_strip_of_any_size_has_the_same_places(size: float) -> None:
    """Estimate, interval and limit at -size and size, no change at 0: two ends and the middle."""
    ends = {"estimate": size, "low": -size, "high": size, "null": 0.0, "limit": Limit(-size, None, "")}
    drawing = strip(changed(row("a.b", size), **ends))
    assert drawing
    (point,), (limit,), (null,) = (shapes(drawing, kind) for kind in ("point", "limit", "null"))
    low, high = 2 + 146 * 6 / 112, 2 + 146 * 106 / 112
    assert [float(point["cx"]), float(limit["x1"]), float(null["x1"])] == pytest.approx([high, low, 75], abs=0.01)


def test_shares_are_shown_only_where_their_arms_differ_by_the_estimate(tmp_path: Path) -> None:
    requested = items([0, 0, 1, 0], [1, 1, 1, 0])
    rows = [
        row("refusal.ablation", 0.5, unit="c, own minus plain", arms=["plain", "own"], items=requested),
        row("refusal.other", 0.4, unit="c, own minus plain", arms=["plain", "own"], items=requested),
        row("refusal.graded", 0.5, unit="c, own minus plain", arms=["plain", "own"], items=items([0.25], [0.75])),
        row("refusal.harmful", 0.9, evidence={"kind": "proportion", "successes": 90, "n": 100}),
        row("refusal.none", None),
    ]
    whole = read_whole(written(tmp_path / "r.json", record(*rows)))
    shown = [Shown(one, whole.items.get(one.label, ())) for one in whole.rows]
    (figure,) = pictures_of("refusal").of_family(shown, ())
    picture = drawn(figure)
    assert picture
    assert [line[0::3] for line in picture.lines] == [("ablation", "0.250"), ("ablation", "0.750"), ("harmful", "0.900")]
    widths = [float(bar["width"]) for bar in shapes(picture.drawing, "bar")]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.05)
    assert not list(pictures_of("refusal").of_family(shown[-1:], ()))


def test_neurons_differ_by_more_than_colour(tmp_path: Path) -> None:
    both = items([-0.1, -0.2], [-0.1, -0.2], "shared") + items([-0.3], [-0.1], "base alone")
    whole = read_whole(written(tmp_path / "r.json", record(row("confidence.overlap", items=both))))
    (figure,) = pictures_of("confidence").of_row(Shown(whole.rows[0], whole.items["confidence.overlap"]))
    picture = drawn(figure)
    assert picture
    root = ElementTree.fromstring(picture.drawing)  # noqa: S314, our own
    forms = {each.get("class"): each.tag for each in root.iter() if "point" in each.get("class", "")}
    assert len({*forms.values()}) == len(forms) == 2
