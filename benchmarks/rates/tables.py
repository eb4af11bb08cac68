"""Markdown, shares with their intervals, and what a record says."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from mechdrift.session.many_runs import has_record

Record = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def percent(share: float) -> str:
    """With one digit."""
    return f"{100 * share:.1f}%"


def exact_interval(hits: int, runs: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson (1934)."""
    found = stats.binomtest(hits, runs).proportion_ci(confidence, "exact")
    return float(found.low), float(found.high)


def share(hits: int, runs: int) -> str:
    """For example `1 of 20 [0.1%, 24.9%]`: the exact 95% interval."""
    if not runs:
        return "no run"
    low, high = exact_interval(hits, runs)
    return f"{hits} of {runs} [{percent(low)}, {percent(high)}]"


def read(folder: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records that are there, by the name of their run."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_bytes()) for name, path in paths.items() if has_record(path)}


def rows_of(record: Record) -> dict[str, dict[str, Any]]:
    """By label."""
    return {row["label"]: row for row in record["rows"]}


def not_held(record: Record) -> list[str]:
    """Its gated rows that are not held, with their verdicts."""
    return [f"{row['label']} {row['verdict']}" for row in record["rows"] if row["role"] == "gate" and row["verdict"] != "held"]
