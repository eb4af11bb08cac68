"""A whole record with what lies beside it, as reports need it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mechdrift.errors import InputError
from mechdrift.findings.drift import Item
from mechdrift.findings.figures import Matrices
from mechdrift.report.record_file import beside_path, items_path
from mechdrift.report.saved import AGAIN, read_json, require_apart, require_evidence, require_finite
from mechdrift.report.text import family_of, pictures_of, printable
from mechdrift.verdict.record import StoredRecord
from mechdrift.verdict.row import Against, StoredRow
from mechdrift.verdict.run_verdict import RunVerdict, run_verdict

if TYPE_CHECKING:
    import numpy as np

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
class Whole:
    """A record of any minor version, as the newest has it."""

    path: Path
    """The file."""
    record: StoredRecord
    """All that it says."""
    maps: dict[str, tuple[Map, ...]]
    """By label of their row."""
    items: dict[str, tuple[Item, ...]]
    """By label of their row."""
    matrices: dict[tuple[str, tuple[str, ...]], Matrices]
    """By family and the two checkpoints that are compared."""
    missing: tuple[str, ...]
    """What should lie beside the record and cannot be read, and why."""

    @property
    def verdict(self) -> RunVerdict:
        """What came of the run."""
        return run_verdict(self.record)

    @property
    def rows(self) -> list[StoredRow]:
        """The rows, as the record has them."""
        return self.record.rows


def read_whole(path: Path) -> Whole:
    """A record with what lies beside it; what is missing there is named. Raises InputError for what is no record."""
    record = read_record(path)
    missing: list[str] = []
    maps, items = _beside(path, record.rows, missing)
    return Whole(path, record, maps, items, _matrices(path, record.rows, missing), tuple(missing))


def read_record(path: Path) -> StoredRecord:
    """A record of any minor version. Raises InputError for what is none."""
    found, schema = read_json(path)
    if "origins" in found:
        raise InputError(f"{path}: a baseline", "the record of a run", "write one with --mechdrift-record FILE.json")
    try:
        require_finite(found)
        record = msgspec.convert(found, StoredRecord)
        require_apart([row.label for row in record.rows])
        for row in record.rows:
            require_evidence(row)
            _require_difference(row.baseline)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {printable(str(error))}", f"what schema {schema!r} says", AGAIN) from error
    return record


def beside(whole: Whole) -> list[Path]:
    """The files that its rows are shown from."""
    kept = (beside_path(whole.path, between, pictures_of(family).matrices) for family, between in whole.matrices)
    return [items_path(whole.path), *kept]


def _require_difference(baseline: Against | None) -> None:
    """Raise where a difference has no interval, or no number that it is from."""
    if baseline and baseline.difference is not None and None in (baseline.was, baseline.low, baseline.high):
        raise ValueError(f"baseline {baseline.name!r}: a difference without an interval")


def _beside(
    path: Path, rows: list[StoredRow], missing: list[str]
) -> tuple[dict[str, tuple[Map, ...]], dict[str, tuple[Item, ...]]]:
    """Maps and items by row; those of a file or a row that cannot be read are named in `missing`."""
    from safetensors import SafetensorError, safe_open

    maps: dict[str, tuple[Map, ...]] = {}
    items: dict[str, tuple[Item, ...]] = {}
    file_beside = items_path(path)
    if not any(row.items or row.maps for row in rows):
        return maps, items
    try:
        with safe_open(file_beside, "np") as file:
            names = file.metadata() or {}
            for row in rows:
                label = row.label
                try:
                    if row.maps:
                        maps[label] = tuple(_maps(file, row))
                    if row.items:
                        items[label] = tuple(_items(file, row, names))
                except (SafetensorError, KeyError, ValueError, TypeError) as error:
                    missing.append(f"{file_beside.name}, {label}: {error}")
    except (OSError, SafetensorError) as error:
        missing.append(_unread(file_beside.name, error))
    return maps, items


def _maps(file: Any, row: StoredRow) -> Iterator[Map]:
    for each in row.maps:
        values = file.get_tensor(f"{row.label}/map/{each.name}")
        if values.ndim != 2 or values.shape[1] != len(each.columns):
            raise ValueError(f"a map of shape {list(values.shape)} for {len(each.columns)} columns")
        yield Map(each.name, tuple(each.columns), values)


def _items(file: Any, row: StoredRow, names: dict[str, str]) -> Iterator[Item]:
    columns = [file.get_tensor(f"{row.label}/{field}").tolist() for field in FIELDS]
    for (kind, name), *numbers in zip(json.loads(names[row.label]), *columns, strict=True):
        yield Item(str(name), str(kind), *numbers)


def _matrices(path: Path, rows: list[StoredRow], missing: list[str]) -> dict[tuple[str, tuple[str, ...]], Matrices]:
    """Of each family that keeps numbers of matrices, for each comparison that it measured."""
    from safetensors import SafetensorError, safe_open

    found = {}
    measured = {(family_of(row), tuple(row.between)) for row in rows if row.estimate is not None}
    for family, between in sorted(measured):
        if not (suffix := pictures_of(family).matrices):
            continue
        try:
            with safe_open(beside_path(path, between, suffix), "np") as file:
                kinds = tuple((file.metadata() or {})["kinds"].split(","))
                numbers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
            if any(values.ndim != 2 or values.shape[1] != len(kinds) for values in numbers.values()):
                raise ValueError(f"not {len(kinds)} columns")
            found[family, between] = Matrices(kinds, numbers)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            missing.append(_unread(f"the matrices {' -> '.join(between)}", error))
    return found


def _unread(what: str, error: Exception) -> str:
    return f"{what}: {'no such file' if isinstance(error, FileNotFoundError) else error}"
