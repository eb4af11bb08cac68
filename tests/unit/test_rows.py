"""Which rows make a run fail, and what a row names."""

import inspect
from dataclasses import replace
from types import ModuleType
from typing import get_args

import msgspec
import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.findings.drift import Better, Drift, Item
from mechdrift.findings.registry import registered
from mechdrift.session.rows import RequestedRow, judged_row
from mechdrift.stats import Normal
from mechdrift.verdict import record as record_types
from mechdrift.verdict import row as row_types
from mechdrift.verdict.again import drift_of
from mechdrift.verdict.fail_on import FAIL_ON as USUAL
from mechdrift.verdict.fail_on import FailOn
from mechdrift.verdict.failing import NOT_HELD, fails, holds
from mechdrift.verdict.profiles import load_profile
from mechdrift.verdict.row import Row, Verdict

VERDICTS = st.sampled_from(["held", "reported", "error", *sorted(NOT_HELD)])
AGAINST = st.sampled_from([None, "no worse", "worse", "incomparable", "lost", "new"])
FAIL_ON = st.sets(st.sampled_from(sorted(NOT_HELD)))


def row(verdict: str, role: str = "gate", expired: bool | None = None, against: str | None = None) -> Row:
    waiver = None if expired is None else recorded.waiver(expired)
    return recorded.row("a.b", 0.5, verdict, role=role, waiver=waiver, baseline=against and recorded.against(against))


@given(VERDICTS, FAIL_ON, st.booleans(), AGAINST)
def test_a_reported_row_never_fails_and_an_expired_waiver_always(
    verdict: str, fail_on: set[str], waived: bool, against: str | None
) -> None:
    assert not fails(row(verdict, "report", False if waived else None, against), fail_on)
    assert fails(row(verdict, "report", True, against), fail_on)
    assert fails(row(verdict, "gate", True, against), fail_on)


@given(VERDICTS, FAIL_ON)
def test_a_gate_fails_unless_it_is_held_or_its_verdict_is_let_pass(verdict: str, fail_on: set[str]) -> None:
    assert bool(fails(row(verdict), fail_on)) == (verdict != "held" and verdict not in NOT_HELD - fail_on)


@given(VERDICTS)
def test_unless_its_user_says_otherwise_a_gate_fails_by_every_verdict_but_held(verdict: str) -> None:
    assert fails(row(verdict), USUAL) == {verdict} - {"held"}


@given(VERDICTS, FAIL_ON, AGAINST)
def test_a_waiver_lets_every_verdict_pass_and_no_bug(verdict: str, fail_on: set[str], against: str | None) -> None:
    assert bool(fails(row(verdict, "gate", False, against), fail_on)) == (verdict not in NOT_HELD | {"held"})


@given(VERDICTS, FAIL_ON, AGAINST)
def test_a_gate_fails_by_its_baseline_as_by_a_verdict(verdict: str, fail_on: set[str], against: str | None) -> None:
    also = {"worse": "drifted", "incomparable": "unmeasurable"}.get(str(against))
    alone = fails(row(verdict), fail_on)
    assert fails(row(verdict, against=against), fail_on) == alone | ({also} & fail_on)
    assert holds(row(verdict, against=against)) == (verdict == "held" and also is None)


@pytest.mark.parametrize("module", [record_types, row_types])
def test_a_record_never_changes_and_takes_its_fields_by_name_alone(module: ModuleType) -> None:
    """Minor versions add fields among the others, so nothing may go by their order; two ends have no other."""
    types = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    for one in (one for one in types if issubclass(one, msgspec.Struct) and one is not row_types.Range):
        kinds = {parameter.kind for parameter in inspect.signature(one).parameters.values()}
        assert (one.__struct_config__.frozen, kinds) == (True, {inspect.Parameter.KEYWORD_ONLY}), one


@pytest.mark.parametrize(
    ("better", "estimate", "null", "named"),
    [
        ("higher", 0.2, 0.0, ["b", "d"]),
        ("lower", 0.2, 0.0, ["c", "a"]),
        ("neither", 0.2, 0.0, ["c", "a"]),
        ("neither", -0.2, 0.0, ["b", "d"]),
        ("neither", 0.2, 0.5, ["b", "d"]),  # it went down from what no change is
    ],
)
def test_a_row_names_the_items_that_take_it_the_wrong_way(better: Better, estimate: float, null: float, named: list[str]) -> None:
    parts = {"a": 0.1, "b": -0.3, "c": 0.4, "d": -0.2, "e": 0.0}
    items = tuple(Item(name, "kind", 0.0, part, part) for name, part in parts.items())
    evidence, words = Normal(estimate, 0.1, 5), ("site", "rule", "data")
    drift = Drift("knowledge.depth_shift", evidence, null, "unit", better, *words, note="note", items=items)
    requested = RequestedRow(registered()["knowledge.depth_shift"], (("form", "judged"),))
    found = judged_row(requested, drift, load_profile("base-to-post"))
    assert [item.name for item in found.contributors] == named
    for name in ("unit", "better", "site", "note", "estimate", "null", "post_lacks", "fewer_left"):
        assert getattr(found, name) == getattr(drift, name), name


def test_a_stored_row_has_the_sibling_by_which_it_was_judged() -> None:
    """Else a row whose post lacks the effect could not be judged again."""
    absolute = Drift("truth.judgement_accuracy", Normal(-0.4, 0.01, 90), 0.0, "accuracy", "higher", "here", "by hand", "none")
    lost = replace(absolute, measure="truth.clean_gap", null=1.0, post_lacks=True, sibling=absolute)
    row = judged_row(RequestedRow(registered()["truth.clean_gap"]), lost, load_profile("base-to-post"))
    sibling = drift_of(row).sibling
    assert sibling is not None
    assert (sibling.measure, sibling.estimate, sibling.null, sibling.better) == ("truth.judgement_accuracy", -0.4, 0.0, "higher")


def test_verdicts_that_fail_a_run_are_verdicts() -> None:
    assert {*USUAL} == {*get_args(FailOn)} < {*get_args(Verdict)}
