"""Identity by content: digests of a checkpoint's files, remembered so that unchanged weights are not read twice."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from mechdrift.checkpoints.reading import Content
from mechdrift.errors import InputError
from mechdrift.files import write_whole

Progress = Callable[[int, int], None]
Reader = Callable[[str, Path, Callable[[int], None]], Content]
MEGABYTE = 10**6
FORMAT = "1"  # of an entry of the memory; another format is another folder
RACY_SECONDS = 2.0  # the coarsest clock of a file system (FAT): a later change within it can leave mtime as it is


def read_weights(
    spec: str, paths: Sequence[Path], reader: Reader, memory: "Memory | None", progress: Progress | None
) -> list[Content]:
    """What a checkpoint's weight files hold, each read through by reader. progress counts megabytes.

    A file that the memory knows and that was not touched since is not read. Raises InputError at a weight that is not finite,
    at a file that changes while it is read, and at a blob of the hub's cache that is not what its name says.
    """
    known = {path: content for path in paths if memory and (content := memory.recall(path))}
    unread = [path for path in paths if path not in known]
    done, total = 0, sum(path.stat().st_size for path in unread)

    def advance(amount: int) -> None:
        nonlocal done
        done += amount
        if progress is not None and done >= MEGABYTE:
            progress(done // MEGABYTE, total // MEGABYTE)

    for path in unread:
        started, before = time.time(), _stamp(path)
        try:
            known[path] = reader(spec, path, advance)
            unchanged = _stamp(path) == before
        except (EOFError, OSError):
            unchanged = False
        if not unchanged:
            raise InputError(f"{spec}: {path.name} changed while it was read", "files at rest", "wait, and run again")
        _check_blob(spec, path, known[path].sha256)
        if memory and started - before["mtime_ns"] / 1e9 >= RACY_SECONDS:
            memory.remember(path, before, known[path])
    return [known[path] for path in paths]


def digest_files(spec: str, folder: Path, paths: Sequence[Path]) -> str:
    """sha256 over small files of a folder: over what `sha256sum`, run in it, prints of them."""
    digests = []
    for path in paths:
        content = path.read_bytes()
        digests.append((path.relative_to(folder).as_posix(), hashlib.sha256(content).hexdigest()))
        as_in_git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        _check_blob(spec, path, digests[-1][1], as_in_git)
    return joined(digests)


def joined(digests: Iterable[tuple[str, str]]) -> str:
    """One digest of several files: that of the lines `DIGEST  NAME`, so `sha256sum FILES | sha256sum` gives the same."""
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests).encode()).hexdigest()


def _check_blob(spec: str, path: Path, *digests: str) -> None:
    """Hold a file of the hub's cache against its name there: the sha256 of a large file, git's own digest of a small one."""
    if not path.is_symlink() or (blob := path.parent / path.readlink()).parent.name != "blobs":
        return
    found = [digest for digest in digests if len(digest) == len(blob.name)]
    if found and blob.name not in found:
        raise InputError(
            f"{spec}: {path.name} in the hub's cache has the digest {found[0][:12]}...",
            f"{blob.name[:12]}... as on the hub",
            f"remove {os.path.normpath(blob)} and run again",
        )


def _stamp(path: Path) -> dict[str, int]:
    """What changes when a file does, as far as can be told without reading it."""
    data = path.stat()
    return {"size": data.st_size, "mtime_ns": data.st_mtime_ns, "ctime_ns": data.st_ctime_ns, "inode": data.st_ino}


@dataclass(frozen=True)
class Memory:
    """What was read of files before: one small JSON file each, trusted only while size, times and inode are as they were."""

    folder: Path
    """Where they lie; made when first written to."""

    def recall(self, path: Path) -> Content | None:
        """The content of a file that has not been touched since it was read; None for any doubt."""
        try:
            data = json.loads(self._entry(path).read_text(encoding="utf-8"))
            if data["path"] != str(path.resolve()) or data["stamp"] != _stamp(path):
                return None
            content = Content(**data["content"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = isinstance(content.parameters, int) and isinstance(content.sha256, str) and len(content.sha256) == 64
        return content if sound else None

    def remember(self, path: Path, stamp: dict[str, int], content: Content) -> None:
        """Keep what a file was when it had this stamp. A folder that cannot be written costs the keeping and nothing else."""
        entry = self._entry(path)
        data = {"path": str(path.resolve()), "stamp": stamp, "content": asdict(content)}
        with suppress(OSError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            write_whole(entry, json.dumps(data).encode())

    def _entry(self, path: Path) -> Path:
        key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
        return self.folder / f"v{FORMAT}" / f"{key}.json"
