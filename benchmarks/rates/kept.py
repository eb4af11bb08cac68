"""What was measured so far, kept in the repository: what the tables need of each run, a line a run.

A series takes days, and no machine is kept that long: the next one goes on from here. `git blame` says of which commit a line is.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mechdrift.session.many_runs import has_record

from .tables import Record

KEPT = Path(__file__).parent / "kept.jsonl"
FILES = ("*.json", "checkpoints/symmetric-*.json")
DIGITS = 9


def pack(folder: Path, kept: Path = KEPT) -> None:
    """Write what a folder of runs has over what is kept; the rest stays."""
    lines = dict(_lines(kept))
    for pattern in FILES:
        for path in filter(has_record, folder.glob(pattern)):
            lines[str(path.relative_to(folder))] = _packed(json.loads(path.read_bytes()))
    summary = [json.dumps({"file": name, **line}, separators=(",", ":")) for name, line in sorted(lines.items())]
    kept.write_text("".join(f"{line}\n" for line in summary), encoding="utf-8")


def unpack(folder: Path, kept: Path = KEPT) -> None:
    """Write what is kept into a folder of runs, where it has it not."""
    for name, line in _lines(kept):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_unpacked(line)), encoding="utf-8")


def _lines(kept: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if kept.is_file():
        for text in kept.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            yield line.pop("file"), line


def _packed(found: Record) -> dict[str, Any]:
    """A record's rows as lists of what the tables read; anything else as it is."""
    if "rows" not in found:
        return {"data": found}
    return {"m": found["settings"]["gated_as_shipped"], "rows": [_row(row) for row in found["rows"]]}


def _row(row: dict[str, Any]) -> list[Any]:
    limit, evidence = row["limit"] or {}, row["evidence"] or {}
    error = evidence.get("standard_error")
    numbers = [None if value is None else float(f"{value:.{DIGITS}g}") for value in (row["estimate"], row["null"], error)]
    sides = [limit.get("at_least"), limit.get("at_most")]
    return [row["label"], row["role"], row["verdict"], *numbers, *sides, evidence.get("kind"), evidence.get("n")]


def _unpacked(line: dict[str, Any]) -> Record:
    if "data" in line:
        found: Record = line["data"]
        return found
    rows = []
    for label, role, verdict, estimate, null, error, low, high, kind, n in line["rows"]:
        limit = None if low is None and high is None else {"at_least": low, "at_most": high, "provenance": "kept"}
        evidence = {"kind": kind, "n": n, "standard_error": error} if kind else None
        summary = {"label": label, "role": role, "verdict": verdict, "estimate": estimate, "null": null}
        rows.append(summary | {"limit": limit, "evidence": evidence})
    return {"settings": {"gated_as_shipped": line["m"]}, "rows": rows}
