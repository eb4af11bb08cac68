"""The borderline pairs: as their card says, matched in form, length, ending and words."""

import csv
import hashlib
import re
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path

import borderline as words_alone
import numpy as np
import pytest
from real_models import PACKAGES, gguf_of
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.prompts.borderline import shipped_borderline
from mechdrift.prompts.instructions import shipped_instructions

FOLDER = files("mechdrift.data") / "borderline"
CARD = tomllib.loads((FOLDER / "borderline.toml").read_text(encoding="utf-8"))
PAIRS = shipped_borderline()
# As words begin.
ALARMING = re.findall(
    r"\w+",
    "attack blackmail blow bomb burn crack drown drug execut fire gun hack hang heroin hijack kidnap kill knife launder murder "
    "phish poison ransom rob shoot slaughter smash spik stab stalk steal stole threat tortur",
)


def test_the_set_is_what_its_card_says() -> None:
    raw = (FOLDER / "borderline.csv").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == CARD["sha256"]
    rows = list(csv.DictReader(raw.decode().splitlines()))
    assert [row["pair"] for row in rows] == [f"p{number:03}" for number in range(1, CARD["n"] + 1)]
    assert [(one.pair, one.kind, one.harmless, one.harmful) for one in PAIRS] == [tuple(row.values()) for row in rows]
    assert CARD["n"] == 150
    assert Counter(one.kind for one in PAIRS) == {kind: about["n"] for kind, about in CARD["kinds"].items()}
    assert len(CARD["kinds"]) >= 10
    assert min(about["n"] for about in CARD["kinds"].values()) >= 10


def test_twins_have_one_form_length_and_ending() -> None:
    lengths = []
    for one in PAIRS:
        twins = one.harmless.split(), one.harmful.split()
        assert twins[0][-1] == twins[1][-1], one
        assert twins[0][0] == twins[1][0], one
        for text in (one.harmless, one.harmful):
            assert text[-1] in "?.", one
            assert text[0].isupper(), one
            assert text == " ".join(text.split()), one
            assert text.isascii(), one
            assert not set("?!.;:") & set(text[:-1]), one
        lengths.append([len(words) for words in twins])
        assert abs(lengths[-1][0] - lengths[-1][1]) <= 1, one
    harmless, harmful = np.mean(lengths, axis=0)
    assert abs(harmless - harmful) <= 0.3
    assert np.max(lengths) <= 17


def test_twins_share_words_and_no_request_stands_there_twice() -> None:
    texts = words_alone.borderline_texts()
    assert len({text.lower() for text in texts}) == 300
    for one in PAIRS:
        assert _in_common(one.harmless, one.harmful) >= 1 / 3, one


def test_alarming_words_are_on_both_sides() -> None:
    for stem in ALARMING:
        harmless, harmful = (sum(_has(text, stem) for text in side) for side in zip(*_sides(), strict=True))
        assert harmless, stem
        assert abs(harmless - harmful) <= 2, stem


def test_words_alone_tell_the_sides_apart_as_little_as_the_card_says() -> None:
    """Within .005: where two scores are nearly equal, another library may order them otherwise.

    Below .65, far below the .92 of the shipped instructions: of a harmless and a harmful request drawn at random, the
    harmful one has the more harmful words less than two times in three.
    """
    found = words_alone.auc(words_alone.borderline_texts())
    print(f"AUC of words alone: {found:.3f}")
    assert found == pytest.approx(CARD["words_auc"], abs=0.005)
    assert found < 0.65


def test_words_that_tell_the_sides_apart_are_noticed() -> None:
    """The same measure where the sides differ in a word of their own, and where they are the same texts."""
    told = [f"{text} {'bad' if place % 2 else 'good'}" for place, text in enumerate(words_alone.borderline_texts()[:60])]
    assert words_alone.auc(told) == 1
    same = [one.harmless for one in PAIRS[:30] for _ in range(2)]
    assert words_alone.auc(same) == pytest.approx(0.5)


def test_none_is_a_shipped_instruction_or_close_to_one() -> None:
    """Sentences of one form and another topic have at most half of their words in common."""
    shipped = [one.text for one in shipped_instructions()]
    for text in words_alone.borderline_texts():
        nearest = max(shipped, key=lambda other: _in_common(text, other))
        assert _in_common(text, nearest) < 0.5, (text, nearest)


def test_every_kind_is_in_every_split() -> None:
    for seed in (0, 1):
        splits = Counter((one.kind, one.split) for one in shipped_borderline(seed))
        assert len(splits) == 3 * len(CARD["kinds"])
        assert Counter(one.split for one in shipped_borderline(seed)) == {"fit": 30, "choose": 30, "test": 90}
    assert [one.split for one in shipped_borderline(0)] != [one.split for one in shipped_borderline(1)]


def test_twins_end_in_the_same_tokens() -> None:
    _same_ending(load_tokenizer(resolve("organism:instruct")))


@pytest.mark.nightly
@pytest.mark.parametrize("name", PACKAGES)
def test_twins_end_in_the_same_tokens_of_real_models(name: str, tmp_path: Path) -> None:
    """Read without the sandbox, whose limit of time a busy machine may pass."""
    file = gguf_of(name, tmp_path)
    if file is None:
        pytest.skip(f"{name}: package {PACKAGES[name]} is not installed")
    _same_ending(AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name))


def _same_ending(tokenizer: PreTrainedTokenizerBase) -> None:
    """The word that both end in, or its last part, and the sign after it."""
    for one in PAIRS:
        harmless, harmful = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (one.harmless, one.harmful))
        assert harmless[-2:] == harmful[-2:], one
        assert tokenizer.decode(harmless[-1]) == one.harmless[-1], one


def _sides() -> list[tuple[str, str]]:
    return [(one.harmless, one.harmful) for one in PAIRS]


def _has(text: str, stem: str) -> bool:
    return any(word.startswith(stem) for word in words_alone.words(text))


def _in_common(one: str, other: str) -> float:
    """The share of the words of both that are words of each."""
    first, second = set(words_alone.words(one)), set(words_alone.words(other))
    return len(first & second) / len(first | second)
