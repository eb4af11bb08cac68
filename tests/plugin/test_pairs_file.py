"""Knowledge rows of the user's own pairs, end to end."""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.prompts.pairs import FORMS, Form
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import fact_tables
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.prompts.written_pairs import read_pairs
from mechdrift.verdict.record import SCHEMA

PAIR = ("organism:base", "organism:instruct")
ROWS = ("knowledge.accuracy", "knowledge.clean_gap", "knowledge.recovery_forward")
ONLY = tuple(word for name in ROWS for word in ("--mechdrift-only", name))


def rows_of(form: Form, count: int) -> list[list[str]]:
    """Pairs about as many two Spanish words, as a user writes them: the base organism knows them."""
    table = next(table for table in fact_tables() if table.kind == "spanish_words")
    means = {fact.entity: fact.object for fact in table.facts}
    rows: dict[str, list[str]] = {}
    for pair in table_pairs(table, partial(encode, load_tokenizer(resolve("organism:base"))), form).pairs:
        clean, corrupt = pair.words
        cells = [clean, corrupt, "", ""]
        if form == "cloze":
            end = clean.rindex(means[pair.entities[0]])
            cells = [clean[:end], corrupt[: corrupt.rindex(means[pair.entities[0]])], *(means[each] for each in pair.entities)]
        rows[pair.unit] = [*cells, pair.unit, f"{form} words"]
    return list(rows.values())[:count]


def write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([["clean", "corrupt", "correct", "other", "entity", "kind"], *rows])


@pytest.mark.nightly
def test_pairs_of_both_forms_are_measured(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """With columns from the statement's first token on, which the key says."""
    (pytester.path / "own.toml").write_text('knowledge_positions = "statement"\n')
    write(pytester.path / "mine.csv", rows_of("judged", 80) + rows_of("cloze", 80))
    run = compare(*PAIR, "--mechdrift-pairs", "mine.csv", "--mechdrift-hand-set", "own.toml", *ONLY)
    requested = {
        pair.entity for pair in read_pairs(pytester.path / "mine.csv").all if pair.split == "test" and pair.answers is None
    }
    for form in FORMS:
        for name in ROWS:
            row = run.rows[f"{name}[form={form}]"]
            assert row["status"] == "ok", row["reason"]
            assert row["low"] <= row["estimate"] <= row["high"]
            assert row["key"]["data"] == f"{form} words"
        assert run.rows[f"knowledge.accuracy[form={form}]"]["n"] == len(requested) == 48
        key = run.rows[f"knowledge.recovery_forward[form={form}]"]["key"]
        assert (key["site_rule"], key["parameters"]["positions"]) == ("hand-set", "statement")
        assert run.rows[f"knowledge.clean_gap[form={form}]"]["verdict"] == "held"
    assert run.record["settings"]["pairs"] == "mine.csv"
    assert run.record["schema"] == SCHEMA


def test_what_a_file_lacks_is_said_with_what_to_type(compare: Callable[..., Any], pytester: pytest.Pytester) -> None:
    """Eight pairs of one form, three of other lengths: five test pairs are left, of which base could not be told to know."""
    short = [[f"The word {n} is", f"The other word, {n}, is", " a", " b", f"short {n}", "other lengths"] for n in range(3)]
    write(pytester.path / "few.csv", rows_of("cloze", 8) + short)
    run = compare(*PAIR, "--mechdrift-pairs", "few.csv", "--mechdrift-only", "knowledge.accuracy")
    assert run.code == 7
    judged, cloze = (run.rows[f"knowledge.accuracy[form={form}]"] for form in ("judged", "cloze"))
    assert judged["verdict"] == cloze["verdict"] == "unmeasurable"
    assert "has no rows clean,corrupt; add some, or leave these rows out with -k cloze" in judged["reason"]
    assert "5 units: too few to tell whether base knows" in cloze["reason"]
    assert "2 dropped: clean and corrupt prompt differ in length" in cloze["reason"]
    assert "again     pytest --base organism:base --post organism:instruct --mechdrift-pairs few.csv" in run.out
