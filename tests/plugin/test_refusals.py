"""A refusal that no file can bring about; the others are tests/helpers/corpus.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_record_that_cannot_be_written_is_never_green(compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mechdrift.report.record_file.write_record", full)
    run = compare("organism:base", "organism:base", "--mechdrift-only", "truth.clean_gap")
    assert run.code == 4
    assert "not written: No space left on device; make room or name another place" in run.out
