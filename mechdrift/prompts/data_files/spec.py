"""What the user named: a file, a folder of shards or a data set of the hub, with a column and a filter of rows."""

import re
from dataclasses import dataclass
from pathlib import Path

from mechdrift.errors import InputError

SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tsv", ".txt")
GZIP = ".gz"
FILTER = re.compile(r"(?P<rest>.*)\[(?P<filter>[^\[\]]*)\]", re.DOTALL)
DATA_SET = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^@:\s]+))?(?::(?P<column>.+))?", re.ASCII
)
CONFIG, SPLIT = "config", "split"  # of a data set of the hub: they choose what is loaded
EITHER = "|"
Filters = tuple[tuple[str, tuple[str, ...]], ...]
NO_FILTERS: Filters = ()
FORMATS = "CSV, TSV, JSON, JSONL or Parquet"


@dataclass(frozen=True)
class Spec:
    """A table as the user named it."""

    given: str
    """As typed."""
    column: str | None
    """The column after the colon."""
    filters: Filters
    """Columns of the rows that are used, each with the values that it may have."""
    path: Path | None = None
    """The file or folder; None for a data set of the hub."""
    repo: str = ""
    """`org/name` on the hub."""
    revision: str | None = None
    """A branch, tag or commit of it."""
    options: tuple[tuple[str, str], ...] = ()
    """`config` and `split` of a data set of the hub, where given."""

    @property
    def stem(self) -> str:
        """What a kind is called that has no name of its own: the file's name without its suffixes, or the data set's."""
        if self.path is None:
            return self.repo.partition("/")[2]
        path = self.path.with_suffix("") if self.path.suffix == GZIP else self.path
        return path.stem


def parse_spec(given: str, what: str, option: str, of_column: bool = True) -> Spec:
    """FILE[:COLUMN][[column=value,...]], or the same with `org/name[@revision]` of the hub in the place of FILE.

    A file whose own name has a colon or brackets is taken as it stands. of_column: whether a column may be named. what, option:
    for messages. Raises InputError.
    """
    path = Path(given).expanduser()
    if given and path.exists():
        return Spec(given, None, (), path)
    rest, filters = given, NO_FILTERS
    if (found := FILTER.fullmatch(given)) and "=" in found["filter"]:
        rest, filters = found["rest"], _filters(given, found["filter"], what)
    file, colon, column = rest.rpartition(":")
    if rest and Path(rest).expanduser().exists():
        return Spec(given, None, filters, Path(rest).expanduser())
    if of_column and colon and column and Path(file).expanduser().exists():
        return Spec(given, column, filters, Path(file).expanduser())
    if (named := DATA_SET.fullmatch(rest)) and not _looks_like_a_path(named["repo"]) and (of_column or not named["column"]):
        options = tuple((name, values[0]) for name, values in filters if name in (CONFIG, SPLIT))
        others = tuple(one for one in filters if one[0] not in (CONFIG, SPLIT))
        return Spec(given, named["column"], others, None, named["repo"], named["revision"], options)
    form = "FILE or FILE:COLUMN" if of_column else "FILE"
    raise InputError(
        f"{what} {given}: not found",
        f"{form}; {FORMATS}, or a folder of one table; or org/name of the hub",
        f"check {option}; a data set of the hub: hf download NAME --repo-type dataset --local-dir FOLDER",
    )


def _filters(given: str, text: str, what: str) -> Filters:
    """Each column with its values. Raises InputError."""
    parts = [part.partition("=") for part in text.split(",")]
    if any(not equals or not name.strip() for name, equals, _ in parts):
        raise InputError(f"{what} {given}: filter [{text}]", "[column=value], several with commas", "fix the filter")
    return tuple((name.strip(), tuple(value.strip() for value in values.split(EITHER))) for name, _, values in parts)


def _looks_like_a_path(repo: str) -> bool:
    """Whether `a/b` is a file that is missing rather than a data set of the hub."""
    folder, _, name = repo.partition("/")
    return Path(folder).exists() or name.removesuffix(GZIP).endswith(SUFFIXES)


def says(cell: object, values: tuple[str, ...]) -> bool:
    """Whether a cell has one of these values: text as it stands, numbers by their value, booleans in any case."""
    if isinstance(cell, bool):
        return str(cell).casefold() in {value.casefold() for value in values}
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str("" if cell is None else cell).strip() in values
