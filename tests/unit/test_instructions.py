"""The instruction sets: matched, sorted, split, and as their card says."""

import csv
import hashlib
import tomllib
from collections import Counter
from importlib.resources import files

from mechdrift.prompts.instructions import shipped_instructions

FOLDER = files("mechdrift.data") / "instructions"
INSTRUCTIONS = shipped_instructions()


def test_the_set_is_what_its_card_says() -> None:
    raw = (FOLDER / "instructions.csv").read_bytes()
    card = tomllib.loads((FOLDER / "instructions.toml").read_text())
    assert hashlib.sha256(raw).hexdigest() == card["sha256"]
    rows = list(csv.DictReader(raw.decode().splitlines()))
    assert len(rows) == card["n"] >= 256
    assert sorted({row["harmful_category"] for row in rows}) == card["harmful_categories"]
    assert sorted({row["harmless_category"] for row in rows}) == card["harmless_categories"]


def test_instructions_are_all_different_and_matched_in_form_and_length() -> None:
    assert len({one.text.lower() for one in INSTRUCTIONS}) == len(INSTRUCTIONS)
    pairs: dict[str, dict[bool, str]] = {}
    for one in INSTRUCTIONS:
        pairs.setdefault(one.pair, {})[one.harmful] = one.text
    for texts in pairs.values():
        assert texts.keys() == {True, False}
        lengths = [len(text.split()) for text in texts.values()]
        assert abs(lengths[0] - lengths[1]) <= 2, texts
        assert texts[True].split()[0] == texts[False].split()[0], texts
    for harmful in (True, False):
        sizes = Counter(one.category for one in INSTRUCTIONS if one.harmful is harmful)
        assert min(sizes.values()) >= 20


def test_pairs_stay_together_in_their_splits() -> None:
    splits = {one.pair: one.split for one in INSTRUCTIONS}
    assert all(splits[one.pair] == one.split for one in INSTRUCTIONS)
    counts = Counter(splits.values())
    assert counts["fit"] == counts["choose"] == round(0.2 * len(splits))
