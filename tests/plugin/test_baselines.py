"""Save, compare, update: what a baseline does to a run."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from by_hand import suite_by_hand

from mechdrift.commands.cli import main

PAIR = ("organism:base", "organism:instruct", ".")
GAP, ACCURACY = "truth.clean_gap", "knowledge.clean_gap"
MODES = pytest.mark.parametrize(
    "mode", [("-p", "no:xdist"), pytest.param(("-n1",), marks=pytest.mark.nightly)], ids=["no xdist", "-n1"]
)


def write(pytester: pytest.Pytester, gap: float = 1.0, accuracy: float = 1.0, **more: Any) -> None:
    """Two files of one row each."""
    pytester.makepyfile(
        test_gap=suite_by_hand(estimate=gap, **more), test_accuracy=suite_by_hand(estimate=accuracy, finding=ACCURACY)
    )


def stored(pytester: pytest.Pytester) -> Path:
    return pytester.path / "mechdrift-baselines" / "good.json"


@pytest.fixture
def saved(compare: Callable[..., Any], pytester: pytest.Pytester) -> Callable[..., Any]:
    """Compare after a run of both rows at 1 was saved as `good`."""
    write(pytester)
    run = compare(*PAIR, "--mechdrift-save", "good")
    assert run.code == 0, run.out
    assert "mechdrift-baselines/good.json: 2 rows saved" in run.out
    assert all(row["baseline"] is None for row in run.rows.values())
    return compare


@MODES
def test_only_the_row_that_changed_is_worse(saved: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]) -> None:
    write(pytester, gap=0.8)  # inside its limit of 0.5
    run = saved(*PAIR, "--mechdrift-baseline", "good", *mode)
    assert run.code == 1, run.out
    assert "mechdrift: compared with baseline good" in run.out
    assert run.verdicts() == {GAP: "held", ACCURACY: "held"}
    result = {label: row["baseline"] for label, row in run.rows.items()}
    assert {label: each["status"] for label, each in result.items()} == {GAP: "worse", ACCURACY: "no worse"}
    assert (result[GAP]["was"], result[GAP]["tolerance"]) == (1.0, pytest.approx(0.05))
    assert result[GAP]["difference"] == pytest.approx(-0.2)
    assert result[ACCURACY]["difference"] == 0.0
    assert f"{GAP} held, worse than baseline good: " in run.out
    assert run.out.count("was 1.000, now 0.800: -0.200 [-0.223, -0.177], independent") == 2  # in the table and the failure
    assert "--mechdrift-baseline good --mechdrift-only truth.clean_gap --mechdrift-update" in run.out
    assert "2 gated rows: 2 held, 1 worse than stored" in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))


def test_rows_with_the_same_items_are_paired(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """Each of 100 items moves by -0.005 but for a little: 0.5 in all, with hardly an error, whatever the rows' own are."""
    for name, each in (("first", "0.0"), ("second", "-0.005 + 0.001 * (-1) ** n")):
        items = f"tuple(Item(str(n), 'k', 0.0, 0.0, {each}) for n in range(100))"
        write(pytester, gap=1.0 if name == "first" else 0.5, items=items)
        option = "--mechdrift-save" if name == "first" else "--mechdrift-baseline"
        run = compare(*PAIR, option, "good")
    result = run.rows[GAP]["baseline"]
    assert (result["status"], result["how"]) == ("worse", "paired")
    # 1.645 standard errors of the sum of 100 parts of +-0.001
    assert result["high"] - result["low"] == pytest.approx(2 * 1.645 * 0.001 * 100 / 99**0.5, rel=1e-3)


@MODES
def test_an_update_fails_and_touches_only_what_ran(
    saved: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    before = json.loads(stored(pytester).read_text())["rows"]
    write(pytester, gap=0.8, accuracy=0.7)
    options = ("--mechdrift-baseline", "good", "--mechdrift-only", "truth", "--mechdrift-update")
    run = saved(*PAIR, *options, *mode)
    assert run.code == 1, run.out
    assert "1 rows updated; a run that updates fails" in run.out
    after = json.loads(stored(pytester).read_text())["rows"]
    assert after[0] == before[0]
    assert (after[0]["label"], after[1]["label"]) == (ACCURACY, GAP)
    assert (before[1]["estimate"], after[1]["estimate"]) == (1.0, 0.8)
    again = saved(*PAIR, *options[:-1])
    assert again.code == 0, again.out
    assert again.rows[GAP]["baseline"]["difference"] == 0.0


def test_an_update_of_what_is_as_it_was_fails_too(saved: Callable[..., Any]) -> None:
    run = saved(*PAIR, "--mechdrift-baseline", "good", "--mechdrift-update")
    assert run.code == 1
    assert {row["verdict"] for row in run.rows.values()} == {"held"}


@MODES
def test_a_row_that_no_test_asks_for_any_more_is_unmeasurable(
    saved: Callable[..., Any], pytester: pytest.Pytester, mode: tuple[str, ...]
) -> None:
    """Its finding is requested, in another form: by a path alone a run would have chosen not to ask for it."""
    path = stored(pytester)
    text = json.loads(path.read_text())
    gone = json.loads(json.dumps(text["rows"][1]))
    gone["label"] = f"{GAP}[form=old]"
    gone["key"]["parameters"] = {"form": "old"}
    path.write_text(json.dumps(text | {"rows": [*text["rows"], gone]}))
    run = saved(*PAIR, "--mechdrift-baseline", "good", *mode)
    assert run.code == 7, run.out
    row = run.rows[f"{GAP}[form=old]"]
    assert (row["verdict"], row["reason"]) == ("unmeasurable", "in baseline good, and no test asks for it")
    assert row["baseline"]["status"] == "lost"
    assert saved(*PAIR, "--mechdrift-baseline", "good", "--mechdrift-only", "knowledge").code == 0
    assert saved(*PAIR, "--mechdrift-baseline", "good", "-k", "accuracy").code == 0


def test_a_row_without_a_number_is_lost_and_one_that_was_not_there_is_new(
    saved: Callable[..., Any], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        test_gap=suite_by_hand(raises="Unmeasurable('nothing to read')"), test_new=suite_by_hand(finding="truth.probe_accuracy")
    )
    run = saved(*PAIR, "--mechdrift-baseline", "good")
    assert run.code == 7, run.out
    assert {label: row["baseline"]["status"] for label, row in run.rows.items()} == {
        GAP: "lost",
        ACCURACY: "no worse",
        "truth.probe_accuracy": "new",
    }
    assert "baseline  was 1.000, now -, lost; there is a number in the baseline and none here" in run.out


def test_what_is_measured_otherwise_is_not_compared_and_no_green(saved: Callable[..., Any], pytester: pytest.Pytester) -> None:
    path = stored(pytester)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    run = saved(*PAIR, "--mechdrift-baseline", "good")
    assert run.code == 7, run.out
    assert "measured by version 2 there, by version 1 here" in run.out
    assert run.rows[GAP]["baseline"]["difference"] is None
    assert saved(*PAIR, "--mechdrift-baseline", "good", "--mechdrift-fail-on", "drifted").code == 0


def test_what_else_differs_is_announced_and_another_post_is_not(saved: Callable[..., Any]) -> None:
    run = saved("organism:sft", "organism:sft", ".", "--mechdrift-baseline", "good", "--mechdrift-seed", "3")
    assert run.code == 0, run.out
    warnings = [line for line in run.record["run"]["warnings"] if line.startswith("baseline good: ")]
    assert [line.split(":")[1].split()[0:2] for line in warnings] == [
        ["another", "base,"],
        ["identical"],
        ["seed", "0"],
    ] or warnings
    assert "warning: baseline good: seed 0 there, 3 here" in run.out
    assert "another post" not in run.out


def test_a_profile_and_a_marker_say_how_much_worse_is_borne(saved: Callable[..., Any], pytester: pytest.Pytester) -> None:
    write(pytester, gap=0.8, marks="@pytest.mark.limit(tolerance=0.2)")
    assert saved(*PAIR, "--mechdrift-baseline", "good").code == 0
    write(pytester, gap=0.8)
    pytester.makepyprojecttoml(f'[tool.mechdrift.profiles.ours]\nextends = "base-to-post"\nrows."{GAP}".tolerance = 0.3\n')
    run = saved(*PAIR, "--mechdrift-baseline", "good", "--mechdrift-profile", "ours")
    assert run.code == 0, run.out
    assert run.rows[GAP]["baseline"]["tolerance"] == 0.3


def test_a_reported_row_that_is_worse_is_shown_and_fails_nothing(saved: Callable[..., Any], pytester: pytest.Pytester) -> None:
    write(pytester, gap=0.8)
    run = saved(*PAIR, "--mechdrift-baseline", "good", "--mechdrift-profile", "report")
    assert run.code == 0, run.out
    assert run.rows[GAP]["baseline"]["status"] == "worse"


def test_any_record_may_be_compared_with_and_two_are_shown_by_the_command(
    saved: Callable[..., Any], pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(*PAIR)
    first = pytester.path / "first.json"
    (pytester.path / "record.json").rename(first)
    write(pytester, gap=0.8)
    run = saved(*PAIR, "--mechdrift-baseline", "first.json")
    assert run.code == 1, run.out
    assert run.rows[GAP]["baseline"]["difference"] == pytest.approx(-0.2)
    capsys.readouterr()
    assert main(["compare", str(first), str(pytester.path / "record.json")]) == 0
    shown = capsys.readouterr().out
    assert "1.000 [0.984, 1.016]  0.800 [0.784, 0.816]  -0.200 [-0.223, -0.177], independent  held" in shown
    assert saved(*PAIR, "--mechdrift-baseline", "first.json", "--mechdrift-update").code == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mechdrift-baseline", "none"), "mechdrift-baselines/none.json: no such file; expected a record or a baseline"),
        (("--mechdrift-baseline", "../x"), "expected a name of letters"),
        (("--mechdrift-save", "good"), "mechdrift-baselines/good.json is there already; expected another name"),
        (("--mechdrift-save", "a/b"), "expected a name of letters"),
        (("--mechdrift-update",), "--mechdrift-update without --mechdrift-baseline"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    saved: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    run = saved(*PAIR, *options)
    assert run.code == 4
    assert message in run.out + run.err
    assert "Traceback" not in run.out + run.err
    assert not run.rows


def test_a_run_without_a_number_saves_nothing_and_says_so(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_gap=suite_by_hand(raises="Unmeasurable('nothing to read')"))
    run = compare(*PAIR, "--mechdrift-save", "good", "--mechdrift-profile", "report")
    assert run.code == 4, run.out
    assert "not written: no row has a number" in run.out
    assert not stored(pytester).exists()


def test_a_baseline_that_cannot_be_written_is_no_green(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    write(pytester)
    stored(pytester).parent.write_text("in the way")
    run = compare(*PAIR, "--mechdrift-save", "good")
    assert run.code == 4, run.out
    assert "baseline not written: " in run.out
    assert run.rows  # the record is
