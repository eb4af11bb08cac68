"""Which records are of one pair over time, and which of different pairs: of a pair the newest counts, of pairs the worst."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mechdrift.report.history import names, step_of
from mechdrift.report.outcome import ended
from mechdrift.report.whole import Whole
from mechdrift.verdict.run_verdict import WORST_FIRST

NUMBERED = re.compile(r"((^|[-_.@/])(step|checkpoint|epoch|iter)[-_.]?\d+|/\d+)/?$", re.IGNORECASE)
"""At the end of a spec: one of the checkpoints of a training run. A number alone may be a setting: `dpo-beta-1`."""
COMMIT = re.compile(r"@[0-9a-f]{7,40}$")


@dataclass(frozen=True)
class View:
    """Records as a report shows them."""

    records: tuple[Whole, ...]
    """All of them, in order."""
    pairs: tuple[tuple[Whole, ...], ...]
    """Those of one pair together, in order."""

    @property
    def newest(self) -> list[Whole]:
        """Of each pair."""
        return [series[-1] for series in self.pairs]

    @property
    def shown(self) -> Whole:
        """The record that a report shows in full: the newest of the pair that came out worst."""
        return min(self.newest, key=_severity)

    @property
    def verdict(self) -> str:
        """Of the pair that came out worst."""
        return self.shown.verdict.verdict

    @property
    def exit_code(self) -> int:
        """0, 1, 5, 6 or 7: of the pair that came out worst."""
        return self.shown.verdict.exit_code(self.shown.record.exit_code)

    @property
    def title(self) -> str:
        """Of one record its own; of a series also how many before it did not hold; of pairs how many did not, and which."""
        if len(self.pairs) == 1:
            earlier = [whole for whole in self.records[:-1] if whole.verdict.verdict != "held"]
            more = f"; {len(earlier)} of {len(self.records) - 1} earlier runs did not hold" if earlier else ""
            return f"{ended(self.shown)}{more}"
        unlike = sorted((pair for pair in self.named() if pair[1].verdict.verdict != "held"), key=lambda pair: _severity(pair[1]))
        if not unlike:
            return f"passed: {len(self.pairs)} of {len(self.pairs)} pairs held"
        which = ", ".join(f"{name} {whole.verdict.verdict}" for name, whole in unlike)
        return f"{self.verdict}: {len(unlike)} of {len(self.pairs)} pairs did not hold: {which}"

    def named(self) -> list[tuple[str, Whole]]:
        """The newest record of each pair, with what to call it."""
        return list(zip(names(self.newest), self.newest, strict=True))


def view(records: Sequence[Whole], one_series: bool = False) -> View:
    """Records put together by pair, in the order given; one_series: all are of one pair, whatever their specs say."""
    if one_series:
        return View(tuple(records), (tuple(records),))
    pairs: list[list[Whole]] = []
    for whole in records:
        mine = next((series for series in pairs if _same_pair(series, whole)), None)
        if mine is None:
            pairs.append([whole])
        else:
            mine.append(whole)
    return View(tuple(records), tuple(map(tuple, pairs)))


def _same_pair(series: Sequence[Whole], whole: Whole) -> bool:
    """The same base by content, posts that are checkpoints of one training run or one spec night after night, and no gate lost.

    A record that gates less than an earlier one says nothing of the rest, so it does not take its place.
    """
    last = next((one for one in reversed(series) if one.rows), series[-1])
    bases = [one.record.inputs.base.digests for one in (last, whole)]
    if all(bases) and bases[0] != bases[1]:
        return False
    if whole.rows and not _gates(last) <= _gates(whole):
        return False
    of_training = None not in (step_of(last), step_of(whole)) and last.path.parent == whole.path.parent
    return of_training or _lineage(last) == _lineage(whole)


def _gates(whole: Whole) -> set[str]:
    return {row.label for row in whole.rows if row.role == "gate"}


def _lineage(whole: Whole) -> Any:
    """Specs without what differs from night to night: the commit of a repository, the number of a checkpoint."""
    inputs = whole.record.inputs
    posts = [one.spec for _, one in inputs.ends]
    base = COMMIT.sub("", inputs.base.spec)
    return base, [NUMBERED.sub("", COMMIT.sub("", spec)) for spec in posts]


def _severity(whole: Whole) -> tuple[int, int]:
    return WORST_FIRST.index(whole.verdict.verdict), -whole.record.exit_code
