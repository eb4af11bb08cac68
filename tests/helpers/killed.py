"""A small comparing run, killed with all its processes at chosen moments."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from phases import BETWEEN, PHASES
from safetensors.numpy import load_file

from mechdrift.commands.cache import contents, prune, verify
from mechdrift.prompts.statements import fact_tables, table_statements
from mechdrift.report.record_file import items_path

PAIR = ("--base", "organism:base", "--post", "organism:instruct")
ROWS = ("truth.direction_similarity", "truth.judgement_accuracy", "truth.steering_effect")
KINDS, ENTITIES = ("element_symbols", "spanish_words"), 30
PATIENCE = 900  # seconds, for a run on a busy machine
LATE = 0.8  # of a phase: nearer to its end a kill would fall into the next one


def write_statements(path: Path, kinds: Sequence[str] = KINDS, entities: int = ENTITIES) -> Path:
    """A few dozen statements of the shipped tables, of so many entities a kind."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["statement", "label", "entity", "value", "kind"])
        for table in fact_tables():
            if table.kind in kinds:
                for output in table_statements(table)[: 2 * entities]:
                    writer.writerow([output.text, output.label, output.entity, output.value, output.kind])
    return path


@dataclass(frozen=True)
class Moment:
    """When a run is killed: so long after a phase was entered for the n-th time."""

    phase: str
    entry: int
    seconds: float


@dataclass(frozen=True)
class Ran:
    """What a run left."""

    code: int
    out: str
    record: dict[str, Any]
    items: dict[str, bytes]

    @property
    def judged(self) -> dict[str, Any]:
        """Exit code, record and items without `run`: its clock, its duration, and how much of the work the cache saved it."""
        record = {key: value for key, value in self.record.items() if key != "run"}
        return {"code": self.code, "record": record, "items": self.items}

    @property
    def recorded(self) -> int:
        """Prompts that went through a model."""
        return int(self.record["run"]["work"]["recorded_prompts"])


class Job:
    """One comparison in a folder of its own."""

    def __init__(self, folder: Path, statements: Path, cache: Path, mode: Sequence[str] = ()) -> None:
        """Compare the pair on these statements, with this cache."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.cache = folder, cache
        self.notes, self.record = folder / "phases", folder / "record.json"
        only = [word for name in ROWS for word in ("--mechdrift-only", name)]
        # Few prompts a forward, so that there are parts to resume from.
        options = [*PAIR, *only, "--mechdrift-statements", statements, "--mechdrift-batch", 1024, *mode]
        self.command = [*map(str, [*options, "--mechdrift-cache", cache, "--mechdrift-record", self.record])]

    def start(self, watched: bool = False) -> subprocess.Popen[str]:
        """Start the run as the leader of a process group."""
        self.notes.unlink(missing_ok=True)
        here = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": here, "PHASES": str(self.notes), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            *(["-p", "phases"] if watched else []),
            *self.command,
        ]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def result(self, process: subprocess.Popen[str]) -> Ran:
        """Wait for a run and read what it wrote."""
        out, _ = process.communicate(timeout=PATIENCE)
        if not self.record.is_file():
            return Ran(process.returncode, out, {}, {})
        items = {name: values.tobytes() for name, values in load_file(items_path(self.record)).items()}
        return Ran(process.returncode, out, json.loads(self.record.read_text()), items)

    def run(self, watched: bool = False) -> Ran:
        """Run undisturbed."""
        return self.result(self.start(watched))

    def noted(self) -> list[tuple[float, str]]:
        """When each phase was entered, up to now."""
        text = self.notes.read_text() if self.notes.is_file() else ""
        lines = (line.split(" ", 1) for line in text.splitlines())
        return [(float(seconds), phase) for seconds, phase in lines]

    def kill_at(self, moment: Moment) -> str:
        """Run, kill the whole group with SIGKILL at the moment; returns the phase it was in."""
        process = self.start(watched=True)
        deadline = time.monotonic() + PATIENCE
        try:
            while process.poll() is None and time.monotonic() < deadline:
                entered = [seconds for seconds, phase in self.noted() if phase == moment.phase]
                if len(entered) > moment.entry:
                    time.sleep(max(0.0, entered[moment.entry] + moment.seconds - time.monotonic()))
                    break
                time.sleep(0.002)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return BETWEEN
            finally:
                process.communicate()
        return self.noted()[-1][1]


def moments(noted: Sequence[tuple[float, str]], number: int) -> list[Moment]:
    """So many moments, by turns over the phases, in each spread evenly over the time that an undisturbed run spent in it."""
    shares = {phase: number // len(PHASES) + (place < number % len(PHASES)) for place, phase in enumerate(PHASES)}
    chosen = []
    for phase, share in shares.items():
        entries = [(start, end - start) for (start, name), (end, _) in pairwise(noted) if name == phase]
        total = sum(length for _, length in entries)
        for place in range(share):
            left = total * (place + 0.5) / share
            for entry, (_, length) in enumerate(entries):
                if left <= length:
                    chosen.append(Moment(phase, entry, LATE * left))
                    break
                left -= length
    return chosen


def check_kill(job: Job, moment: Moment, undisturbed: Ran) -> str:
    """Kill a run and run it again: nothing bad is left, the record is the undisturbed one's. Returns the phase that was hit."""
    phase = job.kill_at(moment)
    if job.record.exists():
        json.loads(job.record.read_text())
    bad, kept = verify(job.cache) if job.cache.is_dir() else ([], 0)
    assert bad == [], (moment, phase)
    again = job.run()
    assert "warning" not in again.out, again.out
    assert again.judged == undisturbed.judged, (moment, phase)
    assert again.recorded < undisturbed.recorded if kept else again.recorded == undisturbed.recorded, (moment, phase)
    prune(job.cache)
    assert not contents(job.cache).temporary
    assert not list(job.folder.glob(".record*"))
    return phase
