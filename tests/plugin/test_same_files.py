"""A checkpoint that was given twice is announced, whatever its paths: in the header, the title, the warnings and the record."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import suite_by_hand

from mechdrift.checkpoints.resolve import resolve

BASE, POST = "organism:base", "organism:instruct"
TITLE = "= mechdrift: identical: base and post are the same files: nothing was compared ="


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester) -> None:
    """A gate that holds."""
    pytester.makepyfile(test_own=suite_by_hand())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Of base, in a folder of its own."""
    return Path(shutil.copytree(resolve(BASE).folder, tmp_path / "copy", ignore=shutil.ignore_patterns("log-*")))


@pytest.mark.parametrize("how", ["one spec twice", "a copy", "a link"])
def test_one_checkpoint_under_two_paths(how: str, compare: Callable[..., Any], copy: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(copy)
    run = compare(copy, {"one spec twice": copy, "a copy": resolve(BASE).folder, "a link": tmp_path / "link"}[how], "test_own.py")
    assert run.code == 0, run.out
    assert TITLE in run.out
    output = "base and post are the same files: nothing was compared; check the specs"
    assert f"mechdrift: WARNING: {output}" in run.out
    assert f"mechdrift: warning: {output}" in run.out
    assert run.record["run"]["warnings"] == [output]
    assert run.record["inputs"]["same_files"] == [["base", "post"]]
    assert run.record["outcome"]["verdict"] == "identical"


def test_without_the_short_cut_it_is_measured_and_said(compare: Callable[..., Any]) -> None:
    run = compare(BASE, BASE, "test_own.py", "--mechdrift-no-identity-shortcut")
    assert run.record["outcome"] == {"verdict": "held", "message": ""}
    assert run.record["run"]["warnings"] == ["base and post are the same files; check the specs"]


@pytest.mark.parametrize(
    ("more", "output", "verdict"),
    [
        (["--stage", f"sft={POST}"], "sft and post are the same files: nothing was compared; check the specs", "held"),
        (["--stage", f"sft={BASE}"], "base and sft are the same files: nothing was compared; check the specs", "held"),
        (["--post", f"again={POST}"], "instruct and again are the same files; check the specs", "held"),
        (["--post", f"start={BASE}"], "base and start are the same files: nothing was compared; check the specs", "identical"),
    ],
    ids=["a stage and post", "a stage and base", "two posts", "one of two posts and base"],
)
def test_any_two_of_a_run(more: list[str], output: str, verdict: str, compare: Callable[..., Any]) -> None:
    run = compare(BASE, POST, "test_own.py", *more)
    assert run.record["run"]["warnings"] == [output]
    assert run.record["outcome"]["verdict"] == verdict


def test_the_same_weights_with_another_config_are_said_to_be_the_same_weights(compare: Callable[..., Any], copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "5.0.0.dev0"}))
    run = compare(BASE, copy, "test_own.py")
    assert run.record["run"]["warnings"] == ["base and post have the same weights and differ only in: config"]
    assert run.record["outcome"]["verdict"] == "held"
