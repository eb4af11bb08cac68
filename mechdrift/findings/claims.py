"""A family's claims as one table: the registry's findings, the rows and the ids of their tests are derived from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import product
from typing import Any, Generic, TypeVar

from mechdrift.findings.drift import Drift
from mechdrift.findings.registry import Finding

Readings = TypeVar("Readings")
Parameters = Mapping[str, str]


def over(**values: Sequence[str]) -> tuple[Parameters, ...]:
    """Every combination of these parameters, one a row; the first varies slowest."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in product(*values.values()))


@dataclass(frozen=True)
class Claim(Generic[Readings]):
    """One claim of a paper, and how its rows are computed."""

    name: str
    """The part after the family's."""
    claim: str
    """The claim, in one sentence."""
    source: str
    """Paper and place."""
    measure: Callable[..., Drift]
    """What computes a row."""
    arguments: Callable[..., Sequence[Any]]
    """From readings and a row's parameters, by name, to the measure's arguments; raises Unmeasurable where there are none."""
    rows: Sequence[Parameters] = ({},)
    """The parameters of its rows."""
    needs: str = "base"
    """Which model must have the effect: base or post."""
    version: int = 1
    """Of the measure: raise it whenever the same checkpoints would give another number."""


@dataclass(frozen=True)
class ClaimedRow(Generic[Readings]):
    """One row of a family."""

    finding: str
    """`family.name`."""
    parameters: Parameters
    """By which it differs from the finding's other rows."""
    drift: Callable[[Readings], Drift]
    """Computes it. Raises Unmeasurable."""

    @property
    def id(self) -> str:
        """For the test that asks it: `location-cloze`."""
        return "-".join([self.finding.partition(".")[2], *self.parameters.values()])


@dataclass(frozen=True)
class Family(Generic[Readings]):
    """The claims of one room."""

    name: str
    """Of the family."""
    claims: Sequence[Claim[Readings]]
    """Its table."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """As the registry has them."""
        return tuple(
            Finding(
                f"{self.name}.{one.name}",
                one.claim,
                one.source,
                f"{one.measure.__module__}:{one.measure.__qualname__}",
                one.needs,
                len(one.rows),
                one.version,
            )
            for one in self.claims
        )

    @property
    def rows(self) -> list[ClaimedRow[Readings]]:
        """All rows, in the order of the table."""
        return [
            ClaimedRow(f"{self.name}.{claim.name}", parameters, _row(claim, parameters))
            for claim in self.claims
            for parameters in claim.rows
        ]


def _row(claim: Claim[Readings], parameters: Parameters) -> Callable[[Readings], Drift]:
    @wraps(claim.measure)
    def drift(readings: Readings) -> Drift:
        return claim.measure(*claim.arguments(readings, **parameters))

    return drift
