"""On a terminal long work says how far it is and how long it still takes; a log stays quiet."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training import write_statements

from mechdrift.report import terminal

PAIR = ("organism:base", "organism:instruct")
ROW = "truth.judgement_accuracy"
LINE = re.compile(r"\rmechdrift: [^\r]*: \d+/\d+, \d+ s to go")


def requested(folder: Path) -> tuple[str, ...]:
    """Of a run of seconds, which records."""
    return ("--mechdrift-only", ROW, "--mechdrift-statements", str(write_statements(folder / "few.csv")))


def on_a_terminal(folder: Path) -> str:
    """What a run prints there; QUIET_SECONDS is none, so that a fast machine says it too."""
    quiet = "import mechdrift.report.terminal as t, pytest, sys; t.QUIET_SECONDS = 0; sys.exit(pytest.main(sys.argv[1:]))"
    pair = ("--base", PAIR[0], "--post", PAIR[1], "--mechdrift-cache", "off")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", quiet, *pair, *requested(folder)]
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        output = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # Linux says so where the other end is closed
                break
            if not read:
                break
            output += read
        os.close(ours)
        assert process.wait() == 0, output.decode()
    return output.decode()


@pytest.mark.nightly
def test_a_terminal_sees_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    output = on_a_terminal(tmp_path)
    lines = LINE.findall(output)
    assert len(lines) > 2, output
    assert "organism:base" in lines[0]
    blank = output.rindex("\r" + " " * 78)
    assert blank > output.rindex(lines[-1]), "the last line is wiped"


def test_a_log_is_quiet(compare: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0)
    run = compare(*PAIR, *requested(tmp_path), cache="off")
    assert run.code == 0, run.out
    assert ROW in run.out
    assert not LINE.search(run.out + run.err)
