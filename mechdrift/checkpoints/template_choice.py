"""What the user decides of chat templates, for all checkpoints of a run: what they are given, and which one is used."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.chat import MAX_TEMPLATE, TemplateError, chat_template, mentioned, no_template, template_of
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ARGS_OPTION = "--mechdrift-template-args"
FILE_OPTION = "--mechdrift-template"
GIVEN_BY_THE_RUN = {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "range", "dict"}
SPECIAL_TOKENS = {f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")} | {"additional_special_tokens"}
OF_APPLY_CHAT_TEMPLATE = {
    *("conversation", "conversations", "chat_template", "continue_final_message", "tokenize", "tokenizer_kwargs"),
    *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
}
RESERVED = GIVEN_BY_THE_RUN | SPECIAL_TOKENS | OF_APPLY_CHAT_TEMPLATE


@dataclass(frozen=True)
class TemplateChoice:
    """Arguments of apply_chat_template, and a template used instead of every checkpoint's own."""

    args: Mapping[str, Any] = field(default_factory=dict)
    """Variables by name, JSON data."""
    file: str = ""
    """Where the template is from, as given; empty: of each checkpoint its own is used."""
    text: str | None = None
    """The template."""

    def give(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Put both on a tokenizer, from which chat.py takes them."""
        if self.args:
            tokenizer.template_args = dict(self.args)
        if self.text is not None:
            tokenizer.chat_template = self.text

    @property
    def digest(self) -> str:
        """sha256 of the template's text."""
        return hashlib.sha256((self.text or "").encode()).hexdigest()

    def to_dict(self) -> dict[str, Any] | None:
        """As the record has it; None where nothing was given."""
        used = None if self.text is None else {"file": self.file, "sha256": self.digest}
        return {"args": dict(self.args), "template": used} if self.args or used else None

    def lines(self) -> list[str]:
        """For a run's header: what every template is given, and where the template is from."""
        named = ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in self.args.items())
        lines = [f"chat templates are given {named}"] if named else []
        return lines if self.text is None else [*lines, f"chat template of all: {self.file}, sha256 {self.digest[:12]}"]

    def require_usable(self, checkpoint: Checkpoint, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Raise InputError where the user's template does not render here, or an argument is a special token's name."""
        if taken := self.args.keys() & tokenizer.special_tokens_map.keys():
            raise _is_reserved(min(taken))
        if self.text is not None and (fault := template_of(tokenizer).fault):
            raise _is_faulty(self.file, f"{fault}, with the tokenizer of {checkpoint.spec}")

    def warning(self, checkpoint: Checkpoint, tokenizer: "PreTrainedTokenizerBase") -> str | None:
        """Which arguments the checkpoint's template never reads, in one line; None where it reads all, or cannot be read."""
        template = chat_template(tokenizer)
        if not self.args:
            return None
        if template is None:
            return f"{checkpoint.spec}: nothing reads {ARGS_OPTION}: {no_template(tokenizer)}"
        if template_of(tokenizer).fault:
            return None
        unread = sorted(self.args.keys() - mentioned(template))
        return f"{checkpoint.spec}: its chat template never reads {', '.join(unread)} of {ARGS_OPTION}" if unread else None


OWN = TemplateChoice()
"""Of each checkpoint its own template, given nothing."""


def read_choice(args: Mapping[str, Any], file: str | None) -> TemplateChoice:
    """What the two options say. Raises InputError for a reserved name, and a file that is no template."""
    if taken := sorted(RESERVED & args.keys()):
        raise _is_reserved(taken[0])
    if file is None:
        return TemplateChoice(args)
    text = _read(file)
    try:
        mentioned(text)
    except TemplateError as error:
        raise _is_faulty(file, str(error)) from error
    return TemplateChoice(args, file, text)


def _read(file: str) -> str:
    """The text of a template, without a byte order mark."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{FILE_OPTION} {file}: no such file", "a jinja file", "check the path")
    with path.open("rb") as opened:
        content = opened.read(4 * MAX_TEMPLATE + 4)  # a character has four bytes at most
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{FILE_OPTION} {file}: not UTF-8 (byte {error.start})", "UTF-8", "save it again") from error
    if len(text) > MAX_TEMPLATE:
        raise InputError(
            f"{FILE_OPTION} {file}: of more than {MAX_TEMPLATE:,} characters", "a chat template", "check that it is one"
        )
    return text


def _is_reserved(name: str) -> InputError:
    return InputError(
        f"{ARGS_OPTION}: {name!r} is given to templates by the run itself",
        "variables of the template's own, as enable_thinking",
        "leave it out",
    )


def _is_faulty(file: str, fault: str) -> InputError:
    return InputError(f"{FILE_OPTION} {file}: {fault}", "a jinja template that holds what the user says once", "correct it")
