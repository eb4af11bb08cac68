"""Think blocks in a prompt: whether one is open where the reply begins, and how to close it so that the model only answers."""

import re
from collections.abc import Collection
from typing import Any

CLOSING = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|channel>thought": "<channel|>",
}
"""What opens a think block, and what closes it."""
SWITCHES: dict[str, Any] = {
    "enable_thinking": False,  # Qwen3, SmolLM3, GLM 4.5, Hunyuan
    "thinking": False,  # DeepSeek V3.1, Granite 3
    "reasoning": False,  # Command A Reasoning
    "reasoning_effort": "none",  # Mistral Small
    "thinking_budget": 0,  # Seed-OSS
}
"""By the names of their variables, what templates are told so that their model does not think."""
_OPENING = {marker.casefold(): marker for marker in CLOSING}
_CLOSED = {closing.casefold() for closing in CLOSING.values()}
_MARKER = re.compile("|".join(map(re.escape, (*CLOSING, *CLOSING.values()))), re.IGNORECASE)


def open_block(tail: str) -> str | None:
    """What opened the think block that a prompt ends in, as a key of CLOSING; None where it ends in none.

    tail: the prompt after the instruction (ChatPrompts.tail). The last marker decides.
    """
    markers = _MARKER.findall(tail)
    return _OPENING.get(markers[-1].casefold()) if markers else None


def has_closed_block(tail: str) -> bool:
    """Whether the last marker of a prompt's tail closes a think block."""
    markers = _MARKER.findall(tail)
    return bool(markers) and markers[-1].casefold() in _CLOSED


def closed_by_hand(tail: str, own_tokens: Collection[str] = ()) -> tuple[str, str]:
    """What is to follow a prompt's tail, so that its reply comes after an empty think block; and in words what that is.

    Where a block is open it is closed. Where none is, and the tokenizer has both markers as tokens of their own (own_tokens),
    the model may open one itself: a whole block follows. Else nothing does.
    """
    if opened := open_block(tail):
        lines = tail.endswith("\n")
        return f"\n{CLOSING[opened]}\n\n" if lines else CLOSING[opened], f"its think block is closed by {CLOSING[opened]}"
    if has_closed_block(tail):
        return "", "the template closes the think block itself"
    for opening, closing in CLOSING.items():
        if {opening, closing} <= {*own_tokens}:
            return f"{opening}\n\n{closing}\n\n", f"an empty think block, {opening} and {closing}, stands before the reply"
    return "", "no think block to close"
