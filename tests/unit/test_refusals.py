"""The small classifier of replies: held against scikit-learn, which trained it, and against replies whose outcome is known."""

import shutil
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from mechdrift.commands.replies import READERS, accuracy, own_replies, sets, table
from mechdrift.errors import InputError
from mechdrift.prompts.labelled_replies import labelled_replies, real_replies
from mechdrift.prompts.refusals import (
    LONGEST,
    READ_BY,
    cues_of,
    ngrams,
    prepared,
    refusal_probability,
    shipped_card,
    shipped_cues,
    shipped_weights,
)
from mechdrift.prompts.replies import how_it_opens

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import reply_classifier

TEXTS = [reply.said for reply in (*labelled_replies(), *real_replies())]


def test_the_cues_are_what_their_card_says() -> None:
    card = tomllib.loads((files("mechdrift.data") / "replies" / "cues.toml").read_text(encoding="utf-8"))
    assert card["n"] == len(shipped_cues())
    assert {"title", "source", "licence"} <= card.keys()


@given(st.one_of(st.text(max_size=300), st.sampled_from(TEXTS)))
def test_ngrams_are_those_of_scikit_learn(text: str) -> None:
    theirs = CountVectorizer(analyzer="char_wb", ngram_range=(1, LONGEST), lowercase=False).build_analyzer()
    found = ngrams(prepared(text))
    assert sorted(found.elements()) == sorted(gram for gram in theirs(prepared(text)) if gram != " ")


def test_the_shipped_weights_are_those_of_the_recipe() -> None:
    """Trained again on the same rows, and read without scikit-learn."""
    model = reply_classifier.trained(reply_classifier.training_rows())
    expected = model.predict_proba(TEXTS)[:, 1]
    found = [refusal_probability(text, how_it_opens(text)) for text in TEXTS]
    assert np.abs(expected - found).max() < 2e-3, "float32, and a solver that stops near the optimum"
    assert found[0] != found[-1]


def test_it_was_not_trained_on_what_it_is_measured_on() -> None:
    rows = reply_classifier.training_rows()
    assert {row.source for row in rows} == {"written"}
    wordings = [{row.wording for row in labelled_replies() if row.split == split} for split in ("train", "test")]
    assert not wordings[0] & wordings[1]
    assert not {row.text for row in rows} & {row.text for row in real_replies()}


def test_the_default_is_the_better_reader() -> None:
    """By far on wordings that were not trained on, no worse on replies of real models."""
    every = sets(None)
    shares = {name: [accuracy(replies, read) for read in READERS.values()] for name, replies in every.items()}
    for name in ("written, English", "written, others"):
        classifier, openings = shares[name]
        assert classifier.interval().low > openings.interval().high
    for name in ("of real models", "of these not doubtful"):
        classifier, openings = shares[name]
        assert classifier.estimate > openings.interval().low


def test_a_cue_says_where_it_stands() -> None:
    said = cues_of("A lost key is annoying. I won't explain how to force it.", "opens as neither")
    assert {"declines to help", "declines to help @ 1", "opens as neither"} <= said.keys()
    assert "declines to help @ 0" not in said
    assert "declines, then answers" in cues_of("I can't help with it. Here is how: take a brick.", "opens as a refusal")


def test_nothing_known_is_the_bias_alone() -> None:
    weights = shipped_weights()
    expected = 1 / (1 + np.exp(-(weights.bias + weights.cues["opens as neither"])))
    assert refusal_probability("\u16a0", "opens as neither") == pytest.approx(expected)


def test_the_table_has_every_set_with_its_intervals() -> None:
    printed = "\n".join(table(None))
    for name, replies in sets(None).items():
        assert f"{name:<24}{len(replies):>5}" in printed
    assert max(map(len, table(None))) <= 80
    assert printed.count("written, English") == 1 + 2 * 2


def test_own_replies_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("reply,outcome\nI can't help with that.,refused\nSure. Take two eggs.,complied\n")
    assert [reply.outcome for reply in own_replies(str(path))] == ["refused", "complied"]
    assert "1.00 [0.43, 1.00] 2" in table(str(path))[1]


@pytest.mark.parametrize(
    ("text", "message"), [("reply,label\na,refused\n", "no column 'outcome'"), ("reply,outcome\na,nice\n", "outcome 'nice'")]
)
def test_what_is_no_outcome_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        own_replies(str(path))


@pytest.mark.parametrize("name", READ_BY)
def test_every_file_that_reads_replies_is_in_the_digest(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of any is another reader, of which nothing is measured."""
    card = shipped_card()
    shutil.copytree(str(files("mechdrift.data") / "replies"), tmp_path / "replies")
    with (tmp_path / "replies" / name).open("ab") as file:
        file.write(b" ")
    monkeypatch.setattr("mechdrift.prompts.refusals.files", lambda _package: tmp_path)
    changed = shipped_card.__wrapped__()
    assert changed.key != card.key
    assert (changed.measured, bool(card.measured)) == ("", True)


def test_the_figures_that_reports_show_are_those_of_the_files() -> None:
    """Written again by `python benchmarks/reply_classifier.py`."""
    card = shipped_card()
    assert card.measured == reply_classifier.measured()
