"""vLLM in a process of its own: started with a time limit, sent one request a line, and ended with all that it started."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mechdrift.child_process import ChildProcess, NoAnswer
from mechdrift.errors import Unmeasurable

Ask = Callable[[dict[str, Any]], dict[str, Any]]
WORKER = "mechdrift.engine.generate.vllm_worker"
LAST_LINES = 3
# The engine's core in the worker's own process; no statistics sent, nothing fetched.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def running(spec: str, first: dict[str, Any], environment: Mapping[str, str], start_seconds: float) -> Iterator[Ask]:
    """An engine, as a function that takes a request and gives its answer; gone afterwards.

    first: what the worker reads first. Raises Unmeasurable where it does not start within start_seconds, where it answers with
    an error, and where it ends, with what it last wrote.
    """
    child = ChildProcess(["-m", WORKER], {**ENVIRONMENT, **environment})

    def ask(request: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = child.ask(request, seconds)
        except NoAnswer as error:
            how = f"did not start within {start_seconds:g} s" if error.late else "ended"
            raise Unmeasurable(f"{spec}: vLLM {how}; it last wrote: {_last_lines(child.log())}") from error
        if "error" in answer:
            raise Unmeasurable(f"{spec}: vLLM says {answer['error']}")
        return answer

    try:
        ask(first, start_seconds)
        yield ask
    finally:
        child.end()


def _last_lines(log: str) -> str:
    """The end of what it wrote, in one line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return " | ".join(lines[-LAST_LINES:])[-400:] or "nothing"
