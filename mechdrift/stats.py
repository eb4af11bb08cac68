"""Intervals and one-sided p-values for the quantities that measures return.

An evidence object is what is known about one estimate. It gives the estimate, an interval at any confidence, and the
p-value of "the true value is at least (at most) this bound", so that a verdict never has to know where it came from.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special

CONFIDENCE = 0.90
Side = Literal["at_least", "at_most"]


class Interval(NamedTuple):
    """A closed interval."""

    low: float
    high: float


class Worded:
    """What every kind of evidence can say of itself."""

    def words(self: "Evidence", digits: int = 3) -> str:
        """`0.975 [0.974, 0.977]`: the estimate with its 90% interval."""
        low, high = self.interval()
        return f"{self.estimate:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@runtime_checkable
class Evidence(Protocol):
    """What is known about one estimated quantity."""

    kind: ClassVar[str]

    @property
    def estimate(self) -> float:
        """The point estimate."""

    @property
    def n(self) -> int:
        """Number of sampled entities; 0 where nothing was sampled."""

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Two-sided interval at this confidence."""

    def p_value(self, bound: float, side: Side) -> float:
        """p-value of the hypothesis that the true value is at least (at most) the bound."""

    def words(self, digits: int = 3) -> str:
        """Estimate and 90% interval, as `0.975 [0.974, 0.977]`."""

    def __hash__(self) -> int:
        """All kinds are frozen."""


@dataclass(frozen=True)
class Normal(Worded):
    """An estimate with a standard error, normal by the central limit theorem; a standard error of 0 is exact."""

    estimate: float
    standard_error: float
    n: int
    kind: ClassVar[str] = "normal"

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Estimate -+ z standard errors; not clipped."""
        half = normal_quantile(0.5 + confidence / 2) * self.standard_error
        return Interval(self.estimate - half, self.estimate + half)

    def p_value(self, bound: float, side: Side) -> float:
        """One-sided z test."""
        excess = self.estimate - bound if side == "at_least" else bound - self.estimate
        if self.standard_error == 0.0:
            return 1.0 if excess >= 0 else 0.0
        return float(special.ndtr(excess / self.standard_error))


@dataclass(frozen=True)
class PairedProportions(Worded):
    """Difference of two proportions read on the same entities, in [-1, 1]: post minus base.

    Counts are sums over entities of the share of the entity's statements; they may be fractions. The interval then treats
    the statements of one entity as perfectly correlated, which is conservative. Score test and interval of Tango (1998),
    Statistics in Medicine 17:891: unlike a bootstrap it keeps its width when no pair disagrees.
    """

    gained: float
    lost: float
    n: int
    kind: ClassVar[str] = "paired proportions"

    @property
    def estimate(self) -> float:
        """Share right in post alone minus share right in base alone."""
        return (self.gained - self.lost) / self.n

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The differences that the score test does not reject."""
        z = normal_quantile(0.5 + confidence / 2)
        edge = 1.0 - 1e-12

        def excess(delta: float, shift: float) -> float:
            return self._score(delta) + shift

        low = -1.0 if self.estimate <= -edge else optimize.brentq(excess, -edge, self.estimate, args=(-z,))
        high = 1.0 if self.estimate >= edge else optimize.brentq(excess, self.estimate, edge, args=(z,))
        return Interval(float(low), float(high))

    def p_value(self, bound: float, side: Side) -> float:
        """One-sided score test; a bound that no difference can break has p-value 1."""
        if abs(bound) >= 1.0:
            trivial = bound <= -1.0 if side == "at_least" else bound >= 1.0
            return 1.0 if trivial else 0.0
        score = self._score(bound)
        return float(special.ndtr(score if side == "at_least" else -score))

    def _score(self, delta: float) -> float:
        """Tango's statistic: the observed minus the supposed difference, over its error at that difference."""
        b, c, n = self.gained, self.lost, self.n
        linear = -b - c + (2 * n - b + c) * delta
        constant = -c * delta * (1 - delta)
        # Most likely share of pairs right in base alone, were delta the true difference.
        share = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        difference = b - c - n * delta
        if variance <= 0.0:
            return 0.0 if difference == 0.0 else math.copysign(math.inf, difference)
        return float(difference / math.sqrt(variance))


@dataclass(frozen=True)
class Proportion(Worded):
    """A proportion, in [0, 1], with Wilson's score interval; successes may be a sum of shares over entities."""

    successes: float
    n: int
    kind: ClassVar[str] = "proportion"

    @property
    def estimate(self) -> float:
        """Share of successes."""
        return self.successes / self.n

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Wilson (1927)."""
        z = normal_quantile(0.5 + confidence / 2)
        centre = (self.successes + z * z / 2) / (self.n + z * z)
        half = z / (self.n + z * z) * math.sqrt(max(self.successes * (1 - self.estimate), 0.0) + z * z / 4)
        # At no and at all successes an end is the estimate itself, but for rounding.
        return Interval(min(max(centre - half, 0.0), self.estimate), max(min(centre + half, 1.0), self.estimate))

    def p_value(self, bound: float, side: Side) -> float:
        """The one-sided score test that Wilson's interval inverts."""
        excess = self.estimate - bound if side == "at_least" else bound - self.estimate
        error = math.sqrt(bound * (1 - bound) / self.n) if 0.0 < bound < 1.0 else 0.0
        if error == 0.0:
            return 1.0 if excess >= 0 else 0.0
        return float(special.ndtr(excess / error))


@dataclass(frozen=True)
class PartlyKnown(Worded):
    """A share, or a difference of two, some of whose items have no known outcome: it lies between two that count them either way.

    Unknown items speak for nothing: the interval reaches from the low end of the least to the high end of the most, and a bound
    is broken only where the more favourable of the two breaks it.
    """

    known: float
    """The estimate where an unknown outcome counts as none."""
    least: Proportion | PairedProportions
    """As if every unknown outcome made it smaller."""
    most: Proportion | PairedProportions
    """As if every one made it larger."""
    unknown: int
    """Items without a known outcome."""
    why: str
    """What these are, in words: `replies are unfinished`."""
    kind: ClassVar[str] = "partly known"

    @property
    def estimate(self) -> float:
        """What is known."""
        return self.known

    @property
    def n(self) -> int:
        """All items."""
        return self.least.n

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """From the low end of the least to the high end of the most."""
        return Interval(self.least.interval(confidence).low, self.most.interval(confidence).high)

    def p_value(self, bound: float, side: Side) -> float:
        """That of the extreme which breaks the bound less."""
        return (self.most if side == "at_least" else self.least).p_value(bound, side)


@dataclass(frozen=True)
class Spread(Worded):
    """The median of parts that are all there, such as the blocks of a model: exact, for nothing was sampled.

    In the place of an interval stands the range of the parts, without as many at either end as the confidence leaves out: of
    fewer than 20 parts none at 90%. The median respects a bound or does not: p is 1 or 0.
    """

    values: tuple[float, ...]
    n: int = 0
    """None was sampled."""
    kind: ClassVar[str] = "spread"

    @property
    def estimate(self) -> float:
        """The median; NaN of none."""
        return float(np.median(self.values)) if self.values else math.nan

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """The range of the middle parts."""
        ordered = sorted(self.values)
        out = int(len(ordered) * (1 - confidence) / 2 + 1e-9)
        return Interval(ordered[out], ordered[len(ordered) - 1 - out])

    def p_value(self, bound: float, side: Side) -> float:
        """1 where the median respects the bound, else 0."""
        return 1.0 if (self.estimate >= bound if side == "at_least" else self.estimate <= bound) else 0.0


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    return float(special.ndtri(probability))


def jackknife_error(left_out: Float[np.ndarray, " n"]) -> float:
    """Standard error from the n estimates that leave one entity out each."""
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))


@dataclass(frozen=True)
class Jackknifed:
    """An estimate with those that leave one entity out each: differences and ratios of such estimates are such estimates."""

    estimate: float
    """Of all entities."""
    left_out: Float[np.ndarray, " n"]
    """Without each of them."""

    @classmethod
    def mean(cls, values: Float[np.ndarray, " n"]) -> "Jackknifed":
        """The mean over entities."""
        return cls(float(values.mean()), (values.sum() - values) / (len(values) - 1))

    def __sub__(self, other: "Jackknifed") -> "Jackknifed":
        """Difference of two estimates on the same entities."""
        return Jackknifed(self.estimate - other.estimate, self.left_out - other.left_out)

    def __truediv__(self, other: "Jackknifed") -> "Jackknifed":
        """Ratio of two estimates on the same entities."""
        return Jackknifed(self.estimate / other.estimate, self.left_out / other.left_out)

    def times(self, factor: float) -> "Jackknifed":
        """Multiplied by a constant."""
        return Jackknifed(self.estimate * factor, self.left_out * factor)

    def evidence(self) -> Normal:
        """With its standard error."""
        return Normal(self.estimate, jackknife_error(self.left_out), len(self.left_out))


def ratio_of_means(above: Float[np.ndarray, " n"], below: Float[np.ndarray, " n"]) -> Normal:
    """mean(above) / mean(below) over entities, with the delete-one jackknife."""
    return (Jackknifed.mean(above) / Jackknifed.mean(below)).evidence()


@dataclass(frozen=True)
class Similarity:
    """Similarity of two mean vectors across disjoint entities."""

    evidence: Normal
    """Estimate (may exceed 1) and jackknife error."""
    plug_in: float
    """Cosine of the two means on the same entities; shares their noise, so it is shown and never judged."""
    strength: tuple[float, float]
    """U / standard error of each vector's squared length: under 3 there is no direction to compare."""
    influence: Float[np.ndarray, " n"]
    """What each entity adds to the estimate; sums to about the estimate."""


def _products(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], apart: Bool[np.ndarray, "n n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """U(x, y), the mean of x_e . y_f over pairs (e, f) that are apart, and the same with each entity left out."""
    products = np.where(apart, x @ y.T, 0.0)
    total, pairs = products.sum(), apart.sum()
    left_out = total - products.sum(0) - products.sum(1)
    pairs_left = pairs - apart.sum(0) - apart.sum(1)
    return float(total / pairs), left_out / pairs_left


def cross_fitted_similarity(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], apart: Bool[np.ndarray, "n n"] | None = None
) -> Similarity:
    """Cosine between the means of x and of y as if each were estimated on entities of its own.

    U(x, y) / sqrt(U(x, x) U(y, y)) with U(x, y) the mean of x_e . y_f over pairs of different entities, the closed form of
    all disjoint splits: noise that both share on the same entity drops out. apart (symmetric, False on its diagonal) leaves
    out further pairs that are not independent; by default all different entities are. Interval by the delete-one-entity
    jackknife. The estimate is NaN when a length is not positive: look at `strength` first. Raises ValueError where fewer
    than 4 entities, or no pairs, are left.
    """
    apart = ~np.eye(len(x), dtype=bool) if apart is None else apart
    if len(x) < 4 or (apart.sum() - 2 * apart.sum(0)).min() <= 0:
        raise ValueError(f"{len(x)} entities, {int(apart.sum()) // 2} independent pairs: too few for a jackknife")
    (xy, xy_out), (xx, xx_out), (yy, yy_out) = _products(x, y, apart), _products(x, x, apart), _products(y, y, apart)
    strength = tuple(
        value / error if (error := jackknife_error(out)) > 0 else math.inf for value, out in ((xx, xx_out), (yy, yy_out))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = float(xy / np.sqrt(xx * yy))
        left_out = xy_out / np.sqrt(xx_out * yy_out)
    mean_x, mean_y = x.mean(0), y.mean(0)
    plug_in = float(mean_x @ mean_y / np.linalg.norm(mean_x) / np.linalg.norm(mean_y))
    n = len(x)
    influence = (n * estimate - (n - 1) * left_out) / n
    return Similarity(Normal(estimate, jackknife_error(left_out), n), plug_in, (strength[0], strength[1]), influence)


def cross_fitted_slope(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"]) -> tuple[Normal, Float[np.ndarray, " n"]]:
    """Least-squares slope of the mean of x on the mean of y, without intercept, as if each were estimated on entities of its own.

    U(x, y) / U(y, y), see cross_fitted_similarity: the noise of y, which x may share, neither flattens nor steepens it. Also
    returns the estimates that leave one entity out each, so that two slopes can be told apart. Raises ValueError under 4
    entities.
    """
    if len(x) < 4:
        raise ValueError(f"{len(x)} entities: too few for a jackknife")
    apart = ~np.eye(len(x), dtype=bool)
    (xy, xy_out), (yy, yy_out) = _products(x, y, apart), _products(y, y, apart)
    left_out = xy_out / yy_out
    return Normal(xy / yy, jackknife_error(left_out), len(x)), left_out


def evidence_of(data: Mapping[str, Any]) -> Evidence:
    """Evidence from its fields and its kind, as a record has them, where None is no number. Raises ValueError for no kind."""
    every = (Normal, PairedProportions, Proportion, PartlyKnown, Spread)
    kinds: dict[str, Callable[..., Evidence]] = {each.kind: each for each in every}
    if data["kind"] not in kinds:
        raise ValueError(f"evidence {data['kind']!r}: expected one of {', '.join(kinds)}")

    def number(value: Any) -> Any:
        if isinstance(value, Mapping):
            return evidence_of(value)
        return math.nan if value is None else value

    fields = {
        name: tuple(map(number, value)) if isinstance(value, list) else number(value)
        for name, value in data.items()
        if name != "kind"
    }
    return kinds[data["kind"]](**fields)
