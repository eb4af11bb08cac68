"""Harmful and harmless instructions: shipped ones, matched in form and length, or files that people have."""

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import column_of_texts, normal, refuse_mostly_empty
from mechdrift.prompts.data_files.layouts import REQUEST_COLUMNS, SideName, SideOfRows, category_of, reason_left_out, request_of
from mechdrift.prompts.data_files.sample import MOST, Sample
from mechdrift.prompts.data_files.table import read_table
from mechdrift.prompts.data_files.used import BEYOND, EMPTY, TWICE, reasons
from mechdrift.prompts.statements import SPLIT_SHARES, Split, split_entities

SIDES: dict[bool, SideName] = {True: "harmful", False: "harmless"}
SHIPPED = "shipped"


@dataclass(frozen=True)
class Instruction:
    """One request to a model."""

    text: str
    """The request; of a shipped one, one sentence."""
    harmful: bool
    """Whether a safe model refuses it."""
    category: str
    """What it is about, for example `fraud` or `cooking`; empty where that is not known."""
    pair: str
    """The unit of splitting: a shipped harmful and harmless instruction of one form share it, a user's has its own."""
    split: Split
    """fit: directions; choose: layers, positions and coefficients; test: every reported number."""


@dataclass(frozen=True)
class Side:
    """The harmful or the harmless instructions of a run, before they are split."""

    rows: tuple[tuple[str, str, str], ...]
    """(text, category, pair) of each."""
    source: str
    """The file and column as given, or `shipped`."""
    column: str
    """Where the text stood."""
    left_out: dict[str, int]
    """How many rows are not among them, by reason."""

    def to_dict(self) -> dict[str, Any]:
        """As the record has it; the digest is of the texts, in their order."""
        digest = hashlib.sha256("\n".join(text for text, _, _ in self.rows).encode()).hexdigest()
        return {
            "file": self.source,
            "column": self.column,
            "used": len(self.rows),
            "left_out": self.left_out,
            "sha256": digest,
        }

    def __str__(self) -> str:
        """For the header of a run: `520 of advbench.csv, column goal; left out: 3 twice there`."""
        return f"{len(self.rows)} of {self.source}, column {self.column}{reasons(self.left_out)}"


@dataclass(frozen=True)
class Instructions:
    """The instructions of a run and where they are from."""

    all: tuple[Instruction, ...]
    """Harmful and harmless ones, in the order of their files."""
    harmful: Side
    """Where the harmful ones are from."""
    harmless: Side
    """Where the harmless ones are from."""

    @property
    def data(self) -> str:
        """The data set as it stands in a row's key: names of files, not where they lie."""
        names = {side: _name(given.source) for side, given in (("harmful", self.harmful), ("harmless", self.harmless))}
        own = [f"{side}={name}" for side, name in names.items() if name != SHIPPED]
        return f"instructions[{','.join(own)}]" if own else "instructions"


def _name(source: str) -> str:
    """A file's name with its column and filter."""
    file, bracket, rest = source.partition("[")
    return f"{Path(file).name}{bracket}{rest}"


@cache
def shipped_instructions(seed: int = 0) -> tuple[Instruction, ...]:
    """The instructions of fixtures/instructions, harmful and harmless by turns."""
    return read_instructions(None, None, seed).all


def read_instructions(harmful: str | None, harmless: str | None, seed: int = 0) -> Instructions:
    """The instructions of FILE[:COLUMN][[column=value]] for each side, or the shipped ones; split 20/20/60 on each side.

    Published sets are known by their columns (`data_files.layouts`). Of other tables the column must be named, unless it is the
    only one. What is left out is counted by reason. Raises InputError, with the line, for what cannot be used; nothing is
    repaired silently.
    """
    sides = {True: _side(harmful, True), False: _side(harmless, False)}
    both = {normal(text) for text, _, _ in sides[True].rows} & {normal(text) for text, _, _ in sides[False].rows}
    if both:
        raise InputError(
            f"{sides[True].source} and {sides[False].source}: {len(both)} instructions on both sides, first {min(both)[:60]!r}",
            "each harmful or harmless",
            "take them out of one file",
        )
    splits = {which: split_entities((pair for _, _, pair in side.rows), seed) for which, side in sides.items()}
    for which, side in sides.items():
        if missing := [split for split, _ in SPLIT_SHARES if split not in splits[which].values()]:
            raise InputError(
                f"{SIDES[which]} instructions, {side}: {missing[0]} split is empty",
                "enough for splits of 20, 20 and 60 per cent",
                "add instructions",
            )
    found = {
        which: [Instruction(text, which, category, pair, splits[which][pair]) for text, category, pair in side.rows]
        for which, side in sides.items()
    }
    if harmful is None and harmless is None:
        every = [one for pair in zip(found[True], found[False], strict=True) for one in pair]
    else:
        every = found[True] + found[False]
    return Instructions(tuple(every), sides[True], sides[False])


def _side(given: str | None, harmful: bool) -> Side:
    """The rows of one side. Raises InputError."""
    side = SIDES[harmful]
    if given is None:
        lines = (files("mechdrift.data") / "instructions" / "instructions.csv").read_text(encoding="utf-8").splitlines()
        rows = tuple((row[side], row[f"{side}_category"], row["pair"]) for row in csv.DictReader(lines))
        return Side(rows, SHIPPED, side, {})
    what = f"{side} instructions"
    table = read_table(given, what, f"--mechdrift-{side}", "instruction")
    column = column_of_texts(what, given, table.columns, table.spec.column, REQUEST_COLUMNS)
    of_side = SideOfRows(side, [name for name, _ in table.spec.filters])
    left_out: Counter[str] = Counter()
    kept: Sample[tuple[str, str, str]] = Sample(MOST)
    rows_of_side = 0
    for place, row in table.rows:
        if reason := of_side.reason(row) or reason_left_out(row):
            left_out[reason] += 1
            continue
        rows_of_side += 1
        text, why = request_of(f"{what} {place}", row, column, table.has_quotes)
        if why is not None:
            left_out[why or EMPTY] += 1
        elif normal(text) in kept:
            left_out[TWICE] += 1
        else:
            kept.add(normal(text), (text, category_of(row, column), f"{side}: {normal(text)}"))
    of_side.require_one(what, given)
    refuse_mostly_empty(what, given, column, left_out[EMPTY], rows_of_side)
    left_out[BEYOND.format(most=MOST)] += kept.beyond
    left_out = +(table.left_out + left_out)
    if not kept.items:
        why = ", ".join(f"{n} {why}" for why, n in left_out.items())
        raise InputError(f"{what} {given}: none left ({why})", "requests that stand by themselves", "give another file")
    return Side(tuple(kept.items), table.source, column, dict(left_out))
