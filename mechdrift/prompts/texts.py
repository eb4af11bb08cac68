"""Texts on which the next token is looked at: of the project's statements and instructions, or a file of the user's."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechdrift.checkpoints.lfs import refuse_pointers
from mechdrift.errors import InputError
from mechdrift.prompts.instructions import Instruction
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.tables import checked, column_of_texts, normal, read_table, split_spec, text_cell

WHAT, OPTION = "texts", "--mechdrift-texts"
COLUMNS = ("text",)
LINES = ".txt"


@dataclass(frozen=True)
class Text:
    """One text."""

    text: str
    """As a tokenizer is given it."""
    unit: str
    """What was sampled: texts of one unit count as one."""
    kind: str
    """The data set it belongs to."""


@dataclass(frozen=True)
class Texts:
    """The texts of a run and where they are from."""

    all: tuple[Text, ...]
    """In the order of the file."""
    source: str
    """The file and column as given, or `statements and instructions`."""
    left_out: dict[str, int]
    """How many lines or rows are not among them, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """As the record has it; the digest is of the texts, in their order."""
        digest = hashlib.sha256("\n".join(one.text for one in self.all).encode()).hexdigest()
        return {"file": self.source, "used": len(self.all), "left_out": self.left_out, "sha256": digest}

    def __str__(self) -> str:
        """For the header of a run: `256 of corpus.txt; left out: 3 twice there`."""
        left = ", ".join(f"{n} {why}" for why, n in self.left_out.items())
        return f"{len(self.all)} of {self.source}" + (f"; left out: {left}" if left else "")


def read_texts(given: str, most: int) -> Texts:
    """The texts of FILE[:COLUMN]: one a line of a .txt file; else of the column named, `text`, or the only one of a table.

    Lines without text are left out; of two that differ in case and white space only one is kept, and of more than `most` those
    that are drawn by their content, so that the order of the file is no matter. Raises InputError, with the line, for what
    cannot be used.
    """
    path, column = split_spec(given, WHAT, OPTION)
    lines = path.suffix == LINES and column is None
    rows = _lines(path) if lines else _table(path, column, given)
    left_out: Counter[str] = Counter()
    read: dict[str, str] = {}
    for text in rows:
        left_out["twice there"] += normal(text) in read
        read.setdefault(normal(text), text)
    if not read:
        raise InputError(f"{WHAT} {given}: no text", "one text a line or row", "fill the file")
    kept = drawn(list(read.values()), most)
    left_out[f"beyond {most}"] += len(read) - len(kept)
    every = tuple(Text(text, text, path.stem) for text in kept)
    return Texts(every, given, {why: count for why, count in left_out.items() if count})


def sample(statements: Iterable[Statement], instructions: Iterable[Instruction], most: int) -> Texts:
    """Texts of the project's own: true statements and instructions of the test split, half of `most` of each, by their content.

    True statements about one entity are one unit, and so are an instruction's harmful and harmless forms.
    """
    facts = {
        s.text: Text(s.text, f"{s.kind}: {s.entity}", s.kind)
        for s in statements
        if s.label and not s.negated and s.split == "test"
    }
    requested = {i.text: Text(i.text, i.pair, "harmful" if i.harmful else "harmless") for i in instructions if i.split == "test"}
    chosen = [source[text] for source in (facts, requested) for text in drawn(list(source), most // 2)]
    return Texts(tuple(chosen), "statements and instructions", {})


def drawn(texts: Sequence[str], most: int | None) -> list[str]:
    """At most so many, drawn by their content, in their order; what a smaller number draws is among what a larger one does."""
    chosen = set(sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())[:most])
    return [text for text in texts if text in chosen]


def _lines(path: Path) -> list[str]:
    """The lines of a text file. Raises InputError."""
    refuse_pointers(WHAT, [path])
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        summary = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{WHAT} {path}: {summary}", "a text file in UTF-8", "check your rights to it, or save it again"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return [checked(f"{WHAT} {path}, line {number}", line, "line") for number, line in numbered]


def _table(path: Path, column: str | None, given: str) -> list[str]:
    """The texts of a table. Raises InputError."""
    table = read_table(path, WHAT)
    if not table:
        raise InputError(f"{WHAT} {given}: no rows", "one text a row", "fill the file")
    columns = [str(name) for name in table[0][1] if name is not None]
    column = column_of_texts(WHAT, given, columns, column, COLUMNS)
    return [text_cell(f"{WHAT} {place}", row, column) for place, row in table]
