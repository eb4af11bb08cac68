"""The table at the end of a run."""

import time
from collections.abc import Callable
from typing import Any

from mechdrift.report.text import interval, limit, printable, waiver

Row = dict[str, Any]
COLOURS = {"held": "green", "drifted": "red", "error": "red", "undecided": "yellow", "unmeasurable": "yellow", "reported": "cyan"}
QUIET_SECONDS = 2.0
HEADS = ("finding", "role", "verdict", "estimate [90% interval]", "limit", "n", "site")


def table(rows: list[Row], write: Callable[..., None]) -> None:
    """Write one line a row, gates first; write(text, **markup) writes without a line end."""
    ordered = sorted(rows, key=lambda row: (row["role"] != "gate", row["label"]))
    cells = [_cells(row) for row in ordered]
    widths = [max(len(line[column]) for line in [HEADS, *cells]) for column in range(len(HEADS))]
    write("  ".join(head.ljust(width) for head, width in zip(HEADS, widths, strict=True)).rstrip() + "\n", bold=True)
    for row, line in zip(ordered, cells, strict=True):
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            markup = {COLOURS[row["verdict"]]: True} if column == 2 else {}
            write(cell.ljust(width) + "  " if column < len(HEADS) - 1 else cell.rstrip(), **markup)
        write("\n")
        if row["verdict"] not in ("held", "drifted", "reported"):
            write(f"  {printable(row['reason'])}\n")
        if row["waiver"]:
            write(f"  {printable(waiver(row))}\n")


def _cells(row: Row) -> tuple[str, ...]:
    """The table's cells of a row, in the order of HEADS."""
    n = "-" if row["n"] is None else str(row["n"])
    return tuple(
        printable(cell) for cell in (row["label"], row["role"], row["verdict"], interval(row), limit(row), n, row["site"] or "-")
    )


def summary(rows: list[Row]) -> str:
    """Verdicts of the gates, counted."""
    gates = [row["verdict"] for row in rows if row["role"] == "gate"]
    counts = [f"{gates.count(verdict)} {verdict}" for verdict in COLOURS if verdict in gates]
    return f"{len(gates)} gated rows: {', '.join(counts)}" if gates else "no gated rows"


def progress_line(label: str, write: Callable[[str], None]) -> Callable[[int, int], None]:
    """One line, written again and again, on work that takes longer than two seconds; gone when that is done."""
    started = time.monotonic()

    def say(done: int, total: int) -> None:
        passed = time.monotonic() - started
        if passed < QUIET_SECONDS:
            return
        left = passed * (total - done) / done
        line = f"mechdrift: {printable(label)}: {done}/{total}, {left:.0f} s to go" if done < total else ""
        write(f"\r{line:<78}" + ("" if line else "\r"))

    return say
