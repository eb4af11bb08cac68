"""`mechdrift bisect`: the first of a run's checkpoints at which a row drifted, in about log2 of their number measurements."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mechdrift.checkpoints.identity import Memory
from mechdrift.checkpoints.resolve import Resolver
from mechdrift.errors import InputError, Unmeasurable
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.report.text import interval, printable
from mechdrift.session.many_runs import Run, records
from mechdrift.verdict.row import JudgedRow

UNKNOWN = {"unmeasurable", "error"}
STEP = re.compile(r"(\d+)/?$")


@dataclass(frozen=True)
class Request:
    """What is searched."""

    row: str
    """Label of a row, from base to post."""
    base: str
    """Spec."""
    checkpoints: tuple[str, ...]
    """Specs, in the order of training."""
    runs: Path
    """Where records are kept; what is there is not measured again."""
    by_step: bool = False
    """Whether checkpoints are put in the order of the numbers at the ends of their names."""
    everything: bool = False
    """Whether all are measured, whatever the row does."""
    options: tuple[str, ...] = ()
    """Further arguments of pytest."""


@dataclass
class Search:
    """A search under way."""

    count: int
    ask: Callable[[int], JudgedRow]
    """The row of a checkpoint, by its place."""
    found: dict[int, JudgedRow] = field(default_factory=dict)
    """Rows that were measured, by place."""

    def drifted(self, place: int) -> bool | None:
        """Whether the row drifted at a checkpoint; None where it is unknown. What is undecided has not."""
        if place not in self.found:
            self.found[place] = self.ask(place)
        verdict = self.found[place].verdict
        return None if verdict in UNKNOWN else verdict == "drifted"

    def run(self, everything: bool = False) -> tuple[int, int] | None:
        """Between which two it drifted: (the last that had not, or -1 for base; the first that had). None: not at the last.

        Those in between are unknown. Raises Unmeasurable where the last cannot be.
        """
        for place in range(self.count) if everything else ():
            self.drifted(place)
        if everything and any(self.drifted(place) for place in range(self.count)):
            first = next(place for place in range(self.count) if self.drifted(place))
            return max((place for place in range(first) if self.drifted(place) is False), default=-1), first
        low, high = -1, self.count - 1
        last = self.drifted(high)
        if last is None:
            raise Unmeasurable(f"the last checkpoint: {self.found[high].reason}")
        if not last:
            return None
        while between := [
            place for place in range(low + 1, high) if place not in self.found or self.found[place].verdict not in UNKNOWN
        ]:
            middle = min(between, key=lambda place: abs(2 * place - low - high))
            match self.drifted(middle):
                case True:
                    high = middle
                case False:
                    low = middle
        return low, high

    def turns(self) -> list[tuple[int, int]]:
        """Pairs of measured checkpoints, the earlier further gone and their intervals apart: the row went back in between."""
        known = [(place, row, row.measured) for place, row in sorted(self.found.items()) if row.measured]
        if not known:
            return []
        _, last, _ = known[-1]
        least = last.limit.at_least if last.limit else None
        falling = least is not None and (last.null is None or last.null >= least)
        pairs = [(one, other) for number, one in enumerate(known) for other in known[number + 1 :]]
        return [
            (one, other)
            for (one, _, earlier), (other, _, later) in pairs
            if (earlier.high < later.low if falling else earlier.low > later.high)
        ]


def bisect(request: Request, say: Callable[[str], object]) -> None:
    """Search, and say a line for each measurement, then the answer. Raises InputError, and Unmeasurable where there is none."""
    checkpoints = ordered(request.checkpoints, request.by_step)
    label = row_of(request.row)
    resolver = Resolver(Memory(request.runs / "identities"))

    def ask(place: int) -> JudgedRow:
        run = _run(request, checkpoints[place], resolver)
        (record,) = records([run], request.runs)
        row = next((row for row in record.rows if row.label == label), None)
        if row is None:
            known = ", ".join(sorted(row.label for row in record.rows)) or "none"
            raise InputError(f"row {label!r}: not measured", f"one of {known}", "copy its label from a run's table")
        number = interval(row) if row.estimate is not None else row.reason
        say(printable(f"{checkpoints[place]}: {row.verdict} {number}"))
        return row

    search = Search(len(checkpoints), ask)
    answer = search.run(request.everything)
    for line in _summary(label, checkpoints, search, answer):
        say(line)


def _summary(label: str, checkpoints: Sequence[str], search: Search, answer: tuple[int, int] | None) -> Iterator[str]:
    requested = f"{len(search.found)} of {len(checkpoints)} checkpoints measured"
    if answer is None:
        yield printable(f"{label} has not drifted at {checkpoints[-1]}; {requested}")
    else:
        low, high = answer
        before = checkpoints[low] if low >= 0 else "base"
        first = f"at {checkpoints[high]}" if high - low == 1 else f"after {before}, at the latest at {checkpoints[high]}"
        yield printable(f"{label} drifted first {first}; it had not at {before}; {requested}")
        if unknown := [checkpoints[place] for place in range(low + 1, high)]:
            yield printable(f"not known in between: {', '.join(unknown)}")
        if back := [checkpoints[place] for place in sorted(search.found) if place > high and search.drifted(place) is False]:
            yield printable(f"and it had not drifted again at {', '.join(back)}")
    for earlier, later in search.turns()[:1]:
        yield printable(
            f"not monotone: further gone at {checkpoints[earlier]} than at {checkpoints[later]}; "
            "a drift that was undone may lie where nothing was measured: --all measures everything"
        )


def ordered(checkpoints: Sequence[str], by_step: bool) -> list[str]:
    """Checkpoints in the order of training. Raises InputError where their names say that they are not."""
    if twice := sorted({one for one in checkpoints if checkpoints.count(one) > 1}):
        raise InputError(f"{twice[0]}: given twice", "each checkpoint once", "leave one out")
    steps = {one: int(match[1]) for one in checkpoints if (match := STEP.search(one))}
    if by_step:
        if missing := [one for one in checkpoints if one not in steps]:
            raise InputError(f"--by-step: {missing[0]}", "names that end in a number", "give them in order, without --by-step")
        return sorted(checkpoints, key=steps.__getitem__)
    numbers = [steps[one] for one in checkpoints if one in steps]
    if len(numbers) == len(checkpoints) and numbers != sorted(numbers):
        raise InputError(
            f"checkpoints in the order {numbers}", "the order of training", "add --by-step: a shell sorts 1000 before 200"
        )
    return list(checkpoints)


def _run(request: Request, checkpoint: str, resolver: Resolver) -> Run:
    """What measures the row's finding at a checkpoint. A record goes by what lies under the names: both may be written again."""
    finding = finding_of(row_of(request.row))
    what = [*(resolver.resolve(spec).short for spec in (request.base, checkpoint)), finding, *request.options]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]
    name = re.sub(r"[^A-Za-z0-9@.=_+-]+", "-", checkpoint).strip("-")[-80:]
    return Run(f"{name}-{key}", request.base, checkpoint, ("--mechdrift-only", finding, *request.options))
