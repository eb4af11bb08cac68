"""The result of a measure."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mechdrift.stats import Evidence, Interval, Normal

Better = Literal["higher", "lower", "neither"]
Number = float | None
"""What is not a number may be NaN in a measure and is None in a row."""


@dataclass(frozen=True)
class Item:
    """What one entity, or one kind of statements, adds to a drift."""

    name: str
    """The entity."""
    kind: str
    """The data set it belongs to."""
    base: float
    """Its value in the base model."""
    post: float
    """Its value in the post model."""
    contribution: float
    """Its part of (estimate - null), in the drift's unit; negative where it makes a similarity or an accuracy fall. Where there
    is no null, its part of what the estimate is short of the best there is."""


@dataclass(frozen=True)
class SitePoint:
    """One point of a curve over sites."""

    site: str
    estimate: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class CellMap:
    """A map over blocks and tokens of a prompt, for reports to draw; never judged."""

    name: str
    """Whose it is."""
    columns: tuple[str, ...]
    """Names of its tokens, in the prompt's order."""
    values: tuple[tuple[Number, ...], ...]
    """[layer][column]."""


@dataclass(frozen=True)
class Drift:
    """How far one mechanism is from where it was, with what is known about that number."""

    measure: str
    """Name of the finding's measure, as registered."""
    evidence: Evidence
    """The estimate with its interval and p-values."""
    null: float | None
    """The estimate's value were nothing changed: 1 for similarities and ratios, 0 for differences; None for a quantity of one
    model alone, which is judged whatever it was before."""
    unit: str
    """What the estimate is counted in."""
    better: Better
    """Which way is no loss; `neither` means that any move is a drift."""
    site: str
    """Where it was read."""
    site_rule: str
    """How that place was chosen; part of the row's key, the place itself is not."""
    data: str
    """What was requested."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Everything else that defines the number."""
    note: str = ""
    """What a reader should know beside it."""
    items: tuple[Item, ...] = ()
    """Contributions; none where a sum over entities has no meaning."""
    curve: tuple[SitePoint, ...] = ()
    """The same measure at every site, for the reader; never judged."""
    maps: tuple[CellMap, ...] = ()
    """What was compared, where it is a map."""
    post_lacks: bool = False
    """Post has lost what is compared, so the estimate means nothing and the sibling decides."""
    fewer_left: bool = False
    """So many items fell out in post alone that the estimate is of what is left: that may have drifted, and is never held."""
    lacking: str = ""
    """Why there is nothing to compare in the model that must have it: unmeasurable, whatever curve and note show."""
    arms: tuple[str, str] = ("base", "post")
    """Whose an item's two values are, in their order, as a report names them."""
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many replies had each outcome, by model or arm; empty where none were made."""
    sibling: "Drift | None" = None
    """The absolute row beside a relative one, where it could be measured."""

    @property
    def estimate(self) -> float:
        """The number."""
        return self.evidence.estimate

    @property
    def interval(self) -> Interval:
        """Its 90% interval."""
        return self.evidence.interval()

    @property
    def floor(self) -> Interval | None:
        """What the estimate would be with no change, at this resolution: null -+ half the interval; null, where it is exact."""
        if self.null is None:
            return None
        half = (self.interval.high - self.interval.low) / 2 if self.evidence.n else 0.0
        return Interval(self.null - half, self.null + half)

    def of_identical(self) -> "Drift":
        """The drift between a checkpoint and itself: exactly the null, by content, not by measurement.

        Without a null as measured.
        """
        if self.null is None:
            return self
        items = tuple(replace(item, contribution=0.0) for item in self.items)
        note = "identical checkpoints: exact by short cut"
        return replace(self, evidence=Normal(self.null, 0.0, self.evidence.n), note=note, items=items)
