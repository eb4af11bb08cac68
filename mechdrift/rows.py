"""Rows: one finding's drift with its limit, role and verdict, as plain JSON data."""

import json
import math
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from mechdrift.chains import BASE_TO_POST, Between
from mechdrift.findings import Finding, registered
from mechdrift.measures.drift import Drift, Item
from mechdrift.stats import CONFIDENCE
from mechdrift.verdict.again import evidence_told, sibling_told
from mechdrift.verdict.decide import Verdict, decide
from mechdrift.verdict.failing import WORSE
from mechdrift.verdict.limits import Profile, Rule

Row = dict[str, Any]
CONTRIBUTORS = 3


@dataclass(frozen=True)
class Asked:
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


def judged_row(asked: Asked, drift: Drift, profile: Profile) -> Row:
    """The row of a drift that was measured."""
    decision = decide(drift, profile, asked.rule(profile))
    floor = drift.floor
    measured = {
        "key": {
            "measure": drift.measure,
            "site_rule": drift.site_rule,
            "data": drift.data,
            "parameters": drift.parameters | dict(asked.parameters),
        },
        "status": "ok" if math.isfinite(drift.estimate) else "not finite",
        "estimate": drift.estimate,
        "low": drift.interval.low,
        "high": drift.interval.high,
        "confidence": CONFIDENCE,
        "null": drift.null,
        "floor": {"low": floor.low, "high": floor.high} if floor else None,
        "n": drift.evidence.n,
        "evidence": evidence_told(drift),
        "unit": drift.unit,
        "better": drift.better,
        "site": drift.site,
        "note": drift.note,
        "p_value": decision.p_value,
        "needed_n": decision.needed_n,
        "post_lacks": drift.post_lacks,
        "fewer_left": drift.fewer_left,
        "outcomes": drift.outcomes,
        "sibling": sibling_told(drift),
        "contributors": [asdict(item) for item in _contributors(drift)],
        "items": [asdict(item) for item in drift.items],
        "curve": [asdict(point) for point in drift.curve],
        "maps": [asdict(each) for each in drift.maps],
    }
    head = _head(asked.label, asked.between, asked.finding, asked.rule(profile), profile, decision.verdict, decision.reason)
    return plain(head | measured)


def _contributors(drift: Drift) -> list[Item]:
    """The items that take the estimate furthest the way that is worse; where neither is, the way it went."""
    moved = drift.estimate - (drift.null or 0.0)
    way = {"higher": -1.0, "lower": 1.0, "neither": math.copysign(1.0, moved)}[drift.better]
    worst = sorted(drift.items, key=lambda item: (-way * item.contribution, item.kind, item.name))
    return [item for item in worst[:CONTRIBUTORS] if way * item.contribution > 0]


def unmeasured_row(asked: Asked, profile: Profile, verdict: Verdict, reason: str) -> Row:
    """The row of a finding that has no number: unmeasurable, or an error."""
    key: Row = {"measure": asked.finding.name, "site_rule": None, "data": None, "parameters": dict(asked.parameters)}
    head = _head(asked.label, asked.between, asked.finding, asked.rule(profile), profile, verdict, reason)
    return _without_number(head, key)


def forgotten_row(stored: Row, profile: Profile, baseline: str, between: Between) -> Row:
    """The row of one that a baseline has and nothing here asks for."""
    gone = Finding(stored["finding"], "a finding that is not installed here", "", "", "")
    finding, rule = registered().get(stored["finding"], gone), profile.rule(stored["label"])
    reason = f"in baseline {baseline}, and no test asks for it"
    head = _head(between.label(stored["label"]), between, finding, rule, profile, "unmeasurable", reason)
    return _without_number(head, stored["key"])


def _without_number(head: Row, key: Row) -> Row:
    missing = dict.fromkeys(
        ("estimate", "low", "high", "null", "floor", "n", "evidence", "unit", "better", "site", "p_value", "needed_n", "sibling")
    )
    rest: Row = {
        "status": "absent",
        "confidence": CONFIDENCE,
        "note": "",
        "post_lacks": False,
        "fewer_left": False,
        "outcomes": {},
    }
    lists: Row = {"contributors": [], "items": [], "curve": [], "maps": []}
    return plain(head | {"key": key} | rest | missing | lists)


def _head(label: str, between: Between, finding: Finding, rule: Rule, profile: Profile, verdict: Verdict, reason: str) -> Row:
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
        "limit": asdict(rule.limit) if rule.limit else None,
        "verdict": verdict,
        "reason": reason,
        "waiver": waiver.told(date.today()) if waiver else None,
        "baseline": None,
    }


def worse_of(one: Row, other: Row) -> Row:
    """Of two rows of one name, which two tests asked for, that which is further from held, whichever came first."""
    return max(one, other, key=lambda row: (WORSE.index(row["verdict"]), json.dumps(row, sort_keys=True)))


def plain(value: Any) -> Any:
    """JSON data of built-in types only: numpy scalars cannot leave an xdist worker, NaN cannot enter JSON."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
