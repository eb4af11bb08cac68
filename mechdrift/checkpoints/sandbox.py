"""Processes for what came with a checkpoint and runs: limited in time from outside, in memory from inside (sandboxed.py).

What hangs inside one call into C can be stopped by no signal and no thread of the same process, and what takes all memory ends
the process it is in. A process can be killed. It takes a second to start, so it is kept for the next request.
"""

import atexit
from pathlib import Path
from typing import Any

from mechdrift.child_process import ChildProcess, NoAnswer

MEMORY_ENDED = ("memory allocation", "MemoryError", "bad_alloc")  # last words of Rust, Python and C++


class SandboxError(Exception):
    """A sandboxed process gave no answer; says why, as in `takes longer than 10 s`."""


class Sandbox:
    """A process that runs a program of ours, one request a line."""

    def __init__(self, program: Path, *arguments: str) -> None:
        """Start it; it loads its libraries while the caller does something else."""
        self._child = ChildProcess([str(program), *arguments])
        self._loaded = False
        atexit.register(self.end)

    def answer(self, request: dict[str, Any], seconds: float) -> Any:
        """The answer to one request. Raises SandboxError where it took longer and was killed, or ended; it serves no other then.

        The time to load the libraries, which depends on the machine alone, does not count.
        """
        if not self._loaded:
            self._loaded = self._child.line() == "loaded\n"
        try:
            return self._child.ask(request, seconds)
        except NoAnswer as error:
            raise SandboxError(f"takes longer than {seconds:g} s" if error.late else self._last_words()) from error

    def end(self) -> None:
        """Kill the process, whatever it does."""
        atexit.unregister(self.end)
        self._child.end()

    def _last_words(self) -> str:
        """Why it ended by itself."""
        log = self._child.log()
        if any(words in log for words in MEMORY_ENDED):
            return "takes more memory than it may (4 GB)"
        return f"ended its process with code {self._child.code}"
