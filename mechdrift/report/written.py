"""`mechdrift report`: records in, files out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.files import write_whole
from mechdrift.report.history import step_of
from mechdrift.report.html import html
from mechdrift.report.junit import junit
from mechdrift.report.markdown import markdown
from mechdrift.report.model_card import model_card
from mechdrift.report.no_record import read_hole
from mechdrift.report.series import View, view
from mechdrift.report.text import printable
from mechdrift.report.whole import Whole, beside, read_whole

WRITERS: dict[str, tuple[Callable[[View], str], str, str]] = {
    "html": (html, "FILE.html", "one file for a browser: pictures, no script, nothing from a network"),
    "markdown": (markdown, "FILE.md", "for a pull request or a job summary: at most 30 rows, the worst first"),
    "junit": (junit, "FILE.xml", "for a CI server: a suite a record, a case a row"),
    "model-card": (model_card, "FILE.yml", "Hugging Face metadata (model-index) of the rows that held"),
}
"""By form: what renders it, how its file is called in the help, and what it is."""


def read_records(paths: Sequence[Path], by_time: bool = False, one_series: bool = False) -> View:
    """All of them, in the order given, or in that of their training steps or their runs; one_series: of one pair over time.

    The `verdict.json` of a gate that left no record is a hole in its place. Raises InputError.
    """
    records = [read_hole(path) or read_whole(path) for path in paths]
    return view(_by_time(records) if by_time else records, one_series)


def _by_time(records: Sequence[Whole]) -> list[Whole]:
    steps = {id(whole): step_of(whole) for whole in records}
    if None in steps.values():
        return sorted(records, key=lambda whole: float(whole.record.run.started))
    return sorted(records, key=lambda whole: steps[id(whole)] or 0)


def write_reports(shown: View, requested: Mapping[str, Path]) -> Iterator[str]:
    """Write each form into its file, whole or not at all; yields what was written. Raises InputError."""
    forms = " or ".join(f"--{form}" for form in WRITERS)
    if not requested:
        raise InputError("no report is requested", forms, "say where it goes, as --html report.html")
    taken = {path.resolve() for whole in shown.records for path in (whole.path, *beside(whole))}
    for form, path in requested.items():
        if path.resolve() in taken:
            raise InputError(f"--{form} {path}", "a file that is no record and no other report", "choose another name")
        taken.add(path.resolve())
    for whole in shown.records:
        yield from (printable(f"{whole.path}: not shown: {missing}") for missing in whole.missing)
    for form, path in requested.items():
        text = WRITERS[form][0](shown)
        try:
            write_whole(path, text.encode())
        except OSError as error:
            why = f"--{form} {path}: {error.strerror}"
            raise InputError(why, "a file that can be written", "choose another folder") from error
        yield printable(f"{path}: {shown.title}")
