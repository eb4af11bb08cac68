"""Limits and roles of rows, from a profile in TOML."""

import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mechdrift.errors import InputError
from mechdrift.findings import registered

Role = Literal["gate", "report"]
DEFAULT_PROFILE = "base-to-post"
KEYS = {"role", "at_least", "at_most", "provenance"}


@dataclass(frozen=True)
class Limit:
    """What the user demands of an estimate: a bound at one side or at both."""

    at_least: float | None
    """The estimate must not be under this."""
    at_most: float | None
    """The estimate must not be over this."""
    provenance: str
    """Where the figure comes from; `provisional` was set before anything was measured."""

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


@dataclass(frozen=True)
class Profile:
    """A named set of limits and roles."""

    name: str
    """As in its file."""
    rules: dict[str, Rule]
    """By finding."""
    gated_as_shipped: int
    """m: its number of gated rows, whatever part of them a run selects; sets the level of `drifted`."""

    def rule(self, finding: str) -> Rule:
        """The rule of a finding; one that the profile does not name is reported without a limit."""
        return self.rules.get(finding, Rule("report", None))


def profile_names() -> list[str]:
    """Names of the shipped profiles."""
    folder = files("mechdrift.suites") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    """A shipped profile by name, or one from a file that ends in .toml. Raises InputError naming the key."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise InputError(f"profile {name}: no such file", "a TOML file", "check --mechdrift-profile")
        raw = Path(name).read_bytes()
    elif name in profile_names():
        raw = (files("mechdrift.suites") / "profiles" / f"{name}.toml").read_bytes()
    else:
        raise InputError(
            f"profile {name!r}: unknown", f"one of {', '.join(profile_names())}, or FILE.toml", "check --mechdrift-profile"
        )
    try:
        rows = tomllib.loads(raw.decode())["rows"]
        rules = {finding: _rule(f"profile {name}, rows.{finding!r}", row) for finding, row in rows.items()}
    except (ValueError, KeyError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"  # a decoding error's repr holds the whole file
        raise InputError(f"profile {name}: {told}", "a table [rows.FINDING] a row", "mend the file") from error
    asked = {finding.name: finding.rows for finding in registered().values()}
    return Profile(name, rules, sum(asked.get(finding, 1) for finding, rule in rules.items() if rule.role == "gate"))


def _rule(where: str, row: dict[str, Any]) -> Rule:
    """One row of a profile."""
    if unknown := sorted(row.keys() - KEYS):
        raise InputError(f"{where}: key {unknown[0]!r}", f"only {', '.join(sorted(KEYS))}", "mend the profile")
    role = row.get("role")
    if role not in ("gate", "report"):
        raise InputError(f"{where}: role {role!r}", "gate or report", "mend the profile")
    low, high = (_bound(where, row.get(side)) for side in ("at_least", "at_most"))
    if low is None and high is None:
        if role == "gate":
            raise InputError(f"{where}: a gate without a limit", "at_least or at_most", "mend the profile")
        return Rule(role, None)
    if low is not None and high is not None and low > high:
        raise InputError(f"{where}: at_least {low:g} over at_most {high:g}", "a range", "mend the profile")
    return Rule(role, Limit(low, high, str(row.get("provenance", "user"))))


def _bound(where: str, value: Any) -> float | None:
    """A finite number or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: bound {value!r}", "a finite number", "mend the profile")
    return float(value)
