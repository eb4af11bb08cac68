"""What came of a run, in the order in which reports say it."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from mechdrift.report.terminal import summary
from mechdrift.report.text import interval, limit
from mechdrift.report.whole import Whole
from mechdrift.verdict.failing import WORSE, fails
from mechdrift.verdict.record import CheckpointIdentity
from mechdrift.verdict.row import StoredRow

ENDED = {
    0: "no verdict",
    1: "failed: a gate drifted, or a test ended with an error",
    2: "interrupted",
    3: "failed: an internal error of pytest",
    4: "failed: pytest could not start",
    5: "nothing gated",
    6: "failed: a gate is undecided",
    7: "failed: a gate is unmeasurable",
}
"""By exit code, of a run that does not pass."""
PASSED = {"held": "passed", "allowed": "allowed", "ungated": "not gated", "identical": "identical"}
"""By verdict, of one that does."""


def ended(whole: Whole) -> str:
    """`passed (exit code 0): 16 gated rows: 16 held`; what is no verdict on measured gates has another word."""
    code, verdict = whole.record.exit_code, whole.verdict
    if "no_record" in whole.record.extra:
        return verdict.message
    word = PASSED.get(verdict.verdict) or ENDED.get(code, "failed")
    twice = [f"{' and '.join(names)} are the same files" for names in whole.record.inputs.same_files]
    about = [verdict.message] if verdict.verdict == "identical" else [verdict.message or summary(whole.rows), *twice]
    return f"{word} (exit code {code}): {'; '.join(about)}"


def started(whole: Whole) -> str:
    """When, in UTC, as ISO 8601 has it; what is no time as it stands there."""
    seconds = whole.record.run.started
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def compared(whole: Whole) -> str:
    """`base organism:base, sft organism:sft, post organism:instruct`."""
    inputs = whole.record.inputs
    stages: list[tuple[str, CheckpointIdentity]] = [(one.name, one) for one in inputs.stages]
    return ", ".join(f"{name} {one.spec}" for name, one in [("base", inputs.base), *stages, *inputs.ends])


def config_changes(whole: Whole) -> list[str]:
    """Settings that differ between two checkpoints, a line each: `base -> post: sliding_window: null, 32`."""
    found = whole.record.inputs.config_changes
    return [f"{' -> '.join(each.between)}: {each.key}: {json.dumps(each.base)}, {json.dumps(each.post)}" for each in found]


def why_it_fails(whole: Whole, row: StoredRow) -> set[str]:
    """The verdicts by which a row makes the run fail; an error does whatever its role is."""
    return fails(row, whole.record.settings.fail_on) | ({"error"} & {row.verdict})


def worst_first(whole: Whole) -> list[StoredRow]:
    """Rows: first those that make the run fail, then gates, then by verdict."""
    return sorted(
        whole.rows,
        key=lambda row: (
            not why_it_fails(whole, row),
            row.role != "gate",
            -WORSE.index(row.verdict),
            row.label,
        ),
    )


def unmeasured(rows: Iterable[StoredRow]) -> list[StoredRow]:
    """Rows without a number."""
    return [row for row in rows if row.estimate is None]


def sentence(row: StoredRow) -> str:
    """What a row says, in plain words."""
    if row.estimate is None:
        return f"{row.verdict}: {row.reason}"
    bound = f"; limit {limit(row)}" if row.limit else ""
    return f"{row.verdict}: {interval(row)} {row.unit}{bound}; {row.reason}"
