"""A row: one finding's number with its limit, role and verdict, as a run has it, a record stores it and a page shows it.

The JSON schema of records is generated from these types (`report/schema.py`), with their descriptions. What is not a number is
None: JSON has no NaN.
"""

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from mechdrift.findings.drift import Better, CellMap, Item, SitePoint
from mechdrift.stats import CONFIDENCE
from mechdrift.verdict.limits import Limit, Role

Verdict = Literal["held", "drifted", "undecided", "unmeasurable", "error", "reported"]
Status = Literal["no worse", "worse", "incomparable", "lost", "new"]
Number = float | None
Names = Annotated[list[str], Meta(min_length=2, max_length=2)]
"""Of two checkpoints, the earlier first."""
BETWEEN = ["base", "post"]


def described(what: str) -> Meta:
    """A description in the schema."""
    return Meta(description=what)


class Measured(NamedTuple):
    """An estimate with its 90% interval."""

    estimate: float
    low: float
    high: float


class Key(Struct, frozen=True, kw_only=True):
    """What a row is matched by."""

    measure: str
    site_rule: str | None
    data: str | None
    parameters: dict[str, Any]


class Range(Struct, frozen=True):
    """Two ends."""

    low: Number
    high: Number


class WaiverState(Struct, frozen=True, kw_only=True):
    """Leave not to hold, on the day of the run."""

    owner: str
    reason: str
    expires: Annotated[str, Meta(description="the last day on which it counts", extra_json_schema={"format": "date"})]
    expired: bool


class Against(Struct, frozen=True, kw_only=True):
    """What a baseline has of a row."""

    name: str
    status: Status
    reason: str
    was: Number = None
    difference: Annotated[Number, described("estimate minus the stored one")] = None
    low: Number = None
    high: Number = None
    how: Annotated[Literal["paired", "independent", "exact"] | None, described("how the difference's interval was made")] = None
    tolerance: Annotated[Number, described("by how much it may be worse")] = None
    p_value: Annotated[Number, described("of `no worse than stored by more than the tolerance`")] = None


class Sibling(Struct, frozen=True, kw_only=True):
    """The absolute row beside a relative one."""

    measure: str
    evidence: Annotated[dict[str, Any], described("what interval and p-value are computed from")]
    null: Number
    unit: str
    better: Better


class OutcomeCounts(Struct, frozen=True, kw_only=True):
    """How many replies had each outcome."""

    refused: int
    complied: int
    empty: int
    gibberish: int
    unfinished: int


class Contributor(Struct, frozen=True, kw_only=True):
    """An item as the JSON of a record has it."""

    name: str
    kind: str
    base: Number
    post: Number
    contribution: Number


class MapNames(Struct, frozen=True, kw_only=True):
    """A map without its values, which lie beside the record."""

    name: str
    columns: list[str]


class ComparedRow(Struct, frozen=True, kw_only=True):
    """What two rows are compared by."""

    label: Annotated[
        str,
        described(
            "name of the row in this run: the finding, with its parameters in brackets, then the two checkpoints unless these "
            "are base and post"
        ),
    ]
    between: Annotated[
        Names,
        described(
            "names of the checkpoints that are compared, the earlier first; of two neighbours in a chain where `inputs` has "
            "stages and these are not base and post; since 1.5"
        ),
    ] = msgspec.field(default_factory=lambda: list(BETWEEN))
    finding: Annotated[str, described("name in the registry and in profiles")]
    version: Annotated[int, described("of the measure: another one gives another number for the same checkpoints; since 1.4")] = 1
    key: Annotated[Key, described("what the row is matched by in another record")]
    verdict: Verdict
    estimate: Number
    low: Number
    high: Number
    null: Annotated[Number, described("the estimate were nothing changed; null: of one model alone, without a `no change`")]
    n: Annotated[int | None, described("sampled entities; 0: exact")]
    evidence: Annotated[dict[str, Any] | None, described("what interval and p-value are computed from")]
    unit: str | None
    better: Better | None
    site: str | None

    @property
    def measured(self) -> "Measured | None":
        """Estimate and interval, where there are both."""
        if self.estimate is None or self.low is None or self.high is None:
            return None
        return Measured(self.estimate, self.low, self.high)

    @property
    def has_number(self) -> bool:
        """Whether there is an estimate with an interval."""
        return self.measured is not None


class SavedRow(ComparedRow, frozen=True, kw_only=True):
    """A row of a baseline, or what a comparison needs of one of a record."""

    origin: str = ""
    """Which of the runs it is from that the file names."""
    items: list[Item] = []
    """A baseline has no more of them than their contributions."""


class JudgedRow(ComparedRow, frozen=True, kw_only=True):
    """The whole row but for what lies beside a record."""

    claim: str
    source: str
    role: Role
    limit: Limit | None
    reason: Annotated[str, described("why, in one sentence")]
    waiver: Annotated[
        WaiverState | None, described("leave not to hold, from the profile; expired or not on the day of the run; since 1.4")
    ] = None
    baseline: Annotated[Against | None, described("what --mechdrift-baseline has of this row; since 1.4")] = None
    status: Annotated[Literal["ok", "not finite", "absent"], described("whether there is an estimate")]
    confidence: float = CONFIDENCE
    floor: Annotated[Range | None, described("what the estimate would be with no change, at this resolution")]
    note: str
    p_value: Annotated[Number, described("of `the limit is respected`")]
    needed_n: Annotated[int | None, described("entities that would decide, or support the limit")]
    post_lacks: Annotated[bool, described("post has lost what is compared, so the sibling decides; since 1.5")] = False
    fewer_left: Annotated[
        bool,
        described(
            "more than a fifth of the items fell out in post alone: what is left may have drifted and is never held; since 1.9"
        ),
    ] = False
    arms: Annotated[
        list[str] | None, described("whose an item's two values are, in their order; null where that is not known; since 1.10")
    ] = None
    outcomes: Annotated[
        dict[str, OutcomeCounts],
        described("how many replies had each outcome, by model or arm; empty where none were made; since 1.9"),
    ] = {}
    sibling: Annotated[
        Sibling | None, described("the absolute row beside a relative one whose post lacks the effect; since 1.5")
    ] = None
    contributors: Annotated[list[Contributor], Meta(max_length=3, description="largest worsening contributions")]
    curve: Annotated[list[SitePoint], described("the measure at every site; never judged")]


class Row(JudgedRow, frozen=True, kw_only=True):
    """A row with its items and maps."""

    items: list[Item] = []
    maps: list[CellMap] = []


class StoredRow(JudgedRow, frozen=True, kw_only=True):
    """A row as the JSON of a record has it."""

    items: Annotated[
        int,
        described("number of items in the safetensors file beside the record, under LABEL/base, /post and /contribution"),
    ]
    maps: Annotated[
        list[MapNames],
        described(
            "maps over blocks and tokens; [layer, column] values in the safetensors file beside the record, under "
            "LABEL/map/NAME; since 1.3"
        ),
    ] = []
