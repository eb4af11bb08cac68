"""What of a reply is a thought and what is said to the user, by the markers that models put around thoughts."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHTFUL = re.compile("think|thought|reason", re.IGNORECASE)  # fields of a response template that hold thoughts


@dataclass(frozen=True)
class Block:
    """How one kind of model marks its thoughts."""

    opens: re.Pattern[str]
    """What begins a thought."""
    closes: re.Pattern[str]
    """What ends it."""
    alone: bool = True
    """Whether the end says something without a beginning, which then was the prompt's."""
    empty: str = ""
    """Text of a thought of no words, after which the answer begins; empty where none is known."""
    closing: str = ""
    """The same for a prompt that has begun the thought."""


@dataclass(frozen=True)
class Markers:
    """All that is looked for in a reply."""

    blocks: tuple[Block, ...]
    """Of thoughts."""
    answers: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = ()
    """Beginnings and ends of what may stand around an answer."""
    switches: tuple[tuple[str, Any], ...] = ()
    """What chat templates are told so that their models do not think: names of their variables, and values."""


@cache
def shipped_markers() -> Markers:
    """Those of fixtures/replies/thoughts.toml."""
    data = tomllib.loads((files("mechdrift.data") / "replies" / "thoughts.toml").read_text(encoding="utf-8"))
    blocks = tuple(
        Block(_pattern(one["opens"]), _pattern(one["closes"]), one.get("alone", True), one["empty"], one["closing"])
        for one in data["block"]
    )
    answers = tuple((_pattern(one["opens"]), _pattern(one["closes"])) for one in data["answer"])
    return Markers(blocks, answers, tuple((one["name"], one["value"]) for one in data["switch"]))


def markers_of(tokenizer: "PreTrainedTokenizerBase") -> Markers:
    """The shipped ones, and those that the tokenizer's response template declares.

    Of that its literals only: a pattern that came with a checkpoint might run for ever.
    """
    template = getattr(tokenizer, "response_template", None)
    fields = template.get("fields") if isinstance(template, dict) else None
    declared = [
        Block(
            _literal(field["open"]),
            _literal(field["close"]),
            empty=_first(field["open"]) + _first(field["close"]),
            closing=_first(field["close"]),
        )
        for name, field in (fields.items() if isinstance(fields, dict) else ())
        if THOUGHTFUL.search(str(name)) and isinstance(field, dict) and _is_literal(field.get("open"), field.get("close"))
    ]
    shipped = shipped_markers()
    return replace(shipped, blocks=(*shipped.blocks, *declared))  # of the usual markers more is known: how templates write them


def answer_of(text: str, inside: bool = False, markers: Markers | None = None) -> str | None:
    """What is said once the thoughts at the start are over; None where one does not end.

    text: special tokens kept. inside: whether the prompt ends within a thought.
    """
    markers = markers or shipped_markers()
    while True:
        opened = opening(text, markers)
        if opened is not None:
            block, start = opened
            ended = block.closes.search(text, start)
        else:
            ended = _first_end(text, markers, inside)
            if ended is None and not inside:
                return _unwrapped(text, markers)
        if ended is None:
            return None
        text, inside = text[ended.end() :], False


def opening(text: str, markers: Markers) -> tuple[Block, int] | None:
    """The block of thoughts that a reply begins with, and where its first thought stands; None where it begins with none."""
    for block in markers.blocks:
        found = block.opens.search(text)
        # Before it there may be a header in special tokens, as `<|start|>assistant`, but no word to the user.
        if found and HEADER.fullmatch(text[: found.start()]):
            return block, found.end()
    return None


def unclosed(tail: str, markers: Markers) -> Block | None:
    """The block within which a prompt ends: the last that it opens and does not close; None where there is none."""
    starts = [(found.end(), block) for block in markers.blocks for found in block.opens.finditer(tail)]
    last = max(starts, key=lambda one: one[0], default=None)
    return None if last is None or last[1].closes.search(tail, last[0]) else last[1]


HEADER = re.compile(r"\s*(?:<\|?start_?(?:header_id|of_turn)?\|?>\s*(?:assistant|model)?\s*)?", re.IGNORECASE)


def _first_end(text: str, markers: Markers, inside: bool) -> re.Match[str] | None:
    """The first end of a thought whose beginning is not there."""
    ends = [(found, block) for block in markers.blocks if (inside or block.alone) and (found := block.closes.search(text))]
    first = min(ends, key=lambda one: one[0].start(), default=None)
    if first is None:
        return None
    begun = first[1].opens.search(text)
    return None if begun and begun.start() < first[0].start() else first[0]


def _unwrapped(text: str, markers: Markers) -> str:
    """An answer without the markers around it, and without what follows their end."""
    for opens, closes in markers.answers:
        if (begun := opens.search(text)) and not text[: begun.start()].strip():
            text = text[begun.end() :]
            return closes.split(text, maxsplit=1)[0]
    for _, closes in markers.answers:
        if ended := closes.search(text):
            return text[: ended.start()]
    return text


def _is_literal(*given: Any) -> bool:
    return all(isinstance(one, str) and one.strip() for each in given for one in (each if isinstance(each, list) else [each]))


def _first(given: str | Sequence[str]) -> str:
    return given if isinstance(given, str) else given[0]


def _literal(given: str | Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(one) for one in ([given] if isinstance(given, str) else given)))


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)
