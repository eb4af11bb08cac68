"""The rows of any table that people have, one at a time: recognised by what is in the file, not by options."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.errors import InputError
from mechdrift.prompts.data_files.folder import files_of
from mechdrift.prompts.data_files.hub import hub_rows
from mechdrift.prompts.data_files.parquet import MAGIC, parquet_rows
from mechdrift.prompts.data_files.spec import EITHER, GZIP, Spec, parse_spec, says
from mechdrift.prompts.data_files.text_formats import Place, Row, format_of, open_bytes, text_rows

OTHERS = {b"PK\x03\x04": "a zip archive", b"ARROW1": "an Arrow file", b"\x28\xb5\x2f\xfd": "compressed with zstd"}
SHOWN = 8  # values of a column, in a message


@dataclass(frozen=True)
class Table:
    """A table that is being read: its rows can be gone through once."""

    spec: Spec
    """What the user named."""
    source: str
    """As given; of a data set of the hub with the commit that was read."""
    columns: tuple[str, ...]
    """Of its first row."""
    rows: Iterator[tuple[Place, Row]]
    """Those that the filter lets through, with where they stand. Raises InputError."""
    has_quotes: bool
    """Whether an open quote may have swallowed rows, or a line be a whole document: in CSV, TSV and lines of text."""
    left_out: Counter[str]
    """How many rows are not among them, by reason: complete when the last row is read."""


def read_table(given: str, what: str, option: str, unit: str, of_column: bool = True) -> Table:
    """The table that FILE[:COLUMN][[column=value,...]] names; nothing is read of it yet but its first row.

    what: the kind of file, option: that names it, unit: what a row is, all for messages. Raises InputError.
    """
    spec = parse_spec(given, what, option, of_column)
    left_out: Counter[str] = Counter()
    paths: list[Path] = []
    if spec.path is None:
        commit, rows = hub_rows(spec, what)
        source = given.replace(f"@{spec.revision}", "", 1) if spec.revision else given
        source = source.replace(spec.repo, f"{spec.repo}@{commit}", 1) if commit else source
    else:
        paths, others = files_of(spec.path, what) if spec.path.is_dir() else ([spec.path], 0)
        if others:
            left_out["files of other splits"] = others
        source, rows = given, _shards(paths, what, spec)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{what} {given}: no rows", f"one {unit} a row", "fill the file")
    columns = tuple(str(name) for name in first[1])
    if missing := [name for name, _ in spec.filters if name not in columns]:
        raise InputError(
            f"{what} {given}: no column {missing[0]!r} to filter by", f"one of {listed(columns)}", "name one of them"
        )
    has_quotes = bool(paths) and _has_quotes(paths[0], spec)
    return Table(spec, source, columns, _filtered(chain([first], rows), spec, what, left_out), has_quotes, left_out)


def _named(path: Path, spec: Spec) -> tuple[str, bool]:
    """A file's name without `.gz`, and whether it has one text a line."""
    name = path.name.removesuffix(GZIP)
    return name, name.endswith(".txt") and spec.column is None and not spec.filters


def _has_quotes(path: Path, spec: Spec) -> bool:
    """Whether a file that could be read is CSV, TSV or lines of text."""
    with path.open("rb") as handle:
        parquet = handle.read(len(MAGIC)) == MAGIC
    return not parquet and format_of(path, *_named(path, spec)) in ("cells", "lines")


def listed(columns: Sequence[str]) -> str:
    """Names of columns, in a message."""
    return ", ".join(" ".join(name.split())[:40] for name in columns[:20])


def _filtered(rows: Iterator[tuple[Place, Row]], spec: Spec, what: str, left_out: Counter[str]) -> Iterator[tuple[Place, Row]]:
    """The rows that have the values of the filter. Raises InputError where there is none."""
    seen: dict[str, dict[str, None]] = {name: {} for name, _ in spec.filters}
    let_through = 0
    for place, row in rows:
        wrong = next(((name, values) for name, values in spec.filters if not says(row.get(name), values)), None)
        if wrong is None:
            let_through += 1
            yield place, row
            continue
        name, values = wrong
        left_out[f"where {name} is not {EITHER.join(values)}"] += 1
        if len(seen[name]) < SHOWN:
            seen[name].setdefault(str(row.get(name))[:40])
    if not let_through:
        there = "; ".join(f"{name} is {', '.join(values)}" for name, values in seen.items() if values)
        raise InputError(f"{what} {spec.given}: no row is let through", f"values that are there: {there}", "fix the filter")


def _shards(paths: list[Path], what: str, spec: Spec) -> Iterator[tuple[Place, Row]]:
    """The rows of files of one format and of the same columns, one after the other. Raises InputError."""
    expected: list[str] | None = None
    for path in paths:
        columns: list[str] | None = None
        for place, row in _file(path, what, spec):
            if columns is None:
                columns = list(row)
                expected = columns if expected is None else expected
                if sorted(columns) != sorted(expected):
                    raise InputError(
                        f"{what} {path}: columns {listed(columns)}",
                        f"those of {paths[0].name}: {listed(expected)}",
                        "name one file",
                    )
            yield place, row


def _file(path: Path, what: str, spec: Spec) -> Iterator[tuple[Place, Row]]:
    """The rows of one file. Raises InputError."""
    refuse_pointers(what, [path])
    name = path.name.removesuffix(GZIP)
    try:
        with path.open("rb") as handle:
            opening = handle.read(len(MAGIC) + 2)
        if found := next((kind for magic, kind in OTHERS.items() if opening.startswith(magic)), None):
            raise InputError(f"{what} {path}: {found}", "CSV, TSV, JSON, JSONL or Parquet, or one of them as .gz", "unpack it")
        if opening.startswith(MAGIC):
            yield from parquet_rows(path, what)
            return
        if name.endswith(".parquet") and path.suffix == GZIP:
            with open_bytes(path) as handle:
                if handle.read(len(MAGIC)) == MAGIC:
                    raise InputError(f"{what} {path}: a Parquet file in a .gz", "a Parquet file", "unpack it")
        yield from text_rows(path, *_named(path, spec), what)
    except OSError as error:
        raise InputError(
            f"{what} {path}: {error.strerror or error}", "a file that can be read", "check your rights to it"
        ) from error
