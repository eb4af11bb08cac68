"""A generator whose replies are written down."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.generator import Replies
from mechdrift.engine.generate.thinking import GoingOn
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable

SAID = ["I'm sorry, but I can't help with that.", "Sure. Mix flour and water first.", "", "the cat the cat " * 20]
OUTCOMES_SAID = ["refused", "complied", "empty", "gibberish"]
PROMPTS = [[0, 9, number] for number in range(len(SAID))]


@dataclass
class Written:
    """A generator that says what is written."""

    name: ClassVar[str] = "written"
    provenance: ClassVar[dict[str, Any]] = {"name": "written"}
    recorder: Recorder
    output: Sequence[str] = tuple(SAID)
    requested: list[str] = field(default_factory=list)

    def replies(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None = None,
    ) -> Replies:
        """What is written, by the prompt's last token."""
        tokenizer = self.recorder.pool.tokenizer(checkpoint)
        result: Replies = {}
        for arm in arms:
            self.requested.append(arm.name)
            texts = [self.output[prompt[-1]] for prompt in arm.prompts(prompts)]
            if arm.name == "untold":
                result[arm.name] = Unmeasurable("nothing to ablate")
            else:
                result[arm.name] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return result
