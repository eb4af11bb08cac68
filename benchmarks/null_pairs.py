"""What the shipped profiles say where nothing moved, and of two pairs in which something did: the tables of docs/null-pairs.md.

It reads the records of `mechdrift calibrate --runs DIR` (null runs of organism:instruct, one of another seed of training among
them), and of runs of organism:instruct against organism:instruct-benign (`--benign`) and organism:sft against organism:instruct
(`--stage`).
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rates.tables import share, table

from mechdrift.checkpoints.resolve import resolve
from mechdrift.commands.calibrate import null_runs
from mechdrift.report.whole import read_record
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.calibrated import NullRun, calibrated, false_alarms, left_out, with_limits
from mechdrift.verdict.limits import Profile
from mechdrift.verdict.profiles import load_profile
from mechdrift.verdict.row import StoredRow

BASE, RESEEDED = "organism:instruct", "organism:instruct-reseeded"


def summary(row: StoredRow, profile: Profile) -> str:
    """Limit and verdict by a profile; `reported` where it does not gate."""
    rule = profile.rule(row.label)
    if rule.role != "gate":
        return "reported"
    return f"{rule.limit}: {judged_again(row, profile).verdict}"


def interval(row: StoredRow) -> str:
    """Four digits: gates of these profiles are fine."""
    return "no number" if row.estimate is None else f"{row.estimate:.4f} [{row.low:.4f}, {row.high:.4f}]"


def gates(rows: Iterable[StoredRow], profile: Profile) -> list[StoredRow]:
    """The rows that a profile gates."""
    return [row for row in rows if profile.rule(row.label).role == "gate"]


def verdicts(rows: Iterable[StoredRow], profile: Profile) -> str:
    """How many of each."""
    counts = Counter(str(judged_again(row, profile).verdict) for row in gates(rows, profile))
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))


def not_held(rows: Iterable[StoredRow], profile: Profile) -> str:
    """The gates that are not held."""
    found = [row for row in gates(rows, profile) if judged_again(row, profile).verdict != "held"]
    return table(
        ["row", "estimate [90% interval]", f"`{profile.name}`"],
        [[f"`{row.label}`", interval(row), summary(row, profile)] for row in found],
    )


def reseeded(runs: list[NullRun], profiles: list[Profile]) -> str:
    """Its gates by both profiles, and by limits that are made without it."""
    post = resolve(RESEEDED).digests["weights"]
    one = next(run for run in runs if run.post == post)
    release, stage = profiles
    without = with_limits(release, calibrated([run for run in runs if run.post != post], release))
    lines = [
        [f"`{row.label}`", interval(row), summary(row, release), summary(row, stage), summary(row, without)]
        for row in gates(one.rows.values(), release)
    ]
    return table(["row", "estimate [90% interval]", "`release`", "`stage`", "made without it"], lines)


def alarms(runs: list[NullRun], profiles: list[Profile]) -> str:
    """Runs in which a gate is not held, by the shipped limits and by limits made without the post that is judged."""
    lines = []
    for profile in profiles:
        shipped, made = false_alarms(runs, lambda _run, profile=profile: profile), left_out(runs, profile)  # type: ignore[misc]
        assert made
        which = "; ".join(f"{row} {times}" for row, times in sorted(made.by_row.items())) or "none"
        lines.append([f"`{profile.name}`", share(shipped.whole, shipped.runs), share(made.whole, made.runs), which])
    return table(["profile", "as shipped", "limits made without the post that is judged", "which then"], lines)


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="folder of null runs")
    parser.add_argument("--benign", type=Path, help="record")
    parser.add_argument("--stage", type=Path, help="record")
    options = parser.parse_args()
    profiles = [load_profile(name) for name in ("release", "stage")]
    runs = null_runs(options.runs, resolve(BASE))
    print(f"{len(runs)} null runs of {len({run.post for run in runs})} posts\n")
    print(f"{alarms(runs, profiles)}\n\n{reseeded(runs, profiles)}")
    for path, profile in ((options.benign, profiles[0]), (options.stage, profiles[1])):
        if path is not None:
            rows = read_record(path).rows
            print(f"\n{path.name}, {profile.name}: {verdicts(rows, profile)}\n\n{not_held(rows, profile)}")


if __name__ == "__main__":
    main()
