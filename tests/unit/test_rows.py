"""Which rows make a run fail."""

from hypothesis import given
from hypothesis import strategies as st

from mechdrift.rows import NOT_HELD, Row, fails

VERDICTS = st.sampled_from(["held", "reported", "error", *sorted(NOT_HELD)])
FAIL_ON = st.sets(st.sampled_from(sorted(NOT_HELD)))


def row(verdict: str, role: str = "gate", expired: bool | None = None) -> Row:
    return {"role": role, "verdict": verdict, "waiver": None if expired is None else {"expired": expired}}


@given(VERDICTS, FAIL_ON, st.booleans())
def test_a_reported_row_never_fails_and_an_expired_waiver_always(verdict: str, fail_on: set[str], waived: bool) -> None:
    assert not fails(row(verdict, "report", False if waived else None), fail_on)
    assert fails(row(verdict, "report", True), fail_on)
    assert fails(row(verdict, "gate", True), fail_on)


@given(st.text() | VERDICTS, FAIL_ON)
def test_a_gate_fails_unless_it_is_held_or_its_verdict_is_let_pass(verdict: str, fail_on: set[str]) -> None:
    assert fails(row(verdict), fail_on) == (verdict != "held" and verdict not in NOT_HELD - fail_on)


@given(VERDICTS, FAIL_ON)
def test_a_waiver_lets_every_verdict_pass_and_no_bug(verdict: str, fail_on: set[str]) -> None:
    assert fails(row(verdict, "gate", False), fail_on) == (verdict not in NOT_HELD | {"held"})
