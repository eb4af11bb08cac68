"""vLLM in a process of its own: started with a time limit, asked line by line, and ended with all that it started."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from mechdrift.errors import Unmeasurable

Ask = Callable[[dict[str, Any]], dict[str, Any]]
WORKER = "mechdrift.engine.generate.vllm_worker"
LAST_LINES = 3
# The engine's core in the worker's own process; no statistics sent, nothing fetched.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def running(spec: str, told: dict[str, Any], environment: Mapping[str, str], start_seconds: float) -> Iterator[Ask]:
    """An engine, as a function that takes a question and gives its answer; gone afterwards.

    told: what the worker reads first. Raises Unmeasurable where it does not start within start_seconds, where it answers with
    an error, and where it ends, with what it last wrote.
    """
    command = [sys.executable, "-P", "-W", "ignore", "-m", WORKER]
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **ENVIRONMENT, **environment},
            start_new_session=True,  # a group of its own, so that all of it can be ended
        ) as child,
    ):

        def too_late() -> None:
            late.set()
            _end(child)

        def ask(question: dict[str, Any]) -> dict[str, Any]:
            assert child.stdin
            assert child.stdout
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(question).encode() + b"\n")
                child.stdin.flush()
            line = child.stdout.readline()
            if not line:
                said = f"did not start within {start_seconds:g} s" if late.is_set() else "ended"
                raise Unmeasurable(f"{spec}: vLLM {said}; it last wrote: {_last_lines(log)}")
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise Unmeasurable(f"{spec}: vLLM says {answer['error']}")
            return answer

        clock = threading.Timer(start_seconds, too_late)
        try:
            clock.start()
            ask(told)
            clock.cancel()
            yield ask
        finally:
            clock.cancel()
            _end(child)
            with suppress(BrokenPipeError):  # a question that it never read
                child.stdin and child.stdin.close()


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Kill the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _last_lines(log: IO[bytes]) -> str:
    """The end of what it wrote, in one line."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-LAST_LINES:])[-400:] or "nothing"
