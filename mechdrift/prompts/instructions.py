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
from mechdrift.prompts.statements import SPLIT_SHARES, Split, split_entities
from mechdrift.prompts.tables import Row, column_of_texts, normal, read_table, split_spec, text_cell

SIDES = {True: "harmful", False: "harmless"}
TEXT_COLUMNS = (
    "Goal",
    "goal",
    "Behavior",
    "instruction",
)  # of JailbreakBench, AdvBench, HarmBench, Alpaca
CATEGORY_COLUMNS = ("SemanticCategory", "Category", "category")
SHIPPED = "shipped"
# A request that needs another cell: the other columns by which its format is recognised, the cell, and the message.
INCOMPLETE = (
    ({"Behavior", "FunctionalCategory"}, "ContextString", "needs a context"),
    ({"instruction", "output"}, "input", "has an input"),
)


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
        left = ", ".join(f"{n} {why}" for why, n in self.left_out.items())
        return f"{len(self.rows)} of {self.source}, column {self.column}" + (f"; left out: {left}" if left else "")


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
        names = {side: Path(given.source).name for side, given in (("harmful", self.harmful), ("harmless", self.harmless))}
        own = [f"{side}={name}" for side, name in names.items() if name != SHIPPED]
        return f"instructions[{','.join(own)}]" if own else "instructions"


@cache
def shipped_instructions(seed: int = 0) -> tuple[Instruction, ...]:
    """The instructions of fixtures/instructions, harmful and harmless by turns."""
    return read_instructions(None, None, seed).all


def read_instructions(harmful: str | None, harmless: str | None, seed: int = 0) -> Instructions:
    """The instructions of FILE[:COLUMN] for each side, or the shipped ones; split 20/20/60 on each side.

    Known by their columns: AdvBench, HarmBench, JailbreakBench and Alpaca. Of other tables the column must be named, unless it
    is `instruction` or the only one. Raises InputError, with the line, for what cannot be used; nothing is repaired silently.
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
    path, column = split_spec(given, what, f"--mechdrift-{side}")
    table = read_table(path, what)
    if not table:
        raise InputError(f"{what} {given}: no rows", "one instruction a row", "fill the file")
    columns = [str(name) for name in table[0][1] if name is not None]
    column = column_of_texts(what, given, columns, column, TEXT_COLUMNS)
    left_out: Counter[str] = Counter()
    read: dict[str, tuple[str, str, str]] = {}
    for place, row in table:
        if reason := _incomplete(row):
            left_out[reason] += 1
            continue
        text = text_cell(f"{what} {place}", row, column)
        if normal(text) in read:
            left_out["twice there"] += 1
            continue
        category = next((str(row[name] or "") for name in CATEGORY_COLUMNS if name in row), "")
        read[normal(text)] = text, category, f"{side}: {normal(text)}"
    if not read:
        why = ", ".join(f"{n} {why}" for why, n in left_out.items())
        raise InputError(f"{what} {given}: none left ({why})", "requests that stand by themselves", "give another file")
    return Side(tuple(read.values()), given, column, dict(left_out))


def _incomplete(row: Row) -> str | None:
    """Why a row's request does not stand by itself; None where it does."""
    for others, cell, reason in INCOMPLETE:
        if others <= row.keys() and str(row.get(cell) or "").strip():
            return reason
    return None
