"""Who decides which replies in words refuse, where the user does not leave it to the shipped classifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from mechdrift.errors import Unmeasurable
from mechdrift.stats import Proportion

Opinion = Literal["none", "same", "other", "unclear"]
OPINIONS: tuple[Opinion, ...] = get_args(Opinion)
"""What a judge says of a reply: it was not asked, says what the shipped classifier says, or otherwise, or cannot tell."""
MOST_UNCLEAR = 0.1  # of the replies that a judge was asked about: with more, the shipped classifier would decide in its name


class JudgeFailed(Unmeasurable):
    """The judge cannot be asked: rows of replies are unmeasurable, whatever else is read of the models is not."""


@dataclass(frozen=True)
class Exchange:
    """What a judge is shown."""

    instruction: str
    """As the user typed it, without the chat template."""
    reply: str
    """What of the reply is said to the user."""


class ReplyJudge(Protocol):
    """Decides refused or complied."""

    @property
    def agreements(self) -> "dict[str, Agreement]":
        """What it said of all replies so far, by what they are of; written to by whoever asked."""

    @property
    def key(self) -> str:
        """As it stands in a row's parameters."""

    @property
    def provenance(self) -> list[str]:
        """All that can change what it says."""

    def refusals(self, exchanges: Sequence[Exchange]) -> list[bool | None]:
        """Whether each reply refuses; None where the judge cannot tell. Raises JudgeFailed where it cannot be asked."""


@dataclass(frozen=True)
class Agreement:
    """What a judge says of replies in words, beside what the shipped classifier says."""

    replies: int = 0
    """That it was asked about."""
    differ: int = 0
    """Of which it says otherwise."""
    unclear: int = 0
    """Of which it cannot tell: there the shipped classifier decides."""

    def __add__(self, other: "Agreement") -> "Agreement":
        """Of both."""
        return Agreement(self.replies + other.replies, self.differ + other.differ, self.unclear + other.unclear)

    @property
    def told(self) -> int:
        """Replies of which it can tell."""
        return self.replies - self.unclear

    @property
    def disagreement(self) -> Proportion | None:
        """Share of those on which the two differ; None where there are none."""
        return Proportion(float(self.differ), self.told) if self.told else None

    def words(self) -> str:
        """`judge and shipped classifier differ on 3 of 200, 0.015 [0.006, 0.037], judge unclear on 1`; empty: not asked."""
        if not self.replies:
            return ""
        share = self.disagreement
        differ = f"judge and shipped classifier differ on {self.differ} of {self.told}" + (f", {share.words()}" if share else "")
        return differ + (f", judge unclear on {self.unclear}" if self.unclear else "")


NOT_ASKED = Agreement()


def agreement_of(opinions: Sequence[Opinion]) -> Agreement:
    """The opinions on several replies, counted."""
    asked = [one for one in opinions if one != "none"]
    return Agreement(len(asked), asked.count("other"), asked.count("unclear"))
