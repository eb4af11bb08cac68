"""A row of a record judged again, by any profile, without measuring."""

from dataclasses import fields
from typing import Any

from mechdrift.measures.drift import Drift
from mechdrift.stats import Evidence, evidence_of
from mechdrift.verdict.decide import Decision, decide
from mechdrift.verdict.limits import Profile

Row = dict[str, Any]
JUDGED = ("null", "unit", "better")
"""What a sibling is judged by, beside its evidence."""


def evidence_told(drift: Drift) -> Row:
    """A drift's evidence as a record has it; what is no number stays one that is none."""
    return _told(drift.evidence)


def _told(evidence: Evidence) -> Row:
    """Its kind and its fields, of which some may be evidence themselves."""
    values = {field.name: getattr(evidence, field.name) for field in fields(evidence)}  # type: ignore[arg-type]
    return {"kind": evidence.kind} | {
        name: _told(value) if isinstance(value, Evidence) else value for name, value in values.items()
    }


def sibling_told(drift: Drift) -> Row | None:
    """The absolute row of a drift whose post has too little left to compare, or lost so many items; None elsewhere."""
    sibling = drift.sibling if drift.post_lacks or drift.fewer_left else None
    if sibling is None:
        return None
    return {"measure": sibling.measure, "evidence": evidence_told(sibling)} | {name: getattr(sibling, name) for name in JUDGED}


def drift_of(row: Row) -> Drift:
    """The drift of a row that has evidence, without items, curve and maps, which no verdict looks at."""
    sibling = row.get("sibling")
    key = row["key"]
    return Drift(
        measure=row["finding"],
        evidence=evidence_of(row["evidence"]),
        **{name: row[name] for name in (*JUDGED, "site", "note")},
        site_rule=key["site_rule"],
        data=key["data"],
        parameters=key["parameters"],
        post_lacks=row.get("post_lacks", False),
        fewer_left=row.get("fewer_left", False),
        sibling=sibling and _sibling(sibling),
    )


def _sibling(told: Row) -> Drift:
    judged = {name: told[name] for name in JUDGED}
    return Drift(told["measure"], evidence_of(told["evidence"]), **judged, site="", site_rule="", data="")


def judged_again(row: Row, profile: Profile) -> Decision:
    """A row's verdict under a profile, as a run would give it; what has no evidence stays what it is.

    By the profile alone: what a test was marked with is not looked at.
    """
    nothing = row.get("status", "ok") != "ok" and not row.get("post_lacks")
    if row["evidence"] is None or nothing:
        return Decision(row["verdict"], row["reason"])
    return decide(drift_of(row), profile, profile.rule(row["label"]))
