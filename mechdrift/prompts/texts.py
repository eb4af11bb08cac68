"""Texts on which the next token is looked at: of the project's statements and instructions, or a file of the user's."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import TOO_LONG, column_of_texts, is_empty, is_long, normal, refuse_mostly_empty, text_of
from mechdrift.prompts.data_files.sample import MOST, Sample
from mechdrift.prompts.data_files.table import read_table
from mechdrift.prompts.data_files.used import BEYOND, EMPTY, TWICE, Used, reasons
from mechdrift.prompts.instructions import Instruction
from mechdrift.prompts.statements import Statement

WHAT, OPTION = "texts", "--mechdrift-texts"
COLUMNS = ("text",)


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
        return Used.of(self.source, [one.text for one in self.all], self.left_out).to_dict()

    def __str__(self) -> str:
        """For the header of a run: `256 of corpus.txt; left out: 3 twice there`."""
        return f"{len(self.all)} of {self.source}{reasons(self.left_out)}"


def read_texts(given: str, most: int) -> Texts:
    """The texts of FILE[:COLUMN][[column=value]]: one a line of a .txt file; else of the column named, `text`, or the only one.

    Lines and rows without text are left out; of two that differ in case and white space only one is kept, and of more than `most`
    those that are drawn by their content, so that the order of the file is no matter. Raises InputError, with the line, for what
    cannot be used.
    """
    table = read_table(given, WHAT, OPTION, "text")
    column = column_of_texts(WHAT, given, table.columns, table.spec.column, COLUMNS)
    left_out: Counter[str] = Counter()
    read: Sample[str] = Sample(max(most, MOST))
    rows = 0
    for place, row in table.rows:
        rows += 1
        if is_empty(row.get(column)):
            left_out[EMPTY] += 1
            continue
        if not table.has_quotes and is_long(row[column]):
            left_out[TOO_LONG] += 1
            continue
        text = text_of(f"{WHAT} {place}", row[column], column)
        if normal(text) in read:
            left_out[TWICE] += 1
        else:
            read.add(normal(text), text, ranked_by=text)
    refuse_mostly_empty(WHAT, given, column, left_out[EMPTY], rows)
    if not read.items:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(f"{WHAT} {given}: none left ({why})", "texts", "give another file")
    kept = drawn(read.items, most)
    left_out[BEYOND.format(most=most)] += read.beyond + len(read.items) - len(kept)
    every = tuple(Text(text, text, table.spec.stem) for text in kept)
    return Texts(every, table.source, dict(+(table.left_out + left_out)))


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
