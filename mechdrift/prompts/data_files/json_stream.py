"""The objects of a JSON list, one at a time: no more of the file is in memory than one of them and what was read with it."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

CHUNK = 1 << 20  # characters
MOST = 1 << 25  # characters of one row: no published row comes near
SPACE = re.compile(r"[ \t\r\n]*")
OPENS_OBJECTS = re.compile(r"\[[ \t\r\n]*([^ \t\r\n])")


def json_rows(handle: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered objects of a list, or of the one list of objects that an object holds. Raises ValueError."""
    scanner = _Scanner(handle)
    if scanner.peek() == "[":
        yield from _entries(scanner)
    else:
        yield from _in_an_object(scanner)
    if scanner.peek():
        raise ValueError("something follows what it holds")


def _entries(scanner: "_Scanner") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the list that begins here."""
    scanner.take("[")
    number, ended = 0, scanner.peek() == "]"
    while not ended:
        number += 1
        row = scanner.value(f"entry {number}")
        if not isinstance(row, dict):
            raise ValueError(f"entry {number}: not an object")
        yield number, row
        ended = scanner.peek() != ","
        if not ended:
            scanner.take(",")
    scanner.take("]")


def _in_an_object(scanner: "_Scanner") -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the only list of objects among an object's values."""
    scanner.take("{")
    named, ended = "", scanner.peek() == "}"
    while not ended:
        name = scanner.value("a name")
        if not isinstance(name, str):
            raise ValueError("a name that is no text")
        scanner.take(":")
        if scanner.opens_objects():
            if named:
                raise ValueError(f"two lists of objects, {named!r} and {name!r}")
            named = name
            yield from _entries(scanner)
        else:
            scanner.value(repr(name))
        ended = scanner.peek() != ","
        if not ended:
            scanner.take(",")
    scanner.take("}")
    if not named:
        raise ValueError("no list of objects in it")


class _Scanner:
    """Reads values from a stream of characters."""

    def __init__(self, handle: TextIO) -> None:
        self.handle, self.buffer, self.at, self.ended = handle, "", 0, False
        self.decoder = json.JSONDecoder()

    def more(self) -> None:
        """Read on: as much as is there already, so that a long value is tried a few times and not a thousand."""
        self.buffer = self.buffer[self.at :]
        self.at = 0
        read = self.handle.read(max(CHUNK, len(self.buffer)))
        self.ended = not read
        self.buffer += read

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self.at = SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr]  # it matches nothing as well
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if self.ended:
                return ""
            self.more()

    def take(self, character: str) -> None:
        """Go beyond a character that must come next. Raises ValueError."""
        if (there := self.peek()) != character:
            raise ValueError(f"{there!r} where {character!r} was expected" if there else f"it ends before a {character!r}")
        self.at += 1

    def opens_objects(self) -> bool:
        """Whether a list comes next whose first entry is an object."""
        if self.peek() != "[":
            return False
        while not (found := OPENS_OBJECTS.match(self.buffer, self.at)) and not self.ended:
            self.more()
        return found is not None and found[1] == "{"

    def value(self, where: str) -> Any:
        """The value that comes next. Raises ValueError; where: for its message."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except RecursionError as error:
                raise ValueError(f"{where}: nested too deep") from error
            except json.JSONDecodeError as error:
                if self.ended:
                    raise ValueError(f"{where}: {error.msg}") from error
            else:
                if end < len(self.buffer) or self.ended:  # else a number may go on
                    self.at = end
                    return value
            if len(self.buffer) - self.at > MOST:
                raise ValueError(f"{where}: no JSON, or more than {MOST:,} characters")
            self.more()
