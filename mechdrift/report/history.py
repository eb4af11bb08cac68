"""Rows over several runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from mechdrift.report.pictures import Picture, Point, series
from mechdrift.report.whole import Whole
from mechdrift.verdict.baseline import incomparable
from mechdrift.verdict.row import StoredRow


@dataclass(frozen=True)
class Track:
    """One row over all runs."""

    row: StoredRow
    """Of the newest run that has it."""
    points: tuple[Point, ...]
    """One a run, without a number where there is none to compare."""
    drifted: int | None
    """The first run in which it drifted."""
    beyond: int | None
    """The first run whose estimate is beyond the limit of that run."""
    left_out: tuple[str, ...]
    """Why numbers of some runs are not shown."""

    def summary(self) -> str:
        """When it crossed its limit, in a sentence."""
        if self.drifted is not None:
            message = f"drifted first in {self.points[self.drifted].name}"
        elif self.row.limit:
            message = "drifted in no run"
        else:
            return "has no limit"
        if self.beyond is not None and self.beyond != self.drifted:
            message += f"; its estimate was first beyond the limit in {self.points[self.beyond].name}"
        return message

    def picture(self) -> Picture | None:
        """The row over runs, with the first that crossed marked."""
        crossed = self.drifted if self.drifted is not None else self.beyond
        return series(self.points, self.row, self.row.label, "run", crossed)


def names(records: Sequence[Whole]) -> list[str]:
    """What to call each run: by its step of training, where all have one; by its post, where these differ; else by its file."""
    if all(step_of(whole) is not None for whole in records):
        return [f"step {step_of(whole)}" for whole in records]
    posts = [PurePath(whole.record.inputs.post.spec.removeprefix("organism:")).name for whole in records]
    return posts if len({*posts}) == len(posts) else [whole.path.stem for whole in records]


def step_of(whole: Whole) -> int | None:
    """After which step of a training run it was, where its callback recorded it."""
    step = whole.record.extra.get("step")
    return step if isinstance(step, int) else None


def tracks(records: Sequence[Whole]) -> list[Track]:
    """Of each row: those that drifted first, by when; then gates."""
    called = names(records)
    by_label = [{row.label: row for row in whole.rows} for whole in records]
    labels = {label: None for rows in by_label for label in rows}
    found = [_track([rows.get(label) for rows in by_label], called) for label in labels]
    last = len(records)
    return sorted(
        found,
        key=lambda track: (
            last if track.drifted is None else track.drifted,
            track.row.role != "gate",
            last if track.beyond is None else track.beyond,
            track.row.label,
        ),
    )


def _track(rows: Sequence[StoredRow | None], called: Sequence[str]) -> Track:
    there = [row for row in rows if row]
    newest = next((row for row in reversed(there) if row.has_number), there[-1])
    points, left_out = [], []
    drifted = beyond = None
    for place, (row, name) in enumerate(zip(rows, called, strict=True)):
        if row is None or not row.has_number:
            points.append(Point(name, None, None, None, row.verdict if row else "not requested"))
            continue
        if why := incomparable(row, newest):
            left_out.append(f"{name}: {why}")
            points.append(Point(name, None, None, None, "not comparable"))
            continue
        points.append(Point(name, row.estimate, row.low, row.high, row.verdict))
        if drifted is None and row.verdict == "drifted":
            drifted = place
        if beyond is None and _beyond(row):
            beyond = place
    return Track(newest, tuple(points), drifted, beyond, tuple(left_out))


def _beyond(row: StoredRow) -> bool:
    if row.limit is None or row.estimate is None:
        return False
    low, high = row.limit.at_least, row.limit.at_most
    return (low is not None and row.estimate < low) or (high is not None and row.estimate > high)
