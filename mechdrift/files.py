"""Files and folders that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary place beside a path, for a file or a folder: renamed to it when the block ends, removed when it raises.

    Raises OSError of the rename, as where a folder that is not empty lies there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with whole(path) as temporary:
        temporary.write_bytes(data)
