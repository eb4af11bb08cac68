"""How many entities of the test split there are, and how many rows are asked."""

from mechdrift.findings.registry import registered
from mechdrift.findings.tiers import TIERS
from mechdrift.organisms.recipe.families import QWEN
from mechdrift.prompts.statements import shipped_statements
from mechdrift.settings import OPTIONS


def entities_asked(*kinds: str) -> int:
    """Of the shipped tables of these kinds, in the usual tier; of all where none is named."""
    requested = TIERS[OPTIONS["tier"].default].statements(shipped_statements())
    return len({(s.kind, s.entity) for s in requested if s.split == "test" and (not kinds or s.kind in kinds)})


KNOWN = entities_asked(*QWEN.kinds)  # to organism:base and what comes of it
ALL = entities_asked()
ROWS = sum(finding.rows for finding in registered().values())
