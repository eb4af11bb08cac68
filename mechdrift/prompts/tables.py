"""Rows of a table that people have, whatever it is written in: told by what is in the file, not by options."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.untrusted import parse_json
from mechdrift.errors import InputError
from mechdrift.prompts.statements import read_rows

DATA_FILES = (".csv", ".json", ".jsonl", ".parquet")
PARQUET = b"PAR1"  # the first bytes of such a file

Row = dict[str, object]
Place = str  # where a row stands, for messages: `FILE, line 3`


def read_table(path: Path, what: str) -> list[tuple[Place, Row]]:
    """The rows of a CSV, JSON, JSONL or Parquet file, or of the one such file of a folder.

    JSON: a list of objects, or one object a line. what: the kind of file, for messages. Raises InputError.
    """
    if path.is_dir():
        path = _only_file(path, what)
    try:
        with path.open("rb") as handle:
            opening = handle.read(4096).removeprefix(BOM_UTF8).lstrip()
        if opening.startswith(PARQUET):
            return list(_parquet(path, what))
        if opening.startswith(b"["):
            return list(_objects(path, what))
        if opening.startswith(b"{") and path.suffix != ".jsonl":
            return [(f"{path}, line {number}", row) for number, row in _lines(path, what)]
        return [(f"{path}, line {number}", row) for number, row in read_rows(path, what)]
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}", "a file that can be read", "check your rights to it") from error


def _only_file(folder: Path, what: str) -> Path:
    """The data file of a folder, as `hf download --repo-type dataset` leaves it."""
    within = sorted([*folder.glob("*"), *folder.glob("*/*")])  # no deeper: someone may name a disk
    within = [path for path in within if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    found = [path for path in within if path.suffix in DATA_FILES and path.is_file()]
    if len(found) != 1:
        named = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
        raise InputError(
            f"{what} {folder}: a folder with {len(found)} data files ({named}{', ...' if len(found) > 5 else ''})",
            f"one file ({', '.join(DATA_FILES)})",
            "name the file itself",
        )
    return found[0]


def _objects(path: Path, what: str) -> Iterator[tuple[Place, Row]]:
    """A JSON list of objects, as Alpaca has it."""
    try:
        rows = parse_json(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{what} {path}: {error}", "a JSON list in UTF-8", "mend the file") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{what} {path}, entry {number}: not an object", "a list of JSON objects", "mend the entry")
        yield f"{path}, entry {number}", row


def _lines(path: Path, what: str) -> Iterator[tuple[int, Row]]:
    """One JSON object a line, in a file that is not called .jsonl; a single object over many lines is no table."""
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
            if line.strip():
                row = parse_json(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not an object")
                yield number, row
    except ValueError as error:
        raise InputError(f"{what} {path}: {error}", "a JSON list, or one JSON object a line", "mend the file") from error


def _parquet(path: Path, what: str) -> Iterator[tuple[Place, Row]]:
    """The rows of a Parquet file, as the hub has most data sets."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"{what} {path}: a Parquet file, and pyarrow is not installed",
            "the extra parquet",
            "type: pip install 'mechdrift[parquet]'",
        ) from error
    try:
        batches: Any = ParquetFile(path).iter_batches()
        for number, row in enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1):
            yield f"{path}, row {number}", row
    except (ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{what} {path}: {told}", "a whole Parquet file", "fetch it again") from error
