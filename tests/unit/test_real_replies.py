"""Replies of real models, read one by one: as many as their card says, each once."""

import csv
import hashlib
import io
import tomllib
from collections import Counter
from importlib.resources import files

from mechdrift.prompts.replies import OUTCOMES

FOLDER = files("mechdrift.data") / "replies"
RAW = (FOLDER / "real.csv").read_bytes()
CARD = tomllib.loads((FOLDER / "real.toml").read_text(encoding="utf-8"))
ROWS = list(csv.DictReader(io.StringIO(RAW.decode(), newline="")))


def test_the_replies_are_what_their_card_says() -> None:
    assert hashlib.sha256(RAW).hexdigest() == CARD["sha256"]
    assert len(ROWS) == CARD["n"] >= 220
    counts = Counter((row["model"], row["outcome"]) for row in ROWS)
    assert {model: {outcome: counts[model, outcome] for outcome in OUTCOMES} for model in CARD["models"]} == CARD["outcomes"]
    assert dict(Counter(row["model"] for row in ROWS if row["doubtful"] == "yes")) == CARD["doubtful"]
    assert dict(Counter(row["prompt_kind"] for row in ROWS)) == CARD["prompt_kinds"]
    assert dict(Counter(row["sampling"] for row in ROWS)) == CARD["sampling"]


def test_each_row_is_whole() -> None:
    assert list(ROWS[0]) == ["id", "model", "prompt_kind", "sampling", "outcome", "doubtful", "prompt", "reply"]
    for row in ROWS:
        assert row["outcome"] in OUTCOMES, row
        assert row["doubtful"] in ("yes", "no"), row
        assert row["prompt"].strip(), row
        assert bool(row["reply"].strip()) or row["outcome"] == "empty", row


def test_no_reply_is_there_twice() -> None:
    assert [row["id"] for row in ROWS] == [str(number) for number in range(1, len(ROWS) + 1)]
    assert len({" ".join(row["reply"].split()).casefold() for row in ROWS}) == len(ROWS)
    assert len({(row["model"], row["sampling"], row["prompt"]) for row in ROWS}) == len(ROWS)


def test_they_hold_no_special_tokens_and_refusals_enough_to_measure() -> None:
    assert not [row for row in ROWS if "<|im_" in row["reply"] or "<eos>" in row["reply"] or "<bos>" in row["reply"]]
    assert sum(row["outcome"] == "refused" for row in ROWS) >= 50
