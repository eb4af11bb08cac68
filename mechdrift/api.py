"""For notebooks and scripts: compare two checkpoints, and read the record of a run."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mechdrift.errors import InputError
from mechdrift.settings import OPTIONS
from mechdrift.settings.declared import words_of

if TYPE_CHECKING:
    from mechdrift.verdict.record import StoredRecord


def compare(base: str, post: str, record: str | Path | None = None, **options: Any) -> "StoredRecord":
    """Run `pytest --base BASE --post POST` in a process of its own and return its record.

    record: where the record and what lies beside it are kept; None: nowhere. options: those of the command line without their
    prefix, as `tier="smoke"`, `only=["truth", "refusal.harmful"]`, `keep_replies=True`. Raises InputError for an option that is
    not there, and for a run that left no record, with the last line that it printed.
    """
    from mechdrift.session.many_runs import Run, measured

    words: list[str] = []
    for name, value in options.items():
        if name not in OPTIONS or OPTIONS[name].short or name == "record":
            known = ", ".join(each for each, one in OPTIONS.items() if not one.short and each != "record")
            raise InputError(f"option {name!r}", f"one of {known}", "see pytest --help")
        values = value if OPTIONS[name].repeatable and not isinstance(value, str) else [value]
        for one in values if isinstance(values, Iterable) else [values]:
            words += words_of({name: one}) if one is not False else []
    with TemporaryDirectory() as folder:
        path = Path(record) if record else Path(folder) / "record.json"
        return measured(Run(path.stem, base, post, tuple(words)), path)


def load_record(path: str | Path) -> "StoredRecord":
    """The record that `--mechdrift-record` wrote, of any minor version. Raises InputError for a file that is none."""
    from mechdrift.report.whole import read_record

    return read_record(Path(path))
