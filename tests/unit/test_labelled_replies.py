"""labelled.csv is what its card says, and no wording of it is on both sides of the split."""

import csv
import re
import tomllib
from collections import Counter, defaultdict
from hashlib import sha256
from importlib.resources import files
from io import StringIO

import pytest

FOLDER = files("mechdrift.data") / "replies"
CARD = tomllib.loads((FOLDER / "labelled.toml").read_text(encoding="utf-8"))
ROWS = list(csv.DictReader(StringIO((FOLDER / "labelled.csv").read_text(encoding="utf-8"), newline="")))
SIDES = ("train", "test")
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
NOT = r"(?:can't|cannot|won't|will not|unable to|not able to|not going to) (?:be able to )?"


def side(row: dict[str, str]) -> str:
    """By the card's rule."""
    number = int(sha256(f"{CARD['salt']}:{row['wording']}".encode()).hexdigest()[:8], 16)
    return SIDES[number % 2 == 0]


def words(reply: str) -> list[str]:
    return WORD.findall(reply.casefold().replace("\u2019", "'"))


def test_the_card_counts_what_is_there() -> None:
    assert {"title", "source", "licence", "labels", "wording", "split"} <= CARD.keys()
    assert list(ROWS[0]) == ["id", "outcome", "kind", "language", "wording", "reply"]
    assert [row["id"] for row in ROWS] == [f"r{number:04d}" for number in range(1, CARD["n"] + 1)]
    assert CARD["wordings"] == len({row["wording"] for row in ROWS})
    assert Counter(map(side, ROWS)) == {name: CARD[name] for name in SIDES}
    for table, column in (("kinds", "kind"), ("languages", "language")):
        counts = {outcome: Counter(row[column] for row in ROWS if row["outcome"] == outcome) for outcome in CARD[table]}
        assert counts == CARD[table], table
    assert {row["outcome"] for row in ROWS} == {"refused", "complied"}


def test_there_are_enough_of_each() -> None:
    assert len(ROWS) >= 700
    assert len({row["wording"] for row in ROWS if row["language"] == "en"}) >= 80
    for outcome, languages in CARD["languages"].items():
        assert languages["en"] >= 240, outcome
        assert min(languages.values()) >= 20, outcome


def test_rates_of_a_language_may_be_told_where_the_test_side_has_forty() -> None:
    tests = Counter(row["language"] for row in ROWS if side(row) == "test")
    assert min(tests[language] for language in ("en", "de", "es", "fr", "zh")) >= 40
    assert sum(row["language"] == "en" for row in ROWS if side(row) == "train") >= 200


def test_two_wordings_hold_both_outcomes() -> None:
    outcomes: dict[str, set[str]] = defaultdict(set)
    for row in ROWS:
        outcomes[row["wording"]].add(row["outcome"])
    assert {wording for wording, found in outcomes.items() if len(found) > 1} == {"en-as-an-ai", "en-step-1"}


def test_no_reply_is_there_twice() -> None:
    counts = Counter(" ".join(row["reply"].casefold().split()) for row in ROWS)
    assert [reply for reply, count in counts.items() if count > 1] == []


def test_each_reply_is_text_and_each_cell_is_filled() -> None:
    for row in ROWS:
        assert all(cell.strip() for cell in row.values()), row["id"]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ufffd]", row["reply"]), row["id"]
        assert all(row[name] == row[name].strip() for name in row if name != "reply"), row["id"]
        assert row["wording"].startswith(f"{row['language']}-"), row["id"]


@pytest.mark.parametrize("column", ["kind", "language"])
def test_every_outcome_of_a_kind_and_of_a_language_is_on_both_sides(column: str) -> None:
    shares: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in ROWS:
        shares[row["outcome"], row[column]].append(side(row) == "test")
    for name, tests in shares.items():
        assert 0.2 <= sum(tests) / len(tests) <= 0.8, f"{name}: {sum(tests)} of {len(tests)} are test"


def test_a_negation_with_its_verb_is_one_wording() -> None:
    """`can't help` in training and `not able to help` in the test would be the same phrase twice."""
    refusals = [(row, " ".join(words(row["reply"]))) for row in ROWS if row["outcome"] == "refused" and row["language"] == "en"]
    for verb in ("help", "assist", "provide", "write", "give", "explain", "fulfil", "comply"):
        found = [row for row, text in refusals if re.search(rf"\b{NOT}{verb}", text)]
        assert len(found) >= 4, verb
        assert len({side(row) for row in found}) == 1, {row["wording"] for row in found}


def test_no_six_words_in_a_row_are_on_both_sides() -> None:
    sides: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in ROWS:
        spoken = words(row["reply"])
        for start in range(len(spoken) - 5):
            sides[row["language"], *spoken[start : start + 6]].add(side(row))
    assert [phrase for phrase, found in sides.items() if len(found) > 1] == []
