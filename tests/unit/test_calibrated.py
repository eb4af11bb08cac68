"""Limits from null runs: by hand, as properties, and against a planted outlier."""

import math
import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats as scipy_stats

from mechdrift.findings.drift import Better, Drift
from mechdrift.findings.registry import Finding
from mechdrift.session.rows import RequestedRow, judged_row
from mechdrift.stats import Normal, PairedProportions, Spread
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.calibrated import NullRun, calibrated, false_alarms, left_out, rounded_up, with_limits
from mechdrift.verdict.limits import Limit, Profile, Rule
from mechdrift.verdict.row import StoredRow

ERRORS = 1.6448536 + 2.8652  # 1.645 + z(1 - .05 / 24): 12 gated rows


def row(label: str, evidence: Any, null: float | None = 1.0, better: Better = "higher") -> StoredRow:
    """A row as a record has it."""
    name = label.partition("[")[0]
    drift = Drift(name, evidence, null, "u", better, "s", "r", "d")
    requested = RequestedRow(Finding(name, "", "", "", ""), tuple(part.split("=") for part in re.findall(r"\w+=\w+", label)))
    found = msgspec.to_builtins(judged_row(requested, drift, Profile("p", {}, 1)))
    return msgspec.convert(found | {"items": 0, "maps": []}, StoredRow)


def run(name: str, *rows: StoredRow, post: str | None = None) -> NullRun:
    return NullRun(name, post or name, {each.label: each for each in rows})


def profile(low: float | None = 0.5, high: float | None = None, gates: int = 12, name: str = "a.b") -> Profile:
    return Profile("p", {name: Rule("gate", Limit(low, high, "before"))}, gates)


def test_by_hand_where_the_floor_is_what_counts() -> None:
    runs = [run("a", row("a.b", Normal(1.0, 0.01, 100))), run("b", row("a.b", Normal(0.99, 0.02, 90)))]
    (one,) = calibrated(runs, profile(), margin=0.25, provenance="why")
    assert one.supported == pytest.approx(ERRORS * 0.02, rel=1e-4)
    assert one.worst == pytest.approx(0.01 + 1.6448536 * 0.02, rel=1e-4)
    assert (one.low, one.high, one.n) == (0.99, 1.0, 90)
    assert one.limit == Limit(0.88, None, "why")  # 1.25 x .0902 = .1128, rounded up to two digits: .12
    assert not one.too_wide
    (again,) = calibrated(runs, profile(0.88), margin=0.25, provenance="why")
    assert (again.limit, again.too_wide) == (one.limit, ""), "as wide as the profile's is not wider"


def test_the_range_of_what_is_exact_is_no_error() -> None:
    (one,) = calibrated([run("a", row("a.b", Spread((0.9, 0.95, 1.0))))], profile(), margin=0)
    assert one.supported == 0
    assert one.worst == pytest.approx(0.1)
    assert one.limit == Limit(0.9, None, "calibrated: 1 null runs")


def test_by_hand_where_a_null_run_came_further() -> None:
    runs = [run("a", row("a.b", Normal(0.8, 0.001, 100))), run("b", row("a.b", Normal(1.3, 0.001, 100)))]
    (one,) = calibrated(runs, profile(0.9), margin=0.5)
    assert one.worst == pytest.approx(0.2 + 1.6448536 * 0.001, rel=1e-4)  # what is better than no change is no matter
    assert one.limit == Limit(0.69, None, "calibrated: 2 null runs")
    assert one.too_wide == "wider than >= 0.9, which the profile demands"


def test_two_sides_are_as_far_and_the_loss_of_everything_is_said() -> None:
    runs = [run("a", row("a.b", Normal(0.02, 0.01, 100), 0.0, "neither")), run("b", row("a.b", Normal(-0.3, 0.01, 9), 0.0))]
    (one,) = calibrated(runs, profile(-1, 1), margin=0)
    assert one.limit is not None
    assert (one.limit.at_least, one.limit.at_most) == (-0.32, 0.32)  # .3 + 1.645 x .01 = .3164
    (one,) = calibrated([run("a", row("a.b", Normal(0.3, 0.2, 10)))], profile(0.1))
    assert one.too_wide == "too wide: the loss of everything would pass"


def test_rows_of_a_finding_share_a_limit_and_a_row_that_is_named_has_its_own() -> None:
    rows = row("a.b[x=1]", Normal(0.9, 0.001, 10)), row("a.b[x=2]", Normal(0.6, 0.001, 10))
    (one,) = calibrated([run("a", *rows)], profile(), margin=0)
    assert (one.label, one.low, one.high) == ("a.b", 0.6, 0.9)
    rules = profile().rules | {"a.b[x=1]": Rule("gate", Limit(0.1, None, "before"))}
    both = {one.label: one.limit for one in calibrated([run("a", *rows)], Profile("p", rules, 12), margin=0)}
    assert {label: limit and limit.at_least for label, limit in both.items()} == {"a.b": 0.59, "a.b[x=1]": 0.89}


@pytest.mark.parametrize(
    ("rows", "low"),
    [
        ([row("a.b", Normal(0.9, 0.01, 10), null=None)], 0.5),  # of one model alone
        ([row("a.b", Normal(0.9, 0.01, 10))], 1.0),  # a change is demanded
        ([row("a.other", Normal(0.9, 0.01, 10))], 0.5),  # not in the profile
        ([row("a.b", Normal(math.nan, 0.01, 10))], 0.5),
        ([], 0.5),
    ],
)
def test_what_null_runs_say_nothing_of_stays(rows: list[StoredRow], low: float) -> None:
    assert calibrated([run("a", *rows)], profile(low)) == []


@pytest.mark.parametrize(("only", "labels"), [("a", ["a.b", "a.c"]), ("a.b", ["a.b"]), ("a.c[x=1]", []), ("b", [])])
def test_a_family_a_finding_or_a_row_is_made_alone(only: str, labels: list[str]) -> None:
    rules = {name: Rule("gate", Limit(0.1, None, "before")) for name in ("a.b", "a.c")}
    runs = [run("a", row("a.b", Normal(0.9, 0.01, 10)), row("a.c[x=1]", Normal(0.9, 0.01, 10)))]
    assert [one.label for one in calibrated(runs, Profile("p", rules, 2), only=[only])] == labels


def test_where_every_run_was_exactly_no_change_the_limit_stays() -> None:
    (one,) = calibrated([run("a", row("a.b", Spread((1.0, 1.0))))], profile())
    assert one.limit is None
    assert with_limits(profile(), [one]).rules == profile().rules


@given(st.floats(1e-5, 1e5))
def test_rounding_is_outward_and_by_a_tenth_at_most(distance: float) -> None:
    rounded, _ = rounded_up(distance)
    assert distance * (1 - 1e-9) <= rounded <= distance * 1.1 + 1e-9


PARTS = st.lists(st.tuples(st.floats(0.5, 1.5), st.floats(1e-4, 0.3)), min_size=1, max_size=6)
COUNTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6)


@given(PARTS, st.integers(1, 60), st.floats(0, 1))
def test_every_run_that_a_limit_was_made_from_is_held(parts: list[tuple[float, float]], gates: int, margin: float) -> None:
    runs = [run(str(place), row("a.b", Normal(*part, 50))) for place, part in enumerate(parts)]
    for before in (profile(0.5, None, gates), profile(0.5, 1.5, gates)):
        (one,) = calibrated(runs, before, margin)
        assert false_alarms(runs, lambda _, made=one, was=before: with_limits(was, [made])).whole == 0  # type: ignore[misc]


@given(COUNTS, st.integers(1, 60))
def test_so_are_shares_of_few(parts: list[tuple[int, int]], gates: int) -> None:
    runs = [run(str(place), row("a.b", PairedProportions(*part, 50), 0.0, "neither")) for place, part in enumerate(parts)]
    before = profile(-0.9, 0.9, gates)
    (one,) = calibrated(runs, before)
    for each in runs:
        assert judged_again(each.rows["a.b"], with_limits(before, [one])).verdict == "held"


def test_a_post_is_judged_by_limits_that_do_not_know_it() -> None:
    """One post that moved, run with two seeds: with limits of its own it passes, with those of the others it does not."""
    usual = [run(f"u{place}", row("a.b", Normal(1.0, 0.01, 100))) for place in range(8)]
    moved = [run(f"m{seed}", row("a.b", Normal(0.8, 0.01, 100)), post="moved") for seed in range(2)]
    runs, before = usual + moved, profile(0.1)
    own = with_limits(before, calibrated(runs, before))
    assert false_alarms(runs, lambda _: own).whole == 0
    alarms = left_out(runs, before)
    assert alarms is not None
    assert (alarms.runs, alarms.whole, dict(alarms.by_row)) == (10, 2, {"a.b": 2})
    assert left_out(moved, before) is None


def test_a_gate_without_a_number_is_a_false_alarm_and_a_reported_row_is_none() -> None:
    lost = replace(row("a.b", Normal(1.0, 0.01, 100)), evidence=None, estimate=None, verdict="unmeasurable", reason="x")
    assert false_alarms([run("a", lost)], lambda _: profile()).by_row == {"a.b": 1}
    shown = Profile("p", {"a.b": Rule("report", Limit(0.5, None, "x"))}, 1)
    assert false_alarms([run("a", lost)], lambda _: shown).whole == 0


def test_false_alarms_of_fresh_runs_are_as_rare_as_the_normal_distribution_says() -> None:
    """Of one row: the limit is 1.25 x 3.605 errors off, so a fresh run fails whose estimate is 1.645 short of that."""
    rng = np.random.default_rng(0)

    def drawn(count: int) -> list[NullRun]:
        return [run(str(place), row("a.b", Normal(value, 1.0, 100), 0.0)) for place, value in enumerate(rng.normal(size=count))]

    before = profile(-100.0, gates=1)
    # A margin of nothing and few runs, so that there is something to count.
    (one,) = calibrated(drawn(3), before, margin=0)
    assert one.limit is not None
    assert one.limit.at_least is not None
    expected = scipy_stats.norm.cdf(one.limit.at_least + 1.6448536)
    alarms = false_alarms(drawn(4000), lambda _: with_limits(before, [one]))
    low, high = scipy_stats.binomtest(alarms.whole, alarms.runs).proportion_ci(0.999, method="exact")
    assert low <= expected <= high
    assert alarms.whole > 0
