"""Choices made by hand: read, checked, and told."""

from pathlib import Path

import pytest

from mechdrift.errors import InputError
from mechdrift.findings.hand_set import HandSet, load_hand_set


def test_nothing_is_fixed_unless_asked() -> None:
    assert load_hand_set(None) == HandSet()
    assert load_hand_set(None).to_dict() is None


def test_the_published_procedure_is_shipped() -> None:
    """METHODS: blocks 8 to 12 for Llama-3.1-8B, coefficient 1, object's last token and period, raw mean difference.

    Maps of 238 pairs with 178 false prompts, from the statement's first token on, negated kinds among them.
    """
    found = load_hand_set("du-2025-llama-3.1-8b")
    assert found.steering_layers == (8, 9, 10, 11, 12)
    assert found.steering_coefficient == 1.0
    assert found.steering_positions == ("object_last", "period")
    assert found.steering_length == "of the direction's model"
    assert found.to_dict() == {
        "name": "du-2025-llama-3.1-8b",
        "truth_layer": 12,
        "steering_layers": [8, 9, 10, 11, 12],
        "steering_coefficient": 1.0,
        "steering_positions": ["object_last", "period"],
        "steering_length": "of the direction's model",
        "knowledge_pairs": "statements",
        "knowledge_positions": "statement",
        "knowledge_negated": True,
    }


def test_blocks_that_the_model_lacks_are_named() -> None:
    with pytest.raises(InputError, match="block 8; expected 0 to 5 for this model"):
        load_hand_set("du-2025-llama-3.1-8b").require_layers(6)
    load_hand_set("du-2025-llama-3.1-8b").require_layers(13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("truth_layer = 1.5", r"truth_layer = 1\.5; expected a block number"),
        ("steering_layers = []", "expected a list of block numbers"),
        ("steering_coefficient = 0", "expected a positive number"),
        ('steering_positions = ["last"]', "expected a list of object_last and period"),
        ('steering_length = "mine"', "expected one of of the steered model"),
        ('knowledge_pairs = "all"', "expected one of entities, statements"),
        ('knowledge_positions = ["statement"]', "expected one of difference, statement"),
        ("knowledge_negated = 1", "expected true or false"),
        ("layers = [1]", "key 'layers'; expected only truth_layer"),
        ("= 1", "expected TOML"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_hand_set(str(tmp_path / "own.toml"))


def test_blocks_are_put_in_order(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("steering_layers = [4, 2, 4, 3]")
    assert load_hand_set(str(tmp_path / "own.toml")).steering_layers == (2, 3, 4)


def test_unknown_names_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown; expected one of du-2025-llama-3\.1-8b, or FILE\.toml"):
        load_hand_set("nothing")
    with pytest.raises(InputError, match="no such file"):
        load_hand_set(str(tmp_path / "none.toml"))
