"""The same rows without xdist, with -n0 and with -n2; the same record twice; JUnit in each."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml
from known import KNOWN, ROWS

from mechdrift.prompts.written_statements import read_statements

MODES = {"plain": ("-p", "no:xdist"), "n0": ("-n", "0"), "n2": ("-n", "2")}
PAIR = ("organism:base", "organism:instruct")
# Rows that share two recordings a model, every statement's period and the judgements of the test split, and one of base alone:
# its judgements of the choose split.
CHEAP = (
    "truth.direction_similarity",
    "truth.probe_accuracy",
    "truth.judgement_accuracy",
    "truth.clean_gap",
)
ONLY = tuple(word for name in CHEAP for word in ("--mechdrift-only", name))


def recorded(few: tuple[str, str]) -> int:
    """Prompts: of both models all statements and the judgements of the test split; of base, which kinds it can judge."""
    splits = Counter(one.split for one in read_statements(few[1]).all)
    return 2 * (splits.total() + splits["test"]) + splits["choose"]


def judged(run: Any) -> dict[str, Any]:
    """The record but for what the run itself took."""
    return {key: value for key, value in run.record.items() if key != "run"}


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["n2", "n0", "plain"])
def test_rows_are_the_same_in_every_mode(compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str], mode: str) -> None:
    plain = compare(*PAIR, *ONLY, *few, "-p", "no:xdist")
    # A cache of its own, so that workers record, wait for each other and read.
    run = compare(*PAIR, *ONLY, *few, *MODES[mode], "--junitxml", tmp_path / "j.xml", cache=tmp_path / "cache")
    assert run.code == plain.code == 0, run.out
    assert judged(run) == judged(plain)
    assert run.record["run"]["work"]["recorded_prompts"] == recorded(few)
    cases = [case for suite in JUnitXml.fromfile(str(tmp_path / "j.xml")) for case in suite]
    assert len(cases) == len(run.rows) == len(CHEAP)
    for case in cases:
        result = {prop.get("name"): prop.get("value") for prop in case._elem.iter("property")}
        row = run.rows[result["mechdrift.label"]]
        assert result["mechdrift.verdict"] == row["verdict"]
        assert float(result["mechdrift.estimate"]) == row["estimate"]
        assert float(result["mechdrift.low"]) == row["low"]
        assert float(result["mechdrift.high"]) == row["high"]
        assert int(result["mechdrift.n"]) == row["n"]
        assert float(result["mechdrift.at_least"]) == row["limit"]["at_least"]


@pytest.mark.nightly
def test_every_row_is_the_same_on_workers(compare: Callable[..., Any]) -> None:
    plain, workers = compare(*PAIR, "-p", "no:xdist"), compare(*PAIR, "-n", "2", process=True)
    assert len(plain.rows) == ROWS
    assert judged(workers) == judged(plain)


def test_the_second_run_records_nothing_and_says_the_same(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str]
) -> None:
    first, second = (compare(*PAIR, *ONLY, *few, cache=tmp_path / "cache") for _ in range(2))
    work = {"cache_hits": 0, "cache_misses": 5, "model_loads": 2, "recorded_prompts": recorded(few)}
    assert first.record["run"]["work"] == work
    assert second.record["run"]["work"] == {"cache_hits": 5, "cache_misses": 0, "model_loads": 0, "recorded_prompts": 0}
    assert judged(second) == judged(first)


def test_without_a_cache_nothing_is_kept(
    compare: Callable[..., Any], tmp_path: Path, few: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = compare(*PAIR, "--mechdrift-only", "truth.clean_gap", *few, cache="off")
    assert run.code == 0
    assert run.record["run"]["work"]["cache_misses"] == 5
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_selects_findings_without_paths(compare: Callable[..., Any], few: tuple[str, str]) -> None:
    run = compare(*PAIR, "--mechdrift-only", "truth.clean_gap", *few)
    assert list(run.rows) == ["truth.clean_gap"]
    assert "truth.direction_similarity" in run.record["not_selected"]
    assert f"{ROWS - 1} deselected" in run.out


@pytest.mark.nightly
def test_items_lie_beside_the_record(whole: Any) -> None:
    import json

    from safetensors import safe_open

    with safe_open(whole.folder / "record.items.safetensors", framework="np") as items:
        names = {name: json.loads(text) for name, text in items.metadata().items()}
        for finding, row in whole.rows.items():
            assert row["items"] == len(names.get(finding, []))
            assert row["items"] == (KNOWN if row["status"] == "ok" else 0) or not finding.startswith("truth.")
            if not row["items"]:
                continue
            parts = items.get_tensor(f"{finding}/contribution")
            if row["evidence"]["kind"] == "paired proportions" and row["null"] is not None:
                assert parts.sum() == pytest.approx(row["estimate"] - row["null"], abs=1e-9)
