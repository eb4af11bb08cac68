"""The verdict rule: held, drifted, undecided or unmeasurable."""

import math
from dataclasses import dataclass, replace

from mechdrift.findings.drift import Drift
from mechdrift.stats import CONFIDENCE, PartlyKnown, Side, normal_quantile
from mechdrift.verdict.limits import Limit, Profile, Rule
from mechdrift.verdict.row import Verdict

LEVEL = 0.05
MOST_UNKNOWN = 0.1  # of the items, where the rest does not decide


@dataclass(frozen=True)
class Decision:
    """A verdict with what it rests on."""

    verdict: Verdict
    """The word."""
    reason: str
    """Why, in one sentence."""
    p_value: float | None = None
    """Of "the limit is respected"; None where there is no limit."""
    needed_n: int | None = None
    """Entities that would decide an undecided row, or support a refused limit, at this spread."""


def decide(drift: Drift, profile: Profile, rule: Rule | None = None) -> Decision:
    """Judge a drift by a rule, or else by its profile's for the finding.

    held: the 90% interval lies wholly inside the limit. drifted: p of "the limit is respected" is under 0.05 / m, m the gated
    rows of the profile as shipped. unmeasurable: not a number; or too many outcomes are unknown for the rest to decide; or no
    change is in the interval, and the limit closer to it than this n can support: (1.645 + z(1 - .05/2m)) standard errors.
    Otherwise undecided. No row's verdict depends on another row, but for one whose object post has lost, which drifted if its
    absolute sibling did. Where so many items fell out in post alone that the rest is a selection, that may have drifted and is
    never held: by the loss of items it is not judged, for the sibling is, and what moves may lose fewer items on its way.
    """
    limit, m = (rule or profile.rule(drift.measure)).limit, max(profile.gated_as_shipped, 1)
    if drift.lacking:
        return Decision("unmeasurable", drift.lacking)
    if drift.post_lacks:
        if drift.sibling is None:
            return Decision("undecided", "post has too little left to compare, and no absolute row says whether that is a loss")
        absolute = decide(drift.sibling, profile)
        verdict: Verdict = "drifted" if absolute.verdict == "drifted" else "undecided"
        summary = f"{drift.sibling.measure}, which tells a loss, is {absolute.verdict}: {absolute.reason}"
        return Decision(
            verdict,
            f"post has too little left to compare; {summary}",
            absolute.p_value,
            None if verdict == "drifted" else absolute.needed_n,
        )
    if drift.fewer_left:
        rest = decide(replace(drift, fewer_left=False), profile, rule)
        if rest.verdict in ("drifted", "unmeasurable", "reported"):
            return rest
        loss = ""
        if drift.sibling:
            loss = f"; {drift.sibling.measure}, which tells the loss, is {decide(drift.sibling, profile).verdict}"
        return Decision("undecided", f"more than a fifth of the items fell out in post alone{loss}", rest.p_value)
    if why := _no_number(drift):
        return Decision("unmeasurable", why)
    if limit is None:
        return Decision("reported", "no limit")
    bounds = [bound for _, bound in _bounds(limit)]
    if not bounds or not all(map(math.isfinite, bounds)):
        return Decision("unmeasurable", f"limit {limit} is no number")
    p_value = _p_respected(drift, limit)
    if p_value < LEVEL / m:
        return Decision("drifted", f"p of a respected limit {p_value:.2g}, under {LEVEL / m:.2g}", p_value)
    supports = errors_needed(profile)
    room = _room(drift.null, limit) if drift.null is not None else 0.0
    error = _standard_error(drift)
    low, high = drift.interval
    inside = low >= _or(limit.at_least, -math.inf) and high <= _or(limit.at_most, math.inf)
    if not inside and isinstance(drift.evidence, PartlyKnown) and drift.evidence.unknown > MOST_UNKNOWN * drift.evidence.n:
        unknown = f"{drift.evidence.unknown} of {drift.evidence.n} {drift.evidence.why}"
        return Decision("unmeasurable", f"{unknown}: too many to tell", p_value)
    # A limit at or beyond no change demands a change: there is no room that n would have to support. Nor without a null, nor
    # where no change is ruled out: a change that is seen can be judged, however fine the limit.
    if 0 < room < supports * error and drift.null is not None and low <= drift.null <= high:
        needed = _scaled(drift, (supports * error / room) ** 2)
        at_this = f"limit {limit} is {room / error:.1f} standard errors from no change, {supports:.1f} needed"
        return Decision("unmeasurable", f"{at_this}{f'; n = {needed} would do' if needed else ''}", p_value, needed)
    if inside:
        return Decision("held", "the interval lies inside the limit", p_value)
    needed = _deciding_n(drift, limit, m)
    more = f"; about {max(needed - drift.evidence.n, 1)} more would decide" if needed else ""
    return Decision("undecided", f"the interval crosses the limit, the evidence against it is not enough{more}", p_value, needed)


def errors_needed(profile: Profile) -> float:
    """Standard errors that must lie between no change and a limit for it to be judged: 1.645 + z(1 - .05/2m)."""
    m = max(profile.gated_as_shipped, 1)
    return normal_quantile(0.5 + CONFIDENCE / 2) + normal_quantile(1 - LEVEL / (2 * m))


def _no_number(drift: Drift) -> str:
    """Why there is no number to judge; empty where there is one."""
    evidence = drift.evidence
    if not math.isfinite(evidence.n) or (drift.null is not None and not math.isfinite(drift.null)):
        return f"n is {evidence.n}, no change {drift.null}"
    try:
        if not math.isfinite(evidence.estimate):
            return f"the estimate is {evidence.estimate}"
        interval = evidence.interval()
    except (ValueError, ZeroDivisionError):  # nothing was counted, or what was is no number
        return f"no estimate can be made of {evidence}"
    return "" if all(map(math.isfinite, interval)) else f"the interval is {tuple(interval)}"


def _or(bound: float | None, otherwise: float) -> float:
    return otherwise if bound is None else bound


def _bounds(limit: Limit) -> list[tuple[Side, float]]:
    """The limit's sides."""
    sides: list[tuple[Side, float | None]] = [("at_least", limit.at_least), ("at_most", limit.at_most)]
    return [(side, bound) for side, bound in sides if bound is not None]


def _p_respected(drift: Drift, limit: Limit) -> float:
    """p-value of "the limit is respected": only one side can be broken, so the smaller one."""
    return min(drift.evidence.p_value(bound, side) for side, bound in _bounds(limit))


def _standard_error(drift: Drift) -> float:
    """Half the interval's width in units of its normal quantile: for score intervals, what plays the same part.

    0 of what is exact, whose interval is a range.
    """
    if not drift.evidence.n:
        return 0.0
    low, high = drift.interval
    return (high - low) / 2 / normal_quantile(0.5 + CONFIDENCE / 2)


def _room(null: float, limit: Limit) -> float:
    """Distance between no change and the nearest bound; negative where no change would break the limit."""
    return min(null - bound if side == "at_least" else bound - null for side, bound in _bounds(limit))


def _scaled(drift: Drift, factor: float) -> int | None:
    """N times a factor, rounded up."""
    return math.ceil(drift.evidence.n * factor) if drift.evidence.n else None


def _deciding_n(drift: Drift, limit: Limit, m: int) -> int | None:
    """Entities at which this estimate would be held or drifted; None where it sits on the bound."""
    distance = min(abs(drift.estimate - bound) for _, bound in _bounds(limit))
    if distance < 1e-9:
        return None
    inside = _p_respected(drift, limit) >= 0.5
    quantile = normal_quantile(0.5 + CONFIDENCE / 2) if inside else normal_quantile(1 - LEVEL / m)
    return _scaled(drift, (quantile * _standard_error(drift) / distance) ** 2)
