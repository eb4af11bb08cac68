"""Which pairs the knowledge suite asks: of tables or a file, by rule or by hand."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import tiny_model, tiny_tokenizer

from mechdrift.checkpoints.config import context_of
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.errors import Unmeasurable
from mechdrift.findings.hand_set import HandSet, load_hand_set
from mechdrift.findings.knowledge.pairs import PairRequest
from mechdrift.findings.knowledge.readings import _known
from mechdrift.prompts.pairs import Form
from mechdrift.prompts.positions import encode
from mechdrift.prompts.statements import fact_tables
from mechdrift.prompts.table_pairs import table_pairs
from mechdrift.prompts.written_pairs import read_pairs

BASE = resolve("organism:base")
RECORDER: Any = SimpleNamespace(pool=SimpleNamespace(tokenizer=load_tokenizer))
PUBLISHED = load_hand_set("du-2025-llama-3.1-8b")
TABLES = {table.kind: table for table in fact_tables()}


def asking(form: Form, hand_set: HandSet = PUBLISHED, written: Any = ()) -> PairRequest:
    return PairRequest.of(Pair(BASE, BASE), form, 0, written, hand_set)


def test_negated_kinds_are_judged_as_published_and_never_continued() -> None:
    assert asking("judged").kinds == [*TABLES, *(f"neg_{kind}" for kind in TABLES)]
    assert asking("cloze").kinds == asking("judged", HandSet()).kinds == [*TABLES]


def test_pairs_by_hand_are_those_of_the_table_and_the_key_says_so() -> None:
    read = partial(encode, load_tokenizer(BASE))
    found = asking("judged").found(RECORDER, BASE, ["neg_cities"], "test")
    expected = table_pairs(TABLES["cities"], read, negated=True, pairing="statements", start="statement")
    assert (found.pairs, found.dropped) == (expected.pairs, expected.dropped)
    assert asking("judged").by_hand == {"pairs": "statements", "positions": "statement"}
    usual = asking("judged", HandSet()).found(RECORDER, BASE, ["cities"], "test").pairs
    assert {(pair.clean, pair.corrupt) for pair in usual} == {
        (p.clean, p.corrupt) for p in table_pairs(TABLES["cities"], read).pairs
    }
    assert asking("judged", HandSet()).by_hand == {}


def test_whether_base_knows_a_kind_is_told_by_pairs_of_entities() -> None:
    """They have more units: of the few pairs of statements in a choose split no base could be told to know anything."""
    found, usual = (asking("judged", made).found(RECORDER, BASE, ["inventors"], "choose") for made in (PUBLISHED, HandSet()))
    assert [pair.clean for pair in found.pairs] == [pair.clean for pair in usual.pairs]
    assert found.units > 7


def test_a_file_of_one_form_has_nothing_of_the_other(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("clean,corrupt\nA is big.,B is big.\n")
    written = read_pairs(tmp_path / "mine.csv").all
    with pytest.raises(Unmeasurable, match=r"no rows clean,corrupt,correct,other; add some, or .* -k judged"):
        asking("cloze", written=written)
    assert asking("judged", written=written).by_hand == {"positions": "statement"}


def test_a_kind_without_examples_is_counted_and_others_are_asked(tmp_path: Path) -> None:
    rows = ["A is big.,B is big.,small", *(f"Town {chr(97 + n)} is big.,Town {chr(97 + n)} is bad.,large" for n in range(20))]
    (tmp_path / "mine.csv").write_text("\n".join(["clean,corrupt,kind", *rows]))
    made = asking("judged", written=read_pairs(tmp_path / "mine.csv").all)
    found = made.found(RECORDER, BASE, made.kinds, "test")
    assert {pair.kind for pair in found.pairs} == {"large"}
    assert found.entities == len(found.pairs) + 1 == 13
    assert found.dropped == {"kind 'small' has 0 True fit statements; a few-shot prompt needs 2": 1}


def test_prompts_are_no_longer_than_either_model_reads(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    tiny_model(max_position_embeddings=40).save_pretrained(tmp_path)
    short = resolve(str(tmp_path))
    assert context_of(short) == 40
    made = PairRequest.of(Pair(BASE, short), "cloze", 0, (), HandSet())
    assert made.context == PairRequest.of(Pair(short, BASE), "cloze", 0, (), HandSet()).context == 40
    found = replace(made, context=8).found(RECORDER, BASE, ["spanish_words"], "test")
    whole = made.found(RECORDER, BASE, ["spanish_words"], "test")
    assert found.dropped["longer than the context of 8 tokens"] == len(whole.pairs) - len(found.pairs) > 0


@pytest.mark.parametrize(("form", "knows"), [("cloze", True), ("judged", False)])
def test_a_base_that_prefers_one_object_may_still_know_which_is_right(form: Form, knows: bool) -> None:
    """Of two objects it names the same one whatever is asked, and by more where that is right: in cloze form it knows."""
    base = asking(form, HandSet())

    def logits(point: Any, prompts: Any) -> np.ndarray:
        half = len(prompts.ids) // 2
        shift = np.repeat([2.0, 1.0], half)  # of clean prompts, of corrupt ones
        return np.stack([shift, np.zeros(2 * half)], axis=1)

    recorder: Any = SimpleNamespace(pool=RECORDER.pool, logits=logits)
    assert _known(recorder, BASE, base, "cities") is knows
