"""Chat templates: programs that came with a checkpoint, so they run in transformers' sandbox, and that in one of ours.

transformers' keeps a template from files and from Python, but not from running forever or taking all memory.
"""

from dataclasses import dataclass
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
PROBE = "qzxj"  # what no template has in its own words
RENDERER = Path(__file__).with_name("render.py")

Conversation = list[dict[str, Any]]


class TemplateError(Exception):
    """A chat template did not render; says why."""


@dataclass(frozen=True)
class Template:
    """What a tokenizer's chat template does with a user's turn."""

    fault: str = ""
    """Why it is of no use, as in `does not render (TemplateError: no)`; empty where it is."""
    parts: bool = False
    """Whether it wants content as a list of parts, as those of multimodal models do."""

    def turn(self, text: str) -> Conversation:
        """A user's turn, with its content as the template wants it."""
        return [{"role": "user", "content": [{"type": "text", "text": text}] if self.parts else text}]


_SANDBOXES: dict[tuple[Path, str], Sandbox] = {}
"""Of each template its own: what one does to its process touches no other's."""
_LOST: dict[tuple[Path, str], str] = {}
"""Templates that cost their process, and how: none is given another, so its time is paid once."""
_TRIED: dict[tuple[Path, str, str], Template] = {}
"""What was found of templates, by their text and the special tokens that they are given."""


def template_of(tokenizer: "PreTrainedTokenizerBase") -> Template:
    """Try the tokenizer's chat template, which it must have, on one user's turn: as text, and where that fails as parts.

    Found once for each template.
    """
    template = chat_template(tokenizer)
    key = (RENDERER, str(template), repr(tokenizer.special_tokens_map))
    if key not in _TRIED:
        _TRIED[key] = _tried(tokenizer, template)
    return _TRIED[key]


def _tried(tokenizer: "PreTrainedTokenizerBase", template: object) -> Template:
    if not isinstance(template, str):
        return Template(f"is no text but {type(template).__name__}")
    if len(template) > MAX_TEMPLATE:
        return Template(f"of {len(template):,} characters; at most {MAX_TEMPLATE:,} are read")
    as_text, as_parts = Template(), Template(parts=True)
    if fault := _fault(tokenizer, as_text):
        return Template(fault) if _fault(tokenizer, as_parts) else as_parts
    return as_text


def _fault(tokenizer: "PreTrainedTokenizerBase", template: Template) -> str:
    """Why a user's turn in this shape does not come out; empty where it does."""
    try:
        (text,) = render(tokenizer, [template.turn(PROBE)])
    except TemplateError as error:
        return str(error)
    if PROBE not in text or (template.parts and str(template.turn(PROBE)[0]["content"]) in text):
        return "leaves out what the user says"
    return ""


def render(tokenizer: "PreTrainedTokenizerBase", conversations: list[Conversation], seconds: float = RENDER_SECONDS) -> list[str]:
    """The conversations as the model is to read them, each up to where its answer begins.

    As apply_chat_template(tokenize=False, add_generation_prompt=True) renders them, but on the day TODAY for templates that
    ask for the date: the same text in every process of a run, and in the next run. Raises TemplateError, after `seconds` at the
    latest.
    """
    template = str(chat_template(tokenizer))
    request = {
        "chat_template": template,
        "conversations": conversations,
        "special_tokens": tokenizer.special_tokens_map,
        "today": TODAY,
    }
    key = (RENDERER, template)
    if how := _LOST.get(key):
        raise TemplateError(how)
    sandbox = _SANDBOXES.get(key) or _SANDBOXES.setdefault(key, Sandbox(RENDERER))
    try:
        answer = sandbox.answer(request, seconds)
    except BaseException as error:  # also where the user stops the run: what still comes would be taken for the next answer
        _SANDBOXES.pop(key).end()
        if not isinstance(error, SandboxError):
            raise
        _LOST[key] = str(error)
        raise TemplateError(_LOST[key]) from error
    if answer["error"]:
        raise TemplateError(answer["error"])
    return list(answer["rendered"])


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
    return f"{checkpoint.spec}: {AS_PARTS}" if template.parts else None


def no_template(tokenizer: Any) -> str:
    """Why there is no chat template to use, as notes have it."""
    *most, last = named_templates(tokenizer) or [""]
    if not last:
        return NO_TEMPLATE
    names = f"{', '.join(most)} and {last}" if most else last
    return f"named chat template{'s' * bool(most)} {names} and none called default: plain form"
