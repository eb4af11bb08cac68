"""A row of a record judged again, by any profile, without measuring."""

from dataclasses import fields
from typing import Any

from mechdrift.findings.drift import Drift
from mechdrift.stats import Evidence, evidence_of
from mechdrift.verdict.decide import Decision, decide
from mechdrift.verdict.limits import Profile
from mechdrift.verdict.row import JudgedRow, Sibling


def evidence_data(drift: Drift) -> dict[str, Any]:
    """A drift's evidence as a record has it; what is no number stays one that is none."""
    return _to_dict(drift.evidence)


def _to_dict(evidence: Evidence) -> dict[str, Any]:
    """Its kind and its fields, of which some may be evidence themselves."""
    values = {field.name: getattr(evidence, field.name) for field in fields(evidence)}  # type: ignore[arg-type]
    return {"kind": evidence.kind} | {
        name: _to_dict(value) if isinstance(value, Evidence) else value for name, value in values.items()
    }


def sibling_of(drift: Drift) -> Sibling | None:
    """The absolute row of a drift whose post has too little left to compare, or lost so many items; None elsewhere."""
    sibling = drift.sibling if drift.post_lacks or drift.fewer_left else None
    if sibling is None:
        return None
    return Sibling(
        measure=sibling.measure,
        evidence=_to_dict(sibling.evidence),
        null=sibling.null,
        unit=sibling.unit,
        better=sibling.better,
    )


def drift_of(row: JudgedRow) -> Drift:
    """The drift of a row that has evidence, without items, curve and maps, which no verdict looks at."""
    assert row.evidence is not None
    return Drift(
        measure=row.finding,
        evidence=evidence_of(row.evidence),
        null=row.null,
        unit=row.unit or "",
        better=row.better or "neither",
        site=row.site or "",
        note=row.note,
        site_rule=row.key.site_rule or "",
        data=row.key.data or "",
        parameters=row.key.parameters,
        post_lacks=row.post_lacks,
        fewer_left=row.fewer_left,
        sibling=_sibling(row.sibling) if row.sibling else None,
    )


def _sibling(stored: Sibling) -> Drift:
    return Drift(
        stored.measure, evidence_of(stored.evidence), stored.null, stored.unit, stored.better, site="", site_rule="", data=""
    )


def judged_again(row: JudgedRow, profile: Profile) -> Decision:
    """A row's verdict under a profile, as a run would give it; what has no evidence stays what it is.

    By the profile alone: what a test was marked with is not looked at.
    """
    if row.evidence is None or (row.status != "ok" and not row.post_lacks):
        return Decision(row.verdict, row.reason)
    return decide(drift_of(row), profile, profile.rule(row.label))
