"""Which rows make a run fail: by their verdict, what their baseline says, their waiver."""

from collections.abc import Collection

from mechdrift.verdict.row import JudgedRow

NOT_HELD = {"drifted", "undecided", "unmeasurable"}
"""Verdicts of a gate that --mechdrift-fail-on may name."""
WORSE = ("reported", "held", "unmeasurable", "undecided", "drifted", "error")
"""Verdicts, the worst last."""
AGAINST = {"worse": "drifted", "incomparable": "unmeasurable"}
"""As which verdict a gate fails by what its baseline says; one that was lost is unmeasurable itself."""


def fails(row: JudgedRow, fail_on: Collection[str]) -> set[str]:
    """The verdicts by which a row makes the run fail; none where it does not.

    Its own, or what its baseline says of it: of a gate, where they are among these and it has no waiver; of any row whose
    waiver has expired. A gate's error fails in any case, as does a verdict that is none.
    """
    verdicts = _verdicts(row)
    waiver = row.waiver
    if waiver is not None and waiver.expired:
        return verdicts
    failing = set() if waiver else set(fail_on)
    return verdicts - (({"held"} | NOT_HELD) - failing) if row.role == "gate" else set()


def holds(row: JudgedRow) -> bool:
    """Whether a row is held, and its baseline says nothing against it."""
    return _verdicts(row) == {"held"}


def _verdicts(row: JudgedRow) -> set[str]:
    """Its own, and what its baseline makes of it."""
    status = row.baseline.status if row.baseline else ""
    return {row.verdict, *([AGAINST[status]] if status in AGAINST else [])}
