"""Tokenizers are programs of strangers: they are tried boxed in before they run, each once, and what is wrong is named."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mechdrift.checkpoints import tokenizer_check
from mechdrift.checkpoints.resolve import Checkpoint, resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer, try_tokenizer
from mechdrift.errors import InputError

ENDLESS = {"type": "Replace", "pattern": {"String": "q"}, "content": "q" * 30}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Processes that were started, where none was ready."""
    found: list[int] = []

    class Counted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            found.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    monkeypatch.setattr(tokenizer_check, "_IDLE", [])
    monkeypatch.setattr(tokenizer_check, "_PASSED", set())
    return found


@pytest.fixture
def made(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Checkpoint]:
    """A tiny checkpoint with parts of its tokenizer.json changed."""

    def make(**parts: Any) -> Checkpoint:
        folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / f"model-{len(list(tmp_path.iterdir()))}"))
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | parts))
        return resolve(str(folder))

    return make


def test_one_process_tries_all_and_each_once(made: Callable[..., Checkpoint], started: list[int]) -> None:
    first, same, other = made(), made(), made(normalizer={"type": "NFC"})
    load_tokenizer(first)
    load_tokenizer(same)
    try_tokenizer(other, ["The city.", "Łódź"])
    try_tokenizer(other, ["Łódź", "The city."])
    load_tokenizer(other)
    assert len(started) == 1
    assert len(tokenizer_check.passed()) == 2


def test_what_another_process_has_tried_is_not_tried_again(made: Callable[..., Checkpoint], started: list[int]) -> None:
    checkpoint = made()
    tokenizer_check.trust([checkpoint.digests["tokenizer"] + checkpoint.digests["config"]])
    load_tokenizer(checkpoint)
    assert started == []


def test_a_text_of_the_run_alone_may_tell(made: Callable[..., Checkpoint], started: list[int]) -> None:
    """The expression matches nothing but a word that the run asks about."""
    pattern = {"String": "Vilnius"}
    checkpoint = made(normalizer={"type": "Replace", "pattern": pattern, "content": "x" * 10**6})
    load_tokenizer(checkpoint)
    with pytest.raises(InputError, match=r"tokenizer makes 1,000,0\d\d characters of the 11 of 'In Vilnius.': longer than any"):
        try_tokenizer(checkpoint, ["In Vilnius."])
    load_tokenizer(made())
    assert len(started) == 2  # one that failed serves no other


def test_what_takes_all_memory_is_ended(made: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made(decoder={"type": "Sequence", "decoders": [ENDLESS] * 9})
    monkeypatch.setattr(tokenizer_check, "READ_SECONDS", 3.0)
    with pytest.raises(InputError, match=r"tokenizer takes (more memory than it may|longer than [\d.]+ s)"):
        load_tokenizer(checkpoint)


def test_a_process_that_dies_is_named(
    made: Callable[..., Checkpoint], started: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "dies.py").write_text("import sys; print('loaded', flush=True); sys.exit(9)")
    monkeypatch.setattr(tokenizer_check, "TRIAL", tmp_path / "dies.py")
    with pytest.raises(InputError, match="tokenizer ended its process with code 9"):
        load_tokenizer(made())
    assert len(started) == 1


@pytest.mark.parametrize("spec", ["organism:base", "organism:instruct", "organism:llama-instruct"])
def test_what_is_in_use_passes(spec: str, started: list[int]) -> None:
    texts = ["The city of Łódź is in Poland. " * 200, "ﷺ" * 100, "\U0001f468‍\U0001f469‍\U0001f467" * 50, "x" * 20_000]
    try_tokenizer(resolve(spec), texts)
    assert len(started) == 1
