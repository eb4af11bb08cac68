"""A chain with one faulty stage: the fault is named, with the right rows, by rerun and by task vector; and what a stage costs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_chain import write_chain

ROWS = ("refusal.harmful", "refusal.harmless", "truth.judgement_accuracy", "truth.clean_gap")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained in seconds, and recorded."""
    return write_chain(tmp_path_factory.mktemp("chain"))


def run(chain: dict[str, Path], folder: Path, *options: str) -> dict[str, Any]:
    """The record."""
    record = folder / "record.json"
    words = ["--base", "organism:base", "--stage", "instruct=organism:instruct", "--stage", f"fault={chain['fault']}"]
    words += ["--post", str(chain["after"]), "--mechdrift-lineage", "--mechdrift-record", str(record), *options]
    words += [word for row in ROWS for word in ("--mechdrift-only", row)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(record.read_text())
    return found


@pytest.mark.parametrize("by", ["rerun", "task vector"])
def test_the_faulty_stage_is_named(chain: dict[str, Path], tmp_path: Path, by: str) -> None:
    logs = [
        word for name, log in (("fault", "log-fault"), ("post", "log-after")) for word in ("--stage-log", f"{name}={chain[log]}")
    ]
    found = run(chain, tmp_path, *(logs if by == "rerun" else []))
    assert [row["label"] for row in found["lineage"]] == ["refusal.harmful"], "and no other gate drifted"
    (result,) = found["lineage"]
    assert result["estimator"] == by
    assert result["told"] == "refusal.harmful moved in fault"
    parts = {part["stage"]: part["difference"] for part in result["parts"]}
    assert parts["fault"] < -0.8
    assert abs(parts["post"]) < 0.1
    steps = {tuple(step["between"]): step["verdict"] for row in found["chain"] for step in row["steps"] if row["told"]}
    assert steps["fault", "post"] == "drifted", "neighbours alone name the innocent stage too: post refuses no more than its base"
