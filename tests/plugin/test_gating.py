"""What makes a run fail: verdicts, waivers, a profile of one's own, and the marker on a test."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from by_hand import suite_by_hand

from mechdrift.checkpoints.resolve import resolve
from mechdrift.verdict.profiles import load_profile

PAIR = ("organism:base", "organism:instruct", "test_own.py")
ROW = "truth.clean_gap"
MODES = pytest.mark.parametrize(
    "mode", [("-p", "no:xdist"), pytest.param(("-n1",), marks=pytest.mark.nightly)], ids=["no xdist", "-n1"]
)


def waived(pytester: pytest.Pytester, day: date, row: str = ROW) -> tuple[str, str]:
    """A profile in the project that waives a row until a day; those of these tests are no neighbours of midnight."""
    pytester.makepyprojecttoml(
        f'[tool.mechdrift.profiles.ours]\nextends = "base-to-post"\n[tool.mechdrift.profiles.ours.waivers."{row}"]\n'
        f'owner = "jane"\nreason = "ticket 42"\nexpires = {day}\n'
    )
    return "--mechdrift-profile", "ours"


@MODES
def test_a_waived_row_lets_the_run_pass_and_is_shown(
    compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    pytester.makepyfile(test_own=suite_by_hand(estimate=0.2))
    day = date.today() + timedelta(7)
    run = compare(*PAIR, *waived(pytester, day), "-rx", *mode)
    assert run.code == 0, run.out
    assert run.verdicts() == {ROW: "drifted"}
    assert run.rows[ROW]["waiver"] == {
        "owner": "jane",
        "reason": "ticket 42",
        "expires": day.isoformat(),
        "expired": False,
    }
    assert "1 xfailed" in run.out
    assert run.out.count(f"waived by jane until {day} (ticket 42)") == 2  # in the table, and why the test is no failure


def test_a_profile_is_found_where_pytest_is_started_whatever_the_checkpoints(
    compare: Callable[..., Any], pytester: pytest.Pytester
) -> None:
    """Pytest's rootdir goes by arguments that are folders, and so may be a checkpoint's."""
    pytester.makepyfile(test_own=suite_by_hand(estimate=0.2))
    away = resolve("organism:base").folder
    run = compare(away, away.parent / "instruct", "test_own.py", *waived(pytester, date.today() + timedelta(7)))
    assert run.code == 0, run.out + run.err
    assert run.rows[ROW]["waiver"]["owner"] == "jane"


@pytest.mark.parametrize("estimate", [0.2, 1.0])
def test_an_expired_waiver_fails_whatever_the_row_says(
    compare: Callable[..., Any], pytester: pytest.Pytester, estimate: float
) -> None:
    pytester.makepyfile(test_own=suite_by_hand(estimate=estimate))
    run = compare(*PAIR, *waived(pytester, date.today() - timedelta(7)))
    assert run.code == 1, run.out
    assert run.rows[ROW]["verdict"] == ("held" if estimate == 1 else "drifted")
    assert "waiver of jane expired on" in run.out
    assert "renew it in the profile, or delete it" in run.out


@pytest.mark.parametrize(
    ("raises", "code", "verdict"),
    [("Unmeasurable('nothing to read')", 0, "unmeasurable"), ("RuntimeError('a bug')", 1, "error")],
)
def test_a_waiver_is_for_rows_and_not_for_bugs(
    compare: Callable[..., Any], pytester: pytest.Pytester, raises: str, code: int, verdict: str
) -> None:
    pytester.makepyfile(test_own=suite_by_hand(raises=raises))
    run = compare(*PAIR, *waived(pytester, date.today() + timedelta(7)))
    assert run.code == code, run.out
    assert run.verdicts() == {ROW: verdict}


@pytest.mark.parametrize(
    "suite", [{"estimate": 0.505}, {"raises": "Unmeasurable('nothing to read')"}], ids=["undecided", "unmeasurable"]
)
def test_fail_on_lets_other_verdicts_pass_and_says_so(
    compare: Callable[..., Any], pytester: pytest.Pytester, suite: dict[str, Any]
) -> None:
    pytester.makepyfile(test_own=suite_by_hand(**suite))
    run = compare(*PAIR, "--mechdrift-fail-on", "drifted", "-rxs")
    assert run.code == 0, run.out
    assert "not among --mechdrift-fail-on" in run.out


@MODES
def test_a_marker_goes_before_the_profile(compare: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    pytester.makepyfile(test_own=suite_by_hand(estimate=0.7, marks="@pytest.mark.limit(at_least=0.9)"))
    assert load_profile("base-to-post").rule(ROW).limit.at_least == 0.5  # type: ignore[union-attr]
    run = compare(*PAIR, *mode)
    assert run.code == 1, run.out
    assert run.rows[ROW]["limit"] == {"at_least": 0.9, "at_most": None, "provenance": "marker"}


def test_a_marker_may_change_the_role_alone(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=suite_by_hand(estimate=0.2, marks="@pytest.mark.limit(role='report')"))
    run = compare(*PAIR)
    assert run.code == 5, run.out
    assert run.rows[ROW]["role"] == "report"
    assert run.rows[ROW]["limit"]["at_least"] == 0.5


@pytest.mark.parametrize("marker", ["limit(0.9)", "limit(at_least=float('nan'))"])
def test_a_marker_that_is_no_limit_stops_the_run(compare: Callable[..., Any], pytester: pytest.Pytester, marker: str) -> None:
    pytester.makepyfile(test_own=suite_by_hand(marks=f"@pytest.mark.{marker}"))
    run = compare(*PAIR)
    assert run.code == 4
    assert "test_own.py::test_gap, marked limit" in run.out + run.err
