"""One input of the corpus, and what a run has to say of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
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
