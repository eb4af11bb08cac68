"""Limits and roles of rows."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from mechdrift.errors import InputError
from mechdrift.findings.labels import finding_of, row_of
from mechdrift.verdict.waivers import Waiver

Role = Literal["gate", "report"]
SIDES = ("at_least", "at_most")
KEYS = {"role", *SIDES, "provenance", "tolerance"}
UNCALIBRATED = "uncalibrated"
"""Provenance of a limit that nothing speaks for yet: it may be reported, and not gate."""


@dataclass(frozen=True)
class Limit:
    """What the user demands of an estimate: a bound at one side or at both."""

    at_least: float | None
    """The estimate must not be under this."""
    at_most: float | None
    """The estimate must not be over this."""
    provenance: str
    """Where the figure comes from."""

    def __str__(self) -> str:
        """For example `>= 0.8`."""
        parts = [
            f">= {self.at_least:g}" if self.at_least is not None else "",
            f"<= {self.at_most:g}" if self.at_most is not None else "",
        ]
        return " and ".join(part for part in parts if part) or "none"


@dataclass(frozen=True)
class Rule:
    """Role and limit of one finding's row."""

    role: Role
    """gate: sets the exit code; report: shown only."""
    limit: Limit | None
    """None only for reported rows."""
    tolerance: float | None = None
    """By how much the row may be worse than a baseline, in its unit; None: a share of what the limit leaves."""


@dataclass(frozen=True)
class Profile:
    """A named set of limits and roles."""

    name: str
    """As it was requested."""
    rules: dict[str, Rule]
    """By finding, or by row: `knowledge.location[form=cloze]`."""
    gated_as_shipped: int
    """m: its number of gated rows, whatever part of them a run selects; sets the level of `drifted`."""
    waivers: dict[str, Waiver] = field(default_factory=dict)
    """By finding or row."""
    both_post_trained: bool = False
    """Whether it compares two models that were post-trained: then the earlier one must have what post-training brings."""

    def rule(self, label: str) -> Rule:
        """The rule of a row, else of its finding; what the profile does not name is reported without a limit."""
        return self.rules.get(row_of(label)) or self.rules.get(finding_of(label)) or NO_RULE

    def waiver(self, label: str) -> Waiver | None:
        """The waiver of a row, else of its finding."""
        return self.waivers.get(row_of(label)) or self.waivers.get(finding_of(label))


NO_RULE = Rule("report", None)


def parse_rule(where: str, row: Any, extended: Rule = NO_RULE, provenance: str = "user") -> Rule:
    """A row of a profile: what it says, over the rule that it extends; a bound replaces the whole limit.

    Raises InputError, beginning with `where`: for a gate without a limit, with one that is no number, or with one that nothing
    speaks for.
    """
    fix = "fix it"
    if not isinstance(row, dict):
        raise InputError(f"{where}: {row!r}", f"a table of {', '.join(sorted(KEYS))}", fix)
    if unknown := sorted(row.keys() - KEYS):
        raise InputError(f"{where}: key {unknown[0]!r}", f"only {', '.join(sorted(KEYS))}", fix)
    role = row.get("role", extended.role)
    if role not in ("gate", "report"):
        raise InputError(f"{where}: role {role!r}", "gate or report", fix)
    limit = extended.limit
    if any(side in row for side in SIDES):
        low, high = (_bound(where, row.get(side)) for side in SIDES)
        if low is None and high is None:  # as a marker can say
            raise InputError(f"{where}: a limit without a bound", "at_least or at_most", fix)
        if low is not None and high is not None and low > high:
            raise InputError(f"{where}: at_least {low:g} over at_most {high:g}", "a range", fix)
        limit = Limit(low, high, str(row.get("provenance", provenance)))
    elif "provenance" in row:
        raise InputError(f"{where}: a provenance without a limit", "at_least or at_most", fix)
    if role == "gate" and limit is None:
        raise InputError(f"{where}: a gate without a limit", "at_least or at_most", fix)
    if role == "gate" and limit is not None and limit.provenance == UNCALIBRATED:
        raise InputError(f"{where}: a gate at {limit}, {UNCALIBRATED}", "role report", "fix it, or calibrate the limit")
    tolerance = _bound(where, row["tolerance"]) if "tolerance" in row else extended.tolerance
    if tolerance is not None and tolerance < 0:
        raise InputError(f"{where}: tolerance {tolerance:g}", "0 or more", fix)
    return Rule(role, limit, tolerance)


def _bound(where: str, value: Any) -> float | None:
    """A finite number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: bound {value!r}", "a finite number", "fix it")
    return float(value)
