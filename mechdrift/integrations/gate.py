"""`python -m mechdrift.integrations.gate`: what gate.sh does. No exit code of pytest is believed without its record."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.files import write_whole
from mechdrift.report.no_record import VERDICT_FILE, verdict_file
from mechdrift.report.text import printable
from mechdrift.report.written import read_records, write_reports
from mechdrift.session.own_record import Started
from mechdrift.verdict.run_verdict import NOTHING_GATED, RunVerdict

FOLDER = "mechdrift-gate"
REPORTS = {"html": "report.html", "markdown": "summary.md", "junit": "junit.xml"}
USAGE_ERROR = 4


def arguments(environment: Mapping[str, str], record: Path) -> list[str]:
    """Those of pytest; of ARGS one a line, whatever it has in it."""
    given = [f"--base={environment['BASE']}", f"--post={environment['POST']}", f"--mechdrift-record={record}"]
    for name in ("PROFILE", "TIER"):
        if value := environment.get(name):
            given.append(f"--mechdrift-{name.lower()}={value}")
    return [*given, *filter(None, environment.get("ARGS", "").split("\n"))]


def gate(environment: Mapping[str, str], folder: Path) -> tuple[RunVerdict, int]:
    """Measure, and leave record, reports and `verdict.json`; returns the verdict and the exit code.

    The code is pytest's where that is not 0. A 0 stays one for gates that held, and by leave of the user: a profile without
    gates, a waiver, --mechdrift-fail-on. Where nothing was measured, gated or compared it becomes 5. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("record.*"), *(folder / name for name in (*REPORTS.values(), VERDICT_FILE))):
        old.unlink(missing_ok=True)  # an older run's would be taken for this one's
    run, began = Started(folder / "record.json", environment["BASE"], environment["POST"]), time.time()
    command = [sys.executable, "-m", "pytest", *arguments(environment, run.record)]
    code = subprocess.run(command, env=run.environment(environment), check=False).returncode  # noqa: S603 - our own command
    believed, verdict = not run.why_no_record(code), run.verdict(code)
    if code == 0 and (verdict.verdict == "identical" or not verdict.passes):
        code = NOTHING_GATED
    if code < 0:  # ended by a signal: as a shell has it
        code = 128 - code
    data = verdict_file(run.base, run.post, began, code, verdict, believed)
    write_whole(folder / VERDICT_FILE, (json.dumps(data, indent=1) + "\n").encode())
    _write_reports(run.record if believed else folder / VERDICT_FILE, folder)
    return verdict, code


def _write_reports(source: Path, folder: Path) -> None:
    """Reports of a record, or of the hole in its place; a gate without reports has its verdict all the same."""
    try:
        for _ in write_reports(read_records([source]), {form: folder / name for form, name in REPORTS.items()}):
            pass
    except InputError as error:
        print(f"mechdrift: no report: {error}", file=sys.stderr)


def main(environment: Mapping[str, str]) -> int:
    """The gate of a pipeline's environment; prints the verdict last, and hands it to GitHub."""
    if not environment.get("BASE") or not environment.get("POST"):
        print("mechdrift: no BASE or no POST; expected a spec in both; set them in the environment", file=sys.stderr)
        return USAGE_ERROR
    folder = Path(environment.get("OUT") or FOLDER)
    verdict, code = gate(environment, folder)
    if out := environment.get("GITHUB_OUTPUT"):
        with open(out, "a", encoding="utf-8") as file:
            file.write(f"verdict={verdict.verdict}\nexit-code={code}\n")
    summary = folder / REPORTS["markdown"]
    if (steps := environment.get("GITHUB_STEP_SUMMARY")) and summary.exists():
        with open(steps, "a", encoding="utf-8") as file:
            file.write(summary.read_text(encoding="utf-8"))
    why = f": {verdict.message}" if verdict.message else ""
    print(printable(f"mechdrift: verdict {verdict.verdict}, exit code {code}{why}"), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ))
