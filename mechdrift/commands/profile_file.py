"""Limits written into a profile: a file of its own, or a table of pyproject.toml, whose comments and layout stay."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError
from mechdrift.files import write_whole
from mechdrift.verdict.calibrated import Calibrated
from mechdrift.verdict.limits import SIDES
from mechdrift.verdict.profiles import PYPROJECT, load_profile, parse_toml, profile_names


@dataclass(frozen=True)
class Target:
    """Where a profile goes."""

    path: Path
    """FILE.toml, or a pyproject.toml."""
    name: str | None
    """Of the profile in pyproject.toml; None: the whole file is one."""

    def __str__(self) -> str:
        """As `--mechdrift-profile` takes it."""
        return self.name or str(self.path)


def parse_target(text: str) -> Target:
    """`FILE.toml`, or `pyproject.toml:NAME`. Raises InputError."""
    file, _, name = text.partition(":")
    path = Path(file)
    if path.suffix != ".toml" or (path.name == PYPROJECT) != bool(name):
        raise InputError(
            f"--write {text}", f"FILE.toml, or {PYPROJECT}:NAME, where profiles have names", "name the file, or the profile"
        )
    if name in profile_names():
        raise InputError(f"--write {text}: a shipped profile has that name", "a name of its own", "take another")
    return Target(path, name or None)


def check_free(target: Target, force: bool) -> None:
    """Raise InputError where nothing can be written, or a profile is there that --force does not give up."""
    if not target.path.parent.is_dir():
        raise InputError(f"--write {target.path}: no such folder", "a place in a folder that exists", "make the folder")
    current: Any = parse_toml(str(target.path), target.path.read_bytes()) if target.path.is_file() else None
    for name in _steps(target):
        current = current.get(name) if isinstance(current, dict) else None
    if current is not None and not force:
        found = f"--write: profile {target} is there already"
        raise InputError(found, "a new one", "name another, or add --force to replace its limits")
    if current is not None:  # what is wrong with it is reported now, not after a night of runs
        load_profile(str(target), target.path.parent)


def _steps(target: Target) -> list[str]:
    """Tables that lead to the profile."""
    return ["tool", "mechdrift", "profiles", target.name] if target.name else []


def write_limits(target: Target, extends: str, new: Iterable[Calibrated]) -> None:
    """Write limits into a profile; one that is not there yet extends another. Of one that is there nothing else changes.

    Raises InputError for a file that cannot be written.
    """
    import tomlkit

    there = target.path.is_file()
    document = tomlkit.parse(target.path.read_text(encoding="utf-8")) if there else tomlkit.document()
    profile: Any = document
    for name in _steps(target):
        if name not in profile:
            profile[name] = tomlkit.table(is_super_table=name != target.name)
            there = False
        profile = profile[name]
    if not there:
        profile["extends"] = extends
    if "rows" not in profile:
        profile["rows"] = tomlkit.table(is_super_table=True)
    for one in new:
        if one.limit is None:
            continue
        row = profile["rows"].get(one.label)
        fresh = row is None
        if row is None:
            profile["rows"][one.label] = tomlkit.table()
            row = profile["rows"][one.label]
        for side in SIDES:
            bound = getattr(one.limit, side)
            if bound is not None:
                row[side] = bound
            elif side in row:
                del row[side]
        row["provenance"] = one.limit.provenance
        if fresh:
            row.add(tomlkit.nl())
    try:
        write_whole(target.path, tomlkit.dumps(document).encode())
    except OSError as error:
        raise InputError(f"--write {target.path}: {error.strerror}", "a file that can be written", "name another") from error
