"""A whole record with what lies beside it, as reports need it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError
from mechdrift.report.record import items_path, structure_path
from mechdrift.report.saved import AGAIN, LARGEST, OLDER, Row, checked_row, read_told, require_apart
from mechdrift.report.text import printable
from mechdrift.verdict.run_verdict import RunVerdict, run_verdict

if TYPE_CHECKING:
    import numpy as np

OLDER_RECORD: dict[str, Any] = {"chain": [], "lineage": [], "extra": {}}
OLDER_PARTS: dict[str, dict[str, Any]] = {
    "inputs": {"stages": [], "posts": [], "config_changes": [], "same_files": []},
    "settings": {"fail_on": ["drifted", "undecided", "unmeasurable"]},
    "run": {"warnings": [], "phases": {}, "nonce": None},
}
"""What older records mean without saying it."""
FIELDS = ("base", "post", "contribution")


@dataclass(frozen=True)
class Map:
    """One model's map of a row."""

    name: str
    """What was patched, for example `base`."""
    columns: tuple[str, ...]
    """Names of tokens."""
    values: "np.ndarray"
    """[layer, column]"""


@dataclass(frozen=True)
class Item:
    """One item of a row."""

    kind: str
    """Of statements, neurons or instructions."""
    name: str
    """Untrusted text."""
    base: float
    """Before, or of base."""
    post: float
    """After, or of post."""
    contribution: float
    """To the row's estimate."""


@dataclass(frozen=True)
class Matrices:
    """The numbers of every matrix of a comparison."""

    kinds: tuple[str, ...]
    """Names of columns."""
    numbers: "dict[str, np.ndarray]"
    """By name: [block, kind]"""


@dataclass(frozen=True)
class Whole:
    """A record of any minor version, as the newest has it."""

    path: Path
    """The file."""
    told: dict[str, Any]
    """All that it says."""
    maps: dict[str, tuple[Map, ...]]
    """By label of their row."""
    items: dict[str, tuple[Item, ...]]
    """By label of their row."""
    matrices: dict[tuple[str, ...], Matrices]
    """By the two checkpoints that are compared."""
    missing: tuple[str, ...]
    """What should lie beside the record and cannot be read, and why."""

    @property
    def verdict(self) -> RunVerdict:
        """What came of the run."""
        return run_verdict(self.told)

    @property
    def rows(self) -> list[Row]:
        """The rows, as the record has them."""
        return self.told["rows"]


def read_whole(path: Path) -> Whole:
    """A record with what lies beside it; what is missing there is named. Raises InputError for what is no record."""
    found, schema = read_told(path)
    if "origins" in found:
        raise InputError(f"{path}: a baseline", "the record of a run", "write one with --mechdrift-record FILE.json")
    try:
        told = _migrated(found)
        _require_schema(told)
        _require_finite(told)
        require_apart([row["label"] for row in told["rows"]])
        for row in told["rows"]:
            checked_row(row, {row.get("origin", "")})
            _require_difference(row["baseline"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}", f"what schema {schema!r} says", AGAIN) from error
    missing: list[str] = []
    maps, items = _beside(path, told["rows"], missing)
    return Whole(path, told, maps, items, _matrices(path, told["rows"], missing), tuple(missing))


def beside(whole: Whole) -> list[Path]:
    """The files that its rows are shown from."""
    return [items_path(whole.path), *(structure_path(whole.path, list(between)) for between in whole.matrices)]


def _migrated(found: dict[str, Any]) -> dict[str, Any]:
    parts = {name: older | found[name] for name, older in OLDER_PARTS.items()}
    return OLDER_RECORD | found | parts | {"rows": [OLDER | row for row in found["rows"]]}


@cache
def _schema() -> Any:
    """The schema, without what forbids additions: newer minor versions make them."""

    def open_to_more(part: Any) -> Any:
        if isinstance(part, dict):
            closed = ("additionalProperties", "unevaluatedProperties")
            return {name: open_to_more(inner) for name, inner in part.items() if name not in closed or inner is not False}
        return [open_to_more(inner) for inner in part] if isinstance(part, list) else part

    return open_to_more(json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8")))


def _require_schema(told: dict[str, Any]) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    if error := best_match(Draft202012Validator(_schema()).iter_errors(told)):
        raise ValueError(printable(f"{error.json_path}: {error.message[:200]}"))


def _require_difference(baseline: Row | None) -> None:
    """Raise where a difference has no interval, or no number that it is from."""
    if baseline and baseline["difference"] is not None and None in (baseline["was"], baseline["low"], baseline["high"]):
        raise ValueError(f"baseline {baseline['name']!r}: a difference without an interval")


def _require_finite(value: Any, where: str = "$") -> None:
    """Raise where a number is beyond all floats."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        _require_finite(each, f"{where}.{name}")
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError(f"{where}: no finite number")


def _beside(path: Path, rows: list[Row], missing: list[str]) -> tuple[dict[str, tuple[Map, ...]], dict[str, tuple[Item, ...]]]:
    """Maps and items by row; those of a file or a row that cannot be read are named in `missing`."""
    from safetensors import SafetensorError, safe_open

    maps: dict[str, tuple[Map, ...]] = {}
    items: dict[str, tuple[Item, ...]] = {}
    file_beside = items_path(path)
    if not any(row["items"] or row["maps"] for row in rows):
        return maps, items
    try:
        with safe_open(file_beside, "np") as file:
            names = file.metadata() or {}
            for row in rows:
                label = row["label"]
                try:
                    if row["maps"]:
                        maps[label] = tuple(_maps(file, row))
                    if row["items"]:
                        items[label] = tuple(_items(file, row, names))
                except (SafetensorError, KeyError, ValueError, TypeError) as error:
                    missing.append(f"{file_beside.name}, {label}: {error}")
    except (OSError, SafetensorError) as error:
        missing.append(_unread(file_beside.name, error))
    return maps, items


def _maps(file: Any, row: Row) -> Iterator[Map]:
    for each in row["maps"]:
        values = file.get_tensor(f"{row['label']}/map/{each['name']}")
        if values.ndim != 2 or values.shape[1] != len(each["columns"]):
            raise ValueError(f"a map of shape {list(values.shape)} for {len(each['columns'])} columns")
        yield Map(each["name"], tuple(each["columns"]), values)


def _items(file: Any, row: Row, names: dict[str, str]) -> Iterator[Item]:
    columns = [file.get_tensor(f"{row['label']}/{field}").tolist() for field in FIELDS]
    for (kind, name), *numbers in zip(json.loads(names[row["label"]]), *columns, strict=True):
        yield Item(str(kind), str(name), *numbers)


def _matrices(path: Path, rows: list[Row], missing: list[str]) -> dict[tuple[str, ...], Matrices]:
    """Of each comparison that has numbers of structure."""
    from safetensors import SafetensorError, safe_open

    found = {}
    asked = {tuple(row["between"]) for row in rows if row["finding"].startswith("structure.") and row["estimate"] is not None}
    for between in sorted(asked):
        try:
            with safe_open(structure_path(path, list(between)), "np") as file:
                kinds = tuple((file.metadata() or {})["kinds"].split(","))
                numbers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
            if any(values.ndim != 2 or values.shape[1] != len(kinds) for values in numbers.values()):
                raise ValueError(f"not {len(kinds)} columns")
            found[between] = Matrices(kinds, numbers)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            missing.append(_unread(f"the matrices {' -> '.join(between)}", error))
    return found


def _unread(what: str, error: Exception) -> str:
    return f"{what}: {'no such file' if isinstance(error, FileNotFoundError) else error}"
