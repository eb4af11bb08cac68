"""Markdown for a pull request or a job summary."""

import re
from collections.abc import Iterable, Iterator, Sequence

from mechdrift.report.history import tracks
from mechdrift.report.outcome import compared, config_changes, ended, sentence, unmeasured, worst_first
from mechdrift.report.series import View
from mechdrift.report.text import UNLIKE, interval, limit, lines_of_families, visible, waiver, was
from mechdrift.report.whole import Whole

ROWS = 30
HEADS = ("finding", "role", "verdict", "estimate [90% interval]", "limit", "n", "site")
PAIR_HEADS = ("pair", "record", "outcome")
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+.!|~:$-])")


def escaped(text: str) -> str:
    """Text that means nothing in markdown, HTML, a forge or a job's log: it is shown as it is."""
    html = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    plain = SPECIAL.sub(r"\\\1", html)
    return plain.replace("@", "@<!-- -->").replace("\\#", "\\#<!-- -->")  # no name is called, no issue is linked


def markdown(shown: View) -> str:
    """The newest record, of several pairs the worst one's; of several also which rows crossed their limit, and when."""
    lines = [f"## mechdrift: {escaped(shown.title)}", *_pairs(shown), "", *_lines(shown.shown), *_over_time(shown.records)]
    return "\n".join(lines) + "\n"


def _pairs(shown: View) -> Iterator[str]:
    """How each pair came out, and which one is shown below."""
    if len(shown.pairs) > 1:
        yield from _table(PAIR_HEADS, ((name, whole.path.name, ended(whole)) for name, whole in shown.named()))
        yield ""
        yield f"Below: {escaped(shown.shown.path.name)}"


def _over_time(records: Sequence[Whole]) -> Iterator[str]:
    if len(records) > 1:
        crossed = [track for track in tracks(records) if track.drifted is not None or track.beyond is not None]
        summary = [f"{track.row.label} ({track.row.role}) {track.summary()}" for track in crossed]
        yield from _list(f"Over {len(records)} runs", summary or ["no row crossed its limit"])


def _lines(whole: Whole) -> Iterator[str]:
    yield f"{escaped(compared(whole))}; profile {escaped(whole.record.settings.profile)}"
    ordered = worst_first(whole)
    against = any(row.baseline for row in ordered)
    yield from _table(
        (*HEADS, "baseline") if against else HEADS,
        (
            (
                row.label,
                row.role,
                row.verdict,
                interval(row),
                limit(row),
                "-" if row.n is None else str(row.n),
                row.site or "-",
                *([was(row) if row.baseline else "-"] if against else []),
            )
            for row in ordered[:ROWS]
        ),
    )
    if len(ordered) > ROWS:
        yield ""
        yield f"{len(ordered) - ROWS} more rows are in the record, none worse than these."
    yield from _list("Where the chain moved", [move.sentence for move in whole.record.chain if move.sentence])
    traced = whole.record.lineage
    yield from _list("Which stage", [*(row.sentence for row in traced), *(row.read for row in traced[:1] if row.read)])
    yield from _list(
        "Why",
        [
            f"{row.label} {sentence(row)}"
            for row in ordered
            if row.estimate is not None and row.verdict in ("drifted", "undecided", "error")
        ],
    )
    yield from _list("Not measured", [f"{row.label} {sentence(row)}" for row in unmeasured(ordered)])
    yield from _list("Replies", lines_of_families(whole.rows))
    yield from _list("Waivers", [f"{row.label}: {waiver(row)}" for row in ordered if row.waiver])
    yield from _list(
        "Baseline",
        [
            f"{row.label} {UNLIKE[row.baseline.status].format(name=row.baseline.name)}: {row.baseline.reason}"
            for row in ordered
            if row.baseline and row.baseline.status in UNLIKE
        ],
    )
    yield from _list("Configs differ", config_changes(whole))
    yield from _list("Warnings", [*whole.record.run.warnings, *whole.missing])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield _line(heads)
    yield "|" + " --- |" * len(heads)
    yield from map(_line, rows)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"


def _list(head: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    yield ""
    yield f"### {head}"
    yield ""
    yield from (f"- {escaped(line)}" for line in lines[:ROWS])
    if len(lines) > ROWS:
        yield f"- and {len(lines) - ROWS} more"
