"""A program, run by tokenizer_check.py in a sandbox: a tokenizer is loaded, and made to encode and decode.

It says how much longer texts become. Nothing of a tokenizer can be stopped once it runs: its normalizers, expressions and
decoders are a stranger's, and are run here before they are run beside the models.
"""

import json
import sys
from typing import Any

from tokenizers import normalizers

from mechdrift.checkpoints.sandboxed import serve

GROWS = 32, 256  # a text may come to so many times its characters and so many more; one of Unicode's comes to 18 at most
TOKENS = 4  # of a character: the bytes of one in UTF-8
MOST_OF_TEMPLATE = 20_000  # characters
CHUNK = 64  # tokens that are decoded together

HELD: dict[str, Any] = {}
"""The tokenizer that was loaded last, and the steps of its normalizer."""


def most(text: str) -> int:
    """The longest that a text may become, in characters."""
    times, more = GROWS
    return times * len(text) + more


def tried(request: dict[str, Any]) -> dict[str, Any]:
    """Do one step with the tokenizer; `error` says what is wrong with it."""
    try:
        if "folder" in request:
            return {"error": loaded(**request)}
        return {"error": encoded(request["texts"]) if "texts" in request else decoded()}
    except BaseException as error:  # a panic of Rust is no Exception
        if isinstance(error, MemoryError):
            return {"error": "takes more memory than it may (4 GB)"}
        return {"error": f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"}


def loaded(folder: str, gguf: str | None) -> str:
    """Load it as load.py does."""
    from transformers import AutoTokenizer

    HELD.clear()
    source = {"gguf_file": gguf} if gguf else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **source)
    except MemoryError:
        raise
    except BaseException as error:
        return f"does not load ({' '.join(str(error).split())[:300]})"
    if tokenizer.is_fast:  # a slow one is refused elsewhere
        HELD.update(tokenizer=tokenizer, steps=steps(tokenizer))
    return ""


def encoded(texts: list[str]) -> str:
    """Encode the texts, each character of them alone and in a row first."""
    tokenizer = HELD.get("tokenizer")
    if tokenizer is None:
        return ""
    # A chat template's own words stand around every instruction.
    template = str(tokenizer.chat_template or "")[:MOST_OF_TEMPLATE]
    characters = sorted(set("".join([*texts, template])))
    texts = [*texts, template]
    for text in ["", *characters, *(character * 40 for character in characters), *sorted(texts, key=len)]:
        if wrong := longer(tokenizer, text):
            return wrong
    if not tokenizer(texts[0], add_special_tokens=False)["input_ids"]:
        return f"makes no token of {texts[0][:20]!r}"
    return ""


def longer(tokenizer: Any, text: str) -> str:
    """What is wrong with what one text becomes."""
    normal = text
    for step in HELD["steps"]:  # one by one: ten of them, each of which makes a text longer, would take all memory
        normal = step.normalize_str(normal)
        if len(normal) > most(text):
            return f"makes {len(normal):,} characters of the {len(text):,} of {text[:20]!r}: longer than any text can be"
    count = len(tokenizer(text)["input_ids"])
    if count > TOKENS * most(text):
        return f"makes {count:,} tokens of the {len(text):,} characters of {text[:20]!r}: more than any text can have"
    return ""


def steps(tokenizer: Any) -> list[Any]:
    """The parts of its normalizer, in order."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    parts = []
    for written in flat(json.loads(normalizer.__getstate__())) if normalizer is not None else ():
        part = normalizers.NFC()  # whatever its class, it becomes what it is given
        part.__setstate__(json.dumps(written).encode())
        parts.append(part)
    return parts


def flat(written: dict[str, Any]) -> list[dict[str, Any]]:
    """A normalizer as JSON has it, without sequences in sequences."""
    if written["type"] != "Sequence":
        return [written]
    return [part for inner in written["normalizers"] for part in flat(inner)]


def decoded() -> str:
    """Decode all tokens, some at a time, and encode what the first of them come to, as is done with a reply."""
    tokenizer = HELD.get("tokenizer")
    if tokenizer is None:
        return ""
    vocabulary = tokenizer.get_vocab()
    names = {number: name for name, number in vocabulary.items()}
    numbers = sorted(names)
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK]
        text = tokenizer.decode(chunk, skip_special_tokens=True)
        whole = "".join(names[number] for number in chunk)
        if len(text) > most(whole):
            return f"makes {len(text):,} characters of {len(chunk)} tokens: longer than any text can be"
        if start < 8 * CHUNK and (wrong := longer(tokenizer, text)):
            return wrong
    return ""


if __name__ == "__main__":
    if len(sys.argv) < 2:  # a tokenizer needs no torch, which takes seconds to import; that of a GGUF file does
        sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers

    transformers.utils.logging.set_verbosity_error()
    from transformers import AutoTokenizer  # noqa: F401 - before the first request, whose time is limited

    serve(tried)
