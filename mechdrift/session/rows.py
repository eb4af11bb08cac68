"""Rows: one finding's drift with its limit, role and verdict."""

import math
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import msgspec

from mechdrift.checkpoints.chain import BASE_TO_POST, Between
from mechdrift.findings.drift import CellMap, Drift, Item, SitePoint
from mechdrift.findings.registry import Finding, registered
from mechdrift.verdict.again import evidence_data, sibling_of
from mechdrift.verdict.decide import decide
from mechdrift.verdict.failing import WORSE
from mechdrift.verdict.limits import Profile, Rule
from mechdrift.verdict.row import ComparedRow, Contributor, Key, OutcomeCounts, Range, Row, Verdict, WaiverState

CONTRIBUTORS = 3


@dataclass(frozen=True)
class RequestedRow:
    """What one test asks: a finding, with the parameters by which its rows differ (a kind of statements, a prompt form)."""

    finding: Finding
    """The claim."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Sorted (name, value) pairs; part of the row's key."""
    marked: Rule | None = None
    """The rule that the test itself is marked with, over the profile's."""
    between: Between = BASE_TO_POST
    """Of which two checkpoints."""

    @property
    def label(self) -> str:
        """Name of the row within a run, for example `knowledge.location[form=cloze]`, or `truth.clean_gap base -> sft`."""
        inner = ",".join(f"{name}={value}" for name, value in self.parameters)
        return self.between.label(f"{self.finding.name}[{inner}]" if inner else self.finding.name)

    def rule(self, profile: Profile) -> Rule:
        """By what the row is judged; that of a step is reported, whatever says otherwise."""
        rule = self.marked or profile.rule(self.label)
        return replace(rule, role="report") if self.between.step else rule


def judged_row(requested: RequestedRow, drift: Drift, profile: Profile) -> Row:
    """The row of a drift that was measured."""
    decision = decide(drift, profile, requested.rule(profile))
    floor = drift.floor
    measured = {
        "key": Key(
            measure=drift.measure,
            site_rule=drift.site_rule,
            data=drift.data,
            parameters=plain(drift.parameters | dict(requested.parameters)),
        ),
        "status": "ok" if math.isfinite(drift.estimate) else "not finite",
        "estimate": number(drift.estimate),
        "low": number(drift.interval.low),
        "high": number(drift.interval.high),
        "null": number(drift.null),
        "floor": Range(number(floor.low), number(floor.high)) if floor else None,
        "n": int(drift.evidence.n),
        "evidence": plain(evidence_data(drift)),
        "unit": drift.unit,
        "better": drift.better,
        "site": drift.site,
        "note": drift.note,
        "p_value": number(decision.p_value),
        "needed_n": decision.needed_n,
        "post_lacks": bool(drift.post_lacks),
        "fewer_left": bool(drift.fewer_left),
        "arms": list(drift.arms),
        "outcomes": {arm: OutcomeCounts(**counts) for arm, counts in drift.outcomes.items()},
        "sibling": sibling_of(drift),
        "contributors": _contributors(drift),
        "items": [_item(item) for item in drift.items],
        "curve": [SitePoint(one.site, number(one.estimate), number(one.low), number(one.high)) for one in drift.curve],
        "maps": [CellMap(one.name, one.columns, tuple(tuple(map(number, line)) for line in one.values)) for one in drift.maps],
    }
    return Row(
        **_head(
            requested.label,
            requested.between,
            requested.finding,
            requested.rule(profile),
            profile,
            decision.verdict,
            decision.reason,
        ),
        **measured,
    )


def _item(item: Item) -> Item:
    """Of built-in types; what is no number is NaN."""
    return Item(str(item.name), str(item.kind), float(item.base), float(item.post), float(item.contribution))


def _contributors(drift: Drift) -> list[Contributor]:
    """The items that take the estimate furthest the way that is worse; where neither is, the way it went."""
    moved = drift.estimate - (drift.null or 0.0)
    way = {"higher": -1.0, "lower": 1.0, "neither": math.copysign(1.0, moved)}[drift.better]
    worst = sorted(drift.items, key=lambda item: (-way * item.contribution, item.kind, item.name))
    return [
        Contributor(
            name=item.name,
            kind=item.kind,
            base=number(item.base),
            post=number(item.post),
            contribution=number(item.contribution),
        )
        for item in worst[:CONTRIBUTORS]
        if way * item.contribution > 0
    ]


def unmeasured_row(requested: RequestedRow, profile: Profile, verdict: Verdict, reason: str) -> Row:
    """The row of a finding that has no number: unmeasurable, or an error."""
    key = Key(measure=requested.finding.name, site_rule=None, data=None, parameters=dict(requested.parameters))
    head = _head(requested.label, requested.between, requested.finding, requested.rule(profile), profile, verdict, reason)
    return _without_number(head, key)


def forgotten_row(stored: ComparedRow, profile: Profile, baseline: str, between: Between) -> Row:
    """The row of one that a baseline has and nothing here asks for."""
    gone = Finding(stored.finding, "a finding that is not installed here", "", "", "")
    finding, rule = registered().get(stored.finding, gone), profile.rule(stored.label)
    reason = f"in baseline {baseline}, and no test asks for it"
    head = _head(between.label(stored.label), between, finding, rule, profile, "unmeasurable", reason)
    return _without_number(head, stored.key)


def _without_number(head: dict[str, Any], key: Key) -> Row:
    missing: dict[str, Any] = dict.fromkeys(
        ("estimate", "low", "high", "null", "floor", "n", "evidence", "unit", "better", "site", "p_value", "needed_n")
    )
    return Row(**head, **missing, key=key, status="absent", note="", contributors=[], curve=[])


def _head(
    label: str, between: Between, finding: Finding, rule: Rule, profile: Profile, verdict: Verdict, reason: str
) -> dict[str, Any]:
    """What every row has."""
    waiver = None if between.step else profile.waiver(label)
    return {
        "label": label,
        "between": between.names,
        "finding": finding.name,
        "version": finding.version,
        "claim": finding.claim,
        "source": finding.source,
        "role": rule.role,
        "limit": rule.limit,
        "verdict": verdict,
        "reason": reason,
        "waiver": WaiverState(**waiver.to_dict(date.today())) if waiver else None,
    }


def worse_of(one: Row, other: Row) -> Row:
    """Of two rows of one name, which two tests judge, that which is further from held, whichever came first."""
    return max(one, other, key=lambda row: (WORSE.index(row.verdict), msgspec.json.encode(row, order="sorted")))


def to_worker_data(row: Row) -> dict[str, Any]:
    """A row as built-in types, as it may leave an xdist worker."""
    data: dict[str, Any] = msgspec.to_builtins(row)
    return data


def from_worker_data(data: dict[str, Any]) -> Row:
    """The row of `to_worker_data`."""
    return msgspec.convert(data, Row)


def to_json(row: Row) -> dict[str, Any]:
    """A row as JSON data, with its items and maps."""
    return dict(plain(to_worker_data(row)))


def number(value: float | None) -> float | None:
    """A float, no numpy scalar: None for what is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def plain(value: Any) -> Any:
    """JSON data of built-in types only: numpy scalars cannot leave an xdist worker, NaN cannot enter JSON."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | str):
        return value
    return int(value) if isinstance(value, int) else number(value)
