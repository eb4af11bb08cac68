"""What is said of two vocabularies that differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.vocabulary import vocabulary_note

Change = Callable[[Any, Any], None]


def add_pad(model: Any, tokenizer: Any) -> None:
    """As Tulu 3 has it: a pad token of its own, and an embedding padded to a multiple of eight rows."""
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)


def add_many(_model: Any, tokenizer: Any) -> None:
    tokenizer.add_tokens([f"<{number}>" for number in range(5)])


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda *_: None, None),
        (
            add_pad,
            "vocabularies differ: post has 1 more ('<pad>'), its embedding has {padded} rows, base's {rows}; "
            "compared is what both read alike",
        ),
        (
            add_many,
            "vocabularies differ: post has 5 more ('<0>', '<1>', '<2>', ...); compared is what both read alike",
        ),
    ],
)
def test_what_was_added_is_told(tiny_checkpoint: Callable[..., Path], tmp_path: Path, change: Change, note: str | None) -> None:
    base, (post, model) = resolve(str(tiny_checkpoint())), changed(tiny_checkpoint(), tmp_path, change)
    rows = model.get_input_embeddings().weight.shape[0]
    before = AutoModelForCausalLM.from_pretrained(base.folder).get_input_embeddings().weight.shape[0]
    assert vocabulary_note(base, post) == (note and note.format(padded=rows, rows=before))


def test_what_was_taken_away_or_moved_is_told(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    base = resolve(str(tiny_checkpoint()))
    post, _ = changed(tiny_checkpoint(), tmp_path, add_many)
    assert "5 fewer" in str(vocabulary_note(post, base))
    folder = tiny_checkpoint()
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    # Two letters change places.
    text = text.replace('"A":', '"@@":').replace('"B":', '"A":').replace('"@@":', '"B":')
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    assert "2 under another id" in str(vocabulary_note(base, resolve(str(folder))))


def changed(source: Path, folder: Path, change: Change) -> tuple[Checkpoint, Any]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    change(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve(str(folder)), model
