"""The record of a run: one JSON file from which every report is rendered, and beside it the items and maps of its rows."""

import errno
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mechdrift.files import whole, write_whole
from mechdrift.findings.drift import Item
from mechdrift.verdict.record import Record

if TYPE_CHECKING:
    import numpy as np


Stamp = tuple[int, int, int]
LOCK_SECONDS = 60.0  # a record is written in far less


def items_path(path: Path) -> Path:
    """Where the items and maps of a record lie."""
    return path.with_suffix(".items.safetensors")


def beside_path(path: Path, between: Sequence[str], suffix: str) -> Path:
    """Where a file lies that a family keeps of one comparison."""
    which = "" if tuple(between) == ("base", "post") else f".{'+'.join(between)}"
    return path.with_suffix(f"{which}{suffix}")


class WrittenMeanwhile(OSError):
    """Another process has written the file since this one looked at it."""


def stamp(path: Path) -> Stamp | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While no other process writes records or baselines there: a file and what lies beside it are always of one run.

    The folder itself is locked, for nothing may be left in one that is kept in git. Raises OSError.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while not _locked(handle):
            if time.monotonic() > until:
                raise OSError(errno.EAGAIN, f"another process has been writing in {folder} for {LOCK_SECONDS:g} s")
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_over(path: Path, record: Record, before: Stamp | None) -> None:
    """Write a record where there is none, or over the one that lay there before the run, by its stamp.

    Raises OSError, and WrittenMeanwhile where another lies there now: it would be lost.
    """
    with alone_in(path.absolute().parent):
        if stamp(path) not in (None, before):
            raise WrittenMeanwhile(0, "another run wrote it meanwhile")
        write_record(path, record)


def write_record(path: Path, record: Record) -> None:
    """Write items, then the record that names them, each under a temporary name first. Raises OSError."""
    import numpy as np

    tensors: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for row in record.rows:
        if row.items:
            for part in ("base", "post", "contribution"):
                tensors[f"{row.label}/{part}"] = np.array([getattr(item, part) for item in row.items])
            names[row.label] = names_of(row.items)
        for each in row.maps:
            tensors[f"{row.label}/map/{each.name}"] = np.array(each.values, dtype=np.float64)  # None, no number, is NaN
    write_items(path, tensors, names)
    write_json(path, to_json(record))


def names_of(items: Sequence[Item]) -> str:
    """Kinds and names of items, as JSON."""
    return json.dumps([[item.kind, item.name] for item in items], ensure_ascii=False)


def to_json(record: Record) -> dict[str, Any]:
    """What the JSON of a record says: items are counted, and maps have no values."""
    data: dict[str, Any] = msgspec.to_builtins(record)
    for row in data["rows"]:
        row["items"] = len(row["items"])
        row["maps"] = [{"name": each["name"], "columns": list(each["columns"])} for each in row["maps"]]
    return data


def write_json(path: Path, data: dict[str, Any], sort_keys: bool = False) -> None:
    """Write JSON that reads well in a diff, whole or not at all. Raises OSError."""
    text = json.dumps(data, indent=1, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    write_whole(path, (text + "\n").encode())


def write_items(path: Path, tensors: "dict[str, np.ndarray]", names: dict[str, str]) -> None:
    """Write what lies beside a record, if there is anything; names: of a row's items, as JSON. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    for each in (path, items_path(path)):
        _remove_leftovers(each)
    if not tensors:
        return
    try:
        with whole(items_path(path)) as temporary:
            save_file(tensors, temporary, names)
    except SafetensorError as error:
        raise OSError(0, str(error)) from error


def _remove_leftovers(path: Path) -> None:
    """Remove what runs of this machine left that were killed while they wrote this file."""
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        number = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if number.isdigit() and not _lives(int(number)):
            left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
