"""Facts as public sets have them, in words of our own: the statements and the pairs that are made of them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import pytest

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.facts import WrittenFact, partners
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.written_pairs import read_pairs
from mechdrift.prompts.written_statements import Statements, read_statements

TOWNS = {f"Town{number:02}": "north" if number % 2 else "south" for number in range(20)}
OTHER = {"north": "south", "south": "north"}
NESTED = [
    {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "{} lies in the",
            "relation_id": "P1",
            "subject": town,
            "target_true": {"str": side, "id": "Q1"},
            "target_new": {"str": OTHER[side], "id": "Q2"},
        },
        "paraphrase_prompts": ["Where? {}"],
    }
    for number, (town, side) in enumerate(TOWNS.items())
]
FLAT = [
    {"subject": town, "prompt": f"the place {town} lies in the", "target_true": f" {side}", "target_false": OTHER[side]}
    for town, side in TOWNS.items()
]
TRIPLES = [{"subject": town, "relation": "lies in", "object": f"land {number}"} for number, town in enumerate(TOWNS)]
FORMED = [row | {"relation": "in the land of {}, all is", "false_object": "nowhere"} for row in TRIPLES]


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """A file, as pandas or `datasets` write it."""
    path = folder / name
    if path.suffix == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(str(path))
    else:
        pandas.DataFrame(rows).to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return path


def said(read: Statements) -> set[tuple[str, bool, str, str, str]]:
    """Everything of each statement but its split."""
    return {(one.text, one.label, one.entity, one.value, one.kind) for one in read.all}


def expected(before: str, after: str, kind: str) -> set[tuple[str, bool, str, str, str]]:
    """A true and a false statement of each town."""
    return {
        (f"{before}{town}{after} {value}.", value == side, town, value, kind)
        for town, side in TOWNS.items()
        for value in ("north", "south")
    }


@pytest.mark.parametrize("name", ["counterfact.json", "counterfact.jsonl", "counterfact.parquet"])
def test_facts_with_the_span_of_their_subject_are_statements(tmp_path: Path, name: str) -> None:
    read = read_statements(written(tmp_path, name, NESTED))
    assert said(read) == expected("", " lies in the", "P1")
    assert read.used.used == len(read.all) == 40
    assert read.used.left_out == {}
    by_entity: dict[str, set[Statement]] = {}
    for one in read.all:
        by_entity.setdefault(one.entity, set()).add(one)
    assert all(len({one.split for one in group}) == 1 and len(group) == 2 for group in by_entity.values())


def test_flat_facts_and_triples_are_statements(tmp_path: Path) -> None:
    assert said(read_statements(written(tmp_path, "flat.csv", FLAT))) == expected("The place ", " lies in the", "flat")
    triples = read_statements(written(tmp_path, "triples.csv", TRIPLES))
    assert {(one.text, one.entity) for one in triples.all if one.label} == {
        (f"{row['subject']} lies in {row['object']}.", row["subject"]) for row in TRIPLES
    }
    for split in ("fit", "choose", "test"):
        of_split = [one for one in triples.all if one.split == split]
        true, false = (Counter(one.value for one in of_split if one.label is label) for label in (True, False))
        assert true == false, "false objects are those of the split"
    formed = read_statements(written(tmp_path, "formed.csv", FORMED))
    assert {one.text for one in formed.all if not one.label} == {f"In the land of {town}, all is nowhere." for town in TOWNS}


def test_facts_that_make_no_statement_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        *FLAT,
        FLAT[0] | {"subject": None},
        FLAT[0] | {"prompt": "It lies in the"},
        FLAT[0] | {"prompt": "Town00, Town00 lies in"},
    ]
    read = read_statements(written(tmp_path, "a.csv", rows))
    assert read.used.left_out == {
        "without a subject, a prompt or a target": 1,
        "without the subject once in the prompt": 2,
    }
    alike = [row | {"object": "north"} for row in TRIPLES]
    one_other = read_statements(written(tmp_path, "e.csv", [*alike[1:], TRIPLES[0]]))
    assert len(one_other.all) == 4, "each the other's false object"
    assert one_other.used.left_out == {"without a false object": 18}
    with pytest.raises(InputError, match=r"none left \(20 without a false object\)"):
        read_statements(written(tmp_path, "b.csv", alike))
    for relation in ("P31", "capital_of", "capitalOf"):
        with pytest.raises(InputError, match=rf"line 2: relation '{relation}' is no words; .* add a column prompt"):
            read_statements(written(tmp_path, "c.csv", [row | {"relation": relation} for row in TRIPLES]))
    with pytest.raises(InputError, match="line 2: str in column requested_rewrite; expected an object, which CSV cannot have"):
        read_statements(written(tmp_path, "d.csv", NESTED))


@pytest.mark.parametrize(("name", "rows"), [("a.json", NESTED), ("a.csv", FLAT)])
def test_facts_are_pairs_of_prompts_each_used_once(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    read = read_pairs(written(tmp_path, name, rows))
    assert len(read.all) == 10
    assert {pair.form for pair in read.all} == {"cloze"}
    used = Counter(town for pair in read.all for town in TOWNS for text in (pair.clean, pair.corrupt) if town in text)
    assert used == dict.fromkeys(TOWNS, 1)
    for pair in read.all:
        assert pair.answers is not None
        for text, answer in zip((pair.clean, pair.corrupt), pair.answers, strict=True):
            (town,) = [town for town in TOWNS if town in text]
            assert answer == f" {TOWNS[town]}"
            assert text.endswith("lies in the")
    assert len({pair.entity for pair in read.all}) == 10, "each its own unit"


def test_partners_differ_in_their_object_and_are_alike_in_length() -> None:
    def fact(subject: str, true: str, after: str = " is") -> WrittenFact:
        return WrittenFact(subject, "", after, true, "", "k")

    facts = [fact("A", "x"), fact("Bb b", "x"), fact("C", "y"), fact("Dd d", "y"), fact("E", "y", " was"), fact("F", "Y", " was")]
    pairs, alone = partners(facts)
    assert {(one.subject, other.subject) for one, other in pairs} == {("A", "C"), ("Bb b", "Dd d")}
    assert +alone == {"without a partner": 2}
