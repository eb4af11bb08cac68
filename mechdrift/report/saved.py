"""Records and baselines as files: read either, write and update a baseline."""

import hashlib
import json
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechdrift.errors import InputError
from mechdrift.report.origin import Origin, origin_of
from mechdrift.report.record import SCHEMA, Stamp, alone_in, items_path, stamp, write_items, write_whole
from mechdrift.verdict.baseline import has_number, rounded

Row = dict[str, Any]
FOLDER = "mechdrift-baselines"
NUMBER, TEXT = (int, float, type(None)), (str, type(None))
FIELDS: dict[str, tuple[type, ...]] = {
    "label": (str,),
    "between": (list,),
    "finding": (str,),
    "version": (int,),
    "key": (dict,),
    "verdict": (str,),
    "estimate": NUMBER,
    "low": NUMBER,
    "high": NUMBER,
    "null": NUMBER,
    "n": (int, type(None)),
    "evidence": (dict, type(None)),
    "unit": TEXT,
    "better": TEXT,
    "site": TEXT,
    "items": (int,),
}
"""What a comparison needs of a row."""
AGAIN = "write it again with --mechdrift-record or --mechdrift-save"
LARGEST = sys.float_info.max
OLDER: Row = {
    "version": 1,
    "between": ["base", "post"],
    "waiver": None,
    "baseline": None,
    "post_lacks": False,
    "fewer_left": False,
    "outcomes": {},
    "sibling": None,
    "maps": [],
}
"""What rows of older records mean without saying it."""


@dataclass(frozen=True)
class Saved:
    """Rows as they were stored."""

    path: Path
    """The file."""
    schema: str
    """Of the record."""
    rows: tuple[Row, ...]
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


def read_told(path: Path) -> tuple[dict[str, Any], str]:
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
    found, schema = read_told(path)
    try:
        origins = found["origins"] if "origins" in found else {"": origin_of(found)}
        for origin in origins.values():
            _require_origin(origin)
        rows = [checked_row(row, origins) for row in found["rows"]]
        require_apart([row["label"] for row in rows])
        rows = _with_items(rows, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {error}", f"what schema {schema!r} says", AGAIN) from error
    return Saved(path, schema, tuple(rows), origins, "origins" in found, stamped)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, no number")


def _require_origin(origin: Any) -> None:
    """Raise what its parts raise where they are not there."""
    for side in ("base", "post"):
        origin["inputs"][side]["digests"].keys()
    for part in ("settings", "environment"):
        origin[part].keys()


def checked_row(row: Any, origins: Collection[str]) -> Row:
    """What a comparison needs of a row, each of its type. Raises ValueError."""
    known = OLDER | row
    for name, types in FIELDS.items():
        value = known.get(name, _refuse)
        if not isinstance(value, types) or (isinstance(value, int | float) and not abs(value) <= LARGEST):
            raise ValueError(f"row {known.get('label')!r}: {name} {known.get(name)!r}")
    if [type(name) for name in known["between"]] != [str, str]:
        raise ValueError(f"row {known['label']!r}: between {known['between']!r}")
    if not all(isinstance(known["key"].get(name), kind) for name, kind in (("measure", str), ("parameters", dict))):
        raise ValueError(f"row {known['label']!r}: key {known['key']!r}")
    if has_number(known) and not (known["evidence"] and known["better"] and isinstance(known["evidence"].get("kind"), str)):
        raise ValueError(f"row {known['label']!r}: a number without evidence")
    if known.get("origin", "") not in origins:
        raise ValueError(f"row {known['label']!r}: origin {known['origin']!r} of no run")
    return {name: known[name] for name in FIELDS} | {"origin": known.get("origin", "")}


def require_apart(labels: Sequence[str]) -> None:
    """Raise ValueError where two rows have one label."""
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"row {twice[0]!r} is there twice")


def _with_items(rows: Iterable[Row], path: Path) -> list[Row]:
    """Rows with the items that lie beside them. Raises InputError where these are not theirs."""
    from safetensors import SafetensorError, safe_open

    beside, complete = items_path(path), []
    try:
        with_items = [row for row in rows if row["items"]]
        if not with_items:
            return [row | {"items": []} for row in rows]
        with safe_open(beside, "np") as file:
            names = file.metadata() or {}
            for row in rows:
                parts = file.get_tensor(f"{row['label']}/contribution").tolist() if row["items"] else []
                who = json.loads(names[row["label"]]) if row["items"] else []
                if not len(parts) == len(who) == row["items"]:
                    raise ValueError(f"{len(parts)} items of {row['label']!r}, {row['items']} there")
                items = [
                    {"kind": str(kind), "name": str(name), "contribution": part if math.isfinite(part) else None}
                    for (kind, name), part in zip(who, parts, strict=True)
                ]
                complete.append(row | {"items": items})
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error).strip("'\"")
        raise InputError(
            f"{beside}: {why}", f"the items of {path.name}", "keep both files together, or write them again"
        ) from error
    return complete


def write_baseline(path: Path, record: dict[str, Any], kept: Saved | None = None) -> int:
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


def _write_baseline(path: Path, record: dict[str, Any], kept: Saved | None) -> int:
    import numpy as np

    origin = origin_of(record)
    name = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:12]
    ran = [row for row in record["rows"] if has_number(row)]
    rows = {row["label"]: row for row in kept.rows if has_number(row)} if kept else {}
    rows |= {row["label"]: row | {"origin": name} for row in ran}
    origins = (kept.origins if kept else {}) | {name: origin}
    used = {row["origin"] for row in rows.values()}
    tensors, names = {}, {}
    for label, row in sorted(rows.items()):
        if row["items"]:
            parts = [np.nan if item["contribution"] is None else item["contribution"] for item in row["items"]]
            tensors[f"{label}/contribution"] = np.array(parts)
            names[label] = json.dumps([[item["kind"], item["name"]] for item in row["items"]], ensure_ascii=False)
    told = {
        "schema": SCHEMA,
        "origins": {each: origins[each] for each in sorted(used)},
        "rows": [_told(row) for _, row in sorted(rows.items())],
    }
    write_items(path, tensors, names)
    text = (json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
    write_whole(path, text)
    return len(ran)


def _told(row: Row) -> Row:
    """A row as a baseline has it: all are of base and post."""
    numbers = {name: rounded(row[name]) for name in ("estimate", "low", "high")}
    null = None if row["null"] is None else rounded(row["null"])
    evidence = {"kind": row["evidence"]["kind"]}
    kept = {name: row[name] for name in (*FIELDS, "origin") if name != "between"}
    return kept | numbers | {"null": null, "evidence": evidence, "items": len(row["items"])}
