"""The two checkpoints that are compared."""

from dataclasses import dataclass, field

from mechdrift.checkpoints.chain import BASE_TO_POST, Between
from mechdrift.checkpoints.resolve import Checkpoint


@dataclass(frozen=True)
class Pair:
    """The two checkpoints that a test looks at."""

    base: Checkpoint
    """Before post-training, or before a step of it."""
    post: Checkpoint
    """After it."""
    between: Between = field(default=BASE_TO_POST, kw_only=True)
    """Which two of the run these are."""

    @property
    def points(self) -> tuple[Checkpoint, Checkpoint]:
        """Both."""
        return self.base, self.post

    @property
    def identical(self) -> bool:
        """Whether both have the same content."""
        return self.base.digests == self.post.digests
