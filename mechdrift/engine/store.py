"""The store: recordings kept under the digest of everything that could change them."""

import errno
import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError

from mechdrift.engine.work import NOTHING, Work

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "2"  # of an entry; another format is another folder
TENSOR = "recording"  # its name in a file
HEADER_LIMIT = 1 << 20  # bytes; ours stay under a hundredth of it


def default_folder() -> Path:
    """Where recordings are kept unless --mechdrift-cache says otherwise."""
    return user_cache_path("mechdrift")


def folder_of(given: str | None) -> Path:
    """The folder that was named for recordings, or the default one."""
    return Path(given).expanduser().absolute() if given else default_folder()


class BadEntry(Exception):
    """A file of an entry that is not what was written."""


@dataclass(frozen=True)
class Part:
    """A piece of a recording that is kept by itself, so that a killed run resumes after it."""

    shape: tuple[int, ...]
    """Of its float32 tensor."""
    make: "Callable[[], Tensor]"
    """Records it."""
    work: Work = NOTHING
    """What that takes, but for its bytes."""

    @property
    def whole_work(self) -> Work:
        """And with them."""
        return self.work + Work(bytes=4 * math.prod(self.shape))


@dataclass(frozen=True)
class Entry:
    """Where a recording lies in the store: one file a part, beside a lock."""

    folder: Path
    """Two characters of the key, in the format's folder."""
    key: str
    """sha256 of the provenance."""

    @property
    def lock(self) -> Path:
        """Held while parts are made: temporary files of this entry are then the holder's, or of a run that died."""
        return self.folder / f"{self.key}.lock"

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"{self.key}.{number}.safetensors"

    def temporary(self) -> Path:
        """A name that nobody has."""
        return self.folder / f"{self.key}.{secrets.token_hex(8)}.tmp"

    def leftovers(self) -> list[Path]:
        """Temporary files; with the lock held they are nobody's."""
        return sorted(self.folder.glob(f"{self.key}.*.tmp"))


@dataclass
class Store:
    """A folder of safetensors entries, shared by workers and by runs; it never stops one."""

    folder: Path
    """Where entries lie; made when first written to."""
    hits: int = 0
    """Recordings read in this process."""
    misses: int = 0
    """Recordings of which this process made a part at least."""
    work: Work = NOTHING
    """What the parts took that this process made."""
    warnings: list[str] = field(default_factory=list)
    """What went wrong, each once; shown when the run ends, as a full disk must not fail a project that makes warnings errors."""
    read_only: bool = field(default=False, repr=False)
    """Set when the folder could not be written: the run goes on without keeping anything."""

    def get(self, provenance: dict[str, Any], parts: Sequence[Part], label: str = "") -> "list[Tensor]":
        """The parts of a recording, float32, those made and kept that are not there.

        One process makes an entry while others wait for it; reading waits for nobody. A bad file is made anew, with a warning;
        a folder that cannot be written costs a warning and the keeping, not the run.
        """
        text = json.dumps(provenance, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        entry = Entry(self.folder / f"v{FORMAT}" / key[:2], key)
        tensors = {number: self._kept(entry, number, part) for number, part in enumerate(parts)}
        made = False
        if any(tensor is None for tensor in tensors.values()):
            with self._writing(entry):
                for number, part in enumerate(parts):
                    if tensors[number] is None:  # unless another process has made it meanwhile
                        tensors[number] = self._kept(entry, number, part)
                    if tensors[number] is None:
                        made = True
                        tensors[number] = self._made(entry, number, part, {"provenance": text, "label": label})
                        self.work += part.whole_work
        self.hits += not made
        self.misses += made
        return [tensor for tensor in tensors.values() if tensor is not None]

    def _kept(self, entry: Entry, number: int, part: Part) -> "Tensor | None":
        """A part as it was written; None where it is missing or bad."""
        path = entry.part(number)
        try:
            tensor, _ = read_part(path, part.shape)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, BadEntry) as error:
            self._warn(f"cache entry {path.name} is bad ({_why(error)}); recorded again")
            return None
        with suppress(OSError):  # another's file, or a read-only folder
            os.utime(path)  # prune goes by the last use
        return tensor

    @contextmanager
    def _writing(self, entry: Entry) -> Iterator[None]:
        """The entry's lock, where it can be had."""
        lock = FileLock(entry.lock)
        if not self.read_only:
            try:
                _make_folder(self.folder, entry.folder)
                clear_foreign_lock(entry.lock)
                lock.acquire()
                for path in entry.leftovers():
                    path.unlink()
            except OSError as error:
                self._give_up(error)
        try:
            yield
        finally:
            lock.release()

    def _made(self, entry: Entry, number: int, part: Part, details: dict[str, str]) -> "Tensor":
        tensor = part.make().contiguous()
        if tuple(tensor.shape) != part.shape:
            raise ValueError(f"a part of shape {tuple(tensor.shape)} was made; {part.shape} was announced")
        if not self.read_only:
            try:
                _write_part(entry, number, tensor, details)
            except OSError as error:
                self._give_up(error)
        return tensor

    def _give_up(self, error: OSError) -> None:
        self.read_only = True
        self._warn(f"cache {self.folder} cannot be written ({_why(error)}); what is recorded now is not kept")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def read_part(path: Path, shape: tuple[int, ...] | None = None) -> "tuple[Tensor, dict[str, str]]":
    """A verified part, float32, and its metadata; of any shape where none is given.

    Nothing in a file is believed: it must be a plain file with one name, of one float32 tensor, whose digest covers its numbers,
    shape, name and metadata. Raises BadEntry, and OSError where it cannot be read.
    """
    import torch
    from safetensors import safe_open

    header, size = _header_and_size(path)
    if shape is not None and size != 8 + header + 4 * math.prod(shape):
        raise BadEntry(f"{size:,} bytes are not a recording of shape {shape}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if list(file.keys()) != [TENSOR]:
                raise BadEntry("other tensors than a recording")
            tensor = file.get_tensor(TENSOR)
    except (SafetensorError, RuntimeError) as error:  # torch's error where a file is larger than memory
        raise BadEntry(str(error)) from error
    if tensor.dtype != torch.float32 or tuple(tensor.shape) != (shape or tuple(tensor.shape)):
        raise BadEntry(f"{tensor.dtype} of shape {tuple(tensor.shape)}")
    if metadata.get("sha256") != _digest(path.name, tensor, metadata):
        raise BadEntry("its content is not what was written")
    if hashlib.sha256(metadata.get("provenance", "").encode()).hexdigest() != path.name.partition(".")[0]:
        raise BadEntry("it was recorded of something else")
    return tensor, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """What a part says of itself, unverified. Raises BadEntry, and OSError where it cannot be read."""
    from safetensors import safe_open

    _header_and_size(path)
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise BadEntry(str(error)) from error


def _header_and_size(path: Path) -> tuple[int, int]:
    """Bytes of a part's header and of the whole file, before anything more is read of it. Raises BadEntry and OSError."""
    for folder in path.parents[:2]:
        if folder.is_symlink():
            raise BadEntry(f"{folder.name} is a link")
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise BadEntry("a link, or no plain file")
    with path.open("rb") as handle:
        if (header := int.from_bytes(handle.read(8), "little")) > HEADER_LIMIT:
            raise BadEntry(f"its header says that it is {header:,} bytes long")
    return header, status.st_size


def _digest(name: str, tensor: "Tensor", metadata: dict[str, str]) -> str:
    """sha256 of a part's numbers and of their metadata."""
    details = {key: value for key, value in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps([name, list(tensor.shape), details], sort_keys=True).encode())
    digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _write_part(entry: Entry, number: int, tensor: "Tensor", details: dict[str, str]) -> None:
    """Write under a temporary name, then rename: a reader sees the whole part or none. Raises OSError."""
    from safetensors.torch import save

    path, temporary = entry.part(number), entry.temporary()
    metadata = details | {"sha256": _digest(path.name, tensor, details)}
    try:
        with temporary.open("xb") as handle:
            handle.write(save({TENSOR: tensor}, metadata))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(store: Path, folder: Path) -> None:
    """Make an entry's folder. Raises OSError where a link leads elsewhere: what is written stays in the store."""
    store.mkdir(parents=True, exist_ok=True)
    for level in (folder.parent, folder):
        if level.is_symlink():
            raise OSError(errno.ELOOP, f"{level.relative_to(store)} is a link")
        level.mkdir(exist_ok=True)


def clear_foreign_lock(path: Path) -> None:
    """Remove a link in the place of a lock: locking opens for writing, and older filelocks empty what they open."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        path.unlink()


def _why(error: OSError | BadEntry) -> str:
    return getattr(error, "strerror", None) or str(error)
