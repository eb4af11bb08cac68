"""What a process that ran pytest left: its record is believed only where it is of that process, of those specs, and whole."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechdrift.errors import InputError
from mechdrift.report.whole import read_record
from mechdrift.session.record import NONCE
from mechdrift.settings.values import parse_post
from mechdrift.verdict.run_verdict import RunVerdict, run_verdict


@dataclass(frozen=True)
class Started:
    """One run, from the outside."""

    record: Path
    """Where its record goes."""
    base: str
    """Spec, as after --base."""
    post: str
    """Spec, as after --post."""
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    """What distinguishes its record from any other."""

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Of the process."""
        return {**inherited, NONCE: self.nonce}

    def verdict(self, code: int) -> RunVerdict:
        """The verdict of its record; an error, and why, where there is no record that speaks for this exit code."""
        why = self.why_no_record(code)
        return RunVerdict("error", why) if why else run_verdict(read_record(self.record))

    def why_no_record(self, code: int) -> str:
        """Why its record cannot be believed; empty where it can."""
        try:
            record = read_record(self.record)
        except InputError:
            return f"{'not a whole' if self.record.exists() else 'no'} record was left: nothing was measured"
        if record.run.nonce != self.nonce:
            return "the record is of another run"
        compared = [record.inputs.base.spec, *(point.spec for _, point in record.inputs.ends)]
        if compared != [self.base, parse_post(self.post)[1]]:
            return f"the record is of {' and '.join(compared)}, expected {self.base} and {self.post}"
        if record.exit_code != code:
            return f"the record says exit code {record.exit_code}, the process ended with {code}"
        return ""
