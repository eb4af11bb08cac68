"""The verdict rule at a known true value: how often each verdict comes out of sampling alone.

Counted kinds of evidence are summed over all samples there can be; a normal one, whose standard error is taken as known, over its
distribution. The verdicts are `decide`'s own.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from scipy import optimize, stats

from mechdrift.findings.drift import Drift
from mechdrift.stats import Normal, PairedProportions, Proportion
from mechdrift.verdict.decide import decide
from mechdrift.verdict.limits import Limit, Profile, Rule

from .tables import Record, percent, table

HELD_AT_MOST, DRIFTED_AT_LEAST = 0.05, 0.90  # bars (a) and (c)
LEAST_WEIGHT = 1e-8  # of a sample that is looked at
STEPS, REACH = 1201, 6.0  # of a normal distribution, in standard errors
CHURN = (0.0, 0.02, 0.10)  # shares of entities that change to the right and, beside the drift, as many to the wrong
Sampled = Normal | Proportion | PairedProportions
Sample = tuple[float, Sampled]


@dataclass(frozen=True)
class Judged:
    """By what a row is judged, and on how much."""

    label: str
    limit: Limit
    m: int
    """Gated rows of its profile."""
    null: float | None
    kind: str
    """Of its evidence."""
    n: int
    error: float = 0.0
    """Standard error, of normal evidence."""

    @classmethod
    def of_row(cls, row: dict[str, Any], m: int, error: float) -> "Judged":
        """A measured row of a record that has a limit; error: its standard error, where it has one."""
        evidence = row["evidence"]
        return cls(row["label"], Limit(**row["limit"]), m, row["null"], evidence["kind"], evidence["n"], error)

    @property
    def origin(self) -> float:
        """From where a drift is counted: no change; without one the best value there is, 1 or 0."""
        return self.null if self.null is not None else (1.0 if self.limit.at_least is not None else 0.0)

    @property
    def bounds(self) -> list[float]:
        """The limit's sides."""
        return [bound for bound in (self.limit.at_least, self.limit.at_most) if bound is not None]

    def samples(self, truth: float, churn: float = 0.0) -> Iterator[Sample]:
        """All evidence that may come where this is true, each with its probability."""
        match self.kind:
            case "proportion":
                for hits in range(self.n + 1):
                    yield float(stats.binom.pmf(hits, self.n, truth)), Proportion(hits, self.n)
            case "paired proportions":
                gained, lost = max(truth, 0.0) + churn, max(-truth, 0.0) + churn
                for more in range(self.n + 1):
                    first = float(stats.binom.pmf(more, self.n, gained))
                    if first > LEAST_WEIGHT:
                        rest = self.n - more
                        seconds = stats.binom.pmf(np.arange(rest + 1), rest, min(lost / (1 - gained), 1.0) if rest else 0.0)
                        for less in np.flatnonzero(first * seconds > LEAST_WEIGHT):
                            yield first * float(seconds[less]), PairedProportions(more, int(less), self.n)
            case "normal":
                points = np.linspace(-REACH, REACH, STEPS)
                weights = stats.norm.pdf(points)
                for point, weight in zip(points, weights / weights.sum(), strict=True):
                    yield float(weight), Normal(truth + float(point) * self.error, self.error, self.n)
            case _:
                raise ValueError(f"{self.kind}: nothing is sampled")

    def rates(self, truth: float, churn: float = 0.0) -> dict[str, float]:
        """Probability of each verdict where this is true."""
        found: dict[str, float] = defaultdict(float)
        for weight, evidence in self.samples(truth, churn):
            if weight > LEAST_WEIGHT:
                found[verdict(self, evidence)] += weight
        return found

    def at(self, times: float, verdict: str) -> dict[float, list[float]]:
        """Probability of a verdict where a drift of so many times the limit is true: by churn, at each side of the limit."""
        truths = [self.origin + times * (bound - self.origin) for bound in self.bounds]
        churns = CHURN if self.kind == "paired proportions" else CHURN[:1]
        found = {churn: [self.rates(truth, churn)[verdict] for truth in truths if abs(truth) + churn <= 1] for churn in churns}
        return {churn: sides for churn, sides in found.items() if sides}

    def caught(self, towards: float | None = None) -> float:
        """The least drift that drifts nine times in ten, as a true value in the row's unit; where it is exact, the limit.

        towards: where the drift goes, which tells the side of a two-sided limit.
        """
        bound = self.bounds[0] if towards is None else min(self.bounds, key=lambda side: abs(side - towards))
        if self.kind == "spread" or (self.kind == "normal" and not self.error):
            return bound
        away = 1.0 if bound > self.origin else -1.0
        # A share ends at 0 and 1, a difference of shares at -1 and 1; six and more standard errors are always enough.
        far = {"normal": bound + away * 2 * REACH * self.error, "proportion": float(away > 0)}.get(self.kind, away)
        short = partial(_short_of_bar, self)
        if short(far) > 0:
            return float("nan")
        return float(optimize.brentq(short, bound, far, xtol=1e-3 * abs(far - bound)))


@cache
def verdict(judged: Judged, evidence: Sampled) -> str:
    """What the rule says of it; the same counts come again at other true values."""
    drift = Drift(judged.label, evidence, judged.null, "", "neither", "", "", "")
    return decide(drift, Profile("", {}, judged.m), Rule("gate", judged.limit)).verdict


def judged_anew(records: Iterable[Record], m: int) -> str:
    """How many stored verdicts of gated rows are others with m gates; of shares of pairs the counts are not stored."""
    same, other, unknown = 0, [], 0
    for row in (row for record in records for row in record["rows"] if row["role"] == "gate" and row["evidence"]):
        evidence = row["evidence"]
        match evidence["kind"]:
            case "normal":
                sampled: Sampled = Normal(row["estimate"], evidence["standard_error"], evidence["n"])
            case "proportion":
                sampled = Proportion(round(row["estimate"] * evidence["n"]), evidence["n"])
            case _:
                unknown += 1
                continue
        if verdict(Judged.of_row(row, m, 0.0), sampled) == row["verdict"]:
            same += 1
        else:
            other.append(row["label"])
    summary = f"{same + len(other)} stored rows judged anew with m = {m}: {len(other)} have another verdict"
    named = f" ({', '.join(f'{label} {count}' for label, count in Counter(other).items())})" if other else ""
    return f"{summary}{named}; {unknown} are shares of pairs, of which only the estimate is stored."


def _short_of_bar(judged: Judged, truth: float) -> float:
    return DRIFTED_AT_LEAST - judged.rates(truth)["drifted"]


def bars_table(rows: Iterable[Judged]) -> str:
    """Bars (a) and (c) of every row whose evidence is sampled; those of paired shares by churn."""
    head = ["row", "evidence", "n", "standard error", "limit", "held, truth at the limit", "drifted, at twice it", "caught from"]
    lines = []
    for row in rows:
        held = max(max(sides) for sides in row.at(1.0, "held").values())
        drifted = [min(sides) for sides in row.at(2.0, "drifted").values()]
        error = f"{row.error:.4f}" if row.kind == "normal" else "-"
        summary = " / ".join(percent(each) for each in drifted)
        lines.append([row.label, row.kind, str(row.n), error, str(row.limit), percent(held), summary, f"{row.caught():.3f}"])
    return table(head, lines)
