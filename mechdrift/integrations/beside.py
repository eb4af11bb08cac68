"""One comparing run in a process beside a training run, and what came of it."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from mechdrift.integrations.training_step import COLLECTED, STEP
from mechdrift.report.whole import read_record
from mechdrift.session.many_runs import Run
from mechdrift.session.own_record import Started
from mechdrift.verdict.failing import fails
from mechdrift.verdict.row import StoredRow
from mechdrift.verdict.run_verdict import run_verdict

ERROR = "error"
NUMBERS = {"drifted": 2, "undecided": 1, "held": 0, "unmeasurable": -1, ERROR: -2}
"""Verdicts as trackers get them, who know numbers alone; a run that gates or compares nothing has none."""
# With these a child of `torchrun` or `accelerate launch` would take itself for one of the training's processes.
OF_LAUNCHERS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(TORCHELASTIC|ACCELERATE|FSDP)_.*"
)


@dataclass(frozen=True)
class Outcome:
    """What a run reported on one checkpoint."""

    step: int
    """Of the training run."""
    verdict: str
    """Of the run, as its record has it (`held`, `allowed`, `ungated`, `identical`, `drifted`, `undecided`, `unmeasurable`);
    `error` where it did not end with verdicts."""
    fails: bool
    """Whether gated rows made the run fail: by --mechdrift-fail-on, and never for another reason."""
    message: str
    """Why, in one line."""
    numbers: dict[str, float]
    """`mechdrift/LABEL/estimate`, `low`, `high` and `verdict` (NUMBERS) of every row, and `mechdrift/verdict`."""
    failing: tuple[str, ...] = ()
    """The verdicts by which gated rows made it fail."""


class Beside:
    """A run under way."""

    def __init__(self, run: Run, step: int, folder: Path, timeout: float) -> None:
        """Start it. folder: of its record and of what it prints; timeout: in seconds."""
        self.step = step
        self.record = folder / f"{run.name}.json"
        self._started = Started(self.record, run.base, run.post)
        self.printed = folder / f"{run.name}.log"
        self.collected = folder / f"{run.name}.collected"
        self.record.unlink(missing_ok=True)  # an older one would be taken for this run's
        self._timeout, self._until = timeout, time.monotonic() + timeout
        environment = {name: value for name, value in os.environ.items() if not OF_LAUNCHERS.fullmatch(name)}
        with self.printed.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*run.command(self.record), "-p", "mechdrift.integrations.training_step"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._started.environment(environment | {STEP: str(step), COLLECTED: str(self.collected)}),
                start_new_session=True,  # so that its workers end with it
            )
        self._stopped = False

    def has_ended(self, wait: float) -> bool:
        """Whether it has, by itself or by its timeout, within so many seconds."""
        try:
            self._process.wait(max(0.0, min(wait, self._until - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() < self._until:
                return False
            self.end()
            self._stopped = True
        return True

    def end(self) -> None:
        """End it and its workers, wherever it is."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def code(self) -> int | None:
        """Its exit code; None where it was stopped by its timeout."""
        return None if self._stopped else self._process.returncode

    def why_no_record(self) -> str:
        """Why its record cannot be believed; empty where it can."""
        return self._started.why_no_record(self._process.returncode)

    def why(self) -> str:
        """How it ended, and what it printed last."""
        if self._stopped:
            return f"no end after {self._timeout:g} s, stopped; see {self.printed}"
        lines = [line for line in self.printed.read_text(errors="replace").splitlines() if line.strip()]
        return f"exit code {self.code}: {lines[-1] if lines else 'nothing printed'}; see {self.printed}"


def outcome_of(beside: Beside) -> Outcome:
    """What came of a run that has ended; its exit code counts with its record alone."""
    if beside.code is None or (why := beside.why_no_record()):
        return _error(beside.step, f"not measured: {beside.why() if beside.code is None else f'{beside.why()}; {why}'}", {})
    record = read_record(beside.record)
    rows = record.rows
    numbers = {name: value for row in rows for name, value in _numbers(row).items()}
    failing = {row.label: found for row in rows if (found := fails(row, record.settings.fail_on))}
    verdict = run_verdict(record)
    if verdict.verdict == ERROR:
        what = f"an error in {', '.join(failing)}" if failing else verdict.message or beside.why()
        return _error(beside.step, f"{what}; see {beside.printed}", numbers)
    if verdict.verdict in NUMBERS:
        numbers["mechdrift/verdict"] = NUMBERS[verdict.verdict]
    message = "; ".join(f"{label} {', '.join(sorted(found))}" for label, found in failing.items())
    by = tuple(sorted(set().union(*failing.values())))
    return Outcome(
        beside.step, verdict.verdict, bool(failing), message or verdict.message or f"gates: {verdict.verdict}", numbers, by
    )


def gates_collected(beside: Beside) -> int:
    """How many gates a run with --collect-only found; 0 where its pytest did not come so far."""
    return int(beside.collected.read_text()) if beside.collected.exists() else 0


def _error(step: int, message: str, numbers: dict[str, float]) -> Outcome:
    return Outcome(step, ERROR, False, message, numbers | {"mechdrift/verdict": NUMBERS[ERROR]})


def _numbers(row: StoredRow) -> dict[str, float]:
    """A row's numbers; brackets and the like, which some trackers refuse in names, are a dash each."""
    name = "mechdrift/" + re.sub(r"[^\w.]+", "-", row.label).strip("-")
    numbers = {"estimate": row.estimate, "low": row.low, "high": row.high}
    found = {f"{name}/{what}": value for what, value in numbers.items() if value is not None}
    return found | ({f"{name}/verdict": NUMBERS[row.verdict]} if row.verdict in NUMBERS else {})
