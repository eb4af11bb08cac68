"""One input of the corpus, and what a run has to say of it."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from stand_in import StandIn

USAGE, UNMEASURABLE = 4, 7


@dataclass(frozen=True)
class Case:
    """One command line."""

    kind: str
    """Class of what is wrong."""
    name: str
    """What is wrong."""
    make: Callable[[Path, StandIn], tuple[str, ...]]
    """Writes what is needed into an empty folder, or puts it on the hub; gives pytest's arguments."""
    message: str
    """Part of the line that has to be printed."""
    code: int = USAGE
    """The exit code."""
    environment: dict[str, str] = field(default_factory=dict)
    """What is set beside the hub's address."""
    may_hold: bool = False
    """Whether a row may be held all the same: the input costs other rows, or only a warning."""
    gate: bool = False
    """Whether gate.sh is run, with what `make` gives as its ARGS, and not pytest itself."""
    slow: bool = False
    """Whether it takes so long that only the nightly runs it: another of its kind is in `make test`."""

    def command(self, arguments: tuple[str, ...], cache: Path) -> tuple[list[str], dict[str, str]]:
        """What is run, and what is set for it beside `environment`; an option of the case's own comes after that of the cache."""
        if not self.gate:
            return [sys.executable, "-m", "pytest", "--mechdrift-cache", str(cache), *arguments], {}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        given = {"ARGS": "\n".join(arguments), "PYTEST_ADDOPTS": f"--mechdrift-cache={cache}", "PATH": path}
        return ["bash", str(files("mechdrift.integrations") / "gate.sh")], given
