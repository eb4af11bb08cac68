"""Mutation testing: of 200 small faults in the code that judges, planted one at a time, how many the tests notice.

A plain sample by a fixed seed, of the faults that mutation/faults.py lists. A mutant is given the tests that ran its lines, up to
BUDGET seconds of them: unit tests for half of it, then the others, then more unit tests. Of each kind those come first that run
much of the module in little time, and what few others run. A mutant of code that runs when a module is imported is given the
tests that ran any line of it. All of it happens in a clone of HEAD below .mutants/; what was run there is not run again.
"""

import argparse
import hashlib
import json
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from mutation.clone import BUDGET, TREE, WORK, Tests, prepare, trace, tried
from mutation.faults import Finder, Mutant
from scipy import stats

AREAS = {
    "verdict": ["mechdrift/verdict/*.py"],
    "stats": ["mechdrift/stats.py"],
    "rows": ["mechdrift/session/rows.py"],
    "store's key": [
        *("mechdrift/engine/store.py", "mechdrift/engine/stored_recordings.py", "mechdrift/engine/versions.py"),
        "mechdrift/checkpoints/identity.py",
    ],
    "readings": ["mechdrift/findings/*/readings.py"],
}
SAMPLE, SEED, LEAST = 200, 0, 0.9
RESULTS = WORK / "results.jsonl"


def sampled() -> tuple[list[Mutant], int]:
    """The sample, area by area, and of how many."""
    every: list[Mutant] = []
    for area, globs in AREAS.items():
        for glob in globs:
            paths = sorted(TREE.glob(glob))
            assert paths, f"{glob}: no such module"
            every += [mutant for path in paths for mutant in Finder(area, path, TREE).found]
    drawn = sorted(every, key=lambda mutant: hashlib.sha256(f"{SEED} {mutant.key}".encode()).digest())[:SAMPLE]
    return sorted(drawn, key=lambda mutant: ([*AREAS].index(mutant.area), mutant.file, mutant.line)), len(every)


def require_working(mutant: Mutant, tests: Tests) -> None:
    """Raise unless the tests of a module pass in the clone, and notice that it cannot be imported."""
    names, _ = tests.of(mutant)
    names, path, code = names[:5], TREE / mutant.file, mutant.module.code
    assert tried(code, path, names, BUDGET)[0] == "survived", f"{names} fail without a fault: see {WORK}"
    assert tried(f"{code}\nraise RuntimeError\n", path, names, BUDGET)[0] == "killed", f"{names} do not import {path}"


def known(tree: str) -> Iterator[tuple[bool, dict[str, Any]]]:
    """What came of mutants so far, the latest last, and whether it was in this tree."""
    for line in RESULTS.read_text().splitlines() if RESULTS.is_file() else ():
        row = json.loads(line)
        yield row["tree"] == tree, row


def equivalents() -> dict[tuple[str, str, str], str]:
    """Why no test can notice a fault, by file and change; none that is of no line any more."""
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["equivalent"]
    for each in listed:
        text = (TREE / each["file"]).read_text()
        assert all(line in text for line in each["was"].splitlines()), f"{each['file']} has no {each['was']!r} any more"
    return {(each["file"], each["was"], each["now"]): each["reason"] for each in listed}


def report(rows: list[dict[str, Any]], every: int) -> bool:
    """Print what came of the mutants; whether enough were killed."""
    reasons = equivalents()
    for row in rows:
        if row["outcome"] == "survived":
            reason = reasons.get((row["file"], row["was"], row["now"]))
            row["outcome"] = "equivalent" if reason else "survived"
            print(f"\n{row['outcome']}: {row['file']}:{row['line']} ({row['operator']}, {row['tests']} tests)", reason or "")
            print("\n".join(f"{sign} {line}" for sign in ("was", "now") for line in row[sign].splitlines()))
    print(f"\n{len(rows)} of {every} mutants, {sum(row['seconds'] for row in rows) / 60:.0f} minutes")
    for area in [*AREAS, ""]:
        counts = Counter(row["outcome"] for row in rows if area in ("", row["area"]))
        killed, of = counts["killed"] + counts["timed out"], counts.total() - counts["equivalent"]
        interval = stats.binomtest(killed, of).proportion_ci(method="wilson")
        print(
            f"{area or 'all':12} {killed} of {of} killed, {killed / of:.1%} [{interval.low:.1%}, {interval.high:.1%}]; "
            f"of these {counts['timed out']} timed out; {counts['survived']} survived, {counts['equivalent']} equivalent"
        )
    return killed >= LEAST * of


def main() -> None:
    """Run the mutants that have no result yet, and report all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--added",
        nargs="*",
        metavar="FILE",
        help="since the last run only tests were added, those of these files: lines are not traced again, what was killed stays "
        "killed, and what survived is run again with these tests too",
    )
    added: list[str] | None = parser.parse_args().added
    tree = prepare()
    if added is None:
        trace(tree)
    tests = Tests()
    mutants, every = sampled()
    done = {row["id"]: row for here, row in known(tree) if here or added is not None}
    again = {row["id"] for here, row in known(tree) if not here and row["outcome"] == "survived" and added}
    again -= {row["id"] for here, row in known(tree) if here}
    require_working(next(mutant for mutant in mutants if mutant.places), tests)
    rows = []
    for number, mutant in enumerate(mutants, 1):
        was, now = mutant.change
        row = done.get(mutant.id)
        if row is None or mutant.id in again:
            names, seconds = tests.of(mutant)
            first = added if added and mutant.id in again else []
            started = time.monotonic()
            outcome, by = tried(mutant.code, TREE / mutant.file, [*first, *names], seconds)
            row = {"tree": tree, "id": mutant.id, "area": mutant.area, "file": mutant.file, "line": mutant.line}
            row |= {"operator": mutant.operator, "was": was, "now": now, "outcome": outcome, "by": by, "tests": len(names)}
            row["seconds"] = time.monotonic() - started
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{number}/{len(mutants)} {row['seconds']:.0f} s {outcome} {mutant.file}:{mutant.line} {by}", flush=True)
        rows.append(row)
    killers = sorted({row["by"] for row in rows if row["by"].startswith("tests/") and "::" in row["by"]})
    one = mutants[0]
    outcome, by = tried(one.module.code, TREE / one.file, killers, BUDGET * 10)
    assert outcome == "survived", f"{by} fails without a fault too: what it killed lives"
    sys.exit(not report(rows, every))


if __name__ == "__main__":
    WORK.mkdir(exist_ok=True)
    with FileLock(WORK / "lock", timeout=0):  # two would plant their faults in one clone
        main()
