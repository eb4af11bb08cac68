"""The store: kept under its provenance, verified, never in the way of a run, never beyond its folder."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mechdrift.engine.store import TENSOR, Part, Store, read_metadata

KEY = {"what": "blocks", "n": 1}
SHAPE = (10, 10)
MADE = torch.arange(100.0).reshape(SHAPE)
DISK = 1 << 20  # bytes of a disk that is soon full


def never() -> torch.Tensor:
    raise AssertionError("made although it was kept")


def part(tensor: torch.Tensor = MADE) -> Part:
    return Part(tuple(tensor.shape), lambda: tensor)


def kept(tensor: torch.Tensor = MADE) -> Part:
    return Part(tuple(tensor.shape), never)


def file_of(folder: Path) -> Path:
    (path,) = folder.rglob("*.safetensors")
    return path


def tell(path: Path, **changes: str) -> None:
    """Change what a file says of itself."""
    save_file(load_file(path), path, read_metadata(path) | changes)


def test_second_reading_is_the_first(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    assert torch.equal(first.get(KEY, [part()])[0], MADE)
    assert torch.equal(second.get(KEY, [kept()])[0], MADE)
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 1, 1, 0)
    assert first.warnings == second.warnings == []


def test_another_provenance_is_another_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get(KEY, [part(torch.zeros(1))])
    assert store.get(KEY | {"n": 2}, [part(torch.ones(1))])[0].item() == 1


def test_a_part_of_another_shape_than_announced_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(10, 10\) was made; \(3,\)"):
        Store(tmp_path).get(KEY, [Part((3,), lambda: MADE)])


def test_what_was_made_before_an_error_is_not_made_again(tmp_path: Path) -> None:
    parts = [part(), Part(SHAPE, lambda: (_ for _ in ()).throw(RuntimeError("out of memory"))), part(MADE + 2)]
    with pytest.raises(RuntimeError, match="out of memory"):
        Store(tmp_path).get(KEY, parts)
    store = Store(tmp_path)
    read = store.get(KEY, [kept(), part(MADE + 1), part(MADE + 2)])
    assert [torch.equal(tensor, MADE + number) for number, tensor in enumerate(read)] == [True] * 3
    assert (store.hits, store.misses) == (0, 1)


def flip(path: Path, outside: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def cut(path: Path, outside: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path, outside: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.mkdir, (str(outside / "executed"),)

    path.write_bytes(pickle.dumps(Evil()))


def symbolic_link(path: Path, outside: Path) -> None:
    path.rename(outside / "entry")
    path.symlink_to(outside / "entry")


def hard_link(path: Path, outside: Path) -> None:
    (outside / "entry").hardlink_to(path)


def huge_header(path: Path, outside: Path) -> None:
    path.write_bytes((99_000_000).to_bytes(8, "little") + b"{" + b" " * 99_000_000)


def header_beyond_the_file(path: Path, outside: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def larger_than_memory(path: Path, outside: Path) -> None:
    size = 1 << 42
    header = json.dumps({TENSOR: {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
        handle.truncate(8 + len(header) + size)


def named_pipe(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def other_shape(path: Path, outside: Path) -> None:
    """Whole and rightly digested, as another's store would write it, but of another shape with as many bytes."""
    shutil.rmtree(path.parents[1])
    Store(path.parents[2]).get(KEY, [part(MADE.reshape(5, 20))])


def fewer_numbers(path: Path, outside: Path) -> None:
    shutil.rmtree(path.parents[1])
    Store(path.parents[2]).get(KEY, [part(MADE[:3])])


def other_dtype(path: Path, outside: Path) -> None:
    save_file({TENSOR: MADE.int()}, path, read_metadata(path))


def other_name(path: Path, outside: Path) -> None:
    save_file({"../../../outside/named": MADE}, path, read_metadata(path))


def false_digest(path: Path, outside: Path) -> None:
    tell(path, sha256="0" * 64)


def false_provenance(path: Path, outside: Path) -> None:
    tell(path, provenance=json.dumps({"what": "blocks", "n": 2}))


def no_metadata(path: Path, outside: Path) -> None:
    save_file(load_file(path), path)


def of_another_key(path: Path, outside: Path) -> None:
    store = Store(path.parents[2])
    store.get({"what": "logits"}, [part(MADE + 1)])
    (other,) = (found for found in store.folder.rglob("*.safetensors") if found != path)
    other.replace(path)


DAMAGES = [
    flip,
    cut,
    empty,
    pickled,
    symbolic_link,
    hard_link,
    huge_header,
    header_beyond_the_file,
    larger_than_memory,
    named_pipe,
    other_shape,
    fewer_numbers,
    other_dtype,
    other_name,
    false_digest,
    false_provenance,
    no_metadata,
    of_another_key,
]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that no store may touch; what a test put there is as it was when the store was read."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    yield folder
    assert (folder / "precious").read_text() == "precious"
    assert not (folder / "executed").exists()


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """All of a folder's files that a write or a chmod would change."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_entry_is_found_and_made_anew_and_nothing_outside_is_touched(
    tmp_path: Path, outside: Path, damage: Callable[[Path, Path], None]
) -> None:
    cache = tmp_path / "cache"
    Store(cache).get(KEY, [part()])
    path = file_of(cache)
    damage(path, outside)
    before = state(outside)
    store = Store(cache)
    assert torch.equal(store.get(KEY, [part()])[0], MADE)
    (warning,) = store.warnings
    assert warning.startswith(f"cache entry {path.name} is bad (")
    assert warning.endswith("); recorded again")
    assert store.misses == 1
    assert state(outside) == before
    again = Store(cache)
    assert torch.equal(again.get(KEY, [kept()])[0], MADE)
    assert again.warnings == []


def test_a_part_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    Store(tmp_path).get(KEY, [part(), part(MADE + 1)])
    first, second = sorted(tmp_path.rglob("*.safetensors"))
    shutil.copyfile(second, first)
    store = Store(tmp_path)
    assert torch.equal(store.get(KEY, [part(), kept(MADE + 1)])[0], MADE)
    assert len(store.warnings) == 1


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_a_lock_that_is_a_link_does_not_lead_outside(tmp_path: Path, outside: Path, link: str) -> None:
    cache = tmp_path / "cache"
    Store(cache).get(KEY, [part()])
    (lock,) = cache.rglob("*.lock")
    file_of(cache).unlink()
    lock.unlink()
    if link == "symbolic":
        lock.symlink_to(outside / "precious")
    else:
        lock.hardlink_to(outside / "precious")
    before = state(outside)
    store = Store(cache)
    assert torch.equal(store.get(KEY, [part()])[0], MADE)
    assert state(outside) == before
    assert torch.equal(Store(cache).get(KEY, [kept()])[0], MADE)


@pytest.mark.parametrize("level", [0, 1])
def test_a_folder_that_is_a_link_is_neither_read_nor_written(tmp_path: Path, outside: Path, level: int) -> None:
    cache = tmp_path / "cache"
    Store(cache).get(KEY, [part()])
    folder = file_of(cache).parents[level]
    folder.rename(outside / "folder")
    folder.symlink_to(outside / "folder")
    before = state(outside)
    store = Store(cache)
    assert torch.equal(store.get(KEY, [part(MADE + 1)])[0], MADE + 1)
    bad, unwritable = store.warnings
    assert "is a link" in bad
    assert "is a link); what is recorded now is not kept" in unwritable
    assert state(outside) == before


def test_a_cache_folder_that_is_a_link_is_the_users_choice(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    Store(tmp_path / "cache").get(KEY, [part()])
    store = Store(tmp_path / "cache")
    assert torch.equal(store.get(KEY, [kept()])[0], MADE)
    assert store.warnings == []


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = Store(tmp_path / "file" / "cache")
    assert [store.get(KEY | {"n": n}, [part()])[0].sum() for n in range(3)] == [MADE.sum()] * 3
    (warning,) = store.warnings
    assert "cannot be written (Not a directory); what is recorded now is not kept" in warning
    assert store.misses == 3


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_write_that_the_system_refuses_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files, which any user may set: a real error in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = Store(tmp_path)
    store.get(KEY, [part()])
    large = torch.ones(100_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        read = [store.get({"n": n}, [part(large)])[0] for n in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(torch.equal(tensor, large) for tensor in read)
    (warning,) = store.warnings
    assert "cannot be written (File too large)" in warning
    assert files(tmp_path) == [file_of(tmp_path)]
    assert torch.equal(store.get(KEY, [kept()])[0], MADE), "what was kept before is still read"


def mount(*arguments: object) -> None:
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*rights, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=777", "tmpfs", folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no right to mount a small disk ({error}); the test with a limit on file size stands in")
    yield folder
    mount("umount", folder)


def test_a_full_disk_costs_one_warning_and_leaves_nothing_half_written(disk: Path) -> None:
    store = Store(disk)
    large = torch.ones(100_000)
    for n in range(6):
        assert torch.equal(store.get({"n": n}, [part(large)])[0], large)
    (warning,) = store.warnings
    assert "cannot be written (No space left on device)" in warning
    assert len(files(disk)) == 2
    assert not list(disk.rglob("*.tmp"))
    again = Store(disk)
    for n in range(2):
        assert torch.equal(again.get({"n": n}, [kept(large)])[0], large)


def test_a_disk_without_room_for_a_lock_costs_one_warning(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        (disk / "filling").write_bytes(bytes(2 * DISK))
    store = Store(disk / "cache")
    assert torch.equal(store.get(KEY, [part()])[0], MADE)
    assert torch.equal(store.get({}, [part()])[0], MADE)
    assert len(store.warnings) == 1


def test_a_read_only_cache_is_read_and_costs_one_warning(disk: Path) -> None:
    Store(disk).get(KEY, [part()])
    mount("mount", "-o", "remount,ro", disk)
    store = Store(disk)
    assert torch.equal(store.get(KEY, [kept()])[0], MADE)
    assert store.warnings == []
    for n in range(2, 5):
        assert torch.equal(store.get({"n": n}, [part(MADE + n)])[0], MADE + n)
    (warning,) = store.warnings
    assert "cannot be written (Read-only file system)" in warning


def test_two_who_ask_at_once_make_it_once(tmp_path: Path) -> None:
    made = []

    def make() -> torch.Tensor:
        made.append(1)
        time.sleep(0.3)
        return MADE

    threads = [threading.Thread(target=lambda: Store(tmp_path).get(KEY, [Part(SHAPE, make)] * 2)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2


DYING = """
import sys, time
from pathlib import Path
import torch
from mechdrift.engine.store import Part, Store

def wait(*_):
    print("ready", flush=True)
    time.sleep(600)

folder, where = Path(sys.argv[1]), sys.argv[2]
made = torch.arange(100.0).reshape(10, 10)
if where == "before its name":
    Path.replace = wait
Store(folder).get({"what": "blocks", "n": 1}, [Part((10, 10), lambda: made), Part((10, 10), wait)])
"""


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that comes to a place in the making of an entry, and stays there."""
    started = []

    def start(where: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", DYING, str(tmp_path), where], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_after_a_kill_the_parts_that_were_made_are_read(tmp_path: Path, dying: Callable[[str], subprocess.Popen[str]]) -> None:
    process = dying("in the second part")
    process.kill()
    process.wait()
    store = Store(tmp_path)
    first, second = store.get(KEY, [kept(), part(MADE + 1)])
    assert torch.equal(first, MADE)
    assert torch.equal(second, MADE + 1)
    assert store.warnings == []


def test_what_a_kill_left_goes_when_the_entry_is_made(tmp_path: Path, dying: Callable[[str], subprocess.Popen[str]]) -> None:
    process = dying("before its name")
    process.kill()
    process.wait()
    assert len(list(tmp_path.rglob("*.tmp"))) == 1
    store = Store(tmp_path)
    store.get({"another": "entry"}, [part()])
    assert len(list(tmp_path.rglob("*.tmp"))) == 1, "another entry's may be a live run's"
    assert torch.equal(store.get(KEY, [part(), part()])[0], MADE)
    assert not list(tmp_path.rglob("*.tmp"))
    assert store.warnings == []


def test_what_a_live_run_writes_stays(tmp_path: Path, dying: Callable[[str], subprocess.Popen[str]]) -> None:
    from mechdrift.commands.cache import prune

    process = dying("before its name")
    (temporary,) = tmp_path.rglob("*.tmp")
    assert "removed: 0 leftovers of killed runs" in prune(tmp_path, older_than=0, max_size=0)
    assert temporary.exists()
    process.kill()
    process.wait()
    assert "removed: 1 leftovers of killed runs" in prune(tmp_path)
    assert not temporary.exists()


def test_a_recording_that_a_live_run_makes_is_not_pruned(tmp_path: Path, dying: Callable[[str], subprocess.Popen[str]]) -> None:
    from mechdrift.commands.cache import prune

    process = dying("in the second part")
    assert "left, in use: 1" in prune(tmp_path, max_size=0)
    assert file_of(tmp_path).exists()
    process.kill()
    process.wait()
    assert "removed: 1 recordings" in prune(tmp_path, max_size=0)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.lock"))
