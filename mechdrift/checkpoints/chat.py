"""Chat templates: programs that came with a checkpoint, so they run in transformers' sandbox and in a process of their own.

The sandbox keeps a template from files and from Python, but not from running forever; and what runs inside one call into C
(`10 ** (10 ** 9)`) can be stopped by no signal and no thread of the same process. A process can be killed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.checkpoints.load import load_tokenizer
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TEMPLATE = 200_000  # characters; the longest in use have some tens of thousands
RENDER_SECONDS = 10.0  # for what takes milliseconds
TODAY = "2024-07-26"  # Llama 3.1's template has this day itself where it cannot ask
PROBE = "Which city lies on the river?"
RENDERER = Path(__file__).with_name("render.py")

Conversation = list[dict[str, str]]


class TemplateError(Exception):
    """A chat template did not render; says why."""


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Load the tokenizer and render its chat template, if it has one, on one user's turn. Raises InputError."""
    tokenizer = load_tokenizer(checkpoint)
    template = chat_template(tokenizer)
    if template is None:
        return
    do = "mend chat_template.jinja, or remove it from a checkpoint that is no chat model"
    if len(template) > MAX_TEMPLATE:
        raise InputError(f"{checkpoint.spec}: chat template of {len(template):,} characters", f"at most {MAX_TEMPLATE:,}", do)
    try:
        (text,) = render(tokenizer, [[{"role": "user", "content": PROBE}]])
    except TemplateError as error:
        raise InputError(f"{checkpoint.spec}: chat template {error}", "a template that renders a user's turn", do) from error
    if PROBE not in text:
        raise InputError(f"{checkpoint.spec}: chat template leaves out what the user says", "the user's words in the prompt", do)


def render(tokenizer: "PreTrainedTokenizerBase", conversations: list[Conversation], seconds: float = RENDER_SECONDS) -> list[str]:
    """The conversations as the model is to read them, each up to where its answer begins.

    As apply_chat_template(tokenize=False, add_generation_prompt=True) renders them, but on the day TODAY for templates that
    ask for the date: the same text in every process of a run, and in the next run. Raises TemplateError, after `seconds` at the
    latest.
    """
    asked = {
        "chat_template": chat_template(tokenizer),
        "conversations": conversations,
        "special_tokens": tokenizer.special_tokens_map,
        "today": TODAY,
    }
    # -P: no module of the user's folder comes before the libraries; -W: what the user makes of warnings is not for this process.
    command = [sys.executable, "-P", "-W", "ignore", str(RENDERER)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:  # noqa: S603 - our own program
        try:
            assert child.stdout
            child.stdout.readline()  # it has loaded its libraries: the time counts from here
            answer, _ = child.communicate(json.dumps(asked, default=str).encode(), timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise TemplateError(f"still renders after {seconds:g} s") from error
        finally:
            child.kill()
    try:
        told = json.loads(answer)
    except ValueError as error:
        raise TemplateError(f"ended its process with code {child.returncode}") from error
    if told["error"]:
        raise TemplateError(told["error"])
    return list(told["rendered"])


def chat_template(tokenizer: Any) -> str | None:
    """The tokenizer's chat template; of several named ones the default."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
