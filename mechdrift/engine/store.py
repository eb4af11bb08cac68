"""The store: tensors kept under the digest of everything that could change them."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "1"  # of an entry; another format is another folder


class BadEntry(Exception):
    """An entry that is not what was written."""


@dataclass
class Store:
    """A folder of safetensors entries, shared by workers and by runs."""

    folder: Path
    """Where entries lie; made when first written to."""
    hits: int = 0
    """Entries read in this process."""
    misses: int = 0
    """Entries made in this process."""
    broken: bool = field(default=False, repr=False)
    """Set when the folder could not be written: the run goes on without it."""

    def get(self, provenance: dict[str, Any], make: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        """The entry of this provenance, made and kept if it is not there.

        One process makes an entry while others wait for it. A bad entry is made anew, with a warning; a folder that cannot
        be written costs a warning and the keeping, not the run.
        """
        key = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"v{FORMAT}" / key[:2] / f"{key}.safetensors"
        if self.broken:
            return self._made(make)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            lock.acquire()
        except OSError as error:
            return self._without(error, make)
        try:
            if path.is_file():
                try:
                    tensors = _read(path)
                except (OSError, BadEntry) as error:
                    warnings.warn(f"mechdrift: cache entry {path.name} is bad ({error}); recorded again", stacklevel=2)
                else:
                    self.hits += 1
                    return tensors
            tensors = self._made(make)
            try:
                _write(path, tensors, provenance)
            except OSError as error:
                self._give_up(error)
            return tensors
        finally:
            lock.release()

    def _made(self, make: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        self.misses += 1
        return {name: tensor.contiguous() for name, tensor in make().items()}

    def _without(self, error: OSError, make: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        self._give_up(error)
        return self._made(make)

    def _give_up(self, error: OSError) -> None:
        self.broken = True
        warnings.warn(f"mechdrift: cache {self.folder} cannot be written ({error.strerror}); going on without it", stacklevel=3)


def _content_digest(tensors: "dict[str, Tensor]") -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, tensors: "dict[str, Tensor]", provenance: dict[str, Any]) -> None:
    """Write under a temporary name, then rename: a reader sees the whole entry or none."""
    from safetensors.torch import save_file

    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    metadata = {"sha256": _content_digest(tensors), "provenance": json.dumps(provenance, sort_keys=True)}
    try:
        save_file(tensors, temporary, metadata)
        temporary.replace(path)
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(0, str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> "dict[str, Tensor]":
    """Read and verify an entry."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as entry:
            tensors = {name: entry.get_tensor(name) for name in entry.keys()}  # noqa: SIM118 - no mapping
            wanted = (entry.metadata() or {}).get("sha256")
    except SafetensorError as error:
        raise BadEntry(str(error)) from error
    if _content_digest(tensors) != wanted:
        raise BadEntry("its content is not what was written")
    return tensors
