"""The table of a folder: one file, or shards of one."""

import re
from collections import defaultdict
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.prompts.data_files.spec import FORMATS, GZIP, SUFFIXES

DIGITS = re.compile(r"\d+")
# What the hub and its libraries put beside a table.
BESIDE = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


def files_of(folder: Path, what: str) -> tuple[list[Path], int]:
    """The files of a folder's table, in order, as `hf download --repo-type dataset` leaves them; how many others are left out.

    Files whose names differ in numbers only are shards of one table. Of several tables it is the one of the split `train`, as of
    a data set of the hub; where there is no such one, the user must choose. Raises InputError.
    """
    within = sorted([*folder.glob("*"), *folder.glob("*/*")])  # no deeper: someone may name a disk
    within = [path for path in within if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    found = [path for path in within if _is_data(path)]
    tables: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in found:
        tables[path.parent, DIGITS.sub("#", path.name)].append(path)
    train = [key for key in tables if key[1].startswith("train")]
    if len(tables) > 1 and len(train) == 1:
        tables = {train[0]: tables[train[0]]}
    if len(tables) != 1:
        named = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
        raise InputError(
            f"{what} {folder}: a folder with {len(found)} data files ({named}{', ...' if len(found) > 5 else ''})",
            f"one file ({FORMATS}), or shards of one",
            "name the file itself",
        )
    (shards,) = tables.values()
    return sorted(shards, key=_by_numbers), len(found) - len(shards)


def _is_data(path: Path) -> bool:
    """Whether a file may be a table; texts in a folder are mostly licences."""
    name = path.name.removesuffix(GZIP)
    return name.endswith(SUFFIXES) and not name.endswith(".txt") and path.name not in BESIDE and path.is_file()


def _by_numbers(path: Path) -> list[int]:
    """Shard 2 before shard 10."""
    return [int(number) for number in DIGITS.findall(path.name)]
