"""The table at the end of a run."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mechdrift.report.text import UNLIKE, interval, limit, lines_of_families, number, printable, waiver, was
from mechdrift.verdict.record import Move, StagePart, Step, Traced
from mechdrift.verdict.row import JudgedRow
from mechdrift.verdict.run_verdict import RunVerdict

COLOURS = {"held": "green", "drifted": "red", "error": "red", "undecided": "yellow", "unmeasurable": "yellow", "reported": "cyan"}
AGAINST = {"worse": "worse than stored", "incomparable": "not comparable with what is stored"}
QUIET_SECONDS = 2.0
HEADS = ("finding", "role", "verdict", "estimate [90% interval]", "limit", "n", "site")


def table(rows: Sequence[JudgedRow], write: Callable[..., None]) -> None:
    """Write one line a row, gates first; write(text, **markup) writes without a line end."""
    ordered = sorted(rows, key=lambda row: (row.role != "gate", row.label))
    heads = (*HEADS, "baseline") if any(row.baseline for row in rows) else HEADS
    cells = [_cells(row)[: len(heads)] for row in ordered]
    lines = aligned([heads, *cells])
    write(f"{''.join(lines[0]).rstrip()}\n", bold=True)
    for row, line in zip(ordered, lines[1:], strict=True):
        for column, cell in enumerate(line):
            markup = {COLOURS[row.verdict]: True} if column == 2 else {}
            write(cell if column < len(line) - 1 else cell.rstrip(), **markup)
        write("\n")
        if row.verdict not in ("held", "drifted", "reported"):
            write(f"  {printable(row.reason)}\n")
        if row.baseline and row.baseline.status in UNLIKE:
            write(f"  baseline: {printable(row.baseline.reason)}\n")
        if row.waiver:
            write(f"  {printable(waiver(row))}\n")
    for counted in lines_of_families(ordered):
        write(f"{printable(counted)}\n")


def chain(moves: Sequence[Move], write: Callable[..., None]) -> None:
    """Where in a chain rows moved: those that have a limit and do not hold from base to post, or drifted in a step."""
    moved = [
        row for row in moves if row.verdict not in ("held", "reported") or any(step.verdict == "drifted" for step in row.steps)
    ]
    if not moves:
        return
    write("\nstep by step (shown only; steps do not add up)\n" if moved else "\nno row moved in any step\n", bold=True)
    for label, *cells in aligned([[row.label, *map(_step, row.steps)] for row in moved]):
        write(f"  {printable(label)}{'| '.join(cells).rstrip()}\n")
    for row in moved:
        if row.sentence:
            write(f"{printable(row.sentence)}\n", red=True)


def parts(traced: Sequence[Traced], write: Callable[..., None]) -> None:
    """What each stage did to the rows that drifted."""
    if not traced:
        return
    how = traced[0].estimator
    write(f"\nby stage, by {how}: base to post, less the same without the stage (parts do not add up)\n", bold=True)
    for label, *cells in aligned([[row.label, *map(_part, row.parts)] for row in traced]):
        write(f"  {printable(label)}{'| '.join(map(printable, cells)).rstrip()}\n")
    for row in traced:
        write(f"{printable(row.sentence)}\n", red=True)
    reasons = [part.reason for row in traced for part in row.parts if part.reason]
    for line in dict.fromkeys((traced[0].read, *traced[0].notes, *reasons)):
        write(f"{printable(line)}\n")


def _part(part: StagePart) -> str:
    """`sft -0.310 [-0.340, -0.280] 64%`."""
    if part.difference is None:
        return f"{part.stage} not attributed"
    share = "" if part.share is None else f" {part.share:.0%}"
    return f"{part.stage} {number(part.difference)} [{number(part.low)}, {number(part.high)}]{share}"


def _step(step: Step) -> str:
    """`sft -> post 0.310 drifted`."""
    return f"{' -> '.join(step.between)} {number(step.estimate)} {step.verdict}"


def aligned(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cells of a table, as wide as the widest of their column."""
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    return [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def _cells(row: JudgedRow) -> tuple[str, ...]:
    """The table's cells of a row, in the order of HEADS, and what its baseline has."""
    n = "-" if row.n is None else str(row.n)
    cells = (row.label, row.role, row.verdict, interval(row), limit(row), n, row.site or "-")
    return tuple(printable(cell) for cell in (*cells, was(row) if row.baseline else ""))


def title(verdict: RunVerdict | None, rows: Sequence[JudgedRow]) -> tuple[str, dict[str, bool]]:
    """The head of the table with its colour, which is green for gates that were measured and all held, and for nothing else."""
    if verdict is None or not verdict.passes:
        return summary(rows), {"red": True}
    if verdict.verdict == "held":
        return summary(rows), {"green": True}
    return in_words(verdict), {"yellow": True, "bold": True}


def in_words(verdict: RunVerdict) -> str:
    """`identical: base and post are the same files: ...`, `not gated: ...`, or how many gates held and by what the run passes."""
    head = {"identical": "identical: ", "ungated": "not gated: "}.get(verdict.verdict, "")
    return printable(f"{head}{verdict.message}")


def summary(rows: Sequence[JudgedRow]) -> str:
    """Verdicts of the gates, counted."""
    gates = [row.verdict for row in rows if row.role == "gate"]
    counts = [f"{gates.count(verdict)} {verdict}" for verdict in COLOURS if verdict in gates]
    against = [row.baseline.status for row in rows if row.role == "gate" and row.baseline]
    counts += [f"{against.count(status)} {words}" for status, words in AGAINST.items() if status in against]
    return f"{len(gates)} gated rows: {', '.join(counts)}" if gates else "no gated rows"


def seconds_by_phase(phases: Mapping[str, Any]) -> str:
    """For example `start 4 s, truth 60 s`; of workers together."""
    return ", ".join(f"{name} {phase.seconds:.0f} s" for name, phase in phases.items())


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
