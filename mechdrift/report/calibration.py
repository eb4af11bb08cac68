"""What `mechdrift calibrate` found, in two tables."""

from collections.abc import Iterator, Sequence

from mechdrift.report.terminal import aligned
from mechdrift.report.text import printable
from mechdrift.stats import CONFIDENCE
from mechdrift.verdict.calibrated import Alarms, Calibrated

HEADS = ("row", "role", "null runs", "n", "floor supports", "worst end", "was", "new", "")
ALARMS = ("not held in", "with the limits as they were", "with the new limits")


def limits_table(new: Sequence[Calibrated]) -> Iterator[str]:
    """A line a limit: estimates of the null runs, and what makes the limit as wide as it is."""
    lines = aligned([HEADS, *(_cells(one) for one in new)])
    yield from (printable("".join(line).rstrip()) for line in lines)


def _cells(one: Calibrated) -> tuple[str, ...]:
    notes = [one.too_wide] if one.too_wide else []
    notes += [f"no number {one.missing} times"] if one.missing else []
    notes += ["always exactly no change: kept"] if one.limit is None else []
    return (
        one.label,
        one.was.role,
        f"{one.low:.4f} .. {one.high:.4f}",
        str(one.n),
        f"{one.null:g} -+ {one.supported:.2g}",
        f"{one.worst:.2g} off",
        str(one.was.limit),
        str(one.limit or one.was.limit),
        "; ".join(notes),
    )


def alarms_table(before: Alarms, anew: Alarms | None) -> Iterator[str]:
    """A line a row that was not held in some null run, and one for whole runs."""
    rows = sorted(before.by_row.keys() | (anew.by_row.keys() if anew else set()))
    counted = [alarms for alarms in (before, anew) if alarms]
    cells = [(label, *(_share(alarms.by_row[label], alarms.runs) for alarms in counted)) for label in rows]
    cells.append(("any gated row", *(_share(alarms.whole, alarms.runs) for alarms in counted)))
    yield from (printable("".join(line).rstrip()) for line in aligned([ALARMS[: len(counted) + 1], *cells]))
    yield f"Intervals: {CONFIDENCE:.0%}, Clopper-Pearson, as if runs were independent; runs of one post with other seeds are not."
    if anew is None:
        yield "New limits are not counted: there is one post alone, and limits may not be tried on what they were made from."
    else:
        yield "New limits: of each post's runs, with limits from the runs of all other posts."


def _share(found: int, runs: int) -> str:
    """`1 of 12 [0.004, 0.339]`."""
    from scipy.stats import binomtest

    ends = binomtest(found, runs).proportion_ci(CONFIDENCE, "exact")  # Clopper and Pearson (1934), Biometrika 26:404
    return f"{found} of {runs} [{ends.low:.3f}, {ends.high:.3f}]"
