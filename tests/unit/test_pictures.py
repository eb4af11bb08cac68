"""Pictures: places of numbers in closed form, and what is drawn of a row."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import items, record, row, written

from mechdrift.report.pictures import Picture, Point, heat_map, neurons, rates, series, strip
from mechdrift.report.svg import Scale, scale
from mechdrift.report.whole import read_whole


def shapes(drawing: str, kind: str) -> list[dict[str, str]]:
    """Attributes of the shapes of a class."""
    root = ElementTree.fromstring(drawing)  # noqa: S314, our own
    return [each.attrib for each in root.iter() if kind in each.get("class", "").split()]


def test_a_scale_is_linear_and_stops_at_its_ends() -> None:
    up = Scale(1.0, 3.0, 100.0, 0.0)
    assert [up(number) for number in (1.0, 1.5, 2.0, 3.0, 9.0, -9.0)] == [100, 75, 50, 0, 0, 100]
    assert Scale(0.0, 1.0, 0, 1).ticks() == pytest.approx([0, 0.5, 1])


@given(st.lists(st.floats() | st.none()))
def test_a_scale_holds_all_numbers_or_is_none(numbers: list[float | None]) -> None:
    """Ticks: few, apart, and within."""
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    found = scale(numbers, 0, 100)
    if found is None:
        assert not known or max(known) - min(known) > 1e307 or max(map(abs, known)) > 1e307 or max(map(abs, known)) < 1e-299 or (
            max(known) - min(known) < 1e-8 * max(map(abs, known))
        )  # fmt: skip
        return
    assert all(0 < found(number) < 100 or found(number) == pytest.approx(50, abs=50) for number in known)
    ticks = found.ticks()
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted({*ticks})
    assert all(-1e-6 <= (tick - found.low) / (found.high - found.low) <= 1 + 1e-6 for tick in ticks)


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


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e308, 5e-324])
def test_numbers_beyond_reason_are_drawn_or_left_out(bad: float) -> None:
    assert heat_map("m", ["a", "b"], np.array([[bad, -bad]]), "block").drawing
    strip(row("a.b", limit={"at_least": 0.8, "at_most": bad if math.isfinite(bad) else None}))


def test_shares_are_shown_only_where_their_arms_differ_by_the_estimate(tmp_path: Path) -> None:
    asked = items([0, 0, 1, 0], [1, 1, 1, 0])
    rows = [
        row("refusal.ablation", 0.5, unit="c, own minus plain", items=asked),
        row("refusal.other", 0.4, unit="c, own minus plain", items=asked),
        row("refusal.graded", 0.5, unit="c, own minus plain", items=items([0.25], [0.75])),
        row("refusal.harmful", 0.9, evidence={"kind": "proportion", "successes": 90, "n": 100}),
        row("refusal.none", None),
    ]
    whole = read_whole(written(tmp_path / "r.json", record(*rows)))
    picture = rates(whole.rows, whole.items)
    assert picture
    assert [line[0::3] for line in picture.lines] == [("ablation", "0.250"), ("ablation", "0.750"), ("harmful", "0.900")]
    widths = [float(bar["width"]) for bar in shapes(picture.drawing, "bar")]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.05)
    assert rates(whole.rows[-1:], whole.items) is None


def test_neurons_differ_by_more_than_colour(tmp_path: Path) -> None:
    both = items([-0.1, -0.2], [-0.1, -0.2], "shared") + items([-0.3], [-0.1], "base alone")
    whole = read_whole(written(tmp_path / "r.json", record(row("confidence.overlap", items=both))))
    picture = neurons(whole.rows[0], whole.items["confidence.overlap"])
    assert picture
    root = ElementTree.fromstring(picture.drawing)  # noqa: S314, our own
    forms = {each.get("class"): each.tag for each in root.iter() if "point" in each.get("class", "")}
    assert len({*forms.values()}) == len(forms) == 2
