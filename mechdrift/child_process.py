"""A process of our own that answers requests, a line of JSON each, and that can be killed whatever it does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

# -P: no module of the user's folder comes before the libraries; -W: the user's own settings are not for this process.
PYTHON = (sys.executable, "-P", "-W", "ignore")


class NoAnswer(Exception):
    """The process ended, or was killed for taking too long."""

    def __init__(self, late: bool) -> None:
        """late: whether its time was over."""
        super().__init__("late" if late else "ended")
        self.late = late


class ChildProcess:
    """A Python program in a process group of its own; what it writes to stderr is kept."""

    def __init__(self, program: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it. program: arguments of Python."""
        pipe = subprocess.PIPE
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [*PYTHON, *program],
            stdin=pipe,
            stdout=pipe,
            stderr=self._log,
            encoding="utf-8",
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,  # so that all that it started ends with it
        )

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode

    def ask(self, request: Any, seconds: float | None = None) -> Any:
        """The answer to a request. Raises NoAnswer; after seconds it is killed."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, stop) if seconds is not None else None
        try:
            if timer:
                timer.start()
            assert self._process.stdin
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{json.dumps(request, default=str)}\n")
                self._process.stdin.flush()
            line = self.line()
        finally:
            if timer:
                timer.cancel()
        if line.endswith("\n"):
            return json.loads(line)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # for its exit code: its output is closed first
        raise NoAnswer(late.is_set())

    def line(self) -> str:
        """The next line that it prints; without a line end where it ended."""
        assert self._process.stdout
        return self._process.stdout.readline()

    def log(self) -> str:
        """What it has written to stderr."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and let go of its pipes."""
        self.kill()
        with suppress(BrokenPipeError), self._process:  # a request that it did not read is still to be written
            pass
        self._log.close()
