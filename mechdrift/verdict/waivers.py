"""Waivers: a row that may fail until a day, with the one who answers for it."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mechdrift.errors import InputError

KEYS = ("owner", "reason", "expires")


@dataclass(frozen=True)
class Waiver:
    """Leave for a row not to hold."""

    owner: str
    """Who answers for it."""
    reason: str
    """Why it may."""
    expires: date
    """The last day on which it counts."""

    def expired(self, today: date) -> bool:
        """Whether that day is over."""
        return today > self.expires

    def to_dict(self, today: date) -> dict[str, Any]:
        """As a row has it."""
        return {
            "owner": self.owner,
            "reason": self.reason,
            "expires": self.expires.isoformat(),
            "expired": self.expired(today),
        }


def parse_waiver(where: str, given: Any) -> Waiver:
    """A waiver of a profile. Raises InputError, beginning with `where`, for one without an owner, a reason or a day."""
    example = 'owner = "...", reason = "...", expires = 2027-01-31'
    if not isinstance(given, dict) or sorted(given) != sorted(KEYS):
        found = ", ".join(sorted(given)) if isinstance(given, dict) else repr(given)
        raise InputError(f"{where}: {found}", f"{', '.join(KEYS)}, and nothing else", f"write {example}")
    for name in ("owner", "reason"):
        if not isinstance(given[name], str) or not given[name].strip():
            raise InputError(f"{where}: {name} {given[name]!r}", "a text", f"write {example}")
    expires = given["expires"]
    if not isinstance(expires, date) or isinstance(expires, datetime):
        raise InputError(f"{where}: expires {expires!r}", "a day without quotes, as TOML has it", f"write {example}")
    return Waiver(given["owner"], given["reason"], expires)
