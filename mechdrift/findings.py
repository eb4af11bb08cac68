"""The registry of findings: ours are registered through the same entry points as anyone's."""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

GROUP = "mechdrift.findings"


@dataclass(frozen=True)
class Finding:
    """One claim of a paper that a row tests."""

    name: str
    """`family.row`: the row's measure, and its name in profiles."""
    claim: str
    """What is said to hold, in one sentence."""
    source: str
    """Paper and place."""
    measure: str
    """`module:function` that computes it."""
    needs: str
    """Which model must have the effect: base or post."""
    rows: int = 1
    """How many rows are asked of it: one for each combination of its parameters."""
    version: int = 1
    """Of the measure: raise it whenever the same checkpoints would give another number."""

    @property
    def family(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]


@cache
def registered() -> dict[str, Finding]:
    """All findings of all installed packages, by name: each entry point names a sequence of Finding."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    findings = [finding for point in points for finding in point.load()]
    by_name: dict[str, Finding] = {}
    for finding in findings:
        if finding.name in by_name:
            raise ValueError(f"two findings are named {finding.name!r}")
        by_name[finding.name] = finding
    return by_name
