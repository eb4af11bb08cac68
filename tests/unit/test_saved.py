"""Records and baselines as files, and two of them beside each other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
from safetensors.numpy import save_file

from mechdrift.commands.cli import main
from mechdrift.errors import InputError
from mechdrift.findings.drift import Item
from mechdrift.report.compare import compared
from mechdrift.report.record_file import items_path, write_record
from mechdrift.report.saved import read_saved, write_baseline
from mechdrift.verdict.record import Record
from mechdrift.verdict.row import Row


def row(label: str, estimate: float | None = 0.9, parts: Any = (), **more: Any) -> Row:
    """A row as a run has it, with what a comparison needs."""
    items = [Item(f"Łódź {n}", "k", 0.0, 0.0, float(part)) for n, part in enumerate(parts)]
    usual: dict[str, Any] = {"unit": "u", "site": "s", "key": {"measure": label, "site_rule": "r", "data": "d", "parameters": {}}}
    return recorded.row(label, estimate, **usual | {"n": len(items) or 100, "items": items} | more)


def record(*rows: Row, weights: str = "aa", started: float = 1234567890.0, **settings: Any) -> Record:
    """A record, of checkpoints in folders of a machine."""
    result = recorded.record(*rows, started=started)
    for side, digest in (("base", "00"), ("post", weights)):
        where = {"spec": "/home/me/x", "pinned": "/home/me/x", "digests": {"weights": digest * 32}}
        result["inputs"][side] = result["inputs"][side] | where
    result["settings"] |= {"statements": "/home/me/mine.csv", "fail_on": ["drifted"]} | settings
    return recorded.typed(result)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write a record and give its path."""

    def write(name: str, *rows: Row, **more: Any) -> Path:
        write_record(tmp_path / name, record(*rows, **more))
        return tmp_path / name

    return write


def test_a_record_and_the_baseline_of_the_same_run_say_the_same(tmp_path: Path, written: Callable[..., Path]) -> None:
    rows = row("a.b", 0.1 + 0.2, [0.1, np.pi, -1e-9]), row("a.c", None)
    whole = read_saved(written("record.json", *rows))
    assert write_baseline(tmp_path / "b" / "one.json", record(*rows)) == 1
    saved = read_saved(tmp_path / "b" / "one.json")
    assert [each.label for each in whole.rows] == ["a.b", "a.c"]
    assert [each.label for each in saved.rows] == ["a.b"]  # what has no number is nothing to compare with
    parts = [[(item.kind, item.name, item.contribution) for item in of.rows[0].items] for of in (whole, saved)]
    assert parts[0] == parts[1] == [("k", f"Łódź {n}", part) for n, part in enumerate([0.1, np.pi, -1e-9])]
    assert saved.rows[0].estimate == 0.3  # of six digits
    assert (whole.is_baseline, saved.is_baseline) == (False, True)
    assert list(whole.origins.values()) == list(saved.origins.values())


def test_a_baseline_holds_no_path_and_no_time_and_two_of_the_same_rows_are_the_same_text(tmp_path: Path) -> None:
    rows = row("a.b"), row("a.c")
    write_baseline(tmp_path / "one.json", record(*rows))
    write_baseline(tmp_path / "two.json", record(*rows[::-1], started=5.0))
    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    assert "/home" not in text
    assert "mine.csv" in text
    assert "1234567890" not in text
    assert not items_path(tmp_path / "one.json").exists()


def test_an_update_touches_only_what_ran_and_deletes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_baseline(path, record(row("a.a", 0.5, [0.1, 0.2]), row("a.b", 0.6, [0.3]), row("a.c", 0.7)))
    before = {each.label: each for each in read_saved(path).rows}
    ran = record(row("a.b", 0.65, [0.4, 0.5]), row("a.c", None), row("a.d", 0.8), weights="bb")
    assert write_baseline(path, ran, read_saved(path)) == 2
    saved = read_saved(path)
    after = {each.label: each for each in saved.rows}
    assert list(after) == ["a.a", "a.b", "a.c", "a.d"]
    assert all(repr(after[label]) == repr(before[label]) for label in ("a.a", "a.c"))  # NaN is not itself
    assert after["a.b"].estimate == 0.65
    assert [item.contribution for item in after["a.b"].items] == [0.4, 0.5]
    result = {label: saved.origins[each.origin]["inputs"]["post"]["digests"]["weights"] for label, each in after.items()}
    assert result == {"a.a": "aa" * 32, "a.b": "bb" * 32, "a.c": "aa" * 32, "a.d": "bb" * 32}
    write_baseline(path, record(row("a.a"), row("a.c"), weights="bb"), saved)
    assert len(read_saved(path).origins) == 1  # of no row is no origin kept


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: path.unlink(), "no such file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not whole, or no JSON"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not whole, or no JSON"),
    "another thing": (lambda path: path.write_text("[1]"), "neither schema nor rows"),
    "another major version": (lambda path: edit(path, schema="2.0"), r"schema '2\.0'; expected 1\."),
    "NaN": (lambda path: edit_row(path, estimate=float("nan")), "not whole, or no JSON"),
    "too large": (lambda path: path.write_text(path.read_text().replace("0.9,", "1e999,")), "no finite number"),
    "an integer beyond all floats": (lambda path: edit_row(path, low=10**400), "low: no finite number"),
    "a name that moves the cursor": (lambda path: edit_row(path, label="\x1b[2J", estimate="x"), r"row '\\x1b\[2J'"),
    "a number that is text": (
        lambda path: edit_row(path, estimate="0.9"),
        r"row 'a\.b': Expected `float .*, got `str` - at `.*estimate`",
    ),
    "no key": (lambda path: edit_row(path, key={}), r"row 'a\.b': .*missing required field .* at `\$\.key`"),
    "a row of one checkpoint": (lambda path: edit_row(path, between=["base"]), r"row 'a\.b': .* at `\$\.between`"),
    "no evidence": (lambda path: edit_row(path, evidence=None), "row 'a.b': a number without evidence"),
    "a row that is none": (lambda path: edit(path, rows=[3]), "expected what schema"),
    "a row twice": (lambda path: twice(path), "row 'a.b' is there twice"),
    "no inputs": (lambda path: edit(path, inputs=None), "expected what schema"),
    "no digests": (lambda path: edit(path, inputs={"base": {"pinned": ""}, "post": {"pinned": ""}}), "expected what schema"),
    "no items": (lambda path: items_path(path).unlink(), "no such file; expected the items of "),
    "broken items": (lambda path: items_path(path).write_bytes(b"x" * 99), "expected the items of "),
    "items of another row": (lambda path: save_file({"x": np.zeros(1)}, items_path(path)), "expected the items of "),
    "other items": (lambda path: edit_row(path, items=3), "2 items of 'a.b', 3 there; expected the items of "),
}


def edit(path: Path, **parts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def edit_row(path: Path, **parts: Any) -> None:
    edit(path, rows=[json.loads(path.read_text())["rows"][0] | parts])


def twice(path: Path) -> None:
    edit(path, rows=json.loads(path.read_text())["rows"] * 2)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_and_exit_code_4(
    name: str, written: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    good, path = written("good.json", row("a.b", 0.9, [0.1, 0.2])), written("bad.json", row("a.b", 0.9, [0.1, 0.2]))
    spoil, message = BAD[name]
    spoil(path)
    with pytest.raises(InputError, match=message):
        read_saved(path)
    assert main(["compare", str(good), str(path)]) == 4
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1


def test_two_records_beside_each_other(written: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    parts = np.full(4, -0.025)
    first = written(
        "a.json",
        row("a.paired", 0.9, parts),
        row("a.old", 0.5),
        row("a.gone", 0.4),
        row("a.lost", 0.4),
        row("a.other", 0.3, key={"measure": "a.other", "site_rule": "r", "data": "theirs", "parameters": {}}),
        seed=0,
    )
    second = written(
        "b.json",
        row("a.paired", 0.7, parts - 0.05, verdict="drifted"),
        row("a.old", 0.6, version=2),
        row("a.lost", None, key=row("a.lost").key),
        row("a.other", 0.3),
        weights="bb",
        seed=7,
    )
    assert main(["compare", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line for line in lines}
    assert "0.900 [0.850, 0.950]  0.700 [0.650, 0.750]  -0.200 [-0.200, -0.200], paired" in table["a.paired"]
    assert "held -> drifted" in table["a.paired"]
    assert "measured by version 1 there, by version 2 here" in table["a.old"]
    assert "0.100" not in table["a.old"]
    assert "a number in one alone" in table["a.lost"]
    assert "differs: another post, by its weights: weights aaaaaaaaaaaa in A, bbbbbbbbbbbb in B" in lines
    assert "differs: seed 0 in A, 7 in B" in lines
    assert "only in A: a.gone held 0.400 [0.350, 0.450] (d)" in lines
    assert {"only in A: a.other held 0.300 [0.250, 0.350] (theirs)", "only in B: a.other held 0.300 [0.250, 0.350] (d)"} <= {
        *lines
    }


def test_a_record_against_itself_differs_in_nothing(written: Callable[..., Path]) -> None:
    saved = read_saved(written("a.json", row("a.b", 0.9, [0.1, 0.3]), row("a.c", 0.1, n=0)))
    lines = list(compared(saved, saved))
    assert not [line for line in lines if line.startswith(("differs", "only"))]
    assert [("+0.000 [+0.000, +0.000]" in line) for line in lines[3:]] == [True, True]


def test_names_from_a_file_cannot_move_the_cursor(written: Callable[..., Path]) -> None:
    saved = read_saved(written("a.json", row("a.b\x1b[2J")))
    assert "\x1b" not in "\n".join(compared(saved, saved))
