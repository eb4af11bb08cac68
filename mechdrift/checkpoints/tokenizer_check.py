"""Tokenizers are tried in a sandbox before they are run beside the models: what came with a checkpoint may take all there is.

A tokenizer.json is a program: each normalizer may make a text ten times as long, an expression may try every way to split one.
"""

import hashlib
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

from mechdrift.checkpoints.sandbox import Sandbox, SandboxError
from mechdrift.errors import InputError

TRIAL = Path(__file__).with_name("tokenizer_trial.py")
LOAD_SECONDS = 30.0  # for what takes a second or two with the largest vocabularies in use
READ_SECONDS = 10.0  # for what takes milliseconds
CHARACTERS = 100_000  # that are given a second more, in which ten times as many are encoded
PROBES = (string.printable, "The café is naïve 日本語 Ж ﷺ don't 1,234.5!?\n\n  x_y-z", "a" * 200, " " * 200, "ab" * 100 + "!")
DO = "save the tokenizer that the model was trained with again"

Step = tuple[dict[str, object], float]  # what a process is asked, and the seconds it has

_PASSED: set[tuple[str, str]] = set()
"""Tokenizers that were tried, by their content, with the texts they were tried on; `` for the probes alone."""
_IDLE: list[Sandbox] = []
"""A process that has loaded its libraries."""


def check_tokenizer(spec: str, folder: Path, content: str, gguf: str | None = None, texts: Iterable[str] = ()) -> None:
    """Try a folder's tokenizer on probes and texts, and on all of its tokens; each content on the same texts once.

    content: a digest of its files. gguf: name of the GGUF file that holds it. Raises InputError where it does not load, takes too
    long, too much memory, or makes a text longer than any can be.
    """
    own = sorted({text.encode("utf-8", "replace").decode() for text in texts})  # half a character is no tokenizer's fault
    tried_on = hashlib.sha256("\0".join(own).encode()).hexdigest() if own else ""
    if (content, tried_on) in _PASSED:
        return
    every = [*PROBES, *own]
    steps: list[Step] = [
        ({"folder": str(folder.absolute()), "gguf": gguf}, LOAD_SECONDS),
        ({"texts": every}, READ_SECONDS + sum(map(len, every)) / CHARACTERS),
        ({"decode": True}, READ_SECONDS),
    ]
    wrong = _tried(steps, torch=gguf is not None)
    if "torch" in wrong.lower() and not gguf:  # a class that reads text and more
        wrong = _tried(steps, torch=True)
    if wrong:
        raise InputError(f"{spec}: tokenizer {wrong}", "one that reads a text as others do", DO)
    _PASSED.update({(content, ""), (content, tried_on)})


def _tried(steps: Sequence[Step], torch: bool) -> str:
    """What goes wrong at the first step that does; empty where none does. torch: whether the process may import it."""
    sandbox = Sandbox(TRIAL, "torch") if torch else _idle()
    try:
        wrong = next((str(error) for request, seconds in steps if (error := sandbox.answer(request, seconds)["error"])), "")
    except SandboxError as error:
        wrong = str(error)
    except BaseException:  # the user stops the run: what still comes would be taken for the next answer
        sandbox.end()
        raise
    if wrong or torch:
        sandbox.end()
    else:
        _IDLE.append(sandbox)
    return wrong


def passed() -> list[str]:
    """The contents of the tokenizers that were tried, for processes that use them too."""
    return sorted({content for content, _ in _PASSED})


def trust(contents: Iterable[str]) -> None:
    """Take these for tried: another process of this run has."""
    _PASSED.update((content, "") for content in contents)


def prepare() -> None:
    """Start the process in which tokenizers are tried, if there is none: it loads its libraries meanwhile."""
    if not _IDLE:
        _IDLE.append(Sandbox(TRIAL))


def _idle() -> Sandbox:
    """A process to try a tokenizer in."""
    return _IDLE.pop() if _IDLE else Sandbox(TRIAL)
