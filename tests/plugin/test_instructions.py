"""The user's own instructions reach the tests, in every process, and the record."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema
import pytest

from mechdrift.prompts.instructions import shipped_instructions

PAIR = "organism:base", "organism:instruct"
SUITE = """
import pytest
from mechdrift.prompts.instructions import Instruction

@pytest.mark.parametrize("number", range(3))
def test_own(mechdrift_instructions, number):
    harmful = [one.text for one in mechdrift_instructions.all if one.harmful]
    assert harmful == [f"Do it {n} times." for n in range(9)]
    assert sum(not one.harmful for one in mechdrift_instructions.all) == HARMLESS
"""


@pytest.mark.parametrize("mode", [[], ["-n0"], pytest.param(["-n1"], marks=pytest.mark.nightly)], ids=["no xdist", "-n0", "-n1"])
def test_own_instructions_reach_every_process_and_the_record(
    compare: Callable[..., Any], pytester: pytest.Pytester, mode: list[str]
) -> None:
    harmless = sum(not one.harmful for one in shipped_instructions())
    pytester.makepyfile(test_own=SUITE.replace("HARMLESS", str(harmless)))
    rows = [{"ask": f"Do it {number} times.", "who": "me"} for number in (*range(9), 4)]
    (pytester.path / "own.json").write_text(json.dumps(rows))
    more = mode or ["-p", "no:xdist"]
    run = compare(*PAIR, "--mechdrift-harmful", "own.json:ask", "test_own.py", *more)
    assert "3 passed" in run.out
    assert "mechdrift: harmful instructions: 9 of own.json:ask, column ask; left out: 1 twice there" in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    result = run.record["settings"]
    assert {name: result["harmful"][name] for name in ("file", "column", "used", "left_out")} == {
        "file": "own.json:ask",
        "column": "ask",
        "used": 9,
        "left_out": {"twice there": 1},
    }
    assert (result["harmless"]["file"], result["harmless"]["used"]) == ("shipped", harmless)


def test_a_bad_file_stops_the_run_in_one_line(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    (pytester.path / "own.csv").write_text("a,b\nA.,B.\n")
    run = compare(*PAIR, "--mechdrift-harmless", "own.csv")
    assert run.code == 4
    (line,) = [line for line in run.err.splitlines() if "own.csv" in line]
    assert (
        "harmless instructions own.csv: columns a, b; expected to know which holds the instructions; type own.csv:COLUMN" in line
    )
    assert "Traceback" not in run.err + run.out


def test_what_is_taken_of_each_file_is_said_before_anything_is_loaded_and_recorded(
    compare: Callable[..., Any], pytester: pytest.Pytester
) -> None:
    statements = [{"statement": f"It is {number}.", "label": number % 2, "of": "x"} for number in range(9)]
    pairs = [{"clean": f"A{number} is", "corrupt": f"B{number} is", "correct": " x", "other": " y"} for number in range(9)]
    statements.append({"statement": "", "label": 1, "of": "x"})
    statements.append({"statement": "It is not.", "label": 1, "of": "y"})
    pairs.append({"clean": "", "corrupt": ""})
    (pytester.path / "mine.json").write_text(json.dumps(statements))
    (pytester.path / "pairs.json").write_text(json.dumps(pairs))
    pytester.makepyfile(test_own="def test_own(mechdrift_statements): assert len(mechdrift_statements) == 9")
    given = ["--mechdrift-statements", "mine.json[of=x]", "--mechdrift-pairs", "pairs.json"]
    lines = [
        "mechdrift: statements: 9 of mine.json[of=x]; left out: 1 where of is not x, 1 empty",
        "mechdrift: pairs: 9 of pairs.json; left out: 1 empty",
    ]
    planned = compare(*PAIR, *given, "--mechdrift-plan", "test_own.py", "-p", "no:xdist")
    run = compare(*PAIR, *given, "test_own.py", "-p", "no:xdist")
    for line in lines:
        assert line in planned.out
        assert line in run.out
    jsonschema.validate(run.record, json.loads((files("mechdrift.report") / "record.schema.json").read_text()))
    settings = run.record["settings"]
    assert {name: settings["statements_file"][name] for name in ("file", "used", "left_out")} == {
        "file": "mine.json[of=x]",
        "used": 9,
        "left_out": {"where of is not x": 1, "empty": 1},
    }
    assert settings["pairs_file"]["left_out"] == {"empty": 1}
