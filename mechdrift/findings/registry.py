"""The registry of findings: ours are registered through the same entry points as anyone's."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

GROUP = "mechdrift.findings"
PLANS = "mechdrift.plans"
"""By family: `module:plan`, what its readings ask at most."""
PICTURES = "mechdrift.pictures"
"""By family: `module:PICTURES`, what reports draw of it."""

NAME = re.compile(r"[a-z]\w*\.[a-z]\w*", re.ASCII)


@dataclass(frozen=True)
class Finding:
    """One claim of a paper that a row tests."""

    name: str
    """`family.row`: the row's measure, and its name in profiles."""
    claim: str
    """The claim, in one sentence."""
    source: str
    """Paper and place."""
    measure: str
    """`module:function` that computes it."""
    needs: str
    """Which model must have the effect: base or post."""
    rows: int = 1
    """How many rows it has: one for each combination of its parameters."""
    version: int = 1
    """Of the measure: raise it whenever the same checkpoints would give another number."""

    @property
    def family(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]


_own: dict[str, Finding] = {}


def register(finding: Finding) -> None:
    """Add a finding of a project's own, from its conftest.py or a test module; a package names its findings as entry points.

    Raises ValueError for a name that is not `family.row`, and for one that another finding has.
    """
    if not NAME.fullmatch(finding.name):
        raise ValueError(f"{finding.name!r} is no name of a finding: expected family.row, of letters, digits and '_'")
    if registered().get(finding.name, finding) != finding:
        raise ValueError(f"two findings are named {finding.name!r}")
    _own[finding.name] = finding


def registered() -> dict[str, Finding]:
    """All findings by name: of installed packages, each of whose entry points names a sequence of them, and the project's own."""
    return _packaged() | _own


@cache
def provided(group: str, family: str) -> Any:
    """What an installed package gives for a family, by the entry-point group PLANS or PICTURES; None where it gives nothing."""
    points = [point for point in entry_points(group=group) if point.name == family]
    if len(points) > 1:
        raise ValueError(f"{group}: two packages give {family!r}: {', '.join(sorted(point.value for point in points))}")
    return points[0].load() if points else None


@cache
def _packaged() -> dict[str, Finding]:
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    findings = [finding for point in points for finding in point.load()]
    by_name: dict[str, Finding] = {}
    for finding in findings:
        if finding.name in by_name:
            raise ValueError(f"two findings are named {finding.name!r}")
        by_name[finding.name] = finding
    return by_name
