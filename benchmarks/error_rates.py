"""How often verdicts are wrong, measured on the organisms: the tables of docs/error-rates.md.

Every run leaves its record in the folder of --runs; what is there, or was kept by --write, is not measured again: a series that
was killed goes on, and a longer one adds to a shorter one.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rates import kept
from rates.bars import Judged, bars_table, judged_anew
from rates.curves import power_picture
from rates.flips import flip_runs, flip_table
from rates.null import benign_runs, null_table, outputs, rounded_runs, write_rounded
from rates.power import power_runs, power_table
from rates.simulated import simulated_table, write_simulated
from rates.symmetry import symmetry_runs, symmetry_table, write_symmetric
from rates.tables import read

from mechdrift.errors import InputError
from mechdrift.session.many_runs import Run, has_record, records
from mechdrift.verdict.profiles import load_profile

PAGE = Path(__file__).parents[1] / "docs" / "error-rates.md"
SECTIONS = ("null", "bars", "power", "symmetries", "flips")


def main() -> None:
    """Measure what is missing of the named sections, print all of them, and write them into the page where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sections", nargs="*", choices=[[], *SECTIONS], help=f"to measure, of {', '.join(SECTIONS)}; default: all"
    )
    parser.add_argument("--runs", type=Path, default=Path("error-rates-runs"), help="folder of the records; default: %(default)s")
    parser.add_argument("--cache", default="", help="--mechdrift-cache of the runs; default: `cache` in that folder")
    parser.add_argument(
        "--retrains", type=int, default=21, help="retrains, those that turn out not benign among them; default: %(default)s"
    )
    parser.add_argument("--seeds", type=int, default=200, help="split seeds of the flips; default: %(default)s")
    parser.add_argument("--power-seeds", type=int, default=5, help="split seeds of a planted drift's point; default: %(default)s")
    parser.add_argument("--records-only", action="store_true", help="measure nothing: tables of the records that are there")
    parser.add_argument(
        "--write", action="store_true", help=f"keep what was measured in {kept.KEPT.name}, and write the tables into {PAGE.name}"
    )
    parser.add_argument(
        "--part",
        type=part_of,
        default=(1, 1),
        metavar="K/N",
        help="2/3: the second third of each list of runs; for several at once",
    )
    parser.add_argument("--again", action="store_true", help="measure again what was kept: after a change of what is measured")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options.runs.mkdir(parents=True, exist_ok=True)
    if not options.again:
        kept.unpack(options.runs)
    if not options.records_only:
        try:
            for section in options.sections or SECTIONS:
                measure(section, options)
        except InputError as error:
            parser.exit(4, f"{error}\n")
    text = {section: tables(section, options) for section in SECTIONS}
    for section, summary in text.items():
        print(f"\n## {section}\n\n{summary}")
    if options.write:
        kept.pack(options.runs)
        (PAGE.parent / "power.svg").write_text(power_picture(options.runs, options.power_seeds), encoding="utf-8")
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


def measure(section: str, options: argparse.Namespace) -> None:
    """The runs of a section that are missing, and what they need."""
    folder: Path = options.runs
    match section:
        case "null":
            run_all(benign_runs(options.retrains), options)
            for name in ("instruct", *(f"retrained@{seed}" for seed in range(options.retrains))):
                outputs(name, folder)
            write_rounded(folder)
            run_all(rounded_runs(folder), options)
        case "bars":
            write_simulated(folder)
        case "power":
            run_all(power_runs(options.power_seeds), options)
        case "symmetries":
            write_symmetric(folder)
            run_all(symmetry_runs(folder), options)
        case "flips":
            run_all(flip_runs(options.seeds), options)


def run_all(runs: Iterable[Run], options: argparse.Namespace) -> None:
    """The records of these runs, with progress and the time left."""
    cache = options.cache or str(options.runs / "cache")
    (number, parts), requested = options.part, list(runs)
    requested = requested[len(requested) * (number - 1) // parts : len(requested) * number // parts]
    missing = [run for run in requested if not has_record(options.runs / f"{run.name}.json")]
    begun, clock = [time.monotonic()], time.monotonic
    for _ in records(
        [replace(run, options=(*run.options, "--mechdrift-cache", cache)) for run in missing],
        options.runs,
        partial(say, begun, len(missing), clock),
    ):
        begun.append(clock())


def part_of(text: str) -> tuple[int, int]:
    """2/3 as two numbers."""
    number, _, parts = text.partition("/")
    if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected K/N, K from 1 to N; use 1/2 in one process and 2/2 in another")
    return int(number), int(parts)


def say(begun: list[float], runs: int, clock: Callable[[], float], run: Run) -> None:
    """What is measured now, and how long the rest takes at this pace."""
    done = len(begun) - 1
    left = f", {(runs - done) * (clock() - begun[0]) / done / 60:.0f} minutes left" if done else ""
    print(f"{done + 1} of {runs}: {run.name}{left}", file=sys.stderr, flush=True)


def tables(section: str, options: argparse.Namespace) -> str:
    """What the records in the folder say."""
    folder: Path = options.runs
    match section:
        case "null":
            return null_table(folder, options.retrains)
        case "bars":
            m, flips = load_profile("base-to-post").gated_as_shipped, [run.name for run in flip_runs(options.seeds)]
            anew = judged_anew(read(folder, flips).values(), m)
            return f"{bars_table(judged_rows(options, m))}\n\n{simulated_table(folder)}\n\n{anew}"
        case "power":
            return power_table(folder, options.power_seeds)
        case "symmetries":
            return symmetry_table(folder)
        case _:
            return flip_table(folder, options.seeds)


def judged_rows(options: argparse.Namespace, m: int) -> list[Judged]:
    """The gated rows, m of them, each with the widest standard error that it had with a retrain or between base and instruct."""
    names = [run.name for run in [*benign_runs(options.retrains), *flip_runs(options.seeds)]]
    rows = [
        row
        for record in read(options.runs, names).values()
        for row in record["rows"]
        if row["role"] == "gate" and row["evidence"]
    ]
    widest: dict[str, Judged] = {}
    for row in rows:
        judged = Judged.of_row(row, m, row["evidence"].get("standard_error") or 0.0)
        if judged.label not in widest or judged.error > widest[judged.label].error:
            widest[judged.label] = judged
    return [widest[label] for label in sorted(widest)]


def written(page: str, text: dict[str, str]) -> str:
    """The page with each section's tables between its marks."""
    for section, summary in text.items():
        begin, end = (f"<!-- error_rates.py --write: {edge} {section} -->" for edge in ("begin", "end"))
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{PAGE}: no marks of {section}")
        page = f"{before}{begin}\n\n{summary}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    main()
