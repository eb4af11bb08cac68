"""What a run does with baselines: which one it compares with, which it writes."""

from pathlib import Path

from msgspec.structs import replace

from mechdrift.checkpoints.chain import BASE_TO_POST, Between
from mechdrift.errors import InputError
from mechdrift.findings.labels import row_of
from mechdrift.report.origin import differences, origin_of
from mechdrift.report.record_file import to_json
from mechdrift.report.saved import FOLDER, Saved, baseline_path, read_saved, write_baseline
from mechdrift.session.rows import forgotten_row
from mechdrift.settings import Settings
from mechdrift.verdict.baseline import Baseline
from mechdrift.verdict.limits import Profile, Rule
from mechdrift.verdict.record import Record
from mechdrift.verdict.row import Row


class Baselines:
    """The baselines of one run."""

    def __init__(self, settings: Settings, project: Path, profile: Profile) -> None:
        """Read what is compared with. Raises InputError for what cannot be read, updated or written anew.

        project: the folder in which named baselines have theirs.
        """
        self._profile = profile
        self._saved: Saved | None = None
        self._baseline: Baseline | None = None
        self._update = settings.update
        self._save_to = baseline_path(settings.save, project) if settings.save else None
        if self._save_to and self._save_to.exists():
            raise InputError(
                f"--mechdrift-save {settings.save}: {FOLDER}/{self._save_to.name} is there already",
                "another name",
                f"type --mechdrift-baseline {settings.save} --mechdrift-update, or delete the file",
            )
        if settings.baseline:
            self._saved = read_saved(baseline_path(settings.baseline, project))
            rows = [row for row in self._saved.rows if row.between == BASE_TO_POST.names]
            if self._saved.rows and not rows:
                raise InputError(
                    f"--mechdrift-baseline {settings.baseline}: a record of several posts", "of one", "record one of them alone"
                )
            self._baseline = Baseline(settings.baseline, tuple(row for row in rows if row.has_number))
            if self._update and not self._saved.is_baseline:
                raise InputError(
                    f"--mechdrift-update of {settings.baseline}: a record of one run",
                    "a baseline",
                    "write one with --mechdrift-save",
                )

    def against(self, row: Row, rule: Rule) -> Row:
        """The row with what its baseline says of it."""
        if self._baseline is None:
            return row
        return replace(row, baseline=self._baseline.against(row, rule, self._profile.gated_as_shipped))

    def forgotten(self, rows: list[Row], between: Between) -> list[Row]:
        """Rows for what the baseline has and none of these answers to; between: of which two checkpoints all are."""
        if self._baseline is None:
            return []
        gone = [forgotten_row(was, self._profile, self._baseline.name, between) for was in self._baseline.forgotten(rows)]
        return [self.against(row, self._profile.rule(row.label)) for row in gone]

    def warnings(self, record: Record) -> list[str]:
        """What differs between this run and those that the baseline is from; posts are meant to."""
        if self._saved is None or self._baseline is None:
            return []
        ran = {row_of(row.label) for row in record.rows}
        used = {row.origin for row in self._saved.rows if row.label in ran}
        here = origin_of(to_json(record))
        found = [line for name in sorted(used) for line in differences(self._saved.origins[name], here, but="post")]
        return [f"baseline {self._baseline.name}: {line}" for line in dict.fromkeys(found)]

    def write(self, record: Record) -> list[str]:
        """Write what was requested; returns a line each. Raises OSError, and InputError where no row has a number."""
        lines = []
        record = replace(record, rows=[row for row in record.rows if row.between == BASE_TO_POST.names])
        for path, kept in ((self._save_to, None), (self._saved.path if self._saved and self._update else None, self._saved)):
            if path is None:
                continue
            if not any(row.has_number for row in record.rows):
                raise InputError(f"baseline {path} not written: no row has a number", "one at least", "see the table for why")
            rows = write_baseline(path, record, kept)
            lines.append(f"baseline {path}: {rows} rows {'updated; a run that updates fails' if kept else 'saved'}")
        return lines
