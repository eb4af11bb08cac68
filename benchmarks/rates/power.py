"""Which planted drifts are caught, and from what size on: drifts of graded strength, at several seeds of splits and prompts."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mechdrift.organisms.matrix import claimed_findings, claims_of, must_drift, read_matrix
from mechdrift.session.many_runs import Run

from .bars import DRIFTED_AT_LEAST, Judged
from .monotone import in_letters, majorities, milder_when_stronger
from .null import ORIGIN
from .tables import Record, read, rows_of, table

STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
LEAST_STRENGTHS = 4  # between fewer a straight line says little
MEASURED_IN_ORDER = (1.0, 0.5, 0.2, 0.7, 0.3, 0.1, 0.05)  # a series that is stopped has all drifts, at fewer strengths


def name_of(drift: str, strength: float, seed: int) -> str:
    """Of the run of one point."""
    return f"power-{drift}@{strength:g}-seed={seed}"


def power_runs(seeds: int) -> list[Run]:
    """Every drift at every strength, with the findings of which drifts.toml says something.

    Seed by seed, so that base is recorded once for all strengths; drifts that no gated row must see at the first seed alone.
    """
    return [
        Run(
            name_of(drift, strength, seed),
            ORIGIN,
            f"organism:drift-{drift}@{strength:g}",
            ("--mechdrift-seed", str(seed), *(part for finding in findings for part in ("--mechdrift-only", finding))),
        )
        for seed in range(seeds)
        for strength in MEASURED_IN_ORDER
        for drift, findings in ((drift, claimed_findings(drift)) for drift in read_matrix())
        if findings and (seed == 0 or must_drift(drift))
    ]


def power_table(folder: Path, seeds: int) -> str:
    """A table a drift."""
    parts = []
    for drift in read_matrix():
        if points := points_of(folder, drift, seeds):
            parts.append(f"organism:drift-{drift}@STRENGTH:\n\n{_drift_table(drift, points)}")
    return "\n\n".join(parts)


@dataclass(frozen=True)
class Point:
    """One row at one strength: it in every record that there is."""

    rows: list[dict[str, Any]]

    @property
    def mean(self) -> float | None:
        """Estimate; None where no record has one."""
        estimates = [row["estimate"] for row in self.rows if row["estimate"] is not None]
        return fmean(estimates) if estimates else None

    @property
    def drifted(self) -> int:
        """Rows with that verdict."""
        return sum(row["verdict"] == "drifted" for row in self.rows)

    @property
    def caught(self) -> bool:
        """Whether nine in ten are."""
        return self.drifted >= DRIFTED_AT_LEAST * len(self.rows)


def points_of(folder: Path, drift: str, seeds: int) -> dict[float, list[Record]]:
    """The records that there are of a drift, by strength."""
    names = {(strength, seed): name_of(drift, strength, seed) for strength in STRENGTHS for seed in range(seeds)}
    found = read(folder, names.values())
    points = {
        strength: [found[names[strength, seed]] for seed in range(seeds) if names[strength, seed] in found]
        for strength in STRENGTHS
    }
    return {strength: records for strength, records in points.items() if records}


def _drift_table(drift: str, points: dict[float, list[Record]]) -> str:
    labels = sorted({label for records in points.values() for label in rows_of(records[0]) if claims_of(drift, label)})
    head = [
        "row",
        "limit",
        *(f"@{strength:g}" for strength in points),
        "majority",
        "all runs drift from",
        "caught from, in its unit",
        "as strength",
    ]
    return table(head, [_line(label, points) for label in labels])


def _line(label: str, points: dict[float, list[Record]]) -> list[str]:
    """Mean estimate and runs that drifted at each strength; the least strength and the least drift caught nine times in ten."""
    summary = {strength: Point([rows_of(record)[label] for record in records]) for strength, records in points.items()}
    means = {strength: point.mean for strength, point in summary.items() if point.mean is not None}
    cells = [
        f"{'no number' if point.mean is None else f'{point.mean:.3f}'} ({point.drifted}/{len(point.rows)})"
        for point in summary.values()
    ]
    measured = [
        (row, record)
        for strength in points
        for row, record in zip(summary[strength].rows, points[strength], strict=True)
        if row["evidence"]
    ]
    limit = next((row["limit"] for row, _ in measured if row["limit"]), None)
    if limit is None:
        return [label, "none", *cells, "-", "-", "-", "-"]
    majority = majorities(points, label)
    errors = [row["evidence"].get("standard_error") or 0.0 for row, _ in measured]
    row, record = measured[0]
    judged = Judged.of_row(row, record["settings"]["gated_as_shipped"], float(np.median(errors)))
    least = judged.caught(means[max(means)])
    milder = "".join(f", milder at {strength:g}" for strength in milder_when_stronger(majority))
    return [
        label,
        str(judged.limit),
        *cells,
        in_letters(majority) + milder,
        _caught_from(summary),
        f"{least:.3f}",
        _strength_at(least, judged.origin, means),
    ]


def _caught_from(points: dict[float, Point]) -> str:
    """The least strength from which on nine runs in ten drifted."""
    strengths = list(points)
    for number, strength in enumerate(strengths):
        if all(points[later].caught for later in strengths[number:]):
            return f"{strength:g}"
    return "never"


def _strength_at(value: float, origin: float, means: dict[float, float]) -> str:
    """Where the mean estimate first gets there, between strengths by a straight line; at strength 0 it is no change."""
    if len(means) < LEAST_STRENGTHS:
        return "too few strengths"
    strengths, estimates = [0.0, *means], [origin, *means.values()]
    for before, after in zip(range(len(strengths)), range(1, len(strengths)), strict=False):
        low, high = estimates[before], estimates[after]
        if low != high and min(low, high) <= value <= max(low, high):
            return f"{strengths[before] + (value - low) / (high - low) * (strengths[after] - strengths[before]):.2f}"
    return "beyond 1"
