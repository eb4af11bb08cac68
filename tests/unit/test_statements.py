"""Fact tables against their cards, splits, false objects, and the user's own files."""

import csv
import hashlib
import random
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechdrift.errors import InputError
from mechdrift.prompts.statements import (
    exchange_objects,
    fact_tables,
    shipped_statements,
    split_entities,
    table_statements,
)
from mechdrift.prompts.written_statements import read_statements

KINDS = [table.kind for table in fact_tables()]


@pytest.mark.parametrize("kind", KINDS)
def test_table_is_what_its_card_says(kind: str) -> None:
    table = next(table for table in fact_tables() if table.kind == kind)
    raw = (files("mechdrift.data") / "facts" / f"{kind}.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == table.card["sha256"], "table changed: write its new n and sha256 into the card"
    assert len(list(csv.DictReader(raw.decode().splitlines()))) == table.card["n"] == len(table.facts)
    assert {"title", "source", "licence"} <= table.card.keys()
    assert len({fact.subject for fact in table.facts}) == len(table.facts), "a subject stands twice"
    for fact in table.facts:
        for cell in (fact.subject, fact.object, fact.false_object, fact.negated, fact.question):
            assert cell == cell.strip()
        assert fact.subject
        assert fact.object
        assert fact.object != fact.false_object
    assert len(table.forms) == len(table.negated_forms)
    for form in (*table.forms, *table.negated_forms):
        assert "{object}" in form
        assert ("{subject}" in form) != ("{negated}" in form)
        assert form.endswith(".")


def test_shipped_tables_have_the_promised_sizes() -> None:
    sizes = {table.kind: len(table.facts) for table in fact_tables()}
    least = {
        "animal_classes": 160,
        "cities": 700,
        "element_symbols": 100,
        "general_facts": 250,
        "inventors": 200,
        "numbers": 150,
        "spanish_words": 350,
    }
    assert sizes.keys() == least.keys()
    assert all(sizes[kind] >= n for kind, n in least.items()), sizes


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_fact_has_one_true_and_one_false_statement_in_one_split(kind: str, negated: bool) -> None:
    table = next(table for table in fact_tables() if table.kind == kind)
    forms = table.negated_forms if negated else table.forms
    right = {fact.sentence(form, fact.object) for fact in table.facts for form in forms}
    statements = table_statements(table, negated=negated)
    assert len(statements) == len({statement.text for statement in statements}) == 2 * len(table.facts)
    for statement in statements:
        assert statement.label is ((statement.text in right) is not negated), statement.text
        assert statement.negated is negated
        assert (" not " in f" {statement.text} " or statement.text.startswith("No ")) is negated, statement.text
        assert statement.text[0].isupper()
    assert Counter(s.entity for s in statements if s.label) == Counter(s.entity for s in statements if not s.label)
    entities = {fact.entity for fact in table.facts}
    assert all(len({s.split for s in statements if s.entity == entity}) == 1 for entity in entities)
    for split in ("fit", "choose", "test"):
        result, denied = (
            Counter(s.value for s in statements if s.split == split and s.label is label) for label in (True, False)
        )
        assert result == denied or table.facts[0].false_object, "an object's name alone would tell the label"


def test_negated_and_affirmed_statements_are_about_the_same_objects() -> None:
    for table in fact_tables():
        affirmed, denied = table_statements(table), table_statements(table, negated=True)
        assert [(s.entity, s.value, s.split, s.label) for s in affirmed] == [
            (s.entity, s.value, s.split, not s.label) for s in denied
        ]


def test_numbers_compare_as_their_words_say() -> None:
    """Against the words' values worked out here, not by the generator."""
    ones = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    ones += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    value = {(ones[n] if n < 20 else tens[n // 10] + (f"-{ones[n % 10]}" if n % 10 else "")): n for n in range(100)}
    table = next(table for table in fact_tables() if table.kind == "numbers")
    for fact in table.facts:
        word, verb, relation, than = fact.subject.split()
        assert (verb, than) == ("is", "than")
        assert fact.negated == f"{word} is not {relation} than"
        sign = {"larger": 1, "smaller": -1}[relation]
        assert sign * (value[word] - value[fact.object]) > 0
        assert sign * (value[word] - value[fact.false_object]) < 0


@given(st.sets(st.text(min_size=1), min_size=5, max_size=200), st.integers(0, 5))
def test_splits_have_their_shares_and_ignore_order(entities: set[str], seed: int) -> None:
    splits = split_entities(sorted(entities), seed)
    assert splits == split_entities(sorted(entities, reverse=True), seed)
    counts = Counter(splits.values())
    assert counts["fit"] == round(0.2 * len(entities))
    assert counts["test"] == len(entities) - round(0.4 * len(entities))


def test_another_seed_is_another_split() -> None:
    assert split_entities(map(str, range(50)), 0) != split_entities(map(str, range(50)), 1)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60), st.integers(0, 1000))
def test_exchanged_objects_are_a_permutation_without_fixed_points(objects: list[str], seed: int) -> None:
    if max(Counter(objects).values()) * 2 > len(objects):
        with pytest.raises(ValueError, match="more than half"):
            exchange_objects(objects, random.Random(seed))
        return
    given_objects = exchange_objects(objects, random.Random(seed))
    assert Counter(given_objects) == Counter(objects)
    assert all(a != b for a, b in zip(objects, given_objects, strict=True))


def test_shipped_statements_depend_on_the_seed_only() -> None:
    assert shipped_statements(0) == shipped_statements(0)
    assert shipped_statements(0) != shipped_statements(1)


def test_user_statements_from_csv_and_jsonl(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("statement,label,entity,extra\nA is B.,true,A,x\nA is C.,0,A,y\n", encoding="utf-8")
    lines = tmp_path / "lines.jsonl"
    lines.write_text(
        '{"statement": "A is B.", "label": 1, "kind": "k"}\n\n{"statement": "A is C.", "label": false, "kind": "k"}\n'
    )
    read = read_statements(table).all
    assert [(s.text, s.label, s.entity, s.kind) for s in read] == [("A is B.", True, "A", "own"), ("A is C.", False, "A", "own")]
    assert read[0].split == read[1].split
    assert [(s.label, s.entity, s.kind) for s in read_statements(lines).all] == [(True, "A is B.", "k"), (False, "A is C.", "k")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", "text,label\nA.,1\n", "no statement; expected columns"),
        ("a.csv", "statement,label\nA.,maybe\n", "line 2: label 'maybe'"),
        ("a.csv", "statement,label\nA,1\n", "no period"),
        ("a.csv", "statement,label\nA.,1\nB.,1\n", "one label only"),
        ("a.jsonl", '{"statement": "A.", "label": 1}\n{', "expected UTF-8 CSV or JSONL"),
        ("a.jsonl", "[1]\n", "line 1: not an object"),
    ],
)
def test_bad_user_statements_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_statements(tmp_path / name)


LABELS = {
    True: [True, 1, 1.0, "1", "1.0", "true", "True", "TRUE", " yes ", "Yes"],
    False: [False, 0, 0.0, "0", "0.0", "false", "False", "no", "NO"],
}


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.parquet"])
def test_labels_are_read_as_every_writer_has_them(tmp_path: Path, name: str) -> None:
    written = [label for labels in LABELS.values() for label in labels]
    kinds: list[Any] = [written, [True, False] * 5, [1.0, 0.0] * 5, [1, 0] * 5, np.array([1, 0] * 5, dtype=np.int8)]
    for number, labels in enumerate(kinds):
        table = pandas.DataFrame({"statement": [f"It is {one}." for one in range(len(labels))], "label": labels})
        if name.endswith(".parquet") and number == 0:
            table["label"] = table["label"].map(str)  # a column there has one type
        write = {"csv": "to_csv", "parquet": "to_parquet"}.get(name[2:], "to_json")
        more = {"orient": "records", "lines": name.endswith("l")} if write == "to_json" else {}
        getattr(table, write)(tmp_path / name, **more)
        expected = [label in LABELS[True] for label in labels]
        assert [one.label for one in read_statements(tmp_path / name).all] == expected


@pytest.mark.parametrize("label", ["2", "t", "maybe", "", "-1", "nan", "0.5"])
def test_what_is_no_label_is_named(tmp_path: Path, label: str) -> None:
    (tmp_path / "a.csv").write_text(f"statement,label\nA is B.,1\nA is C.,{label}\n")
    with pytest.raises(InputError, match=f"line 3: label '{label}'; expected true, false, yes, no, 1 or 0; fix the label"):
        read_statements(tmp_path / "a.csv")


def test_a_json_list_is_read_as_the_same_rows_in_lines(tmp_path: Path) -> None:
    table = pandas.DataFrame({"statement": ["A is B.", "A is C.", "D is B."], "label": [True, False, False], "kind": "k"})
    table.to_json(tmp_path / "a.json", orient="records", indent=1)
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert read_statements(tmp_path / "a.json").all == read_statements(tmp_path / "a.jsonl").all
    assert read_statements(tmp_path / "a.json").used.sha256 == read_statements(tmp_path / "a.jsonl").used.sha256


def test_rows_without_a_statement_are_counted_and_rows_are_filtered(tmp_path: Path) -> None:
    rows = ["A is B.,1,x", "A is C.,0,x", ",1,x", "A is D.,0,y"]
    (tmp_path / "a.csv").write_text("\n".join(["statement,label,source", *rows]))
    assert str(read_statements(tmp_path / "a.csv").used).endswith("a.csv; left out: 1 empty")
    read = read_statements(f"{tmp_path}/a.csv[source=x]")
    assert len(read.all) == 2
    assert read.used.left_out == {"where source is not x": 1, "empty": 1}
    (tmp_path / "a.csv").write_text("\n".join(["statement,label", ",1", ",0", "A is B.,1"]))
    with pytest.raises(InputError, match="column statement is empty in 2 of 3 rows; expected a text in most rows"):
        read_statements(tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text('{"statement": ["A is B."], "label": 1}')
    with pytest.raises(InputError, match="line 1: list in column statement; expected text"):
        read_statements(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"statement": "A\\u0000 is B.", "label": 1}')
    with pytest.raises(InputError, match=r"line 1: the character '\\x00'"):
        read_statements(tmp_path / "a.jsonl")


def test_user_statements_may_be_negated(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("statement,label,negated\nA is B.,1,\nA is not B.,0,true\nA is not C.,1,1\n")
    assert [s.negated for s in read_statements(table).all] == [False, True, True]
    table.write_text("statement,label,negated\nA is B.,1,perhaps\n")
    with pytest.raises(InputError, match="line 2: negated 'perhaps'"):
        read_statements(table)


@pytest.mark.parametrize("kind", KINDS)
def test_negated_statements_say_the_opposite_of_the_same(kind: str) -> None:
    table = next(table for table in fact_tables() if table.kind == kind)
    affirmed, denied = table_statements(table), table_statements(table, negated=True)
    assert [(s.entity, s.value, s.split, s.label) for s in affirmed] == [
        (s.entity, s.value, s.split, not s.label) for s in denied
    ]
    for statement in denied:
        assert statement.negated
        assert " not " in statement.text or statement.text.startswith("No ")
    assert not any(statement.negated for statement in affirmed)


def test_missing_and_undecodable_user_statements_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found"):
        read_statements(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"statement,label\nCaf\xe9.,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_statements(tmp_path / "latin.csv")
