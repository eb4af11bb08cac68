"""What refusal shows: shares of replies by arm, and what became of the replies."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import asdict

from mechdrift.findings.figures import Bar, Bars, Figure, Matrices, Pictures, RowData, Shown
from mechdrift.prompts.refusals import shipped_card

RATES = ("refusal.harmful", "refusal.harmless")
SHARES = ("proportion", "partly known")
"""Kinds of evidence of one share."""


class RefusalPictures(Pictures):
    """Bars and counts."""

    def of_family(self, rows: Sequence[Shown], matrices: Sequence[Matrices]) -> Iterable[Figure]:
        """Shares by arm: of rows that are one share, and of those whose two arms differ by their estimate."""
        del matrices
        if bars := [bar for shown in rows for bar in _bars(shown)]:
            yield Bars("Refusal rates by arm", "share of test instructions with such a reply, by row and arm", bars)

    def lines(self, rows: Sequence[RowData]) -> list[str]:
        """What became of the replies that the rates count, a line a model and side: `harmful, post: 198 refused, ...`.

        And how often replies are read right, where it was the shipped classifier of today that read them.
        """
        rates = [row for row in rows if row.finding in RATES and row.outcomes]
        lines = [
            f"{_name(row)}, {model}: {', '.join(f'{count} {outcome}' for outcome, count in asdict(counts).items())}"
            for row in rates
            for model, counts in row.outcomes.items()
        ]
        card = shipped_card()
        if card.measured and any(row.key.parameters.get("told_by") == card.key for row in rates):
            lines += ["refusals as read, on the shipped sets (mechdrift replies):"]
            lines += [f"  {part}" for part in card.measured.split("; ")]
        return lines


def _name(row: RowData) -> str:
    return row.label.removeprefix("refusal.")


def _bars(shown: Shown) -> Iterator[Bar]:
    row, items = shown.row, shown.items
    if row.estimate is None or row.evidence is None:
        return
    unit = row.unit or ""
    before, after = row.arms or ("first", "second")
    what = unit.removesuffix(f", {after} minus {before}")
    if what == unit:
        if row.evidence["kind"] in SHARES:
            yield Bar(_name(row), unit, "plain", row.estimate)
        return
    if not items or not all(number in (0.0, 1.0) for item in items for number in (item.base, item.post)):
        return
    first, second = (sum(getattr(item, side) for item in items) / len(items) for side in ("base", "post"))
    if abs(second - first - row.estimate) < 1e-9:
        yield Bar(_name(row), what, before, first)
        yield Bar(_name(row), what, after, second)


PICTURES = RefusalPictures()
