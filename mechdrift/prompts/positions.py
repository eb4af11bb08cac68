"""Positions: the tokens of a prompt that have names."""

from typing import TYPE_CHECKING, Any

from mechdrift.errors import Unmeasurable

if TYPE_CHECKING:
    pass


POSITIONS = ("period", "last")


def token_at(position: str, text: str, offsets: list[tuple[int, int]]) -> int:
    """Index of the token at a named position of a prompt, from the tokens' character offsets.

    period: the token that holds the last period (it may hold more, as in "'."); last: the last token that holds text.
    Raises Unmeasurable where there is none.
    """
    if position not in POSITIONS:
        raise ValueError(f"position {position!r}: one of {', '.join(POSITIONS)}")
    character = text.rstrip().rfind(".") if position == "period" else len(text) - 1
    if character < 0:
        raise Unmeasurable(f"no token holds the {position} of {text!r}")
    return token_over(character, text, offsets)


def token_over(character: int, text: str, offsets: list[tuple[int, int]]) -> int:
    """Index of the last token that holds a character of the text. Raises Unmeasurable where none does."""
    holding = [index for index, (start, end) in enumerate(offsets) if start <= character < end]
    if not holding:
        raise Unmeasurable(f"no token holds character {character} of {text!r}")
    return holding[-1]


def encode(tokenizer: Any, texts: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids and character offsets of prompts, with the special tokens that the tokenizer itself adds."""
    encoded = tokenizer(texts, add_special_tokens=True, return_offsets_mapping=True)
    return encoded["input_ids"], [[(start, end) for start, end in row] for row in encoded["offset_mapping"]]
