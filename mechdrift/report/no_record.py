"""The place of a run that left no record, so that reports show the hole: the file `verdict.json` that a gate always leaves."""

import json
from pathlib import Path
from typing import Any

from mechdrift.report.whole import Whole
from mechdrift.verdict.record import SCHEMA, CheckpointIdentity, Inputs, RunSettings, RunWork, StoredRecord
from mechdrift.verdict.run_verdict import NOTHING_GATED, RunVerdict

VERDICT_FILE = "verdict.json"


def verdict_file(base: str, post: str, started: float, code: int, verdict: RunVerdict, recorded: bool) -> dict[str, Any]:
    """What the file says; recorded: whether a record lies beside it that can be believed."""
    return {
        "verdict": verdict.verdict,
        "message": verdict.message,
        "exit_code": code,
        "base": base,
        "post": post,
        "started": started,
        "recorded": recorded,
    }


def read_hole(path: Path) -> Whole | None:
    """A record without rows in the place of one that is missing; None for a file that is no such `verdict.json`."""
    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("recorded") is not False:
        return None
    types = {"message": str, "exit_code": int, "base": str, "post": str, "started": int | float}
    return hole(path, **data) if all(isinstance(data.get(name), kind) for name, kind in types.items()) else None


def hole(
    path: Path, *, message: str, exit_code: int = NOTHING_GATED, base: str, post: str, started: float, **_more: object
) -> Whole:
    """As every report takes it: no rows, and why in `extra.no_record`."""
    record = StoredRecord(
        schema=SCHEMA,
        inputs=Inputs(base=_unread(base), post=_unread(post), identical=False),
        settings=RunSettings(
            profile="-",
            gated_as_shipped=0,
            dtype="-",
            device="-",
            batch_tokens=0,
            seed=0,
            statements="-",
            identity_shortcut=True,
            fail_on=[],
        ),
        environment={},
        rows=[],
        not_selected=[],
        exit_code=exit_code,
        extra={"no_record": message},
        run=RunWork(started=started, seconds=0.0, work={}, warnings=[f"no record: {message}"]),
    )
    return Whole(path, record, {}, {}, {}, ())


def _unread(spec: str) -> CheckpointIdentity:
    """A checkpoint of which no more is known."""
    return CheckpointIdentity(spec=spec, model_type="-", layers=0, width=0, parameters=0, digests={})
