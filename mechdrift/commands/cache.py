"""`mechdrift cache`: what is kept, whether it is whole, and how to make room."""

import math
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mechdrift.engine.store import FORMAT, BadEntry, clear_foreign_lock, read_metadata, read_part
from mechdrift.errors import InputError
from mechdrift.report.text import printable
from mechdrift.stages.without_stage import KEPT

MEGABYTE, GIGABYTE, DAY = 10**6, 10**9, 86400
# Nothing else in the folder is looked at or removed, whatever folder is named.
FORMATS, BUCKET, FILE = re.compile(r"v\d+"), re.compile(r"[0-9a-f]{2}"), re.compile(r"([0-9a-f]{64})\.(.+)")
ORGANISMS, IDENTITIES, ANY = re.compile("organisms"), re.compile("identities"), re.compile(".+")
DERIVED, UNFINISHED = re.compile(r"(drift-.+|retrained@\d+)-[0-9a-f]{16}"), re.compile(r"tmp\w{8}|.+\.gone")
REPLAYED, REPLAYING = re.compile(r"[^.].*-without-.+-[0-9a-f]{16}"), re.compile(r"\..+\.tmp")


@dataclass(frozen=True)
class Kept:
    """What is removed as a whole: a recording with all its parts, or a derived organism."""

    name: str
    """Key of a recording, name of an organism."""
    label: str
    """The checkpoint it was recorded of; empty for an organism."""
    paths: tuple[Path, ...]
    """Files, or the folder."""
    lock: Path
    """Held by who makes it."""
    size: int
    """Bytes."""
    used: float
    """When it was last used, in seconds since 1970."""


@dataclass(frozen=True)
class Contents:
    """All of a cache folder."""

    folder: Path
    recordings: tuple[Kept, ...]
    derived: tuple[Kept, ...]
    """Planted drifts and benign retrains, derived again in seconds or a minute."""
    replayed: tuple[Kept, ...]
    """Ends of training without one of its stages, by a replay."""
    built: tuple[Path, ...]
    """Organisms that took a longer training: never pruned."""
    identities: tuple[Path, ...]
    """What is remembered of weight files, so that unchanged ones are not read again."""
    temporary: tuple[tuple[Path, Path | None], ...]
    """What a run writes now, or left when it was killed; with its lock, where it is a recording's."""
    idle_locks: tuple[Path, ...]
    """Locks of nothing that is there."""


def contents(folder: Path) -> Contents:
    """Look through a cache folder; links are not followed. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"cache {folder}: no such folder", "the folder of --mechdrift-cache", "name it with --dir")
    recordings: list[Kept] = []
    temporary: list[tuple[Path, Path | None]] = []
    idle: list[Path] = []
    for bucket in _folders(folder, FORMATS):
        for inner in _folders(bucket, BUCKET):
            files: dict[str, list[Path]] = defaultdict(list)
            for path in sorted(inner.iterdir()):
                if match := FILE.fullmatch(path.name):
                    files[match[1]].append(path)
            for key, paths in files.items():
                lock = inner / f"{key}.lock"
                parts = tuple(path for path in paths if path.suffix == ".safetensors")
                unfinished = [path for path in paths if path.suffix == ".tmp"]
                temporary += [(path, lock) for path in unfinished]
                if parts:
                    label = _label(parts[0]) if bucket.name == f"v{FORMAT}" else f"another version's ({bucket.name})"
                    used = max(path.lstat().st_mtime for path in parts)
                    recordings.append(Kept(key, label, parts, lock, sum(_size(path) for path in parts), used))
                elif lock in paths and not unfinished:
                    idle.append(lock)
    derived: list[Kept] = []
    replayed: list[Kept] = []
    built: list[Path] = []
    for path in _folders(folder, ORGANISMS):
        derived = _checkpoints(path, DERIVED)
        temporary += [(one, None) for one in _folders(path, UNFINISHED)]
        known = {one.name for one in derived} | {one.name for one, _ in temporary}
        built = [one for one in _folders(path, ANY) if one.name not in known]
    buckets = [bucket for inner in _folders(folder, IDENTITIES) for bucket in _folders(inner, FORMATS)]
    for path in _folders(folder, re.compile(KEPT)):
        replayed = _checkpoints(path, REPLAYED)
        temporary += [(one, None) for one in _folders(path, REPLAYING)]
    identities = [path for bucket in buckets for path in sorted(bucket.glob("*.json"))]
    temporary += [(path, None) for bucket in buckets for path in sorted(bucket.glob("*.tmp"))]
    return Contents(
        folder, tuple(recordings), tuple(derived), tuple(replayed), tuple(built), tuple(identities), tuple(temporary), tuple(idle)
    )


def _checkpoints(folder: Path, names: re.Pattern[str]) -> list[Kept]:
    """Each a folder, removed as a whole."""
    return [Kept(one.name, "", (one,), one.with_suffix(".lock"), _size(one), _last_read(one)) for one in _folders(folder, names)]


def info(folder: Path) -> str:
    """What is there, by checkpoint, with sizes and ages."""
    found = contents(folder)
    by_label: dict[str, list[Kept]] = defaultdict(list)
    for recording in found.recordings:
        by_label[recording.label].append(recording)
    lines = [("folder", "", "", printable(str(folder))), _line("recordings", found.recordings)]
    lines += [_line(f"  {label}", kept) for label, kept in sorted(by_label.items())]
    lines.append(_line("derived organisms", found.derived))
    lines += [_line(f"  organism:{kept.name.rpartition('-')[0]}", (kept,)) for kept in found.derived]
    lines.append(_line("replayed without a stage", found.replayed))
    built, temporary = sum(map(_size, found.built)), sum(_size(path) for path, _ in found.temporary)
    lines.append(("built organisms", str(len(found.built)), _megabytes(built), "never pruned" if found.built else ""))
    lines.append(("identities", str(len(found.identities)), _megabytes(sum(map(_size, found.identities))), "of weight files"))
    lines.append(
        ("temporary", str(len(found.temporary)), _megabytes(temporary), "of runs, or left by killed ones" if temporary else "")
    )
    width = max(len(name) for name, *_ in lines)
    return "\n".join(f"{name:{width}}  {number:>5}  {size:>12}  {more}".rstrip() for name, number, size, more in lines)


def verify(folder: Path) -> tuple[list[str], int]:
    """A line for every file of a recording that is bad, and how many were read."""
    bad, read = [], 0
    for recording in contents(folder).recordings:
        for path in recording.paths:
            if path.parents[1].name != f"v{FORMAT}":
                continue
            read += 1
            try:
                read_part(path)
            except (BadEntry, OSError) as error:
                bad.append(printable(f"{path.relative_to(folder)}: {error}"))
    return bad, read


def prune(folder: Path, older_than: float | None = None, max_size: float | None = None) -> str:
    """Remove what killed runs left; what was not used for so many days; the least recently used beyond so many gigabytes.

    What a live run holds stays. Raises InputError where something cannot be removed.
    """
    found = contents(folder)
    kept = sorted(found.recordings + found.derived + found.replayed, key=lambda one: one.used)
    unused_since = -math.inf if older_than is None else time.time() - older_than * DAY
    room = math.inf if max_size is None else max_size * GIGABYTE
    going, left = [], sum(one.size for one in kept)
    for one in kept:
        if one.used < unused_since or left > room:
            going.append(one)
            left -= one.size
    kinds = {"recordings": found.recordings, "derived organisms": found.derived, "replayed without a stage": found.replayed}
    removed: dict[str, list[int]] = {what: [] for what in (*kinds, "identities", "leftovers of killed runs")}
    in_use = 0
    try:
        for path, lock in found.temporary:
            size = _size(path)
            with _held([lock] if lock else sorted(path.parent.glob("*.lock"))) as held:
                if held and _remove(path):
                    removed["leftovers of killed runs"].append(size)
        for path in found.identities:  # believed only by themselves, so nobody has to hold them
            status = path.lstat()
            if status.st_mtime < unused_since and _remove(path):
                removed["identities"].append(status.st_size)
        for one in going:
            with _held([one.lock]) as held:
                if held:
                    for path in one.paths:
                        _remove(path)
                    removed[next(what for what, of_kind in kinds.items() if one in of_kind)].append(one.size)
                    one.lock.unlink(missing_ok=True)
                in_use += not held
        for lock in contents(folder).idle_locks:
            with _held([lock]) as held:
                if held:
                    lock.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cache {folder}: {error}", "a folder that can be written", "check its permissions") from error
    lines = [f"removed: {len(sizes)} {what}, {_megabytes(sum(sizes))}" for what, sizes in removed.items()]
    if in_use:
        lines.append(f"left, in use: {in_use}")
    after = contents(folder)
    amount = _megabytes(sum(one.size for one in after.recordings + after.derived + after.replayed))
    return "\n".join([*lines, f"kept: {len(after.recordings)} recordings, {len(after.derived)} derived organisms, {amount}"])


@contextmanager
def _held(locks: list[Path]) -> Iterator[bool]:
    """Hold locks; False where a live run holds one of them."""
    taken = []
    try:
        for path in locks:
            clear_foreign_lock(path)
            lock = FileLock(path, timeout=0)
            lock.acquire()
            taken.append(lock)
        held = True
    except Timeout:
        held = False
    try:
        yield held
    finally:
        for lock in taken:
            lock.release()


def _folders(folder: Path, names: re.Pattern[str]) -> list[Path]:
    """Real folders whose names match, sorted."""
    return sorted(path for path in folder.iterdir() if names.fullmatch(path.name) and path.is_dir() and not path.is_symlink())


def _remove(path: Path) -> bool:
    """Remove a file, a link or a folder; False where it went away meanwhile."""
    if path.is_dir() and not path.is_symlink():
        gone = path.with_name(f"{path.name}.gone")  # nobody finds half of it
        path.rename(gone)
        shutil.rmtree(gone)
        return True
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _size(path: Path) -> int:
    """Bytes of a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        return sum(_size(inner) for inner in path.iterdir())
    return path.lstat().st_size


def _last_read(folder: Path) -> float:
    """When one of a folder's files was last read, as the file system knows it."""
    return max((max(path.lstat().st_atime, path.lstat().st_mtime) for path in folder.iterdir()), default=0.0)


def _label(path: Path) -> str:
    try:
        return printable(read_metadata(path).get("label", "")) or "unnamed"
    except (BadEntry, OSError):
        return "bad: see mechdrift cache verify"


def _line(name: str, kept: "tuple[Kept, ...] | list[Kept]") -> tuple[str, str, str, str]:
    """Name, number, size and ages."""
    days = [time.strftime("%Y-%m-%d", time.localtime(pick(one.used for one in kept))) for pick in (min, max) if kept]
    used = f"last used {' to '.join(dict.fromkeys(days))}" if days else ""
    return name, str(len(kept)), _megabytes(sum(one.size for one in kept)), used


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB"
