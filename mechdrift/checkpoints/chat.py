"""Chat templates: programs that came with a checkpoint, so they run in transformers' sandbox, and that in one of ours.

transformers' keeps a template from files and from Python, but not from running forever or taking all memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.sandbox import Sandbox, SandboxError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE = 200_000  # characters; the longest in use have some tens of thousands
RENDER_SECONDS = 10.0  # for what takes milliseconds
TODAY = "2024-07-26"  # Llama 3.1's template has this day itself where it cannot ask
NO_TEMPLATE = "no chat template: plain form"
AS_PARTS = "the chat template is given content as a list of parts: it does not read text"
SYSTEM = "You are a helpful assistant."  # of the system turns that templates have by themselves the commonest
PROBE = "qzxj"  # what no template has in its own words
RENDERER = Path(__file__).with_name("render.py")

Conversation = list[dict[str, Any]]


class TemplateError(Exception):
    """A chat template did not render; says why."""


@dataclass(frozen=True)
class Template:
    """In which form a tokenizer's chat template renders what a user says, once and as it is."""

    fault: str = ""
    """Why it does so in no form, as in `does not render (TemplateError: no)`; empty where it does."""
    parts: bool = False
    """Whether content is given as a list of parts, as those of multimodal models want it."""
    system: bool = False
    """Whether the system turn SYSTEM stands before the user's."""
    tools: bool = False
    """Whether it is given an empty list of tools."""

    def conversation(self, text: str) -> Conversation:
        """A user's turn, and what the template wants before it."""
        turns = [*([("system", SYSTEM)] if self.system else []), ("user", text)]
        return [{"role": role, "content": [{"type": "text", "text": said}] if self.parts else said} for role, said in turns]

    @property
    def variables(self) -> dict[str, Any]:
        """What it is given beside the conversation."""
        return {"tools": []} if self.tools else {}

    @property
    def note(self) -> str:
        """What it is given that is no user's turn as text, and why; empty where that is nothing."""
        if not (self.system or self.tools):
            return AS_PARTS if self.parts else ""
        given = {
            f"the system turn {SYSTEM!r}": self.system,
            "an empty list of tools": self.tools,
            "content as a list of parts": self.parts,
        }
        named = " and ".join(what for what, is_given in given.items() if is_given)
        return f"the chat template is given {named}: it accepts nothing simpler"


FORMS = tuple(Template(parts=parts, system=system, tools=tools) for tools, system, parts in product((False, True), repeat=3))
"""All forms, in the order in which they are tried: the first is a user's turn as text, and each adds as little as it can."""


_SANDBOXES: dict[tuple[Path, str], Sandbox] = {}
"""Of each template its own: what one does to its process touches no other's."""
_LOST: dict[tuple[Path, str], str] = {}
"""Templates that cost their process, and how: none is given another, so its time is paid once."""
_TRIED: dict[tuple[Path, str, str], Template] = {}
"""What was found of templates, by their text and all that they are given beside conversations."""


def template_of(tokenizer: "PreTrainedTokenizerBase") -> Template:
    """The first of FORMS in which the tokenizer's chat template, which it must have, renders what a user says.

    Where none does the fault is that of the first. Found once for each template.
    """
    template = chat_template(tokenizer)
    given = [tokenizer.special_tokens_map, template_args(tokenizer)]
    key = (RENDERER, str(template), json.dumps(given, sort_keys=True, default=str))
    if key not in _TRIED:
        _TRIED[key] = _tried(tokenizer, template)
    return _TRIED[key]


def _tried(tokenizer: "PreTrainedTokenizerBase", template: object) -> Template:
    if not isinstance(template, str):
        return Template(f"is no text but {type(template).__name__}")
    if len(template) > MAX_TEMPLATE:
        return Template(f"of {len(template):,} characters; at most {MAX_TEMPLATE:,} are read")
    faults = []
    for form in FORMS:
        if not (fault := _fault(tokenizer, form)):
            return form
        faults.append(fault)
    return Template(faults[0])


def _fault(tokenizer: "PreTrainedTokenizerBase", form: Template) -> str:
    """Why what a user says does not come out in this form, once and as it is; empty where it does."""
    conversation = form.conversation(PROBE)
    try:
        (text,) = render(tokenizer, [conversation], variables=form.variables)
    except TemplateError as error:
        return str(error)
    if form.parts and any(str(turn["content"]) in text for turn in conversation):
        return "writes the list of parts itself"
    return wrongly_said(text)


def wrongly_said(text: str) -> str:
    """What is wrong with a rendered text that is to hold PROBE once; empty where it does."""
    times = text.count(PROBE)
    return "" if times == 1 else f"holds what the user says {times} times" if times else "leaves out what the user says"


def render(
    tokenizer: "PreTrainedTokenizerBase",
    conversations: list[Conversation],
    seconds: float = RENDER_SECONDS,
    variables: Mapping[str, Any] | None = None,
) -> list[str]:
    """The conversations as the model is to read them, each up to where its answer begins.

    As apply_chat_template(tokenize=False, add_generation_prompt=True) renders them, but on the day TODAY for templates that
    ask for the date: the same text in every process of a run, and in the next run. variables: what the template is given
    beside what --mechdrift-template-args gives it, or in its place. Raises TemplateError, after `seconds` at the latest.
    """
    request = {
        "conversations": conversations,
        "variables": {**tokenizer.special_tokens_map, **template_args(tokenizer), **(variables or {})},
        "today": TODAY,
    }
    return list(_answer(str(chat_template(tokenizer)), request, seconds)["rendered"])


def mentioned(template: str) -> frozenset[str]:
    """Names of the variables that a chat template reads before it sets them. Raises TemplateError where it is no template."""
    return frozenset(_answer(template, {}, RENDER_SECONDS)["mentioned"])


def _answer(template: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """What a template's own process answers. Raises TemplateError, also for what is wrong with the template."""
    key = (RENDERER, template)
    if how := _LOST.get(key):
        raise TemplateError(how)
    sandbox = _SANDBOXES.get(key) or _SANDBOXES.setdefault(key, Sandbox(RENDERER))
    try:
        answer: dict[str, Any] = sandbox.answer({"chat_template": template, **request}, seconds)
    except BaseException as error:  # also where the user stops the run: what still comes would be taken for the next answer
        _SANDBOXES.pop(key).end()
        if not isinstance(error, SandboxError):
            raise
        _LOST[key] = str(error)
        raise TemplateError(_LOST[key]) from error
    if answer["error"]:
        raise TemplateError(answer["error"])
    return answer


def template_args(tokenizer: Any) -> dict[str, Any]:
    """What the user gives the chat template with --mechdrift-template-args; put on the tokenizer by TemplateChoice."""
    return dict(getattr(tokenizer, "template_args", {}))


def chat_template(tokenizer: Any) -> str | None:
    """The tokenizer's chat template; of several named ones the default."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def named_templates(tokenizer: Any) -> list[str]:
    """Names of the tokenizer's chat templates where none of them is the default, which alone is used."""
    template = tokenizer.chat_template
    return sorted(map(str, template)) if isinstance(template, dict) and "default" not in template else []


def template_warning(checkpoint: Checkpoint, tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """What a user should know of the checkpoint's chat templates, in one line; None where there is nothing."""
    if chat_template(tokenizer) is None:
        note = no_template(tokenizer)
        return f"{checkpoint.spec} has the {note}" if named_templates(tokenizer) else None
    template = template_of(tokenizer)
    if template.fault:
        return f"{checkpoint.spec}: chat template {template.fault}: rows of refusal are unmeasurable"
    return f"{checkpoint.spec}: {template.note}" if template.note else None


def no_template(tokenizer: Any) -> str:
    """Why there is no chat template to use, as notes have it."""
    *most, last = named_templates(tokenizer) or [""]
    if not last:
        return NO_TEMPLATE
    names = f"{', '.join(most)} and {last}" if most else last
    return f"named chat template{'s' * bool(most)} {names} and none called default: plain form"
