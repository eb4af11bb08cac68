"""Figures: what a family shows of its rows, as data. report/ draws them, and knows no family by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mechdrift.findings.drift import Item

if TYPE_CHECKING:
    import numpy as np


class RowData(Protocol):
    """What a figure may be made of: a row, as a record has it."""

    @property
    def label(self) -> str:
        """Its name in the run."""

    @property
    def finding(self) -> str:
        """Its finding's name."""

    @property
    def key(self) -> Any:
        """What it is matched by: an object with the parameters that define the number."""

    @property
    def estimate(self) -> float | None:
        """The number."""

    @property
    def unit(self) -> str | None:
        """What it is counted in."""

    @property
    def evidence(self) -> dict[str, Any] | None:
        """What its interval is computed from."""

    @property
    def arms(self) -> Sequence[str] | None:
        """Whose an item's two values are; None where the record does not say."""

    @property
    def outcomes(self) -> Any:
        """How many replies had each outcome, by model or arm: an object with a number for each."""


@dataclass(frozen=True)
class Shown:
    """A row with what lies beside the record."""

    row: RowData
    items: Sequence[Item] = ()


@dataclass(frozen=True)
class Matrices:
    """The numbers of every matrix of a comparison."""

    kinds: tuple[str, ...]
    """Names of columns."""
    numbers: "dict[str, np.ndarray]"
    """By name: [block, kind]"""


@dataclass(frozen=True)
class Bar:
    """One share."""

    name: str
    """Of its row."""
    what: str
    """Share of what."""
    arm: str
    share: float
    """In [0, 1]."""


@dataclass(frozen=True)
class Bars:
    """Shares, a line each."""

    title: str
    caption: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class HeatMap:
    """Numbers by block and column."""

    title: str
    columns: Sequence[str]
    values: "np.ndarray"
    """[block, column]"""


@dataclass(frozen=True)
class Scatter:
    """Each item's value in base across, in post upwards, by kind."""

    title: str
    caption: str
    what: str
    """An item is, in a word."""
    items: Sequence[Item]


Figure = Bars | HeatMap | Scatter


class Pictures:
    """What a family shows; each method may be left as it is."""

    matrices = ""
    """Suffix of the file beside a record that has the numbers of matrices; empty where there is none."""

    def of_family(self, rows: Sequence[Shown], matrices: Sequence[Matrices]) -> Iterable[Figure]:
        """Figures of all rows together; matrices: of each comparison that has some."""
        del rows, matrices
        return ()

    def of_row(self, shown: Shown) -> Iterable[Figure]:
        """Figures of one row, beside its curve and its maps, which every row has drawn."""
        del shown
        return ()

    def lines(self, rows: Sequence[RowData]) -> list[str]:
        """What is said in words under the table of rows."""
        del rows
        return []
