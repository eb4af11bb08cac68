"""Weights are read once, whole, in blocks; and again for every doubt that they are what they were."""

import hashlib
import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechdrift.checkpoints import identity, reading
from mechdrift.checkpoints.identity import Memory
from mechdrift.checkpoints.resolve import Resolver, resolve
from mechdrift.errors import InputError

WEIGHTS = "model.safetensors"
LONG_AGO = 1_600_000_000
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture
def folder(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint that has lain there for long."""
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))
    age(folder)
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "identities")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weight files that are read."""
    names: list[str] = []

    def counted(spec: str, path: Path, advance: Callable[[int], None]) -> reading.Content:
        names.append(path.name)
        return reading.read_through(spec, path, advance)

    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_through", counted)
    return names


def age(folder: Path) -> None:
    os.utime(folder / WEIGHTS, (LONG_AGO, LONG_AGO))


def test_a_digest_can_be_had_with_sha256sum(folder: Path) -> None:
    def summed(*names: str) -> str:
        result = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True).stdout
        return hashlib.sha256(result).hexdigest()

    digests = resolve(str(folder)).digests
    assert digests["weights"] == summed(WEIGHTS)
    assert digests["config"] == summed("config.json")
    assert digests["tokenizer"] == summed("tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("place", [0, 700, 1023, 1024, 2999])
def test_one_bad_value_is_found_in_any_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, place: int) -> None:
    monkeypatch.setattr(reading, "BLOCK", 1024)
    values = torch.linspace(-3, 3, 3000).to(dtype)
    path = tmp_path / WEIGHTS
    save_file({"a": torch.ones(5), "b": values, "c": torch.arange(7)}, path)
    content = reading.read_through("x", path, lambda _n: None)
    assert content == reading.Content(hashlib.sha256(path.read_bytes()).hexdigest(), 3012)
    values[place] = torch.nan
    save_file({"a": torch.ones(5), "b": values, "c": torch.arange(7)}, path)
    with pytest.raises(InputError, match="1 of 3,000 weights of b are NaN or infinite"):
        reading.read_through("x", path, lambda _n: None)


def test_memory_is_bounded_by_the_block_and_every_byte_is_told(tmp_path: Path) -> None:
    path, length = tmp_path / WEIGHTS, 10 * reading.BLOCK + 4
    header = json.dumps({"a": {"dtype": "F32", "shape": [length // 4], "data_offsets": [0, length]}}).encode()
    with path.open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
        handle.truncate(8 + len(header) + length)
    result: list[int] = []
    tracemalloc.start()
    try:
        reading.read_through("x", path, result.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(result) == length
    assert peak < 1.1 * reading.BLOCK


def test_progress_is_told_in_megabytes_up_to_the_end(tmp_path: Path, memory: Memory) -> None:
    path = tmp_path / WEIGHTS
    save_file({"a": torch.zeros(12_000_000)}, path)
    result: list[tuple[int, int]] = []
    identity.read_weights("x", [path], reading.read_through, None, lambda done, total: result.append((done, total)))
    assert [total for _, total in result] == [48] * len(result)
    assert [done for done, _ in result] == [16, 33, 48]


@pytest.mark.parametrize(("count", "told"), [(999_999, []), (1_000_000, [(1, 1)])])
def test_of_less_than_a_megabyte_nothing_is_told(tmp_path: Path, count: int, told: list[tuple[int, int]]) -> None:
    path = tmp_path / WEIGHTS
    save_file({"a": torch.zeros(count, dtype=torch.int8)}, path)
    result: list[tuple[int, int]] = []
    identity.read_weights("x", [path], reading.read_through, None, lambda done, total: result.append((done, total)))
    assert result == told


def test_unchanged_weights_are_read_once(folder: Path, memory: Memory, reads: list[str]) -> None:
    first = Resolver(memory).resolve(str(folder))
    second = Resolver(memory).resolve(str(folder))
    assert first == second
    assert reads == [WEIGHTS]


def overwrite(folder: Path) -> None:
    """Other values of the same size, with the old times put back: only ctime tells."""
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] += 1
    raw = folder / "new"
    save_file(tensors, raw, {"format": "pt"})
    with (folder / WEIGHTS).open("r+b") as handle:
        handle.write(raw.read_bytes())
    age(folder)


def replace(folder: Path) -> None:
    """Another file of the same size and times under the same name."""
    shutil.copyfile(folder / WEIGHTS, folder / "kept")
    overwrite(folder)
    age(folder)
    (folder / WEIGHTS).rename(folder / "changed")
    (folder / "changed").rename(folder / WEIGHTS)


def lengthen(folder: Path) -> None:
    """A mask that older code kept, and no model misses."""
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"model.masked_bias": torch.zeros(3)}, folder / WEIGHTS, {"format": "pt"})
    age(folder)


def touch(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"] += 1
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("change", [overwrite, replace, lengthen, touch])
def test_changed_weights_are_read_again(folder: Path, memory: Memory, reads: list[str], change: Callable[[Path], None]) -> None:
    before = Resolver(memory).resolve(str(folder))
    change(folder)
    after = Resolver(memory).resolve(str(folder))
    assert reads == [WEIGHTS] * 2
    assert after.digests["weights"] != before.digests["weights"]
    assert after.digests == resolve(str(folder)).digests


def test_weights_written_this_moment_are_not_remembered(folder: Path, memory: Memory, reads: list[str]) -> None:
    """A change within the clock's tick would leave their times as they are."""
    os.utime(folder / WEIGHTS)
    Resolver(memory).resolve(str(folder))
    Resolver(memory).resolve(str(folder))
    assert reads == [WEIGHTS] * 2
    age(folder)
    Resolver(memory).resolve(str(folder))
    Resolver(memory).resolve(str(folder))
    assert reads == [WEIGHTS] * 3


@pytest.mark.parametrize(
    "spoil",
    [
        lambda result: "",
        lambda result: "[]",
        lambda result: json.dumps(result)[:-9],
        lambda result: json.dumps(result | {"content": {"sha256": "x", "parameters": 1}}),
        lambda result: json.dumps(result | {"content": {"sha256": "0" * 64, "parameters": "1"}}),
        lambda result: json.dumps(result | {"content": {}}),
        lambda result: json.dumps(result | {"path": "/elsewhere"}),
        lambda result: json.dumps(result | {"stamp": result["stamp"] | {"inode": 1}}),
    ],
)
def test_a_memory_that_makes_no_sense_is_not_trusted(
    folder: Path, memory: Memory, reads: list[str], spoil: Callable[[dict[str, Any]], str]
) -> None:
    first = Resolver(memory).resolve(str(folder))
    (entry,) = memory.folder.rglob("*.json")
    entry.write_text(spoil(json.loads(entry.read_text())))
    assert Resolver(memory).resolve(str(folder)) == first
    assert reads == [WEIGHTS] * 2
    assert Resolver(memory).resolve(str(folder)) == first
    assert reads == [WEIGHTS] * 2, "the entry was written anew"


def test_a_memory_that_cannot_be_written_costs_reading_only(folder: Path, tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    memory = Memory(tmp_path / "taken" / "identities")
    assert Resolver(memory).resolve(str(folder)) == Resolver(memory).resolve(str(folder))
    assert reads == [WEIGHTS] * 2


def test_weights_that_are_not_finite_are_never_remembered(folder: Path, memory: Memory) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["model.norm.weight"][3] = torch.inf
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    age(folder)
    for _ in range(2):
        with pytest.raises(InputError, match=r"1 of 32 weights of model\.norm\.weight"):
            Resolver(memory).resolve(str(folder))
    assert not list(memory.folder.rglob("*.json"))


def test_weights_that_change_while_they_are_read_are_refused(
    folder: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(spec: str, path: Path, advance: Callable[[int], None]) -> reading.Content:
        content = reading.read_through(spec, path, advance)
        with path.open("ab") as handle:
            handle.write(b"x")
        return content

    monkeypatch.setattr("mechdrift.checkpoints.resolve.read_through", disturbed)
    with pytest.raises(InputError, match="changed while it was read"):
        Resolver(memory).resolve(str(folder))
    assert not list(memory.folder.rglob("*.json"))


def test_one_changed_shard_is_the_only_one_read_again(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, memory: Memory, reads: list[str]
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint(max_shard_size="30KB"), tmp_path / "sharded"))
    shards = sorted(folder.glob("model-*.safetensors"))
    for shard in shards:
        os.utime(shard, (LONG_AGO, LONG_AGO))
    first = Resolver(memory).resolve(str(folder))
    assert reads == [shard.name for shard in shards]
    tensors = load_file(shards[1])
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, shards[1], {"format": "pt"})
    second = Resolver(memory).resolve(str(folder))
    assert reads[len(shards) :] == [shards[1].name]
    assert second.parameters == first.parameters
    assert second.digests["weights"] != first.digests["weights"]
