"""Rows of text files, one at a time: CSV, TSV, JSON, JSON lines and lines of text, each also compressed with gzip."""

import csv
import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, cast

from mechdrift.checkpoints.untrusted import parse_json
from mechdrift.errors import InputError
from mechdrift.prompts.data_files.json_stream import MOST, json_rows

GZIPPED = b"\x1f\x8b"
SAMPLE = 1 << 16  # bytes in which a format is recognised
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
ANY_JSON = "a JSON list in UTF-8, an object with one list, or one JSON object a line"
TABLE = "UTF-8 CSV or JSONL"

Format = Literal["lines", "JSON lines", "JSON", "cells"]
Row = dict[str, object]
Place = str  # where a row stands, for messages: `FILE, line 3`


def open_bytes(path: Path) -> BinaryIO:
    """The file, unpacked where it is compressed with gzip."""
    with path.open("rb") as handle:
        packed = handle.read(len(GZIPPED)) == GZIPPED
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def format_of(path: Path, name: str, as_lines: bool) -> Format:
    """Of a text file: by its content; where that leaves it open, by its name. Raises OSError, ValueError and what gzip does."""
    if as_lines:
        return "lines"
    with open_bytes(path) as handle:
        sample = handle.read(SAMPLE).removeprefix(BOM_UTF8)
    opening = sample.lstrip()[:1]
    if name.endswith((".jsonl", ".ndjson")) and not _is_list_of_objects(sample):
        return "JSON lines"
    if opening == b"{":
        return "JSON lines" if _has_many_objects(path) else "JSON"
    return "JSON" if opening == b"[" else "cells"


def text_rows(path: Path, name: str, as_lines: bool, what: str) -> Iterator[tuple[Place, Row]]:
    """The rows of a text file; name: of the file, without `.gz`. as_lines: a .txt file has one text a line, in the column `text`.

    Raises InputError.
    """
    expected, fix = TABLE, "fix the file"
    try:
        kind = format_of(path, name, as_lines)
        if kind == "lines":
            expected, fix = "a text file in UTF-8", "check your rights to it, or save it again"
            yield from _lines(path, what)
        elif kind == "JSON lines":
            expected = TABLE if name.endswith((".jsonl", ".ndjson")) else ANY_JSON
            yield from _json_lines(path, what, expected)
        elif kind == "JSON":
            expected = ANY_JSON
            yield from _json(path)
        else:
            yield from _delimited(path, name, what)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{what} {path}: {error}", "a whole gzip file", "fetch it again") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{what} {path}: {error}", expected, fix) from error


@contextmanager
def _opened(path: Path, newline: str) -> Iterator[TextIO]:
    """A file's text."""
    with open_bytes(path) as handle, TextIOWrapper(handle, encoding="utf-8-sig", newline=newline) as text:
        yield text


def _bounded_lines(handle: TextIO) -> Iterator[tuple[int, str]]:
    """Numbered lines. Raises ValueError for one that no row is as long as."""
    number = 0
    while line := handle.readline(MOST + 1):
        number += 1
        if len(line) > MOST:
            raise ValueError(f"line {number} has more than {MOST:,} characters")
        yield number, line


def _lines(path: Path, what: str) -> Iterator[tuple[Place, Row]]:
    """Lines that are not blank."""
    any_text = False
    with _opened(path, "\n") as handle:
        for number, line in _bounded_lines(handle):
            if line.strip():
                any_text = True
                yield f"{path}, line {number}", {"text": line}
    if not any_text:
        raise InputError(f"{what} {path}: no text", "one text a line or row", "fill the file")


def _json_lines(path: Path, what: str, expected: str) -> Iterator[tuple[Place, Row]]:
    """One JSON object a line."""
    with _opened(path, "") as handle:
        for number, line in _bounded_lines(handle):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise InputError(f"{what} {path}, line {number}: {error}", expected, "fix the file") from error
            if not isinstance(row, dict):
                raise InputError(f"{what} {path}, line {number}: not an object", "one JSON object a line", "fix the line")
            yield f"{path}, line {number}", row


def _json(path: Path) -> Iterator[tuple[Place, Row]]:
    """A JSON list of objects, or an object that has one."""
    with _opened(path, "") as handle:
        for number, row in json_rows(handle):
            yield f"{path}, entry {number}", row


def _is_list_of_objects(sample: bytes) -> bool:
    """Whether a file that is called JSONL opens as a JSON list of objects does."""
    opening = sample.lstrip()
    return opening.startswith(b"[") and opening[1:].lstrip()[:1] in (b"{", b"")


def _has_many_objects(path: Path) -> bool:
    """Whether the first line with text is a JSON object, and another line with text follows it or it has no list of objects."""
    with _opened(path, "") as handle:
        filled = (line for _, line in _bounded_lines(handle) if line.strip())
        try:
            only = parse_json(next(filled))
        except ValueError:
            return False
        if next(filled, None) is not None:
            return True
    lists = [value for value in only.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return len(lists) != 1


def _delimited(path: Path, name: str, what: str) -> Iterator[tuple[Place, Row]]:
    """A table with a header, cells separated by commas, or plainly by tabs or semicolons."""
    with open_bytes(path) as handle:
        sample = handle.read(SAMPLE).removeprefix(BOM_UTF8)
    text = sample.decode("utf-8", errors="replace")
    delimiter = delimiter_of(text if len(sample) < SAMPLE // 2 else text.rpartition("\n")[0], name)
    limit = csv.field_size_limit(MOST)  # theirs is 131,072, and replies beside a request may be longer
    try:
        with _opened(path, "") as handle:
            reader = csv.DictReader(handle, delimiter=delimiter)
            header = reader.fieldnames or ()
            if twice := [column for column in dict.fromkeys(header) if column and list(header).count(column) > 1]:
                raise InputError(
                    f"{what} {path}: column {twice[0]!r} stands twice in the header", "a name for each column", "rename one"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise InputError(
                        f"{what} {where}: more cells than columns, with {DELIMITERS[delimiter]} between them",
                        "one cell a column",
                        f"quote what holds a {DELIMITERS[delimiter].removesuffix('s')}",
                    )
                yield where, dict(row)
    finally:
        csv.field_size_limit(limit)


def delimiter_of(sample: str, name: str) -> str:
    """What separates cells: commas where the header has one; else tabs or semicolons that split some rows alike.

    In a file that is called .tsv it is tabs, unless the header has commas and no tab.
    """
    header = next(StringIO(sample, newline=""), "")
    if name.endswith(".tsv"):
        return "," if "," in header and "\t" not in header else "\t"
    if "," in header:
        return ","
    for delimiter in ("\t", ";"):
        if delimiter in header:
            rows = [row for row in csv.reader(StringIO(sample, newline=""), delimiter=delimiter) if row][:20]
            if {len(row) for row in rows} == {len(rows[0])}:
                return delimiter
    return ","
