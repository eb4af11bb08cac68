"""Records and baselines as files: read either, write and update a baseline."""

import hashlib
import json
import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from mechdrift.errors import InputError
from mechdrift.findings.drift import Item
from mechdrift.report.origin import Origin, origin_of
from mechdrift.report.record_file import Stamp, alone_in, items_path, names_of, stamp, to_json, write_items, write_json
from mechdrift.report.text import printable
from mechdrift.verdict.baseline import rounded
from mechdrift.verdict.record import SCHEMA, Record
from mechdrift.verdict.row import ComparedRow, Row, SavedRow

FOLDER = "mechdrift-baselines"
AGAIN = "write it again with --mechdrift-record or --mechdrift-save"
LARGEST = sys.float_info.max
KEPT = SavedRow.__struct_fields__


@dataclass(frozen=True)
class Saved:
    """Rows as they were stored."""

    path: Path
    """The file."""
    schema: str
    """Of the record."""
    rows: tuple[SavedRow, ...]
    """With their items; `origin` names where each comes from."""
    origins: dict[str, Origin]
    """By name. A record has one; a baseline that was updated in part has more."""
    is_baseline: bool
    """Not a whole record."""
    stamp: Stamp | None = None
    """Of the file as it was read."""


def baseline_path(name: str, project: Path) -> Path:
    """The file of NAME, or FILE.json itself."""
    return Path(name) if name.endswith(".json") else project / FOLDER / f"{name}.json"


def read_json(path: Path) -> tuple[dict[str, Any], str]:
    """What a record or a baseline of any minor version says, and its version. Raises InputError for what is neither."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file", "a record or a baseline", "write one with --mechdrift-record or --mechdrift-save"
        )
    try:
        found: Any = json.loads(path.read_bytes(), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else "not whole, or no JSON"
        raise InputError(f"{path}: {why}", "a record or a baseline", AGAIN) from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, str) or not isinstance(found.get("rows"), list):
        raise InputError(f"{path}: neither schema nor rows", "a record or a baseline", AGAIN)
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise InputError(f"{path}: schema {schema!r}", f"{SCHEMA}, or another of its major version", AGAIN)
    return found, schema


def read_saved(path: Path) -> Saved:
    """A record or a baseline with its items. Raises InputError for what is none."""
    stamped = stamp(path)
    found, schema = read_json(path)
    try:
        require_finite(found)
        origins = found["origins"] if "origins" in found else {"": origin_of(found)}
        for origin in origins.values():
            _require_origin(origin)
        rows = [_saved_row(row, origins) for row in found["rows"]]
        require_apart([row.label for row, _ in rows])
        complete = _with_items(rows, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {printable(str(error))}", f"what schema {schema!r} says", AGAIN) from error
    return Saved(path, schema, tuple(complete), origins, "origins" in found, stamped)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, no number")


def require_finite(value: Any, where: str = "$") -> None:
    """Raise ValueError where a number is beyond all floats."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        require_finite(each, f"{where}.{name}")
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError(f"{where}: no finite number")


def _require_origin(origin: Any) -> None:
    """Raise what its parts raise where they are not there."""
    for side in ("base", "post"):
        origin["inputs"][side]["digests"].keys()
    for part in ("settings", "environment"):
        origin[part].keys()


def _saved_row(data: Any, origins: Collection[str]) -> tuple[SavedRow, int]:
    """What a comparison needs of a row, and how many items lie beside it. Raises ValueError."""
    label = data.get("label")
    items = data.get("items")
    if not isinstance(items, int):
        raise ValueError(f"row {label!r}: items {items!r}")
    try:
        row = msgspec.convert({name: data[name] for name in KEPT if name in data} | {"items": []}, SavedRow)
    except msgspec.ValidationError as error:
        raise ValueError(f"row {label!r}: {error}") from error
    require_evidence(row)
    if row.origin not in origins:
        raise ValueError(f"row {label!r}: origin {row.origin!r} of no run")
    return row, items


def require_evidence(row: ComparedRow) -> None:
    """Raise ValueError for a number without evidence."""
    if row.has_number and not (row.evidence and row.better and isinstance(row.evidence.get("kind"), str)):
        raise ValueError(f"row {row.label!r}: a number without evidence")


def require_apart(labels: Sequence[str]) -> None:
    """Raise ValueError where two rows have one label."""
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"row {twice[0]!r} is there twice")


def _with_items(rows: Sequence[tuple[SavedRow, int]], path: Path) -> list[SavedRow]:
    """Rows with the items that lie beside them. Raises InputError where these are not theirs."""
    from safetensors import SafetensorError, safe_open

    beside = items_path(path)
    try:
        if not any(count for _, count in rows):
            return [row for row, _ in rows]
        complete = []
        with safe_open(beside, "np") as file:
            names = file.metadata() or {}
            for row, count in rows:
                parts = file.get_tensor(f"{row.label}/contribution").tolist() if count else []
                who = json.loads(names[row.label]) if count else []
                if not len(parts) == len(who) == count:
                    raise ValueError(f"{len(parts)} items of {row.label!r}, {count} there")
                items = [
                    Item(str(name), str(kind), math.nan, math.nan, part) for (kind, name), part in zip(who, parts, strict=True)
                ]
                complete.append(replace(row, items=items))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error).strip("'\"")
        raise InputError(
            f"{beside}: {why}", f"the items of {path.name}", "keep both files together, or write them again"
        ) from error
    return complete


def write_baseline(path: Path, record: Record, kept: Saved | None = None) -> int:
    """Write the rows of a run that have a number, over those kept of the same name; returns how many.

    For reading in a diff: sorted, rounded, without times or paths; items lie beside it. Raises OSError, and InputError where
    another run has saved the name, or changed what was kept, since this one looked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(path.parent):
        if kept is None and path.exists():
            raise InputError(
                f"baseline {path.stem} was saved meanwhile, by another run", "a new name", "compare with it, or save another"
            )
        if kept is not None and stamp(path) != kept.stamp:
            raise InputError(
                f"baseline {path.stem} was changed meanwhile, by another run", "what this run compared with", "run again"
            )
        return _write_baseline(path, record, kept)


def _write_baseline(path: Path, record: Record, kept: Saved | None) -> int:
    import numpy as np

    origin = origin_of(to_json(record))
    name = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:12]
    ran = [row for row in record.rows if row.has_number]
    rows = {row.label: row for row in kept.rows if row.has_number} if kept else {}
    rows |= {row.label: _kept(row, name) for row in ran}
    origins = (kept.origins if kept else {}) | {name: origin}
    used = {row.origin for row in rows.values()}
    tensors, names = {}, {}
    for label, row in sorted(rows.items()):
        if row.items:
            tensors[f"{label}/contribution"] = np.array([item.contribution for item in row.items])
            names[label] = names_of(row.items)
    write_items(path, tensors, names)
    data = {
        "schema": SCHEMA,
        "origins": {each: origins[each] for each in sorted(used)},
        "rows": [_to_json(row) for _, row in sorted(rows.items())],
    }
    write_json(path, data, sort_keys=True)
    return len(ran)


def _kept(row: Row, origin: str) -> SavedRow:
    """What a baseline keeps of a row."""
    return SavedRow(**{name: getattr(row, name) for name in KEPT if name != "origin"}, origin=origin)


def _to_json(row: SavedRow) -> dict[str, Any]:
    """A row as a baseline has it: all are of base and post."""
    data: dict[str, Any] = msgspec.to_builtins(row)
    del data["between"]
    numbers = {name: None if data[name] is None else rounded(data[name]) for name in ("estimate", "low", "high", "null")}
    assert row.evidence
    return data | numbers | {"evidence": {"kind": row.evidence["kind"]}, "items": len(row.items)}
