"""What cells hold: texts that a tokenizer can read, and labels."""

import re
from collections.abc import Sequence

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.table import listed

MAX_CHARACTERS = 10_000  # published requests have some hundreds; what is longer is a document, or a quote that was not closed
TOO_LONG = f"longer than {MAX_CHARACTERS:,} characters"
NAME = re.compile(r"[\w.-]+")
LABELS = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
LABEL_WORDS = "true, false, yes, no, 1 or 0"


def column_of_texts(what: str, given: str, columns: Sequence[str], named: str | None, known: Sequence[str]) -> str:
    """The column of the texts: the one named, the first that is known, or the only one. Raises InputError."""
    if named is not None:
        if named not in columns:
            raise InputError(f"{what} {given}: no column {named!r}", f"one of {listed(columns)}", "name one of them")
        return named
    if found := [name for name in known if name in columns]:
        return found[0]
    if len(columns) == 1 and NAME.fullmatch(columns[0]):  # not a first row in place of a header
        return columns[0]
    raise InputError(
        f"{what} {given}: columns {listed(columns)}", f"to know which holds the {what.split()[-1]}", f"type {given}:COLUMN"
    )


def is_empty(value: object) -> bool:
    """Whether a cell holds nothing: null, NaN, or white space alone."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def is_long(value: object) -> bool:
    """Whether a cell has more characters than a request or a text is looked at with."""
    return isinstance(value, str) and len(value.strip()) > MAX_CHARACTERS


def text_of(where: str, value: object, column: str) -> str:
    """A cell's text without the white space around it. Raises InputError."""
    if not isinstance(value, str):
        raise InputError(f"{where}: {type(value).__name__} in column {column}", "text", "fix the row, or name another column")
    return checked(where, value.strip(), "row")


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


def label_of(value: object) -> bool | None:
    """True or false, as CSV, JSON and Parquet have it; None where it is neither."""
    return LABELS.get(str(value).strip().lower())


def refuse_mostly_empty(what: str, given: str, column: str, empty: int, rows: int) -> None:
    """Raise InputError where more than half of the rows have nothing in a column: it is not the one that was meant."""
    if empty * 2 > rows:
        raise InputError(
            f"{what} {given}: column {column} is empty in {empty:,} of {rows:,} rows",
            "a text in most rows",
            "name another column, or take the rows out",
        )


def normal(text: str) -> str:
    """What two texts share that are one."""
    return " ".join(text.casefold().split())
