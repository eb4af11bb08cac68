"""Processes for what came with a checkpoint and runs: limited in time from outside, in memory from inside (sandboxed.py).

What hangs inside one call into C can be stopped by no signal and no thread of the same process, and what takes all memory ends
the process it is in. A process can be killed. It takes a second to start, so it is kept for the next request.
"""

import atexit
import json
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

MEMORY_ENDED = (b"memory allocation", b"MemoryError", b"bad_alloc")  # last words of Rust, Python and C++


class SandboxError(Exception):
    """A sandboxed process gave no answer; says why, as in `takes longer than 10 s`."""


class Sandbox:
    """A process that runs a program of ours, one request a line."""

    def __init__(self, program: Path, *arguments: str) -> None:
        """Start it; it loads its libraries while the caller does something else."""
        # -P: no module of the user's folder comes before the libraries; -W: the user's own settings are not for this process.
        command = [sys.executable, "-P", "-W", "ignore", str(program), *arguments]
        pipe = subprocess.PIPE
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in end()
        self.child = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=pipe, stdout=pipe, stderr=self._log, encoding="utf-8"
        )
        self._loaded = False
        atexit.register(self.end)

    def answer(self, request: dict[str, Any], seconds: float) -> Any:
        """The answer to one request. Raises SandboxError where it took longer and was killed, or ended; it serves no other then.

        The time to load the libraries, which depends on the machine alone, does not count.
        """
        if not self._loaded:
            self._loaded = self._read() == "loaded\n"
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.child.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert self.child.stdin
            self.child.stdin.write(f"{json.dumps(request, default=str)}\n")
            self.child.stdin.flush()
            line = self._read()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return json.loads(line)
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(1)  # for its exit code: its output is closed first
        raise SandboxError(f"takes longer than {seconds:g} s" if late.is_set() else self._last_words())

    def end(self) -> None:
        """Kill the process, whatever it does."""
        atexit.unregister(self.end)
        with suppress(BrokenPipeError), self.child:  # what it did not read any more is still to be written
            self.child.kill()
        self._log.close()

    def _read(self) -> str:
        assert self.child.stdout
        return self.child.stdout.readline()

    def _last_words(self) -> str:
        """Why it ended by itself."""
        self._log.seek(0)
        log = self._log.read()
        if any(words in log for words in MEMORY_ENDED):
            return "takes more memory than it may (4 GB)"
        return f"ended its process with code {self.child.returncode}"
