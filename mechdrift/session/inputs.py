"""What a run works on, whole: every checkpoint resolved, every prompt read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechdrift.checkpoints.chain import Between
from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.config_changes import Change
from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.template_choice import TemplateChoice
from mechdrift.engine.generate.judged import JudgeEndpoint
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.data_files.used import Used
from mechdrift.prompts.instructions import Instructions
from mechdrift.prompts.statements import Statement
from mechdrift.prompts.texts import Texts
from mechdrift.prompts.written_pairs import WrittenPair


@dataclass(frozen=True)
class Prompts:
    """What the models are asked."""

    statements: tuple[Statement, ...]
    pairs: tuple[WrittenPair, ...]
    """The user's; none where the shipped tables' are asked."""
    instructions: Instructions
    texts: Texts
    of_statements: Used | None = None
    """What was taken of the user's file of statements; None for the shipped ones."""
    of_pairs: Used | None = None
    """The same of pairs."""


@dataclass(frozen=True)
class RunInputs:
    """Checkpoints, prompts and the place of the store."""

    points: Mapping[str, Checkpoint]
    """All checkpoints by name: base, stages, posts, post without a stage."""
    prompts: Prompts
    store_folder: Path
    reply_classifier: ReplyClassifier | None
    """The user's own classifier of refusals."""
    judge: JudgeEndpoint | None
    """A language model that judges them instead; never both."""
    templates: TemplateChoice
    """What the user decides of chat templates."""
    absent: Mapping[str, str]
    """Why post without a stage cannot be had, by its name."""
    config_changes: Mapping[Between, tuple[Change, ...]]
    """Settings that are not the same in two checkpoints that are compared; where there are some."""
    lineage_notes: tuple[str, ...]
    """How far the replays of training logs can be trusted."""
    warnings: tuple[str, ...]
    """What a user should know of them."""

    def pair(self, between: Between) -> Pair:
        """The two checkpoints. Raises Unmeasurable where post without a stage cannot be had."""
        if why := self.absent.get(between.later):
            raise Unmeasurable(why)
        return Pair(self.points[between.earlier], self.points[between.later], between=between)
