"""The verdict of a test: from its drift, or from why there is none, to a row."""

from dataclasses import replace

import pytest

from mechdrift.checkpoints.chain import BASE_TO_POST, WITHOUT
from mechdrift.checkpoints.pair import Pair
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.labels import row_of
from mechdrift.report import text
from mechdrift.session.marks import requested_by
from mechdrift.session.rows import RequestedRow, judged_row, unmeasured_row, worse_of
from mechdrift.session.state import ROW, STATE, State
from mechdrift.verdict.failing import fails, holds
from mechdrift.verdict.row import Row, Verdict


class Judge:
    """Turns a Drift into a row and fails the test when the row is a gate that did not hold."""

    def __init__(self, request: pytest.FixtureRequest, pair: Pair) -> None:
        """Judge for one test, of one pair."""
        self._request = request
        self._pair = pair

    def judge(self, drift: Drift) -> None:
        """Judge by the run's profile; pytest.fail with the row in words where it makes the run fail.

        A gate that is worse than its baseline fails too. One that does not hold and yet lets the run pass, by a waiver or by
        --mechdrift-fail-on, is an expected failure.
        """
        state = self._request.config.stash[STATE]
        requested = requested_by(self._request.node, state.profile)
        if requested is None or requested.finding.name != drift.measure:
            raise ValueError(f"the test is not marked finding({drift.measure!r}), which it judges")
        if self._pair.identical and state.settings.identity_shortcut:
            drift = drift.of_identical()
        row = against_baseline(state, requested, judged_row(requested, drift, state.profile))
        self._request.node.stash[ROW] = row
        if fails(row, state.settings.fail_on):
            pytest.fail(text.failure(row, again(state, requested)), pytrace=False)
        if row.role == "gate" and not holds(row):
            pytest.xfail(text.let_pass(row))


def again(state: State, requested: RequestedRow) -> str:
    """The command that measures one finding again, on the same commits of the two checkpoints."""
    ends_with_run = WITHOUT in requested.between.later  # post without a stage does
    between = BASE_TO_POST if ends_with_run else requested.between
    base, post = (point.pinned for point in state.inputs.pair(between).points)
    baseline = None if between.step else state.settings.baseline
    settings = replace(state.settings, base=base, posts=(("post", post),), baseline=baseline)
    return settings.command(row_of(requested.label))


def without_number(state: State, requested: RequestedRow, error: BaseException | None) -> Row:
    """A row for a test that gave none, or that ended with an exception."""
    if error is None:
        return unmeasured(state, requested, "error", "the test ended without a verdict")
    if isinstance(error, Unmeasurable | pytest.skip.Exception):
        return unmeasured(state, requested, "unmeasurable", str(error))
    reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return unmeasured(state, requested, "error", reason)


def unmeasured(state: State, requested: RequestedRow, verdict: Verdict, reason: str) -> Row:
    """The row of a test that gave no number."""
    return against_baseline(state, requested, unmeasured_row(requested, state.profile, verdict, reason))


def against_baseline(state: State, requested: RequestedRow, row: Row) -> Row:
    """The row with what its baseline says of it; of a step none does."""
    return row if requested.between.step else state.request.baselines.against(row, requested.rule(state.profile))


def add_row(state: State, row: Row) -> bool:
    """Take a row in, unless one of its name that is further from held is there already; whether it is new."""
    known = state.rows.get(row.label)
    if row == known or (known is not None and worse_of(known, row) != row):
        return False
    state.rows[row.label] = row
    return True
