"""Records of any minor version, with what lies beside them, or one line that says what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from recorded import HOSTILE, items, record, row, written
from safetensors.numpy import save_file

from mechdrift.commands.cli import main
from mechdrift.errors import InputError
from mechdrift.report.record_file import beside_path, items_path
from mechdrift.report.schema import published, schema
from mechdrift.report.whole import read_record, read_whole

SCHEMA = json.loads((Path(__file__).parents[2] / "mechdrift" / "report" / "record.schema.json").read_text())
MAP = {"name": "base", "columns": ["subject[-1]", "last"], "values": [[0.1, None], [0.3, 0.4]]}


def test_what_the_tests_of_reports_are_made_from_is_a_record(tmp_path: Path) -> None:
    result = record(row("a.b", items=items([0, 1], [1, 1]), maps=[MAP], text=HOSTILE), row("a.c", None), text=HOSTILE)
    path = written(tmp_path / "r.json", result)
    jsonschema.validate(json.loads(path.read_text()), SCHEMA, jsonschema.Draft202012Validator)


def test_a_record_is_read_with_its_maps_and_items(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", record(row("a.b", items=items([0, 1], [1, 1], HOSTILE), maps=[MAP])))
    whole = read_whole(path)
    assert not whole.missing
    (one,) = whole.maps["a.b"]
    assert (one.name, one.columns) == ("base", ("subject[-1]", "last"))
    np.testing.assert_array_equal(one.values, [[0.1, np.nan], [0.3, 0.4]])
    assert [(item.kind, item.base, item.post) for item in whole.items["a.b"]] == [(HOSTILE, 0, 1), (HOSTILE, 1, 1)]


@pytest.mark.parametrize("more", [[], ["sft", "post"]])
def test_matrices_lie_beside_each_comparison(tmp_path: Path, more: list[str]) -> None:
    between = more or ["base", "post"]
    path = written(tmp_path / "r.json", record(row("structure.change", between=between)))
    assert "no such file" in read_whole(path).missing[0]
    save_file({"change": np.ones((3, 2))}, beside_path(path, between, ".structure.safetensors"), {"kinds": "q,k"})
    whole = read_whole(path)
    assert not whole.missing
    assert whole.matrices["structure", tuple(between)].kinds == ("q", "k")
    save_file({"change": np.ones((3, 5))}, beside_path(path, between, ".structure.safetensors"), {"kinds": "q,k"})
    assert "not 2 columns" in read_whole(path).missing[0]


def test_the_names_of_checkpoints_lead_to_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = written(tmp_path / "out" / "r.json", record(row("structure.change", between=["x", "/../../r"])))
    save_file({"change": np.ones((3, 2))}, tmp_path / "r.structure.safetensors", {"kinds": "q,k"})
    whole = read_whole(path)
    assert not whole.matrices
    assert len(whole.missing) == 1


def test_a_record_of_the_first_minor_version_says_what_it_meant(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", record(row("a.b"), row("a.c", None), schema="1.0"))
    old = json.loads(path.read_text())
    for one in old["rows"]:
        for name in ("version", "between", "waiver", "baseline", "post_lacks", "sibling", "maps"):
            del one[name]
    for part, names in (("inputs", ("stages", "posts")), ("settings", ("fail_on", "tier")), ("run", ("warnings", "phases"))):
        for name in names:
            del old[part][name]
    del old["chain"]
    path.write_text(json.dumps(old))
    whole = read_whole(path)
    assert [one.between for one in whole.rows] == [["base", "post"]] * 2
    assert [*whole.record.chain, *whole.record.run.warnings, *whole.record.inputs.stages] == []
    assert set(whole.record.settings.fail_on) == {"drifted", "undecided", "unmeasurable"}


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "records").glob("*.json")), ids=lambda path: path.stem)
def test_records_that_older_versions_wrote_are_read(path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each was written by the last commit of its version."""
    record = read_record(path)
    assert record.schema == path.stem
    assert {row.label for row in record.rows} >= {"truth.clean_gap", "truth.direction_similarity"}
    assert all(row.has_number == (row.verdict == "held") for row in record.rows)
    written = json.loads(path.read_text())
    again = msgspec.to_builtins(record)
    assert {name: again["settings"][name] for name in written["settings"]} == written["settings"], "nothing is lost"
    page = tmp_path / "page.html"
    assert main(["report", str(path), "--html", str(page)]) == record.exit_code
    assert "truth.clean_gap" in page.read_text()
    assert path.stem in page.read_text()


def test_the_published_schema_is_that_of_the_types() -> None:
    """`python -m mechdrift.report.schema` writes it."""
    assert published() == schema()


def test_a_newer_minor_version_may_say_more(tmp_path: Path) -> None:
    path = written(tmp_path / "r.json", record(row("a.b"), schema="1.99"))
    result = json.loads(path.read_text())
    one = result["rows"][0]
    for part in (
        result,
        result["inputs"],
        result["inputs"]["base"],
        result["settings"],
        result["run"],
        one,
        one["limit"],
        one["floor"],
    ):
        part["new"] = {"x": [1]}
    path.write_text(json.dumps(result))
    assert [each.label for each in read_whole(path).rows] == ["a.b"]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not whole, or no JSON"),
    "NaN": (lambda path: edit(path, lambda result: result["run"].update(seconds=float("nan"))), "not whole, or no JSON"),
    "infinite": (lambda path: path.write_text(path.read_text().replace("1000000000.0", "1e999")), "no finite number"),
    "an integer beyond all floats": (lambda path: edit(path, lambda old: old.update(exit_code=10**400)), "no finite number"),
    "another major version": (lambda path: edit(path, lambda old: old.update(schema="2.0")), r"schema '2\.0'; expected 1\."),
    "a baseline": (lambda path: edit(path, lambda result: result.update(origins={})), "a baseline; expected the record of a run"),
    "no inputs": (lambda path: edit(path, lambda result: result.pop("inputs")), "missing required field `inputs`"),
    "inputs that are none": (lambda path: edit(path, lambda result: result.update(inputs=3)), "expected what schema '1.5' says"),
    "a row that is none": (lambda path: edit(path, lambda result: result["rows"].append(3)), "expected what schema '1.5' says"),
    "a row twice": (lambda path: edit(path, lambda result: result["rows"].append(result["rows"][0])), "row 'a.b' is there twice"),
    "a verdict that is none": (lambda path: edit(path, lambda result: result["rows"][0].update(verdict="\x1b[2J")), r"\.verdict"),
    "a number that is text": (lambda path: edit(path, lambda result: result["rows"][0].update(estimate="1")), r"\.estimate"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_and_exit_code_4(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "r.json", record(row("a.b")))
    spoil, message = BAD[name]
    spoil(path)
    with pytest.raises(InputError, match=message):
        read_whole(path)
    assert main(["report", str(path), "--markdown", str(tmp_path / "o.md")]) == 4
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1
    assert "\x1b" not in shown.err
    assert not (tmp_path / "o.md").exists()


BESIDE: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "broken": lambda path: path.write_bytes(b"x" * 99),
    "of another record": lambda path: save_file({"x": np.zeros(1)}, path),
    "another shape": lambda path: save_file({"a.b/map/base": np.zeros((2, 9))}, path),
    "no names": lambda path: save_file({f"a.b/{field}": np.zeros(2) for field in ("base", "post", "contribution")}, path),
}


@pytest.mark.parametrize("name", BESIDE)
def test_what_is_missing_beside_a_record_is_named_and_the_rest_shown(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "r.json", record(row("a.b", items=items([0, 1], [1, 1]), maps=[MAP])))
    BESIDE[name](items_path(path))
    assert read_whole(path).missing
    assert main(["report", str(path), "--html", str(tmp_path / "o.html")]) == 0
    assert "r.items.safetensors" in capsys.readouterr().out
    page = (tmp_path / "o.html").read_text()
    assert "r.items.safetensors" in page
    assert "0.900 [0.850, 0.950]" in page
