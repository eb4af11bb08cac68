"""When a row is worse than the one stored for it: against closed forms, and what no order or copy may change."""

import math
from typing import Any

import numpy as np
import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict
from recorded import changed
from scipy import stats

from mechdrift.findings.drift import Item
from mechdrift.stats import PairedProportions
from mechdrift.verdict.baseline import RESOLUTION, Baseline, allowed, difference
from mechdrift.verdict.limits import Limit, Rule
from mechdrift.verdict.row import Row

Z = float(stats.norm.ppf(0.95))
GATE = Rule("gate", Limit(0.8, None, "test"))
GATES = 12


def row(estimate: float = 0.95, error: float = 0.01, n: int = 100, parts: Any = (), **more: Any) -> Row:
    """A row as a record has it; parts: what each item adds."""
    items = [Item(str(number), "k", 0.0, 0.0, float(part)) for number, part in enumerate(parts)]
    ends = {"low": estimate - Z * error, "high": estimate + Z * error}
    usual = {"null": 1.0, "n": n, "evidence": {"kind": "normal"}, "items": items, **keyed()}
    return recorded.row(more.pop("label", "f.m"), estimate, **ends | usual | more)


def keyed(**parts: Any) -> dict[str, Any]:
    """Part of a row: a key that differs in these."""
    key = {"measure": "f.m", "site_rule": "r", "data": "d", "parameters": {"form": "x", "columns": "all"}}
    return {"key": key | parts}


def sampled(seed: int, n: int = 50) -> tuple[Row, Row, np.ndarray]:
    """Two rows of one sample: means of values that the items share but for little."""
    rng = np.random.default_rng(seed)
    first = rng.normal(0.9, 0.3, n)
    second = first + rng.normal(-0.05, 0.02, n)
    rows = [row(round(float(x.mean()), 6), float(x.std(ddof=1) / math.sqrt(n)), n, x / n - 1 / n) for x in (first, second)]
    return rows[0], rows[1], second - first


def test_paired_by_item_is_the_paired_t_interval_with_a_normal_quantile() -> None:
    was, now, moved = sampled(0)
    found = difference(was, now)
    oracle = stats.ttest_rel(moved, np.zeros_like(moved))
    error = (oracle.confidence_interval(0.9).high - moved.mean()) / stats.t.ppf(0.95, len(moved) - 1)
    assert found.how == "paired"
    assert found.evidence.estimate == pytest.approx(moved.mean(), abs=1e-6)  # six digits are compared
    low, high = found.evidence.interval()
    assert (high - low) / 2 == pytest.approx(Z * error)


@pytest.mark.parametrize(
    "change",
    [
        {"items": []},
        {"items": [Item(f"other {number}", "k", 0.0, 0.0, 0.0) for number in range(50)]},
        {"items": [Item(str(number), "k", 0.0, 0.0, math.nan) for number in range(50)]},
        {"n": 49},
        {"estimate": 0.5, "low": 0.4, "high": 0.6},  # its items do not add up to that
    ],
    ids=["no items", "other items", "items without a number", "another n", "do not add up"],
)
def test_unless_both_have_the_same_items_errors_are_added_in_quadrature(change: dict[str, Any]) -> None:
    was, now, _ = sampled(0)
    now = changed(now, **change)
    found = difference(was, now)
    assert found.how == "independent"
    low, high = found.evidence.interval()
    assert was.measured
    assert now.measured
    halves = [(one.high - one.low) / 2 for one in (was.measured, now.measured)]
    assert (high - low) / 2 == pytest.approx(math.hypot(*halves))
    assert found.evidence.estimate == pytest.approx(now.measured.estimate - was.measured.estimate)


def test_shares_of_items_have_a_score_interval_that_keeps_its_width() -> None:
    """60 items, none moved: Tango's interval at no disagreement is z^2 / (n + z^2) wide at either side."""
    shares: dict[str, Any] = {"evidence": {"kind": "paired proportions"}, "null": 0.0}
    was = row(0.0, 0.01, 60, [0.0] * 60, **shares)
    found = difference(was, was)
    assert found.how == "paired"
    assert found.evidence.estimate == 0.0
    assert found.evidence.interval().high == pytest.approx(Z**2 / (60 + Z**2))
    now = row(-3 / 60, 0.03, 60, [-1 / 60] * 4 + [1 / 60] + [0.0] * 55, **shares)
    assert difference(was, now).evidence.interval() == pytest.approx(PairedProportions(1, 4, 60).interval())


def test_where_nothing_was_sampled_a_difference_is_exact() -> None:
    was, now = row(0.9, 0.1, 0), row(0.7, 0.2, 0)
    found = difference(was, now)
    assert found.how == "exact"
    assert found.evidence.interval() == pytest.approx((-0.2, -0.2))


@pytest.mark.parametrize("turned", [False, True])
def test_a_sample_against_what_is_exact_has_the_error_of_the_sample_and_no_n(turned: bool) -> None:
    rows = [row(0.9, 0.01, 100), row(0.8, 0.3, 0)]
    found = difference(*(rows[::-1] if turned else rows))
    assert (found.how, found.evidence.n) == ("independent", 0)
    low, high = found.evidence.interval()
    assert (high - low) / 2 == pytest.approx(Z * 0.01)


@pytest.mark.parametrize(("better", "down", "up"), [("higher", True, False), ("lower", False, True), ("neither", True, True)])
def test_which_way_is_worse(better: str, down: bool, up: bool) -> None:
    baseline = Baseline("b", (row(better=better),))
    for estimate, worse in ((0.75, down), (1.15, up)):
        result = baseline.against(row(estimate, better=better), GATE, GATES)
        assert (result.status == "worse") == worse
        assert result.difference == pytest.approx(estimate - 0.95)


@pytest.mark.parametrize(("errors", "status"), [(2.0, "no worse"), (2.6, "no worse"), (2.7, "worse")])
def test_the_level_is_that_of_drifted(errors: float, status: str) -> None:
    """z(1 - .05 / 12) is 2.64, beyond the tolerance, here 0.1."""
    error = math.hypot(0.01, 0.01)
    result = Baseline("b", (row(),)).against(row(0.95 - 0.1 - errors * error), Rule("gate", GATE.limit, 0.1), GATES)
    assert result.status == status
    assert result.tolerance == pytest.approx(0.1)
    assert result.p_value == pytest.approx(stats.norm.cdf(-errors), rel=0.02)  # RESOLUTION is added to the tolerance


def test_where_no_way_is_better_the_level_is_halved() -> None:
    error = math.hypot(0.01, 0.01)
    moved = row(0.95 + 2.7 * error, better="neither")
    result = Baseline("b", (row(better="neither"),)).against(moved, Rule("gate", GATE.limit, 0.0), GATES)
    assert result.status == "no worse"
    assert result.p_value == pytest.approx(2 * stats.norm.cdf(-2.7), rel=0.02)


@pytest.mark.parametrize(
    ("rule", "was", "tolerance"),
    [
        (GATE, {}, 0.02),  # a tenth of 1 - 0.8
        (Rule("gate", Limit(-0.05, 0.1, "test")), {"null": 0.0}, 0.005),  # of the nearest bound
        (Rule("gate", Limit(None, 0.1, "test")), {"null": None, "estimate": 0.02}, 0.008),  # no null: from where it was
        (Rule("gate", GATE.limit, 0.3), {}, 0.3),
        (Rule("gate", GATE.limit, 0.0), {}, 0.0),
        (Rule("report", None), {}, 0.0),
    ],
)
def test_how_much_worse_a_row_may_be(rule: Rule, was: dict[str, Any], tolerance: float) -> None:
    assert allowed(rule, row(**was)) == pytest.approx(tolerance)


def test_what_two_machines_round_differently_is_not_worse_and_ten_times_that_is() -> None:
    exact = Baseline("b", (row(0.9, 0.0, 0),))
    rule = Rule("gate", GATE.limit, 0.0)
    assert exact.against(row(0.9 - RESOLUTION / 2, 0.0, 0), rule, GATES).status == "no worse"
    assert exact.against(row(0.9 - RESOLUTION * 10, 0.0, 0), rule, GATES).status == "worse"


def test_rows_are_matched_by_key_and_never_by_name() -> None:
    other = row(0.5, label="f.m", **keyed(data="mine"))
    same = row(0.9, label="another name")
    result = Baseline("b", (other, same)).against(row(), GATE, GATES)
    assert result.was == 0.9
    result = Baseline("b", (other,)).against(row(), GATE, GATES)
    assert (result.status, result.difference) == ("incomparable", None)
    assert result.reason == "data 'mine' there, 'd' here"
    assert Baseline("b", (row(label="x", **keyed(measure="x")),)).against(row(), GATE, GATES).status == "new"


def test_another_version_of_the_measure_is_not_compared() -> None:
    result = Baseline("b", (row(version=2),)).against(row(0.1), GATE, GATES)
    assert (result.status, result.difference, result.p_value) == ("incomparable", None, None)
    assert result.reason == "measured by version 2 there, by version 1 here"


def test_a_row_without_a_number_has_lost_it() -> None:
    nothing = {"status": "absent", "estimate": None, "low": None, "high": None}
    baseline = Baseline("b", (row(label="any"), row(label="gone", **keyed(measure="gone"))))
    for parameters in ({}, {"form": "x"}, {"form": "x", "columns": "all"}):  # those that it was asked with, or some of them
        requested = changed(row(), **nothing | keyed(site_rule=None, data=None, parameters=parameters))
        assert baseline.against(requested, GATE, GATES).status == "lost"
        assert [was.label for was in baseline.forgotten([requested])] == ["gone"]
    otherwise = changed(requested, label="y", **keyed(site_rule=None, data=None, parameters={"form": "y"}))
    assert baseline.against(otherwise, GATE, GATES).status == "new"


@pytest.mark.parametrize("missing", ["estimate", "low", "high"])
def test_what_is_not_a_number_is_not_no_worse(missing: str) -> None:
    result = Baseline("b", (row(),)).against(changed(row(), **{missing: None}), GATE, GATES)
    assert result.status == "incomparable"


ROWS = st.builds(
    lambda estimate, error, n, parts, better, kind: row(
        estimate, error, n, parts[:n] if len(parts) >= n else (), better=better, evidence={"kind": kind}
    ),
    st.floats(-2, 2),
    st.floats(0, 1),
    st.integers(0, 5),
    st.lists(st.floats(-0.2, 0.2), max_size=5),
    st.sampled_from(["higher", "lower", "neither"]),
    st.sampled_from(["normal", "paired proportions", "proportion", "spread"]),
)


@given(ROWS, st.integers(1, 50))
def test_a_row_is_never_worse_than_itself_and_differs_by_exactly_nothing(one: Row, gates: int) -> None:
    result = Baseline("b", (one,)).against(one, Rule("gate", GATE.limit, 0.0), gates)
    assert (result.status, result.difference) == ("no worse", 0.0)
    assert result.low is not None
    assert result.high is not None
    assert result.low <= 0.0 <= result.high


@given(ROWS, ROWS, st.permutations(range(4)))
def test_the_order_of_rows_and_items_is_no_matter(was: Row, now: Row, order: list[int]) -> None:
    others = [row(0.1, **keyed(measure=str(number)), label=str(number)) for number in range(3)]
    rows = [was, *others]
    shuffled = Baseline("b", tuple(rows[place] for place in order))
    turned = changed(now, items=now.items[::-1])
    first, second = (each.against(of, GATE, GATES) for each, of in ((Baseline("b", tuple(rows)), now), (shuffled, turned)))
    for name, value in asdict(first).items():
        assert getattr(second, name) == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value)


@given(ROWS, ROWS, st.floats(0, 1), st.floats(0, 1))
def test_more_leave_is_never_worse(was: Row, now: Row, tolerance: float, more: float) -> None:
    now = changed(now, better=was.better)
    p_values = [
        Baseline("b", (was,)).against(now, Rule("gate", None, leave), GATES).p_value for leave in (tolerance, tolerance + more)
    ]
    assert p_values[0] is not None
    assert p_values[1] is not None
    assert p_values[0] <= p_values[1] + 1e-12
