"""Every planted drift moves the rows that the drift matrix says, and no other."""

import json
from pathlib import Path

import pytest

from mechdrift.organisms.matrix import expected_estimates, expected_verdicts
from mechdrift.organisms.plants import PLANTS


@pytest.mark.parametrize("drift", PLANTS)
def test_rows_are_as_the_matrix_says(pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory, drift: str) -> None:
    record = Path(pytester.path) / "record.json"
    cache = tmp_path_factory.getbasetemp() / "cache"  # instruct is recorded once
    checkpoints = "--base", "organism:instruct", "--post", f"organism:drift-{drift}"
    pytester.runpytest_subprocess(*checkpoints, "--mechdrift-cache", cache, "--mechdrift-record", record)
    rows = {row["label"]: row for row in json.loads(record.read_text())["rows"]}
    found = {label: row["verdict"] for label, row in rows.items() if row["role"] == "gate"}
    expected = expected_verdicts(drift, found)
    assert expected, "no claim is made"
    assert {label: found[label] for label, allowed in expected.items() if found[label] not in allowed} == {}
    for label, (low, high) in expected_estimates(drift).items():
        assert low <= rows[label]["estimate"] <= high, label
