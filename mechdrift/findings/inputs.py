"""What the findings are measured on: a pair of checkpoints, the prompts of a run, and what reads one with the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar, overload

from mechdrift.checkpoints.pair import Pair
from mechdrift.engine.generate.generator import Generator
from mechdrift.engine.generate.reply_judge import ReplyJudge
from mechdrift.engine.generate.thinking import DEFAULT, Budget
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.findings.hand_set import HandSet
from mechdrift.findings.tiers import Tier
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Text
from mechdrift.prompts.written_pairs import WrittenPair

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """Everything that a family's readings are taken from. A plan gets the same, with a recorder that only counts."""

    pair: Pair
    """The two checkpoints."""
    recordings: Recorder
    """Reads checkpoints, through the store."""
    generator: Generator
    """Lets both reply to prompts, through one backend."""
    tier: Tier
    """How many items are used."""
    statements: Sequence[Statement]
    """True and false ones, split by entity."""
    pairs: Sequence[WrittenPair]
    """The user's pairs of prompts; none where the shipped tables' are asked."""
    instructions: Instructions
    """Harmful and harmless ones, split."""
    texts: Sequence[Text]
    """On which the next token is looked at."""
    hand_set: HandSet
    """Choices that the user made by hand."""
    seed: int
    """Of splits and few-shot orders."""
    must_refuse: Literal["base", "post"] = "post"
    """Which model must refuse: post, but for two that are both post-trained, of which the earlier has it to lose."""
    identity_shortcut: bool = True
    """Whether what is equal bit for bit is known to have changed by nothing, and not measured."""
    budget: Budget = DEFAULT
    """Tokens of replies."""
    reply_judge: ReplyJudge | None = None
    """The user's own judge of refusals, a classifier or an endpoint; None where the shipped classifier tells."""
    keep_replies: bool = False
    """Whether the user requested the text of replies."""

    @property
    def affirmed(self) -> list[Statement]:
        """The statements that are judged."""
        return [one for one in self.statements if not one.negated]


class once(Generic[T]):  # noqa: N801 - a decorator
    """A property that is read when it is first used. What came of that is kept, an exception as well as a value.

    A reading that cannot be taken would else be tried again by every row that is made of it.
    """

    def __init__(self, read: Callable[[Any], T]) -> None:
        """Decorate a method without arguments."""
        self._read = read
        self.__doc__ = read.__doc__

    def __set_name__(self, _owner: type, name: str) -> None:
        """Where it is kept."""
        self._key = f"_once_{name}"

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> "T | Self":
        """What was read. Raises what reading raised."""
        if instance is None:
            return self
        kept: dict[str, Any] = instance.__dict__
        if self._key not in kept:
            try:
                kept[self._key] = self._read(instance), None
            except Exception as error:
                kept[self._key] = None, error
        value, raised = kept[self._key]
        if raised is not None:
            raise raised
        return value
