"""Limits from null runs: the narrowest that the floor supports and that no null run came near."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from mechdrift.findings.labels import finding_of
from mechdrift.stats import CONFIDENCE, normal_quantile
from mechdrift.verdict.again import judged_again
from mechdrift.verdict.baseline import RESOLUTION
from mechdrift.verdict.decide import errors_needed
from mechdrift.verdict.limits import Limit, Profile, Rule
from mechdrift.verdict.row import StoredRow

MARGIN = 0.25
"""Of the distance: the next null run may come out a quarter worse than the worst so far, or have as much wider an interval."""
DIGITS = 2
"""Significant ones of a limit's distance, rounded up."""


@dataclass(frozen=True)
class NullRun:
    """A run of two checkpoints between which nothing that matters moved."""

    name: str
    """Of its record."""
    post: str
    """Digest of its post: runs of one post are no independent runs."""
    rows: dict[str, StoredRow]
    """By label."""


@dataclass(frozen=True)
class Calibrated:
    """What null runs say of the limit of a row, or of all rows of a finding that a profile does not name one by one."""

    label: str
    """As the profile names it."""
    was: Rule
    """Its rule in the profile."""
    null: float
    """Its value were nothing changed."""
    low: float
    """Least estimate of a null run."""
    high: float
    """Greatest estimate of a null run."""
    n: int
    """Least number of entities of a null run; 0 where nothing was sampled."""
    missing: int
    """Rows of null runs that had no number."""
    supported: float
    """Distance from no change of the narrowest limit that the widest floor supports."""
    worst: float
    """Distance from no change of the worst end of a null run's interval, on a side that is limited."""
    limit: Limit | None
    """The new limit; None where every null run was exactly no change, so that nothing is known of a floor."""

    @property
    def too_wide(self) -> str:
        """Why a drift that matters might pass by the new limit; empty where nothing says so."""
        if self.limit is None or self.was.limit is None:
            return ""
        if self.null == 1 and self.limit.at_least is not None and self.limit.at_least <= 0:
            return "too wide: the loss of everything would pass"
        before = [abs(bound - self.null) for bound in (self.was.limit.at_least, self.was.limit.at_most) if bound is not None]
        now = [abs(bound - self.null) for bound in (self.limit.at_least, self.limit.at_most) if bound is not None]
        return f"wider than {self.was.limit}, which the profile demands" if max(now) > max(before) else ""


def calibrated(
    runs: Sequence[NullRun], profile: Profile, margin: float = MARGIN, provenance: str = "", only: Collection[str] = ()
) -> list[Calibrated]:
    """A limit for everything that the profile limits, or for these rows, findings or families only, by what these runs had.

    Its distance from no change is (1 + margin) times the greater of two: what the rule refuses as finer than n supports, at the
    widest interval of a null run; and the worst end of a null run's interval. Sides are those that the profile limits. A
    quantity of one model, which has no "no change", and a limit that demands a change are left as they are.
    """
    found: dict[str, list[StoredRow]] = {}
    for run in runs:
        for label, row in run.rows.items():
            named = label if label in profile.rules else finding_of(label)
            if not only or {named, finding_of(named), named.partition(".")[0]} & set(only):
                found.setdefault(named, []).append(row)
    summary = provenance or f"calibrated: {len(runs)} null runs"
    each = (_of_row(label, rows, profile, margin, summary) for label, rows in sorted(found.items()))
    return [one for one in each if one is not None]


def _of_row(label: str, rows: Sequence[StoredRow], profile: Profile, margin: float, provenance: str) -> Calibrated | None:
    rule = profile.rule(label)
    numbers = [(row.measured, row.n or 0, row.null) for row in rows if row.measured]
    limit = rule.limit
    if limit is None or not numbers or (null := numbers[0][2]) is None:
        return None
    if any(room <= 0 for room in _distances(limit, null)):
        return None
    quantile = normal_quantile(0.5 + CONFIDENCE / 2)
    errors = [(measured.high - measured.low) / 2 / quantile if n else 0.0 for measured, n, _ in numbers]
    supported = errors_needed(profile) * max(errors)
    seen = _on_sides(limit, min(one.low for one, _, _ in numbers), max(one.high for one, _, _ in numbers), "")
    worst = max(*_distances(seen, null), 0.0)
    distance = (1 + margin) * max(supported, worst)
    new = None
    if distance > RESOLUTION:
        out, decimals = rounded_up(distance)
        new = _on_sides(limit, round(null - out, decimals), round(null + out, decimals), provenance)
    estimates = [measured.estimate for measured, _, _ in numbers]
    least = min(n for _, n, _ in numbers)
    missing = len(rows) - len(numbers)
    return Calibrated(label, rule, null, min(estimates), max(estimates), least, missing, supported, worst, new)


def _on_sides(limit: Limit, low: float, high: float, provenance: str) -> Limit:
    """These bounds, on the sides that a limit has."""
    return Limit(None if limit.at_least is None else low, None if limit.at_most is None else high, provenance)


def _distances(limit: Limit, null: float) -> list[float]:
    """From no change to each bound; negative where no change would break it."""
    low, high = limit.at_least, limit.at_most
    return [*([] if low is None else [null - low]), *([] if high is None else [high - null])]


def rounded_up(distance: float) -> tuple[float, int]:
    """A positive number of DIGITS significant digits that is not under this one, and its number of decimals."""
    decimals = DIGITS - 1 - math.floor(math.log10(distance))
    return math.ceil(distance * 10**decimals - 1e-9) / 10**decimals, decimals


def with_limits(profile: Profile, new: Sequence[Calibrated]) -> Profile:
    """The profile with the new limits, roles and tolerances as they were."""
    rules = {one.label: replace(one.was, limit=one.limit) for one in new if one.limit is not None}
    return replace(profile, rules=profile.rules | rules)


@dataclass(frozen=True)
class Alarms:
    """Gated rows that were not held though nothing had moved."""

    runs: int
    """That were counted."""
    by_row: Counter[str]
    """In how many of them each row was not held."""
    whole: int
    """In how many of them any row was not held."""


def false_alarms(runs: Sequence[NullRun], profile_for: Callable[[NullRun], Profile]) -> Alarms:
    """Count what is not held, every run judged by the profile that is meant for it."""
    by_row, whole = Counter[str](), 0
    for run in runs:
        profile = profile_for(run)
        alarms = [label for label, row in run.rows.items() if is_alarm(row, profile)]
        by_row.update(alarms)
        whole += bool(alarms)
    return Alarms(len(runs), by_row, whole)


def is_alarm(row: StoredRow, profile: Profile) -> bool:
    """Whether a row gates by the profile and is not held by it."""
    return profile.rule(row.label).role == "gate" and judged_again(row, profile).verdict != "held"


def left_out(runs: Sequence[NullRun], profile: Profile, margin: float = MARGIN, only: Collection[str] = ()) -> Alarms | None:
    """False alarms of limits calibrated without the post that is judged; None where there is one post alone."""
    posts = {run.post for run in runs}
    if len(posts) < 2:
        return None
    without = {post: [run for run in runs if run.post != post] for post in posts}
    profiles = {post: with_limits(profile, calibrated(others, profile, margin, only=only)) for post, others in without.items()}
    return false_alarms(runs, lambda run: profiles[run.post])
