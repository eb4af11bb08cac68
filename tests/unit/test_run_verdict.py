"""The verdict of a run: held is for gates that were measured and held, and every other way to exit 0 has a word of its own."""

from pathlib import Path
from typing import Any

import pytest
from recorded import record, row, typed, waiver, written

from mechdrift.report.terminal import title
from mechdrift.session.own_record import Started
from mechdrift.verdict.run_verdict import run_verdict

HELD, DRIFTED = row("a.held"), row("a.drifted", 0.5, "drifted")
OPEN, NONE = row("a.open", 0.79, "undecided"), row("a.none", None)
TOLD = row("a.told", 0.5, "drifted", role="report")


def of(*rows: Any, code: int, fail_on: tuple[str, ...] = ("drifted", "undecided", "unmeasurable"), **more: Any) -> dict[str, Any]:
    result = record(*rows, exit_code=code)
    result["settings"] |= {"fail_on": list(fail_on)} | more.pop("settings", {})
    result["inputs"] |= more
    return result


@pytest.mark.parametrize(
    ("result", "verdict", "message"),
    [
        (of(HELD, TOLD, code=0), "held", ""),
        (of(HELD, OPEN, code=0, fail_on=("drifted",)), "allowed", "1 of 2 gates held; passes by --mechdrift-fail-on drifted"),
        (of(HELD, row("a.b", None, waiver=waiver()), code=0), "allowed", "1 of 2 gates held; passes by 1 waiver"),
        (of(OPEN, NONE, code=0, fail_on=("drifted",)), "allowed", "0 of 2 gates held; passes by --mechdrift-fail-on drifted"),
        (of(TOLD, code=0, settings={"gated_as_shipped": 0, "profile": "report"}), "ungated", "profile report has no gates"),
        (of(TOLD, code=0), "error", "no gate was selected: choose one, or type --mechdrift-profile report"),
        (of(TOLD, code=5), "error", "no gate was selected: choose one, or type --mechdrift-profile report"),
        (of(code=0), "error", "no gate was selected: choose one, or type --mechdrift-profile report"),
        (of(HELD, code=0, identical=True), "identical", "base and post are the same files: nothing was compared"),
        (of(HELD, code=0, identical=True, settings={"identity_shortcut": False}), "held", ""),
        (of(DRIFTED, code=0), "error", "exit code 0, and a gate is drifted"),
        (of(HELD, DRIFTED, OPEN, code=1), "drifted", ""),
        (of(HELD, code=1), "error", "a test failed, or a baseline was updated"),
        (of(HELD, OPEN, NONE, code=6), "undecided", ""),
        (of(HELD, NONE, code=7), "unmeasurable", ""),
        (of(HELD, NONE, code=7, fail_on=("drifted",)), "unmeasurable", ""),
        (of(HELD, code=6), "error", "exit code 6, and no gate is undecided"),
        (of(HELD, code=7), "error", "exit code 7, and no gate is unmeasurable"),
        (of(HELD, code=2), "error", ""),
    ],
)
def test_a_verdict_is_borne_out_by_rows_and_exit_code(result: dict[str, Any], verdict: str, message: str) -> None:
    found = run_verdict(typed(result))
    assert (found.verdict, found.message) == (verdict, message)
    assert found.passes is (verdict in ("held", "allowed", "ungated", "identical"))
    assert (found.exit_code(result["exit_code"]) == 0) is found.passes
    green = title(found, result["rows"])[1].get("green", False)
    assert green is (verdict == "held")


def test_only_a_record_of_this_run_of_these_specs_and_this_exit_code_is_believed(tmp_path: Path) -> None:
    run = Started(tmp_path / "r.json", "runs/base", "dpo=runs/post")
    assert run.why_no_record(0) == "no record was left: nothing was measured"
    result = record(HELD)
    for change, why in (
        ({}, "the record is of another run"),
        ({"run": result["run"] | {"nonce": "0" * 32}}, "the record is of another run"),
        ({"run": result["run"] | {"nonce": run.nonce}}, ""),
        ({"exit_code": 6}, "the record says exit code 6, the process ended with 0"),
        (
            {"inputs": result["inputs"] | {"post": result["inputs"]["post"] | {"spec": "runs/other"}}},
            "the record is of runs/base and runs/other",
        ),
    ):
        result |= change
        written(run.record, result)
        assert run.why_no_record(0).startswith(why)
        assert (run.why_no_record(0) == "") is (why == "")
    run.record.write_text("{")
    assert run.why_no_record(0) == "not a whole record was left: nothing was measured"
