"""`mechdrift compare A.json B.json`: the table of two records, or of a baseline and a record."""

from collections.abc import Iterator

from mechdrift.report.origin import differences
from mechdrift.report.saved import Saved
from mechdrift.report.terminal import aligned
from mechdrift.report.text import interval, moved, printable
from mechdrift.verdict.baseline import difference, incomparable, key_of
from mechdrift.verdict.row import SavedRow

HEADS = ("finding", "A [90% interval]", "B [90% interval]", "B - A [90% interval]", "verdict", "")


def compared(first: Saved, second: Saved) -> Iterator[str]:
    """Lines: what differs in how A and B came about, rows by key, rows of one alone."""
    for name, one in (("A", first), ("B", second)):
        yield printable(f"{name}: {one.path}, schema {one.schema}, {len(one.rows)} rows")
    for summary in _differences(first, second):
        yield printable(f"differs: {summary}")
    was, now = ({(key_of(row), *row.between): row for row in one.rows} for one in (first, second))
    both = sorted(was.keys() & now.keys(), key=lambda key: now[key].label)
    lines = [HEADS, *(_cells(was[key], now[key]) for key in both)]
    for cells in aligned([[printable(cell) for cell in line] for line in lines]):
        yield "".join(cells).rstrip()
    for name, rows, others in (("A", was, now), ("B", now, was)):
        for row in sorted((rows[key] for key in rows.keys() - others.keys()), key=lambda row: str(row.label)):
            yield printable(f"only in {name}: {row.label} {row.verdict} {interval(row)} ({row.key.data})")


def _differences(first: Saved, second: Saved) -> list[str]:
    """Of all runs that their rows are from."""
    lines = [f"schema {first.schema} in A, {second.schema} in B"] if first.schema != second.schema else []
    for was in first.origins.values():
        for now in second.origins.values():
            lines += differences(was, now, ("in A", "in B"))
    return list(dict.fromkeys(lines))


def _cells(was: SavedRow, now: SavedRow) -> tuple[str, ...]:
    """A row of the table, in the order of HEADS."""
    verdict = now.verdict if was.verdict == now.verdict else f"{was.verdict} -> {now.verdict}"
    why, summary = "", "-"
    if not was.has_number or not now.has_number:
        why = "" if not was.has_number and not now.has_number else "a number in one alone"
    elif not (why := incomparable(was, now)):
        found = difference(was, now)
        low, high = found.evidence.interval()
        summary = moved(found.evidence.estimate, low, high, found.how)
    return now.label, interval(was), interval(now), summary, verdict, why
