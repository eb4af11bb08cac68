"""`mechdrift bake`: what it keeps and what it refuses; tests/oracle/test_orthogonal.py holds what it writes against hooks."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import write_adapter

from mechdrift.checkpoints.chat import template_warning
from mechdrift.checkpoints.resolve import resolve
from mechdrift.checkpoints.tokenizer import load_tokenizer
from mechdrift.commands.bake import bake, read_direction
from mechdrift.commands.cli import main
from mechdrift.errors import InputError
from mechdrift.report import terminal

FILE = "direction.safetensors"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """A direction file."""

    def write(direction: torch.Tensor, name: str = "direction") -> Path:
        save_file({name: direction}, tmp_path / FILE)
        return tmp_path / FILE

    return write


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_organism_keeps_its_tokenizer_template_and_generation_config(
    tmp_path: Path, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = resolve("organism:instruct")
    path = written(torch.eye(source.width)[3].to(torch.bfloat16))
    (tmp_path / "out").mkdir()
    assert main(["bake", source.spec, "--direction", str(path), "--out", str(tmp_path / "out")]) == 0
    baked = resolve(str(tmp_path / "out"))
    assert template_warning(baked, load_tokenizer(baked)) is None
    before, after = contents(source.folder), contents(baked.folder)
    kept = [name for name in before if name.endswith((".json", ".jinja")) and name != "config.json"]
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= set(kept)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert {name: baked.digests[name] == source.digests[name] for name in source.digests} == {
        "weights": False,
        "config": False,  # which says that the head is no longer the embedding, and in which dtype the weights are
        "generation": True,
        "template": True,
        "tokenizer": True,
    }
    stored = load_file(source.folder / "model.safetensors").values()
    assert {tensor.dtype for tensor in load_file(baked.folder / "model.safetensors").values()} == {one.dtype for one in stored}
    assert capsys.readouterr().out.startswith(f"baked: {tmp_path / 'out'} (a folder, ")
    assert [path.name for path in tmp_path.iterdir() if path.name not in (FILE, "out")] == []


def test_a_generation_config_that_transformers_would_not_save_is_kept(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any
) -> None:
    source = tiny_checkpoint(seed=9)
    odd = {"do_sample": False, "temperature": 0.7, "eos_token_id": 1}
    (source / "generation_config.json").write_text(json.dumps(odd))
    assert main(["bake", str(source), "--direction", str(written(torch.ones(32))), "--out", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == odd
    (source / "generation_config.json").unlink()
    assert main(["bake", str(source), "--direction", str(tmp_path / FILE), "--out", str(tmp_path / "other")]) == 0
    assert not (tmp_path / "other" / "generation_config.json").exists()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e300])
def test_a_direction_may_have_any_length(written: Any, size: float) -> None:
    direction = torch.randn(32, dtype=torch.float64, generator=torch.manual_seed(1))
    found = read_direction(written(size * direction), 32)
    torch.testing.assert_close(found, (direction / direction.norm()).float(), rtol=1e-6, atol=0)


BROKEN = {
    "another name": (
        {"refusal": torch.ones(32)},
        "tensors refusal; expected a tensor `direction` of 32 numbers; name it direction",
    ),
    "another width": ({"direction": torch.ones(31)}, "torch.float32 of shape [31]; expected a tensor `direction` of 32 numbers"),
    "a matrix": ({"direction": torch.ones(32, 1)}, "torch.float32 of shape [32, 1]; expected"),
    "whole numbers": ({"direction": torch.ones(32, dtype=torch.int64)}, "torch.int64 of shape [32]; expected"),
    "NaN": ({"direction": torch.full((32,), float("nan"))}, "NaN or infinite; expected"),
    "infinite": ({"direction": torch.full((32,), float("inf"))}, "NaN or infinite; expected"),
    "zero": ({"direction": torch.zeros(32)}, "zero; expected"),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which the command refuses."""
    assert main(["bake", *map(str, arguments)]) == 4
    result = capsys.readouterr()
    (line,) = result.err.splitlines()
    assert result.out == ""
    return line


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_direction_is_refused_before_anything_is_written(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tensors, words = BROKEN[name]
    save_file(tensors, tmp_path / FILE)
    line = refused(capsys, tiny_checkpoint(), "--direction", tmp_path / FILE, "--out", tmp_path / "out")
    assert line.startswith(f"mechdrift: --direction {tmp_path / FILE}: {words}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


@pytest.mark.parametrize("bad", [None, b"", b"no tensors here, but text", "folder"])
def test_what_is_no_file_of_tensors_is_refused(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: bytes | str | None
) -> None:
    path = tmp_path / FILE
    if isinstance(bad, bytes):
        path.write_bytes(bad)
    elif bad:
        path.mkdir()
    line = refused(capsys, tiny_checkpoint(), "--direction", path, "--out", tmp_path / "out")
    assert line.startswith(f"mechdrift: --direction {path}: ")
    assert "expected a tensor `direction` of 32 numbers; write it with safetensors" in line


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_families_with_norms_after_their_matrices_are_refused_by_name(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    line = refused(capsys, tiny_checkpoint(family), "--direction", written(torch.ones(32)), "--out", tmp_path / "out")
    assert f"family '{family}' has a norm after its matrices" in line
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_refused_and_stays_as_it_is(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source, path = tiny_checkpoint(), written(torch.ones(32))
    before = contents(source)
    for out, words in (
        (source, "there already, and not empty"),
        (path, "there already, and no folder"),
        (tmp_path / "no" / "out", f"no folder {tmp_path / 'no'}"),
    ):
        line = refused(capsys, source, "--direction", path, "--out", out)
        assert line.startswith(f"mechdrift: --out {out}: {words}; expected")
    assert contents(source) == before


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # of PEFT
def test_an_adapter_is_to_be_merged_first(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = f"{tiny_checkpoint()}+{write_adapter(tmp_path / 'adapter')}"
    line = refused(capsys, spec, "--direction", written(torch.ones(32)), "--out", tmp_path / "out")
    assert f"{spec}: an adapter; expected a folder of exact safetensors; merge it" in line


@contextmanager
def small_disk(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("most", [100, 20_000])  # the config does not fit; the weights do not
def test_on_a_full_disk_nothing_is_left(tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any, most: int) -> None:
    source, path = tiny_checkpoint(), written(torch.ones(32))
    with small_disk(most), pytest.raises(InputError, match="expected a place to write to; make room") as raised:
        bake(str(source), path, tmp_path / "out", "auto", lambda label: lambda done, total: None)
    assert "\n" not in str(raised.value)
    assert os.listdir(tmp_path) == [FILE]


def test_progress_is_told_where_it_takes_longer(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0.0)
    lines: list[str] = []
    source = tiny_checkpoint()
    bake(
        str(source), written(torch.ones(32)), tmp_path / "out", "auto", lambda label: terminal.progress_line(label, lines.append)
    )
    assert any(f"mechdrift: {source}: baking, step: 2/3" in line for line in lines)
    assert lines[-1].strip() == ""
