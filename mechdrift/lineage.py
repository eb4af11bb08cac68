"""Which stage of a chain is responsible: what each did to the rows that drifted from base to post, in the rows' own units."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechdrift.chains import BASE, Between, without
from mechdrift.errors import InputError
from mechdrift.verdict.baseline import Difference, difference, has_number, incomparable

if TYPE_CHECKING:
    from mechdrift.checkpoints.resolve import Checkpoint

Row = dict[str, Any]
TASK_VECTOR = "task vector"
"""The estimator that needs no more than the checkpoints."""
NOTABLE = 0.1
"""A stage is named where its part is as much of the largest; the table has all."""


def points_without(
    points: "Mapping[str, Checkpoint]", stages: Sequence[str], post: str, folder: Path, resolve: "Callable[[str], Checkpoint]"
) -> "tuple[dict[str, Checkpoint], dict[str, str]]":
    """Post without each stage but the last, written into a folder, by name; and by name why one cannot be had."""
    from mechdrift.without_stage import without_stage

    made: dict[str, Checkpoint] = {}
    absent: dict[str, str] = {}
    called = without(stages, post)
    for before, stage in zip([BASE, *stages], stages, strict=False):
        name = called[stage]
        try:
            point = resolve(str(without_stage(points[before], points[stage], points[post], folder)))
            made[name] = replace(point, spec=f"{post} without {stage}")
        except InputError as error:
            absent[name] = f"{post} without {stage} cannot be had: {error}"
    return made, absent


def lineage(rows: Iterable[Row], stages: Sequence[str], post: str) -> list[Row]:
    """What each stage did to each gate that drifted from base to post, as JSON data, with a sentence.

    A part is the row from base to post minus the same row from base to post without the stage. Parts do not add up to the whole:
    what stages do together is in none or in several. A share of the whole is given where the interval of the row leaves "no
    change" out.
    """
    found = {row["label"]: row for row in rows}
    called = without(stages, post)
    told = []
    for row in sorted(found.values(), key=lambda row: row["label"]):
        if row["between"] != [BASE, post] or row["role"] != "gate" or row["verdict"] != "drifted" or not has_number(row):
            continue
        parts = [
            {"stage": stage} | _part(row, found.get(Between(BASE, name, step=True).label(row["label"])))
            for stage, name in called.items()
        ]
        told.append({"label": row["label"], "estimator": TASK_VECTOR, "parts": parts, "told": _sentence(row, parts)})
    return told


def _part(row: Row, other: Row | None) -> Row:
    """One stage's part in a row; other: the row without that stage."""
    numbers = dict.fromkeys(("without", "difference", "low", "high", "how", "share"))
    if other is None:
        return numbers | {"reason": "not asked"}
    if other["estimate"] is None:
        return numbers | {"reason": other["reason"]}
    if why := incomparable(other, row):
        return numbers | {"reason": why, "without": other["estimate"]}
    found: Difference = difference(other, row)
    low, high = found.evidence.interval()
    return {
        "without": other["estimate"],
        "difference": found.evidence.estimate,
        "low": low,
        "high": high,
        "how": found.how,
        "share": found.evidence.estimate / (row["estimate"] - row["null"]) if _has_moved(row) else None,
        "reason": "",
    }


def _has_moved(row: Row) -> bool:
    """Whether there is a whole that a part can be a share of."""
    return row["null"] is not None and not row["low"] <= row["null"] <= row["high"]


def _sentence(row: Row, parts: Sequence[Row]) -> str:
    """In which stages the row moved: those whose part lies beyond 0 on the limit's far side, largest first."""
    least = row["limit"]["at_least"]
    way = -1 if least is not None and row["estimate"] < least else 1
    moved = [part for part in parts if part["low"] is not None and (part["high"] < 0 if way < 0 else part["low"] > 0)]
    largest = max((abs(part["difference"]) for part in moved), default=0.0)
    moved = [part for part in moved if abs(part["difference"]) >= NOTABLE * largest]
    unknown = [part["stage"] for part in parts if part["difference"] is None]
    names = " and ".join(part["stage"] for part in sorted(moved, key=lambda part: -abs(part["difference"])))
    said = f"{row['label']} moved in {names}" if moved else f"{row['label']} moved in no stage alone"
    return f"{said}; not told for {' and '.join(unknown)}" if unknown else said
