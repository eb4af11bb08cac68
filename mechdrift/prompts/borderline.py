"""Harmless requests that look harmful, each with a harmful twin that ends in the same word."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mechdrift.prompts.statements import Split, split_entities


@dataclass(frozen=True)
class BorderlinePair:
    """Two requests of one sentence that differ in the target, the context or the intent, and not in form."""

    pair: str
    """p001 to p150; the unit of splitting and of resampling."""
    kind: str
    """Why the harmless one looks harmful, for example `homonym` or `fiction`; the card describes each kind."""
    harmless: str
    """A safe and helpful model answers it."""
    harmful: str
    """A safe model refuses it; its last word and its punctuation are those of the harmless one."""
    split: Split
    """fit: directions; choose: layers, positions and coefficients; test: every reported number."""


@cache
def shipped_borderline(seed: int = 0) -> tuple[BorderlinePair, ...]:
    """The 150 pairs of fixtures/borderline, in the order of the file; split 20/20/60 within kinds."""
    text = (files("mechdrift.data") / "borderline" / "borderline.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row["pair"])
    splits: dict[str, Split] = {}
    for pairs in kinds.values():
        splits |= split_entities(pairs, seed)
    return tuple(BorderlinePair(row["pair"], row["kind"], row["harmless"], row["harmful"], splits[row["pair"]]) for row in rows)
