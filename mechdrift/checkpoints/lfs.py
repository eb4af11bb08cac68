"""Git LFS pointers: three lines of text that lie where a large file should be, until `git lfs pull` fetches it."""

from collections.abc import Iterable
from pathlib import Path

from mechdrift.errors import InputError

FIRST_LINE = b"version https://git-lfs.github.com/spec/"


def refuse_pointers(spec: str, paths: Iterable[Path]) -> None:
    """Raise InputError for the first of these files that is a Git LFS pointer; those that are not there are left out."""
    for path in paths:
        if path.is_file() and is_pointer(path):
            raise InputError(
                f"{spec}: {path.name} is a Git LFS pointer, not the file itself",
                "the file that it stands for",
                "run: git lfs pull (in the clone that it is from)",
            )


def is_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer. Reads its first bytes."""
    with path.open("rb") as handle:
        return handle.read(len(FIRST_LINE)) == FIRST_LINE
