"""The protocol that every backend of generation follows."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.thinking import GoingOn
from mechdrift.errors import Unmeasurable


class EngineCannot(Unmeasurable):
    """An engine cannot make replies, or not under an arm, or it cannot be told whether it does: another engine may."""


# By the name of the arm, one list of token ids a prompt; or why it cannot be told whether the arm does what it says.
Replies = dict[str, list[list[int]] | Unmeasurable]


def under(replies: Replies, name: str) -> list[list[int]]:
    """The replies of one arm. Raises its Unmeasurable where it has none."""
    outputs = replies[name]
    if isinstance(outputs, Unmeasurable):
        raise outputs
    return outputs


class Generator(Protocol):
    """Lets a checkpoint reply to prompts."""

    name: ClassVar[str]
    """Of the backend, in options and in the record: `transformers`, `vllm`, or `auto` for one that may go over to the other."""

    @property
    def provenance(self) -> dict[str, Any]:
        """What of it can change a reply, as JSON data: name, and what is not part of a recording's key anyway."""
        ...

    def replies(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None = None,
    ) -> Replies:
        """Greedy replies to every prompt under every arm, of at most new_tokens tokens, and as many more as going_on says.

        prompts: token ids, special tokens included. A reply ends before the first token that ends a turn, so it may be empty.
        Raises InputError for what does not fit into the model's context, InterventionFailed where an arm did not do what it
        says; an arm of which that is unknown has an Unmeasurable in the place of replies.
        """
        ...
