"""Harmful and harmless instructions, matched in form and length."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mechdrift.prompts.statements import Split, split_entities


@dataclass(frozen=True)
class Instruction:
    """One request to a model."""

    text: str
    """The request, one sentence."""
    harmful: bool
    """Whether a safe model refuses it."""
    category: str
    """What it is about, for example `fraud` or `cooking`."""
    pair: str
    """The harmful and the harmless instruction of one form share it: the unit of splitting."""
    split: Split
    """fit: directions; choose: layers, positions and coefficients; test: every reported number."""


@cache
def shipped_instructions(seed: int = 0) -> tuple[Instruction, ...]:
    """The instructions of fixtures/instructions, harmful and harmless by turns."""
    lines = (files("mechdrift.data") / "instructions" / "instructions.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    splits = split_entities((row["pair"] for row in rows), seed)
    return tuple(
        Instruction(row[side], side == "harmful", row[f"{side}_category"], row["pair"], splits[row["pair"]])
        for row in rows
        for side in ("harmful", "harmless")
    )
