"""Named positions and families."""

from typing import Any

import pytest
from tiny import tiny_model

from mechdrift.errors import Unmeasurable
from mechdrift.models.sites import blocks
from mechdrift.prompts.positions import encode, token_at


def test_positions_are_found_by_offsets_whether_or_not_a_bos_is_prepended(tiny_tokenizer: Any) -> None:
    text = "The city is in Poland."
    (ids,), (offsets,) = encode(tiny_tokenizer, [text])
    assert len(ids) == len(text) + 1
    assert token_at("period", text, offsets) == len(text)
    assert token_at("period", text, offsets[1:]) == len(text) - 1
    assert token_at("last", text + " This", [*offsets, (22, 27)]) == len(text) + 1


def test_a_token_may_hold_more_than_the_period() -> None:
    assert token_at("period", "means 'dog'.", [(0, 5), (5, 10), (10, 12)]) == 2


def test_the_period_is_the_last_one() -> None:
    assert token_at("period", "St. Paul is.", [(0, 2), (2, 3), (3, 8), (8, 11), (11, 12)]) == 4


def test_no_period_is_unmeasurable() -> None:
    with pytest.raises(Unmeasurable, match="no token holds the period"):
        token_at("period", "no end", [(0, 6)])


def test_a_family_that_nobody_listed_is_found() -> None:
    model = tiny_model("gpt_neo", attention_types=[[["global"], 3]])
    assert blocks(model) == list(model.transformer.h)
