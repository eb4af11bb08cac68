"""`auto`: vLLM while its canaries pass; from the first that fails on transformers, for both models of a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.generator import EngineCannot, Generator, Replies
from mechdrift.engine.generate.thinking import GoingOn
from mechdrift.errors import Unmeasurable

T = TypeVar("T")


class FellBack(Unmeasurable):
    """From now on another engine makes the replies: those that are compared with these are to be made again.

    by_one_engine does so. Whoever asks a generator without it has an unmeasurable row, not one that mixes engines.
    """


@dataclass
class FallingBack:
    """A Generator that takes the second of two where the first cannot make the replies of an arm, and keeps to it."""

    name: ClassVar[str] = "auto"
    first: Generator
    """Tried first."""
    second: Generator
    """What is left."""
    warnings: list[str]
    """Where it says so."""
    fell: bool = False
    """Whether the second is used."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Of the one in use: nothing else can change a reply."""
        return (self.second if self.fell else self.first).provenance

    def replies(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None = None,
    ) -> Replies:
        """As the protocol says. Raises FellBack, once, where the first cannot: so that no comparison mixes engines."""
        if self.fell:
            return self.second.replies(checkpoint, prompts, arms, new_tokens, going_on)
        outputs: Replies = {}
        try:
            outputs = self.first.replies(checkpoint, prompts, arms, new_tokens, going_on)
            failed = next((each for each in outputs.values() if isinstance(each, EngineCannot)), None)
        except EngineCannot as error:
            failed = error
        if failed is None:
            return outputs
        why = str(failed).partition("; use ")[0]
        self.fell = True
        self.warnings.append(f"{why}; replies by {self.second.name} instead, of both models, slower")
        raise FellBack(f"{why}; use --mechdrift-generator {self.second.name}, for both models")


def by_one_engine(read: Callable[[], T]) -> T:
    """Take readings that are compared with each other: where the engine changed on the way, all of them again."""
    try:
        return read()
    except FellBack:  # read again out here, where what the first attempt held is gone
        pass
    return read()
