"""Replies through transformers: batches of similar length, padded on the left, with a KV cache and hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.checkpoints.special_tokens import end_tokens
from mechdrift.engine.batches import Progress, batches_by_length, padded
from mechdrift.engine.generate.arms import Ablated, Arm, require_fitting, until_end
from mechdrift.engine.generate.generator import Replies
from mechdrift.engine.generate.thinking import GoingOn, in_rounds
from mechdrift.engine.selfcheck import check_ablating_everywhere, check_shifting
from mechdrift.engine.steer import ablating_everywhere, shifting
from mechdrift.engine.stored_recordings import Recorder, probes
from mechdrift.errors import Unmeasurable, is_out_of_memory
from mechdrift.models.devices import input_device
from mechdrift.models.memory import BatchTooLarge

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TransformersGenerator:
    """A Generator through transformers, with the models and batches of a Recorder.

    Raises BatchTooLarge where a batch does not fit: Recorder.at_one_batch then asks for all replies that are compared again.
    """

    name: ClassVar[str] = "transformers"
    recorder: Recorder
    """Whose pool, batch size, progress and warnings are used."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Its name: the rest is the recorder's."""
        return {"name": self.name}

    def replies(
        self,
        checkpoint: Checkpoint,
        prompts: Sequence[Sequence[int]],
        arms: Sequence[Arm],
        new_tokens: int,
        going_on: GoingOn | None = None,
    ) -> Replies:
        """As the protocol says; every arm is checked on the first prompt before it replies."""
        require_fitting(checkpoint, prompts, new_tokens)
        ends, pool = end_tokens(checkpoint), self.recorder.pool
        requested = [prompts[index] for index in probes(prompts)]
        pool.model(checkpoint, requested, stream=False)  # apart from the replies: it has errors of its own
        outputs: Replies = {}
        fits = True
        try:
            for arm in arms:
                stream = arm.does is not None
                try:
                    check_arm(pool.model(checkpoint, requested, stream), prompts[0], arm)
                except Unmeasurable as error:
                    outputs[arm.name] = error
                    continue
                say = self.recorder.progress(f"{checkpoint.spec}: replies, {arm.name}")
                model = partial(pool.model, checkpoint, requested, stream)  # under no name: an error would keep it

                def generate(
                    given: Sequence[Sequence[int]], tokens: int, model: Callable[[], Any] = model, say: Progress | None = say
                ) -> list[list[int]]:
                    return greedy(model(), given, tokens, ends, self.recorder.batch_tokens, say)

                with acting(model(), arm):
                    outputs[arm.name] = in_rounds(generate, arm, arm.prompts(prompts), new_tokens, going_on)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fits = False
        if not fits:  # out here that error is gone, and with it the tensors of the forward that failed
            lengths = [len(prompt) + new_tokens for prompt in prompts]
            raise BatchTooLarge(checkpoint.spec, self.recorder.batch_tokens, lengths)
        return outputs


def acting(model: "PreTrainedModel", arm: Arm) -> AbstractContextManager[None]:
    """The arm's intervention as hooks on the model."""
    import torch

    if arm.does is None:
        return nullcontext()
    direction = torch.tensor(arm.does.direction, dtype=torch.float32)
    if isinstance(arm.does, Ablated):
        return ablating_everywhere(model, direction)
    return shifting(model, arm.does.coefficient * direction, [arm.does.layer])


def check_arm(model: "PreTrainedModel", prompt: Sequence[int], arm: Arm) -> None:
    """Check on one prompt that the arm's intervention does what it says. Raises InterventionFailed."""
    import torch

    if arm.does is None:
        return
    direction = torch.tensor(arm.does.direction, dtype=torch.float32)
    if isinstance(arm.does, Ablated):
        check_ablating_everywhere(model, prompt, direction)
    else:
        check_shifting(model, prompt, arm.does.coefficient * direction, arm.does.layer)


def greedy(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    ends: Sequence[int],
    batch_tokens: int,
    progress: Progress | None = None,
) -> list[list[int]]:
    """The likeliest next tokens after each prompt, at most new_tokens, up to a token that ends the reply.

    batch_tokens bounds prompts and replies of a batch together, padded.
    """
    import torch

    replies: list[list[int]] = [[] for _ in prompts]
    done = 0
    with torch.inference_mode(), _likeliest(model, ends, new_tokens):
        for batch in batches_by_length([len(prompt) + new_tokens for prompt in prompts], batch_tokens):
            ids, mask = (each.to(input_device(model)) for each in padded([prompts[index] for index in batch], left=True))
            found = model.generate(input_ids=ids, attention_mask=mask, generation_config=model.generation_config)[
                :, ids.shape[1] :
            ]
            for index, row in zip(batch, found.tolist(), strict=True):
                replies[index] = until_end(row, ends)
            done += len(batch)
            if progress is not None:
                progress(done, len(prompts))
    return replies


@contextmanager
def _likeliest(model: "PreTrainedModel", ends: Sequence[int], new_tokens: int) -> Iterator[None]:
    """Generation by the likeliest token alone: a checkpoint's own settings may punish repetition or ask for samples."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False, use_cache=True, max_new_tokens=new_tokens, eos_token_id=list(ends), pad_token_id=ends[0]
    )
    try:
        yield
    finally:
        model.generation_config = own
