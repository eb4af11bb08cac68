"""Chat templates: programs that came with a checkpoint, so they run in transformers' sandbox and in a process of their own.

The sandbox keeps a template from files and from Python, but not from running forever; and what runs inside one call into C
(`10 ** (10 ** 9)`) can be stopped by no signal and no thread of the same process. A process can be killed. It takes half a second
to start and a run renders tens of times, so a template keeps its process.
"""

import atexit
import json
import subprocess
import sys
import threading
from contextlib import suppress
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


class _Renderer:
    """A process that has loaded what it renders with."""

    def __init__(self, program: Path) -> None:
        # -P: no module of the user's folder comes before the libraries; -W: the user's own settings are not for this process.
        command = [sys.executable, "-P", "-W", "ignore", str(program)]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8"
        )
        atexit.register(self.end)
        self._read()

    def answer(self, request: str, seconds: float) -> Any:
        """To one request. Raises TemplateError where it took longer and was killed, or ended; it serves no other then."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.child.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            assert self.child.stdin
            self.child.stdin.write(f"{request}\n")
            self.child.stdin.flush()
            line = self._read()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return json.loads(line)
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(1)  # for its exit code: its output is closed first
        raise TemplateError(
            f"still renders after {seconds:g} s" if late.is_set() else f"ended its process with code {self.child.returncode}"
        )

    def end(self) -> None:
        """Kill the process, whatever it does."""
        atexit.unregister(self.end)
        with suppress(BrokenPipeError), self.child:  # what it did not read any more is still to be written
            self.child.kill()

    def _read(self) -> str:
        assert self.child.stdout
        return self.child.stdout.readline()


_RENDERERS: dict[tuple[Path, str | None], _Renderer] = {}
"""Of each template its own: what one does to its process touches no other's."""


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
    key = (RENDERER, asked["chat_template"])
    renderer = _RENDERERS.get(key) or _RENDERERS.setdefault(key, _Renderer(RENDERER))
    try:
        told = renderer.answer(json.dumps(asked, default=str), seconds)
    except BaseException:  # also where the user stops the run: what still comes would be taken for the next answer
        _RENDERERS.pop(key).end()
        raise
    if told["error"]:
        raise TemplateError(told["error"])
    return list(told["rendered"])


def chat_template(tokenizer: Any) -> str | None:
    """The tokenizer's chat template; of several named ones the default."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
