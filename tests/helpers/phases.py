"""A pytest plugin (-p phases) that notes which phase a comparing run has come to, and draws the shortest ones out.

The notes are lines `SECONDS PHASE` in the file that PHASES names. What is drawn out is the moment between a temporary file and
its name: there a kill leaves most behind, and it is too short to be met otherwise.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DRAWN_OUT = 0.25  # seconds
BETWEEN = "between"
PHASES = ("resolve", "load", "self-check", "record base", "record post", "steering", "keep", "write record")

inside = [BETWEEN]


def note(phase: str) -> None:
    """Append a line, whole at once."""
    with open(os.environ["PHASES"], "ab", buffering=0) as notes:
        notes.write(f"{time.monotonic():.4f} {phase}\n".encode())


def watch(owner: Any, name: str, phase: str | Callable[..., str]) -> None:
    """Note when a function is entered and left."""
    function = getattr(owner, name)

    def watched(*arguments: Any, **named: Any) -> Any:
        inside.append(phase if isinstance(phase, str) else phase(*arguments))
        note(inside[-1])
        try:
            return function(*arguments, **named)
        finally:
            inside.pop()
            note(inside[-1])

    setattr(owner, name, watched)


def pytest_configure(config: pytest.Config) -> None:
    """Watch what a run goes through."""
    from mechdrift.checkpoints import resolve
    from mechdrift.engine import pool, store
    from mechdrift.engine.stored_recordings import Recorder
    from mechdrift.report import record_file

    base = config.getoption("mechdrift_base")
    watch(resolve.Resolver, "resolve", "resolve")
    watch(pool, "load_model", "load")
    watch(pool, "check_logits", "self-check")
    watch(pool, "check_stream", "self-check")
    for name in ("blocks", "logits"):
        watch(Recorder, name, lambda _, checkpoint, *rest: "record base" if checkpoint.spec == base else "record post")
    watch(Recorder, "steered_logits", "steering")
    watch(store, "_write_part", "keep")
    watch(record_file, "write_record", "write record")
    replace = Path.replace

    def slow(path: Path, target: Path) -> Path:
        if inside[-1] in ("keep", "write record"):
            time.sleep(DRAWN_OUT)
        return replace(path, target)

    Path.replace = slow  # type: ignore[method-assign,assignment]
    note(BETWEEN)
