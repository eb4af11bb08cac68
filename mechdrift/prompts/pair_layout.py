"""Both sides of a pair token by token: whether they differ in the subject only, and what each column is called."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mechdrift.prompts.judgement import ANSWERS, SUFFIX, judgement_prompts
from mechdrift.prompts.pairs import KNOWLEDGE, LAST, OBJECT, OTHERS, SUBJECT, Encode, Found, PromptPair, Start
from mechdrift.prompts.statements import (
    Split,
    Statement,
)

LENGTHS_DIFFER = "clean and corrupt prompt differ in length"
DIFFER_ELSEWHERE = "tokens differ outside the subject"
SAME_TOKENS = "clean and corrupt prompt are the same tokens"
NOT_TOLD_APART = "no single token distinguishes the two answers"


class Span(NamedTuple):
    """Characters of a text, end excluded."""

    start: int
    end: int


@dataclass(frozen=True)
class Question:
    """One side of a pair, before any tokenizer has seen it."""

    text: str
    """Up to where the answer begins."""
    answers: tuple[str, str]
    """What the pair's clean and its corrupt side should continue with."""
    after: str = ""
    """What follows an answer: it can change which token the answer begins with."""
    subject: Span | None = None
    """Where the subject stands; None where that is not known."""
    object: Span | None = None
    """Where the object stands; None where it is the answer, or not known."""
    start: int = 0
    """The character with which the last statement begins: examples stand before it."""


class Named(NamedTuple):
    """What a pair is called."""

    unit: str
    kind: str
    words: tuple[str, str]
    entities: tuple[str, ...]


def judged(
    pairs: Sequence[tuple[str, str, str, str]], examples: Sequence[Statement], seed: int, split: Split
) -> list[tuple[Question, Question]]:
    """Both statements of each (clean, corrupt, unit, kind) after the same examples in the same order, which the unit draws."""
    statements = [
        (Statement(clean, True, unit, kind, split), Statement(corrupt, False, unit, kind, split))
        for clean, corrupt, unit, kind in pairs
    ]
    prompts = judgement_prompts([*examples, *(s for both in statements for s in both)], seed, split)
    answers = ANSWERS[True], ANSWERS[False]

    def requested(statement: Statement) -> Question:
        prompt = prompts[statement]
        return Question(prompt, answers, start=len(prompt) - len(SUFFIX) - len(statement.text))

    return [(requested(clean), requested(corrupt)) for clean, corrupt in statements]


def found_pairs(
    laid: Sequence["_Laid | str"], named: Sequence[Named], split: Split, entities: int, dropped: "Counter[str]"
) -> Found:
    """The pairs that could be laid out, with their names; the rest counted by reason."""
    pairs = []
    for layout, name in zip(laid, named, strict=True):
        if isinstance(layout, str):
            dropped[layout] += 1
        else:
            pairs.append(
                PromptPair(*layout, unit=name.unit, kind=name.kind, split=split, words=name.words, entities=name.entities)
            )
    return Found(tuple(pairs), entities, dict(dropped))


class _Laid(NamedTuple):
    """Tokens of a pair, as in PromptPair."""

    clean: tuple[int, ...]
    corrupt: tuple[int, ...]
    answers: tuple[int, int]
    first: int
    columns: tuple[str, ...]


def lay_out(sides: Sequence[tuple[Question, Question]], encode: Encode, start: Start) -> list[_Laid | str]:
    """Each pair's tokens, or why it has none. Prompts are encoded together with both answers, so spaces fall as they will."""
    requested = [side for both in sides for side in both]
    whole = [side.text + answer + side.after for side in requested for answer in side.answers]
    ids, offsets = encode(whole) if whole else ([], [])
    laid: list[_Laid | str] = []
    for at, (clean, corrupt) in zip(range(0, len(whole), 4), sides, strict=True):
        right = _prompt(clean, ids[at : at + 2], offsets[at : at + 2])
        wrong = _prompt(corrupt, ids[at + 2 : at + 4], offsets[at + 2 : at + 4])
        laid.append(NOT_TOLD_APART if right is None or wrong is None else _aligned(right, wrong, start))
    return laid


class _Read(NamedTuple):
    """A prompt up to where its answers part."""

    ids: tuple[int, ...]
    parts: tuple[str, ...] | None
    answers: tuple[int, int]
    start: int
    """The token with which the last statement begins."""


def _prompt(side: Question, ids: list[list[int]], offsets: list[list[tuple[int, int]]]) -> _Read | None:
    """The tokens that both continuations share, and the first of each that they do not; None unless those hold the answers."""
    parting = next((i for i, (a, b) in enumerate(zip(*ids, strict=False)) if a != b), None)
    if parting is None:
        return None
    start = len(side.text)
    for answer, places in zip(side.answers, offsets, strict=True):
        begin, end = places[parting]
        if not (begin < start + len(answer) and end > start):
            return None
    parts = None
    if side.subject is not None:
        parts = tuple(part_at(place, side.subject, side.object) for place in offsets[0][:parting])
    begins = next(token for token, (_, end) in enumerate(offsets[0]) if end > side.start)
    return _Read(tuple(ids[0][:parting]), parts, (ids[0][parting], ids[1][parting]), begins)


def part_at(place: tuple[int, int], subject: Span, object_: Span | None) -> str:
    """The part of a prompt to which a token belongs: that of which it holds a character."""
    start, end = place
    if start < subject.end and end > subject.start:
        return SUBJECT
    if object_ is not None and start < object_.end and end > object_.start:
        return OBJECT
    if start < subject.start:
        return "before"
    return "between" if object_ is None or start < object_.start else "rest"


def _aligned(clean: _Read, corrupt: _Read, start: Start) -> _Laid | str:
    """The pair, if it differs in the subject only."""
    if len(clean.ids) != len(corrupt.ids):
        return LENGTHS_DIFFER
    differing = [i for i, (a, b) in enumerate(zip(clean.ids, corrupt.ids, strict=True)) if a != b]
    if not differing:
        return SAME_TOKENS
    if clean.parts != corrupt.parts or (clean.parts and any(clean.parts[i] != SUBJECT for i in differing)):
        return DIFFER_ELSEWHERE
    if clean.answers != corrupt.answers:
        return NOT_TOLD_APART
    first, end = differing[0], len(clean.ids)
    if start == "statement":
        first = min(first, clean.start)
    if clean.parts is None:
        names = [KNOWLEDGE if i in differing else OTHERS for i in range(end)]
    else:
        left = Counter(clean.parts)
        names = []
        for part in clean.parts:
            names.append(f"{part}[-{left[part]}]")
            left[part] -= 1
    names[-1] = LAST
    return _Laid(clean.ids, corrupt.ids, clean.answers, first, tuple(names[first:]))
