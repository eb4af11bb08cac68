"""Many comparing runs, one after the other: their records in a folder, where a killed series goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.report.whole import read_record
from mechdrift.session.own_record import Started
from mechdrift.verdict.record import StoredRecord

NO_RECORD = "pytest gave no record"
CUT_OFF = {2, 3}
"""Exit codes of pytest: interrupted, an internal error. What such a run says of its rows is no measurement."""


@dataclass(frozen=True)
class Run:
    """One run of a series."""

    name: str
    """Of its record in the folder, without .json: letters, digits and `-_.@=+`."""
    base: str
    """Spec."""
    post: str
    """Spec."""
    options: tuple[str, ...] = ()
    """Further arguments of pytest."""

    def command(self, record: Path) -> list[str]:
        """What measures it into a record."""
        arguments = ["--base", self.base, "--post", self.post, "--mechdrift-record", str(record.resolve()), *self.options]
        return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]


def records(runs: Iterable[Run], folder: Path, started: Callable[[Run], object] = repr) -> Iterator[StoredRecord]:
    """The record of each run, in order, measured where the folder has none yet.

    Verdicts are in the records, and none stops the series. `started` is called before a run is measured. Raises InputError, with
    what pytest printed last, for a run without a record.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        path = folder / f"{run.name}.json"
        if not has_record(path):
            started(run)
            yield measured(run, path)
        else:
            yield read_record(path)


def has_record(path: Path) -> bool:
    """Whether there is a record, of a run that was not cut off; it is written whole or not at all."""
    return path.is_file() and json.loads(path.read_bytes()).get("exit_code") not in CUT_OFF


def measured(run: Run, path: Path) -> StoredRecord:
    """The record of a run, written to a path.

    It is measured in a process of its own, so that no run knows of another but through the store. Raises InputError, with what
    pytest printed last, for a run without a record.
    """
    command, started = run.command(path), Started(path, run.base, run.post)
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, errors="replace", check=False, env=started.environment(os.environ)
    )
    if (why := started.why_no_record(done.returncode)) or done.returncode in CUT_OFF:
        path.unlink(missing_ok=True)
        printed = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        message = printed[-1] if done.returncode and printed else why or f"exit code {done.returncode}"
        raise InputError(
            f"{run.name}: {NO_RECORD}: {message}",
            "a run that ends",
            f"type {' '.join(command[1:])}",
        )
    return read_record(path)
