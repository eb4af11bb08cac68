"""On a terminal long work says how far it is and how long it still takes; a log stays quiet."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

RUN = ("--base", "organism:base", "--post", "organism:instruct", "--mechdrift-only", "truth.judgement_accuracy")
LINE = re.compile(r"\rmechdrift: [^\r]*: \d+/\d+, \d+ s to go")


def told(folder: Path, *, terminal: bool) -> str:
    """What a run without a cache prints; QUIET_SECONDS is none, so that a fast machine says it too."""
    quiet = "import mechdrift.report.terminal as t, pytest, sys; t.QUIET_SECONDS = 0; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", quiet, *RUN, "--mechdrift-cache", "off"]
    if not terminal:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # Linux says so where the other end is closed
                break
            if not read:
                break
            said += read
        os.close(ours)
        assert process.wait() == 0, said.decode()
    return said.decode()


def test_a_terminal_sees_it_and_it_is_gone_at_the_end(tmp_path: Path) -> None:
    said = told(tmp_path, terminal=True)
    lines = LINE.findall(said)
    assert len(lines) > 2, said
    assert "organism:base" in lines[0]
    blank = said.rindex("\r" + " " * 78)
    assert blank > said.rindex(lines[-1]), "the last line is wiped"


def test_a_log_is_quiet(tmp_path: Path) -> None:
    said = told(tmp_path, terminal=False)
    assert "truth.judgement_accuracy" in said
    assert not LINE.search(said)
