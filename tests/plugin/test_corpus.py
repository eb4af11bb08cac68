"""Every case of the corpus ends in its message and exit code: no traceback, nothing green."""

import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cases.case import Case
from corpus import CASES
from huggingface_hub import constants
from stand_in import StandIn, constants_of, environment, stand_in

from mechdrift.checkpoints import chat, tokenizer_check

# Of PEFT, about a name in transformers that it still uses.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    """One for all cases."""
    with stand_in() as server:
        yield server


SLOW: dict[bool, Any] = {True: pytest.mark.nightly, False: ()}


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOW[case.slow], id=f"{case.kind}: {case.name}") for case in CASES])
def test_it_ends_as_it_should(
    case: Case, hub: StandIn, pytester: pytest.Pytester, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(hub, pytester.path / "home") | case.environment
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name, constant in constants_of(given).items():
        monkeypatch.setattr(constants, name, constant)
    if "takes longer" in case.message:  # what takes seconds at most is given one
        monkeypatch.setattr(chat, "render", partial(chat.render, seconds=1.0))
        monkeypatch.setattr(tokenizer_check, "READ_SECONDS", 1.0)
    record = pytester.path / "record.json"
    arguments = case.make(pytester.path, hub)
    if case.gate:
        code, printed = _gate(case, arguments, shared_cache)
    else:
        result = pytester.runpytest_inprocess("--mechdrift-cache", shared_cache, "--mechdrift-record", record, *arguments)
        code, printed = result.ret, result.stdout.str() + result.stderr.str()
    assert case.message in printed
    assert code == case.code
    assert "Traceback (most" not in printed
    if case.may_hold:
        return
    assert " passed" not in printed
    rows = json.loads(record.read_text())["rows"] if record.is_file() else []
    assert "held" not in {row["verdict"] for row in rows}


def _gate(case: Case, arguments: tuple[str, ...], cache: Path) -> tuple[int, str]:
    """Its exit code, and what it printed."""
    command, given = case.command(arguments, cache)
    ended = subprocess.run(
        command, env=os.environ | given | case.environment, capture_output=True, text=True, errors="replace", check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_it_is_as_large_as_it_should_be() -> None:
    assert len(CASES) >= 40
    assert len({case.kind for case in CASES}) >= 12
    assert len({(case.kind, case.name) for case in CASES}) == len(CASES)
