"""Rows of a table that people have, whatever it is written in: recognised by what is in the file, not by options."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.checkpoints.untrusted import parse_json
from mechdrift.errors import InputError
from mechdrift.prompts.statements import read_rows

DATA_FILES = (".csv", ".json", ".jsonl", ".parquet")
PARQUET = b"PAR1"  # the first bytes of such a file
MAX_CHARACTERS = 10_000  # published requests have some hundreds; what is longer is a document, or a quote that was not closed
NAME = re.compile(r"[\w.-]+")

Row = dict[str, object]
Place = str  # where a row stands, for messages: `FILE, line 3`


def read_table(path: Path, what: str) -> list[tuple[Place, Row]]:
    """The rows of a CSV, JSON, JSONL or Parquet file, or of the one such file of a folder.

    JSON: a list of objects, or one object a line. what: the kind of file, for messages. Raises InputError.
    """
    if path.is_dir():
        path = _only_file(path, what)
    refuse_pointers(what, [path])
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
        raise InputError(f"{what} {path}: {error}", "a JSON list in UTF-8", "fix the file") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{what} {path}, entry {number}: not an object", "a list of JSON objects", "fix the entry")
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
        raise InputError(f"{what} {path}: {error}", "a JSON list, or one JSON object a line", "fix the file") from error


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
        summary = " ".join(str(error).split())[:200]
        raise InputError(f"{what} {path}: {summary}", "a whole Parquet file", "fetch it again") from error


def split_spec(given: str, what: str, option: str) -> tuple[Path, str | None]:
    """FILE and COLUMN of FILE[:COLUMN]; a file whose own name has a colon is taken as it stands. Raises InputError."""
    path = Path(given).expanduser()
    if given and path.exists():
        return path, None
    file, colon, column = given.rpartition(":")
    if colon and column and Path(file).expanduser().exists():
        return Path(file).expanduser(), column
    raise InputError(
        f"{what} {given}: not found",
        "FILE or FILE:COLUMN; CSV, JSON, JSONL or Parquet, or a folder with one such file",
        f"check {option}; a data set of the hub: hf download NAME --repo-type dataset --local-dir FOLDER",
    )


def column_of_texts(what: str, given: str, columns: Sequence[str], named: str | None, known: Sequence[str]) -> str:
    """The column of the texts: the one named, the first that is known, or the only one. Raises InputError."""
    there = ", ".join(" ".join(name.split())[:40] for name in columns[:20])
    if named is not None:
        if named not in columns:
            raise InputError(f"{what} {given}: no column {named!r}", f"one of {there}", "name one of them")
        return named
    if found := [name for name in known if name in columns]:
        return found[0]
    if len(columns) == 1 and NAME.fullmatch(columns[0]):  # not a first row in place of a header, nor one of `a;b`
        return columns[0]
    raise InputError(f"{what} {given}: columns {there}", f"to know which holds the {what.split()[-1]}", f"type {given}:COLUMN")


def text_cell(where: str, row: Row, column: str) -> str:
    """A row's text without the white space around it. Raises InputError."""
    if None in row:
        raise InputError(f"{where}: more cells than columns", "one cell a column", "quote what holds a comma")
    text = row.get(column)
    if not isinstance(text, str):
        found = "nothing" if text is None else type(text).__name__
        raise InputError(f"{where}: {found} in column {column}", "text", "fix the row, or name another column")
    if not text.strip():
        raise InputError(f"{where}: column {column} is empty", "a text", "fill it, or take the row out")
    return checked(where, text.strip(), "row")


def checked(where: str, text: str, what: str) -> str:
    """A text that a tokenizer can read; what: a row or a line, for messages. Raises InputError."""
    if "\0" in text:
        raise InputError(f"{where}: a NUL byte", "text in UTF-8", "save the file again as UTF-8")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{where}: half of a surrogate pair", "text that UTF-8 can write", f"fix the {what}")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{where}: {len(text):,} characters", f"a text of at most {MAX_CHARACTERS:,}", "shorten it, or close an open quote"
        )
    return text


def normal(text: str) -> str:
    """What two texts share that are one."""
    return " ".join(text.casefold().split())
