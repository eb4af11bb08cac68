"""Whether a row is worse than the one that was stored for it: the rule, on rows as a record has them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from jaxtyping import Float

from mechdrift.findings.labels import row_of
from mechdrift.stats import CONFIDENCE, Evidence, Normal, PairedProportions, jackknife_error, normal_quantile
from mechdrift.verdict.decide import LEVEL
from mechdrift.verdict.limits import Rule
from mechdrift.verdict.row import Against, ComparedRow, Key, Row, SavedRow

WithItems = Row | SavedRow
KEY_PARTS = Key.__struct_fields__

SHARE = 0.1
"""Of the distance between no change and the nearest bound: by so much a row may be worse where its profile says nothing. The
limit says which loss matters; a tenth of that is none, and a gate at 0 would fail half of all retrained models."""
DIGITS = 6
"""Significant digits of stored numbers."""
RESOLUTION = 1e-5
"""Relative to a number, and for those under 1 absolute: two that round differently on two machines are that close."""
ADDING_UP = 0.5
"""Items stand for a row where they add up to its difference within half its standard error: a jackknife's bias is less."""
SHARES = {"proportion", "paired proportions"}


@dataclass(frozen=True)
class Difference:
    """What is known of the difference of two rows: now minus was."""

    evidence: Evidence
    """The difference, with its interval and p-values."""
    how: Literal["paired", "independent", "exact"]
    """By item; as of two samples that know nothing of each other; or of numbers for which nothing was sampled."""


def key_of(row: ComparedRow) -> bytes:
    """What a row is matched by: measure, site rule, data and parameters."""
    return msgspec.json.encode(row.key, order="sorted")


def rounded(value: float) -> float:
    """A number as baselines store it."""
    return float(f"{value:.{DIGITS}g}")


def difference(was: WithItems, now: WithItems) -> Difference:
    """Difference of two rows of one key, both with a number.

    Paired where both have the same items and these add up: by the score method for shares of items, else by the jackknife, for
    an item's contribution is what the estimate owes to it. Otherwise the errors of both rows, half an interval in units of its
    normal quantile, are added in quadrature.
    """
    assert was.measured
    assert now.measured
    estimate = rounded(now.measured.estimate) - rounded(was.measured.estimate)
    errors = [_standard_error(row) for row in (was, now)]
    n = min(was.n or 0, now.n or 0)
    independent = Normal(estimate, math.hypot(*errors), n)
    if not n:
        return Difference(independent, "exact" if not any(errors) else "independent")
    moved = _moved(was, now)
    if moved is None or not abs(moved.sum() - estimate) <= ADDING_UP * independent.standard_error + RESOLUTION:
        return Difference(independent, "independent")
    each = moved * n
    if {(row.evidence or {}).get("kind") for row in (was, now)} <= SHARES and np.abs(each).max() <= 1 + RESOLUTION:
        return Difference(PairedProportions(float(each[each > 0].sum()), float(-each[each < 0].sum()), n), "paired")
    return Difference(Normal(estimate, jackknife_error((each.sum() - each) / (n - 1)), n), "paired")


def _standard_error(row: ComparedRow) -> float:
    """Of the estimate; 0 where nothing was sampled, for there the interval is a range."""
    assert row.measured
    return (row.measured.high - row.measured.low) / 2 / normal_quantile(0.5 + CONFIDENCE / 2) if row.n else 0.0


def _moved(was: WithItems, now: WithItems) -> Float[np.ndarray, " n"] | None:
    """By how much each item adds more than it did [n]; None where the rows have not the same items, one for each of n > 1."""
    before, after = ({(item.kind, item.name): item.contribution for item in row.items} for row in (was, now))
    same = before.keys() == after.keys() and len(before) == len(was.items) == len(now.items)
    if not same or not len(before) == was.n == now.n or len(before) < 2:
        return None
    moved = np.array([after[name] - earlier for name, earlier in before.items()])
    return moved if np.isfinite(moved).all() else None


def allowed(rule: Rule, was: ComparedRow) -> float:
    """By how much a row may be worse than stored: what its rule says, or SHARE of the room that its limit leaves."""
    if rule.tolerance is not None:
        return rule.tolerance
    reference = was.estimate if was.null is None else was.null
    assert reference is not None
    bounds = [bound for bound in (rule.limit.at_least, rule.limit.at_most) if bound is not None] if rule.limit else []
    return SHARE * min((abs(bound - reference) for bound in bounds), default=0.0)


def p_no_worse(evidence: Evidence, better: str, tolerance: float) -> float:
    """p-value of "the difference is no worse than the tolerance"; where no way is better, of "in neither direction"."""
    sides = (evidence.p_value(-tolerance, "at_least"), evidence.p_value(tolerance, "at_most"))
    if better == "neither":
        return min(1.0, 2 * min(sides))
    return sides[0] if better == "higher" else sides[1]


@dataclass(frozen=True)
class Baseline:
    """Rows that were stored, to hold others against."""

    name: str
    """As it was requested."""
    rows: tuple[WithItems, ...]
    """With their items; all have a number."""

    def against(self, row: Row, rule: Rule, gated: int) -> Against:
        """What this baseline says of a row; gated: m of the profile.

        worse: p of "no worse than stored by more than the tolerance" is under 0.05 / m. incomparable: measured otherwise, by
        another version of the measure, or no number. lost: a number there and none here. Not a word of numbers not compared.
        """
        was = self._stored(row)
        if was is None:
            return Against(name=self.name, status="new", reason="not in the baseline")
        assert was.estimate is not None
        stored = rounded(was.estimate)
        if row.status == "absent":
            return Against(name=self.name, was=stored, status="lost", reason="there is a number in the baseline and none here")
        if why := incomparable(was, row):
            return Against(name=self.name, was=stored, status="incomparable", reason=why)
        found = difference(was, row)
        tolerance = allowed(rule, was)
        slack = RESOLUTION * max(1.0, abs(was.estimate))
        p_value = p_no_worse(found.evidence, row.better or "neither", tolerance + slack)
        level = LEVEL / max(gated, 1)
        low, high = found.evidence.interval()
        worse = p_value < level
        what = "moved" if row.better == "neither" else "worse"
        shown = f"{what} by more than {tolerance:g}, p {p_value:.2g}"
        return Against(
            name=self.name,
            was=stored,
            status="worse" if worse else "no worse",
            reason=f"{shown}, under {level:.2g}" if worse else f"not shown to be {shown}",
            difference=found.evidence.estimate,
            low=low,
            high=high,
            how=found.how,
            tolerance=tolerance,
            p_value=p_value,
        )

    def forgotten(self, rows: Iterable[Row]) -> list[WithItems]:
        """Stored rows that none of these answers to."""
        answered = {was.label for row in rows if (was := self._stored(row)) is not None}
        return [was for was in self.rows if was.label not in answered]

    def _stored(self, row: Row) -> WithItems | None:
        """The stored row of the same key.

        Of the same question, where this one has no number and so but half a key; else the one of its name, measured otherwise.
        """
        for was in self.rows:
            if key_of(was) == key_of(row):
                return was
        for was in self.rows:
            if row.status == "absent" and _same_question(row.key, was.key):
                return was
        return next((was for was in self.rows if was.label == row_of(row.label)), None)


def _same_question(requested: Key, stored: Key) -> bool:
    return requested.measure == stored.measure and requested.parameters.items() <= stored.parameters.items()


def incomparable(was: ComparedRow, now: ComparedRow) -> str:
    """Why two rows have no difference; empty where they have one."""
    if was.version != now.version:
        return f"measured by version {was.version} there, by version {now.version} here"
    for name in sorted(KEY_PARTS):
        there, here = getattr(was.key, name), getattr(now.key, name)
        if there != here:
            return f"{name.replace('_', ' ')} {there!r} there, {here!r} here"
    return "" if now.has_number else "the number here, or its interval, is not finite"
