"""What was taken of a file of the user's, and what was left out: for the header of a run and for its record."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

EMPTY, TWICE, BEYOND = "empty", "twice there", "beyond {most}"


@dataclass(frozen=True)
class Used:
    """A file, and how much of it is used."""

    file: str
    """As given; of a data set of the hub with its commit."""
    used: int
    """How many rows, or what is made of them."""
    left_out: Mapping[str, int]
    """How many rows are not among them, by reason."""
    sha256: str
    """Of what is used, one a line."""

    @classmethod
    def of(cls, file: str, texts: Iterable[str], left_out: Mapping[str, int]) -> "Used":
        """Of these texts."""
        every = list(texts)
        return cls(file, len(every), dict(left_out), hashlib.sha256("\n".join(every).encode()).hexdigest())

    def to_dict(self) -> dict[str, Any]:
        """As the record has it."""
        return {"file": self.file, "used": self.used, "left_out": dict(self.left_out), "sha256": self.sha256}

    def __str__(self) -> str:
        """For the header of a run: `40 of mine.csv; left out: 3 empty`."""
        return f"{self.used} of {self.file}{reasons(self.left_out)}"


def reasons(left_out: Mapping[str, int]) -> str:
    """What follows the number of rows that are used; nothing where none is left out."""
    left = ", ".join(f"{count} {why}" for why, count in left_out.items() if count)
    return f"; left out: {left}" if left else ""
