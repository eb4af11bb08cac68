"""Instructions in the layouts of published sets, known by their columns and by what is in them, not by the names of files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.cells import TOO_LONG, is_empty, is_long, text_of
from mechdrift.prompts.data_files.text_formats import Row

SideName = Literal["harmful", "harmless"]
# Where the request stands, the first that is there: JailbreakBench; AdvBench; HarmBench; Alpaca and Dolly; StrongREJECT; mixes
# for post-training; ShareGPT; MT-Bench and SORRY-Bench; XSTest, OR-Bench and what TRL reads.
REQUEST_COLUMNS = (
    "Goal",
    "goal",
    "Behavior",
    "instruction",
    "forbidden_prompt",
    "messages",
    "conversations",
    "turns",
    "prompt",
)
CATEGORY_COLUMNS = ("SemanticCategory", "Category", "category")
MIXES = ("messages", "conversations")  # their `source` says which part of the mix a row is of
NO_USER, OTHER_PARTS = "without a user's turn", "with more than text in it"


@dataclass(frozen=True)
class Incomplete:
    """A request that is about what stands in another cell."""

    columns: frozenset[str]
    """By which the layout is known, besides the cell's own."""
    cell: str
    reason: str
    """Why a row where it is filled is left out."""


INCOMPLETE = (
    Incomplete(frozenset({"instruction", "output"}), "input", "has an input"),  # Alpaca
    Incomplete(frozenset({"instruction", "response"}), "context", "has a context"),  # Dolly
)
HARMBENCH, CONTEXT = frozenset({"Behavior", "FunctionalCategory"}), "ContextString"
WITH_CONTEXT = "{context}\n\n---\n\n{request}"  # as HarmBench's own code puts them together
STYLE, PLAIN_STYLE = "prompt_style", "base"  # SORRY-Bench: the other styles are jailbreaks of the same requests
SIDES: dict[str, SideName] = {
    **dict.fromkeys(("unsafe", "harmful", "vanilla_harmful", "adversarial_harmful"), "harmful"),
    **dict.fromkeys(("safe", "harmless", "benign", "vanilla_benign", "adversarial_benign"), "harmless"),
}
# Columns that may say whether a request is harmful. With two values that are not among SIDES the user must choose.
SIDE_COLUMNS = ("label", "labels", "type", "data_type", "is_harmful", "harmful", "is_safe", "safe", "unsafe", "toxic", "toxicity")


class SideOfRows:
    """Which rows of a table are of the side that the user named them as."""

    def __init__(self, side: SideName, filtered: Sequence[str]) -> None:
        """filtered: columns by which the user has chosen already."""
        self.side = side
        self.columns = [name for name in SIDE_COLUMNS if name not in filtered]
        self.unknown: dict[str, dict[str, None]] = {name: {} for name in self.columns}
        self.known = False

    def reason(self, row: Row) -> str | None:
        """Why a row is left out; None where it is of this side or says nothing about it."""
        for name in self.columns:
            if isinstance(value := row.get(name), str | bool | int | float) and not is_empty(value):
                of = SIDES.get(str(value).strip().casefold())
                self.known = self.known or of is not None
                if of is not None and of != self.side:
                    return f"where {name} is {value}"
                if len(self.unknown[name]) < 3:
                    self.unknown[name].setdefault(str(value), None)
        return None

    def require_one(self, what: str, given: str) -> None:
        """Raise InputError where a column has two values of which nobody knows which is harmful."""
        for name, values in self.unknown.items():
            if len(values) == 2 and not self.known:
                first, second = values
                raise InputError(
                    f"{what} {given}: column {name} is {first} or {second}, and may tell harmful from harmless",
                    f"rows of one side, or both by name: [{name}={first}|{second}]",
                    f"type '{given}[{name}={first}]' or '{given}[{name}={second}]'",
                )


def reason_left_out(row: Row) -> str | None:
    """Why a row's request does not stand by itself, or is not one; None where it does."""
    for known in INCOMPLETE:
        if known.columns <= row.keys() and not is_empty(row.get(known.cell)):
            return known.reason
    if "turns" in row and not is_empty(style := row.get(STYLE)) and style != PLAIN_STYLE:
        return f"where {STYLE} is not {PLAIN_STYLE}"
    return None


def request_of(where: str, row: Row, column: str, has_quotes: bool) -> tuple[str, str | None]:
    """A row's request, and why there is none to be used: (text, None), or ("", reason), or ("", "") where the cell is empty.

    Of a conversation it is the first user's turn, of a list of turns the first; HarmBench's context is put before its behaviour.
    has_quotes: whether a text that is too long may be several rows, which is an error. Raises InputError also where the cell is
    none of these, or no tokenizer could read it.
    """
    value = row.get(column)
    if isinstance(value, list):
        value, reason = _first_turn(where, value, column)
        if reason:
            return "", reason
    elif column in MIXES and isinstance(value, str) and value.lstrip()[:1] == "[":
        raise InputError(
            f"{where}: a list written as text in column {column}", "a list, which CSV cannot have", "save it as JSONL or Parquet"
        )
    if is_empty(value):
        return "", ""
    if not has_quotes and is_long(value):
        return "", TOO_LONG
    text = text_of(where, value, column)
    if column == "Behavior" and row.keys() >= HARMBENCH and not is_empty(context := row.get(CONTEXT)):
        text = text_of(where, WITH_CONTEXT.format(context=text_of(where, context, CONTEXT), request=text), column)
    return text, None


def category_of(row: Row, column: str) -> str:
    """What a row says that its request is about; empty where it does not."""
    columns = (*CATEGORY_COLUMNS, "source") if column in MIXES else CATEGORY_COLUMNS
    found = next((row[name] for name in columns if name in row), None)
    return "" if is_empty(found) else str(found)


def _first_turn(where: str, turns: list[object], column: str) -> tuple[object, str | None]:
    """What a user says first, and why there is nothing of the kind. Raises InputError."""
    if turns and isinstance(turns[0], str):
        return turns[0], None
    for turn in turns:
        if not isinstance(turn, dict) or not ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys()):
            raise InputError(
                f"{where}: a list of {type(turn).__name__} in column {column}",
                "a list of texts, of {role, content} or of {from, value}",
                "fix the row, or name another column",
            )
        role, content = (turn["role"], turn["content"]) if "role" in turn else (turn["from"], turn["value"])
        if str(role).casefold() in ("user", "human", "prompter"):
            if isinstance(content, list):
                return _joined(content)
            return content, None
    return None, NO_USER


def _joined(parts: list[object]) -> tuple[object, str | None]:
    """Content as a list of parts: their text, where text is all that they are."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        return None, OTHER_PARTS
    return "\n".join(str(text) for text in texts), None
