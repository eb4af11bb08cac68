"""`python -m mechdrift.integrations.nights`: what nightly-view.sh does. A night without a record is a hole that is seen."""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.report.no_record import VERDICT_FILE, verdict_file
from mechdrift.report.text import printable
from mechdrift.report.written import read_records, write_reports
from mechdrift.verdict.run_verdict import NOTHING_GATED, RunVerdict

NIGHT = "night-"
CANNOT = 4


def keep(tonight: Path, history: Path, stamp: str, expected: Sequence[str]) -> None:
    """Put what each pair left tonight beside its earlier nights: TONIGHT/night-PAIR/ becomes HISTORY/PAIR/STAMP.*.

    expected: pairs that must have run; those that history has are expected too. One without a record, or without anything at all,
    has a hole there.
    """
    left = {path.name.removeprefix(NIGHT): path for path in tonight.glob(f"{NIGHT}*") if path.is_dir()}
    before = {path.name for path in history.iterdir() if path.is_dir()} if history.is_dir() else set()
    for pair in sorted({*expected, *left, *before}):
        folder = history / pair
        folder.mkdir(parents=True, exist_ok=True)
        _keep_one(left.get(pair), folder, stamp)


def _keep_one(left: Path | None, folder: Path, stamp: str) -> None:
    verdict = left / VERDICT_FILE if left else None
    record = left / "record.json" if left else None
    data = json.loads(verdict.read_bytes()) if verdict and verdict.is_file() else None
    if record and record.is_file() and (data is None or data["recorded"]):
        for file in record.parent.glob("record.*"):  # with what lies beside it
            shutil.copyfile(file, folder / f"{stamp}.{file.name.removeprefix('record.')}")
        return
    if data is None:
        message = "its job left nothing" if left is None else "its job left neither a record nor a verdict"
        specs = _specs_before(folder)
        data = verdict_file(*specs, time.time(), NOTHING_GATED, RunVerdict("error", message), recorded=False)
    (folder / f"{stamp}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _specs_before(folder: Path) -> tuple[str, str]:
    """Of the night before; the pair's name where there is none."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        with suppress(InputError):
            inputs = read_records([path]).shown.record.inputs
            return inputs.base.spec, inputs.post.spec
    return "-", folder.name


def show(history: Path) -> int:
    """Draw each pair over its nights, HISTORY/PAIR.html and .md; the exit code of the worst pair, by its newest night.

    A pair that cannot be read is one line, and 4 where no other is worse.
    """
    codes = []
    for folder in sorted(path for path in history.iterdir() if path.is_dir()):
        pages = {form: history / f"{folder.name}.{end}" for form, end in (("html", "html"), ("markdown", "md"))}
        try:
            nights = read_records(sorted(folder.glob("*.json")), one_series=True)
            for line in write_reports(nights, pages):
                print(line)
            codes.append(nights.exit_code)
        except InputError as error:
            print(printable(f"mechdrift: {error}"), file=sys.stderr)
            codes.append(CANNOT)
    return min(filter(None, codes), default=0)  # 1 is a drift, or an error; 5 no record; 6, 7 milder


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep and show."""
    parser = argparse.ArgumentParser(prog="nightly-view.sh", description=__doc__)
    parser.add_argument("tonight", type=Path)
    parser.add_argument("history", type=Path)
    parser.add_argument("stamp")
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help="of the matrix: each must have left something")
    given = parser.parse_args(arguments)
    keep(given.tonight, given.history, given.stamp, given.pairs)
    code = show(given.history)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.writelines(path.read_text(encoding="utf-8") for path in sorted(given.history.glob("*.md")))
    return code


if __name__ == "__main__":
    sys.exit(main())
