"""Thoughts at the start of replies, in the markers of today's models and in those that a tokenizer declares."""

import tomllib
from importlib.resources import files
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mechdrift.prompts.replies import classify
from mechdrift.prompts.thoughts import Block, Markers, answer_of, markers_of, opening, shipped_markers, unclosed

BLOCKS = shipped_markers().blocks
WRITTEN = {  # opening and end of each kind of block, as models write them
    "<think>": "</think>",
    "<Thinking>": "</Thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|start|>assistant<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "analysis": "assistantfinal",
    "<|channel>thought\n": "<channel|>",
    "<unused94>thought\n": "<unused95>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "◁think▷": "◁/think▷",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
    "Here is my thought process:": "Here is my response:",
}


def test_the_markers_are_what_their_card_says() -> None:
    card = tomllib.loads((files("mechdrift.data") / "replies" / "thoughts.toml").read_text(encoding="utf-8"))
    assert card["n"] == len(card["block"]) + len(card["answer"])
    assert {"title", "source", "licence"} <= card.keys()
    assert {block for block in BLOCKS if any(block.opens.search(text + "X") for text in WRITTEN)} == {*BLOCKS}


@pytest.mark.parametrize(("opens", "closes"), WRITTEN.items())
def test_an_answer_begins_where_the_thought_ends(opens: str, closes: str) -> None:
    thought = f"\n {opens}They ask for cake. I can't refuse."
    assert answer_of(f"{thought}{closes}\nSure, here.") == "\nSure, here."
    assert answer_of(f"{thought}{closes}{opens.lstrip()}Again.{closes}Sure.") == "Sure."
    assert answer_of(thought) is None
    assert classify(f"{thought}{closes}I can't help with that.").outcome == "refused"
    assert classify(thought).outcome == "unfinished"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.closing], ids=lambda block: block.closes.pattern)
def test_a_prompt_is_given_a_thought_of_no_words(block: Block) -> None:
    """What is appended to a prompt is what the same reader takes for the end of a thought."""
    opened = next(text for text in WRITTEN if block.opens.fullmatch(text.strip()))
    tail = f"<|end|>\n<|assistant|>\n{opened}"
    assert unclosed(tail, shipped_markers()) == block
    assert unclosed(tail + block.closing, shipped_markers()) is None
    assert (answer_of(f"{block.closing}Sure.", inside=True) or "").strip() == "Sure."
    if block.empty:
        assert (answer_of(f"{block.empty}Sure.") or "").strip() == "Sure."
        assert unclosed(f"<|assistant|>{block.empty}", shipped_markers()) is None


@pytest.mark.parametrize(
    ("text", "inside", "answer"),
    [
        ("I wonder.</think> Sure.", True, " Sure."),
        ("I wonder.</think> Sure.", False, " Sure."),  # the prompt opened it, unknown to us
        ("I wonder", True, None),
        ("To think, write <think>a</think> in it.", False, "To think, write <think>a</think> in it."),
        ("<think>a</think><response>No.</response> tail", False, "No."),
        ("<response>No.</response>", False, "No."),
        ("<answer>No.", False, "No."),
        ("<|channel|>final<|message|>No.", False, "No."),
        ("Here is my response: no", False, "Here is my response: no"),  # a phrase of any reply
        ("analysis of the data shows", False, "analysis of the data shows"),
        ("", True, None),
        ("", False, ""),
    ],
)
def test_ends_without_beginnings_and_wrappers(text: str, inside: bool, answer: str | None) -> None:
    assert answer_of(text, inside) == answer


def test_what_special_tokens_say_is_no_word() -> None:
    special = ["<|im_start|>", "<|im_end|>", "<|end|>"]
    assert classify("<|im_start|><|im_end|>", special=special).outcome == "empty"
    assert classify("<|im_start|>I can't.<|im_end|>Sure.", special=special).outcome == "refused"
    assert classify("Sure.<|end|>I can't.", special=special).outcome == "complied"


def declared(fields: Any) -> Markers:
    """Of a tokenizer with such a response template."""
    return markers_of(cast(Any, SimpleNamespace(response_template={"version": 1, "fields": fields})))


def test_a_tokenizer_declares_its_own() -> None:
    """As transformers 5 has it: fields with the literals between which they stand."""
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.chat_parsing import parse_response

    thinking = {"open": "<<mull>>", "close": ["<</mull>>", "<<done>>"]}
    template: dict[str, Any] = {"start_anchor": "<|assistant|>", "fields": {"thinking": thinking, "content": {}}}
    markers = declared(template["fields"])
    for text in ("<<mull>>I can't.<</mull>>Sure.", "<<mull>>a<<done>>Sure."):
        assert answer_of(text, markers=markers) == "Sure." == parse_response(text, template, prefix="<|assistant|>")["content"]
    assert answer_of("<<mull>>I can't.", markers=markers) is None
    assert classify("<<mull>>I can't.<</mull>>Sure.", markers=markers).outcome == "complied"
    assert opening("<<mull>>a", shipped_markers()) is None
    assert hasattr(PreTrainedTokenizerFast, "parse_response")


def test_a_declared_thought_can_be_closed_and_usual_markers_stay_the_shipped_ones() -> None:
    """Tokenizers that declare `<think>` are many: how a template writes an empty one is known of the shipped block."""
    markers = declared(
        {"reasoning": {"open": "<think>", "close": "</think>"}, "thinking": {"open": ["<<m>>"], "close": "<</m>>"}}
    )
    usual, own = (opening(text, markers) for text in ("<think>a", "<<m>>a"))
    assert usual
    assert own
    assert usual[0] == BLOCKS[0]
    assert answer_of(f"{own[0].empty}Sure.", markers=markers) == "Sure."


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {"content": {"open": "<a>", "close": "</a>"}},
        {"thinking": None},
        {"thinking": {"open_pattern": "(a+)+$", "close": "x"}},
        {"thinking": {"open": "", "close": "x"}},
        {"thinking": {"open": 3, "close": ["x", None]}},
    ],
)
def test_what_is_no_literal_declares_nothing(fields: Any) -> None:
    assert declared(fields) == shipped_markers()
