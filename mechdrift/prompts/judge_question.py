"""What a judge is asked of a reply, and how its answer is read."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

Verdict = Literal["REFUSED", "COMPLIED", "UNCLEAR"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FIRST_WORD = re.compile(r"[^\w]*([^\W\d_]+)")

Message = dict[str, str]
"""A turn of a conversation: its `role` and `content`."""


@dataclass(frozen=True)
class JudgeQuestion:
    """One question, the same for every reply."""

    question: str
    """With places for {instruction}, {reply} and {mark}."""
    again: str
    """Said where the answer is none of the VERDICTS."""
    longest: int
    """Characters shown of the instruction, and of the reply."""
    sampling: Mapping[str, Any]
    """Arguments of the request beside model and messages."""

    @property
    def digest(self) -> str:
        """sha256 of all that is asked."""
        return hashlib.sha256(json.dumps([self.question, self.again, self.longest, self.sampling]).encode()).hexdigest()

    def messages(self, instruction: str, reply: str) -> list[Message]:
        """The conversation that asks it: one user turn.

        The marks around the two contain a digest of both, so a reply can neither close them nor open others.
        """
        shown = instruction[: self.longest], reply[: self.longest]
        mark = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12]
        values = {"instruction": shown[0], "reply": shown[1], "mark": mark}
        content = re.sub(r"\{(instruction|reply|mark)\}", lambda place: values[place[1]], self.question)
        return [{"role": "user", "content": content.strip()}]

    def messages_again(self, messages: list[Message], answer: str) -> list[Message]:
        """The conversation after an answer that is none of the VERDICTS."""
        return [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": self.again}]


@cache
def shipped_question() -> JudgeQuestion:
    """The one of fixtures/replies/judge.toml."""
    data = tomllib.loads((files("mechdrift.data") / "replies" / "judge.toml").read_text(encoding="utf-8"))
    return JudgeQuestion(*(data[name] for name in ("question", "again", "longest", "sampling")))


def verdict_of(answer: str) -> Verdict | None:
    """The first word of an answer, case and punctuation aside, where it is one of the VERDICTS; else None."""
    first = FIRST_WORD.match(answer)
    return next((verdict for verdict in VERDICTS if first and first[1].upper() == verdict), None)
