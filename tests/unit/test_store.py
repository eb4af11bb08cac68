"""The store: kept under its provenance, verified, never in the way of a run."""

import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from mechdrift.engine.store import Store

KEY = {"what": "blocks", "n": 1}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("made although it was kept")


def entry_of(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def test_second_reading_is_the_first(tmp_path: Path) -> None:
    made = torch.randn(3, 4)
    first = Store(tmp_path)
    assert torch.equal(first.get(KEY, lambda: {"a": made})["a"], made)
    second = Store(tmp_path)
    assert torch.equal(second.get(KEY, never)["a"], made)
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 1, 1, 0)


def test_another_provenance_is_another_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get(KEY, lambda: {"a": torch.zeros(1)})
    assert store.get(KEY | {"n": 2}, lambda: {"a": torch.ones(1)})["a"].item() == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_bad_entry_is_found_and_made_anew(tmp_path: Path, damage: str) -> None:
    made = torch.randn(100)
    Store(tmp_path).get(KEY, lambda: {"a": made})
    path = entry_of(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-7] ^= 1
    damaged = {"flip": bytes(content), "cut": bytes(content[:-50]), "empty": b"", "foreign": b"x" * 500}
    path.write_bytes(damaged[damage])
    store = Store(tmp_path)
    with pytest.warns(UserWarning, match=r"cache entry .* is bad .* recorded again"):
        assert torch.equal(store.get(KEY, lambda: {"a": made})["a"], made)
    assert torch.equal(Store(tmp_path).get(KEY, never)["a"], made)


def test_a_folder_that_cannot_be_written_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Store(tmp_path / "file")
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        read = [store.get(KEY, lambda: {"a": torch.ones(1)})["a"].item() for _ in range(3)]
    assert read == [1, 1, 1]
    assert len(caught) == 1
    assert store.misses == 3


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert Store(tmp_path).get(KEY, lambda: {"a": torch.ones(1)})["a"].item() == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_two_who_ask_at_once_make_it_once(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        time.sleep(0.3)
        return {"a": torch.ones(1)}

    threads = [threading.Thread(target=lambda: Store(tmp_path).get(KEY, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_an_error_while_making_is_passed_on_and_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        Store(tmp_path).get(KEY, lambda: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Store(tmp_path).get(KEY, lambda: {"a": torch.ones(1)})["a"].item() == 1
