"""Recordings by content: what a checkpoint does with prompts, read from the store where it is already known."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from mechdrift.checkpoints.load import ATTENTION
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.memory import BatchTooLarge
from mechdrift.engine.pool import Pool
from mechdrift.engine.record import Edit, Progress, record_blocks, record_logits, record_under
from mechdrift.engine.selfcheck import check_adding
from mechdrift.engine.sites import encode, token_at, token_over
from mechdrift.engine.steer import adding
from mechdrift.engine.store import Store
from mechdrift.errors import Unmeasurable, is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

T = TypeVar("T")
ENGINE = 1  # raise it whenever the same inputs would give other numbers


@dataclass(frozen=True)
class Prompts:
    """Prompts as one tokenizer reads them."""

    ids: list[list[int]]
    """Token ids."""
    positions: list[int]
    """Index of the token that is read, one a prompt."""
    answers: list[tuple[int, ...]]
    """Token ids whose logits are read, one tuple a prompt; empty tuples where blocks are read."""

    def digest(self) -> str:
        """sha256 of all of it."""
        return hashlib.sha256(json.dumps([self.ids, self.positions, self.answers]).encode()).hexdigest()


@dataclass(frozen=True)
class Steering:
    """Vectors added to the residual stream while prompts are read."""

    layers: tuple[int, ...]
    """Blocks whose outputs are moved."""
    shifts: "np.ndarray"
    """float32 [prompt, d_model], coefficients folded in."""
    positions: list[list[int]]
    """Token indices, one list a prompt."""

    def digest(self) -> str:
        """sha256 of all of it."""
        import numpy as np

        raw = np.ascontiguousarray(self.shifts, dtype=np.float32).tobytes()
        return hashlib.sha256(raw + json.dumps([self.layers, self.positions]).encode()).hexdigest()


@dataclass
class Recorder:
    """Reads checkpoints: through the store, else with one model at a time."""

    pool: Pool
    """Models in memory."""
    store: Store
    """Recordings on disk."""
    batch_tokens: int
    """Padded tokens a forward."""
    progress: Callable[[str], Progress | None] = lambda _label: None
    """Makes a progress line from a label; None stays silent."""
    recorded_prompts: int = 0
    """Prompts that went through a model in this process."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the numbers should know, one sentence each."""

    def statement_prompts(self, checkpoint: Checkpoint, texts: Sequence[str], position: str) -> Prompts:
        """Texts with the token at a named position. Raises Unmeasurable where a text has no such token."""
        ids, offsets = encode(self.pool.tokenizer(checkpoint), list(texts))
        positions = [token_at(position, text, row) for text, row in zip(texts, offsets, strict=True)]
        return Prompts(ids, positions, [()] * len(ids))

    def answer_prompts(self, checkpoint: Checkpoint, texts: Sequence[str], answers: tuple[str, str]) -> Prompts:
        """Texts up to where the two answers part, and the first token of each from there on.

        The answers are encoded together with their prompt, so it does not matter where a tokenizer puts its spaces.
        """
        tokenizer = self.pool.tokenizer(checkpoint)
        both = [encode(tokenizer, [text + answer for text in texts])[0] for answer in answers]
        prompts: list[list[int]] = []
        tokens: list[tuple[int, ...]] = []
        for first, second in zip(*both, strict=True):
            parting = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
            if not parting:
                raise Unmeasurable(f"{checkpoint.spec}: its tokenizer does not tell {answers[0]!r} from {answers[1]!r}")
            prompts.append(first[:parting])
            tokens.append((first[parting], second[parting]))
        return Prompts(prompts, [len(prompt) - 1 for prompt in prompts], tokens)

    def held_first(self, points: Sequence[Checkpoint]) -> list[Checkpoint]:
        """The checkpoints, the one whose model is in memory first: each is then loaded once at most."""
        return sorted(points, key=lambda point: not self.pool.holds(point))

    def tokens_over(self, checkpoint: Checkpoint, texts: Sequence[str], characters: Sequence[Sequence[int]]) -> list[list[int]]:
        """Indices of the tokens that hold the named characters of each text, without repeats."""
        _, offsets = encode(self.pool.tokenizer(checkpoint), list(texts))
        return [
            sorted({token_over(character, text, row) for character in chosen})
            for text, chosen, row in zip(texts, characters, offsets, strict=True)
        ]

    def at_one_batch(self, read: Callable[[], T]) -> T:
        """Take readings that are compared with each other: where a batch does not fit, all of them again at half of it.

        The shape of a batch changes the last bits, so one model may not be read in other batches than the other. Raises
        BatchTooLarge where one prompt does not fit.
        """
        while True:
            try:
                return read()
            except BatchTooLarge as error:
                if error.single:
                    raise
                found = str(error).partition(";")[0]
            self.pool.clean()
            self.batch_tokens //= 2
            self.notes.append(f"{found}: read again at {self.batch_tokens}, both models")

    def blocks(self, checkpoint: Checkpoint, prompts: Prompts) -> "np.ndarray":
        """Block outputs at the read token: float32 [prompt, layer, d_model]."""
        return self._read(
            "blocks", checkpoint, prompts, lambda *to: record_blocks(to[0], prompts.ids, prompts.positions, *to[1:])
        )

    def logits(self, checkpoint: Checkpoint, prompts: Prompts) -> "np.ndarray":
        """Logits of the answers and their log-normaliser: float32 [prompt, answers + 1]."""
        return self._read("logits", checkpoint, prompts, lambda *to: record_logits(to[0], prompts.ids, prompts.answers, *to[1:]))

    def steered_logits(self, checkpoint: Checkpoint, prompts: Prompts, steerings: Sequence[Steering]) -> "np.ndarray":
        """The same under each of several ways to move the stream: float32 [steering, prompt, answers + 1].

        Raises InterventionFailed where a move cannot be seen on the first prompt.
        """
        import torch

        first = [min(min(steering.positions[i]) for steering in steerings) for i in range(len(prompts.ids))]

        def edit(steering: Steering) -> Edit:
            shifts = torch.tensor(steering.shifts, dtype=torch.float32)

            def on(model: Any, batch: list[int], before: list[int]) -> AbstractContextManager[None]:
                places = [[place - left for place in steering.positions[i]] for i, left in zip(batch, before, strict=True)]
                return adding(model, steering.layers, shifts[batch], places)

            return on

        def run(model: Any, batch_tokens: int, progress: Progress | None) -> "Tensor":
            for steering in steerings:
                check_adding(
                    model, prompts.ids[0], steering.layers, torch.tensor(steering.shifts[0]).float(), steering.positions[0]
                )
            return record_under(
                model, prompts.ids, prompts.answers, [edit(one) for one in steerings], first, batch_tokens, progress
            )

        return self._read("logits", checkpoint, prompts, run, {"steering": [steering.digest() for steering in steerings]})

    def _read(
        self,
        what: str,
        checkpoint: Checkpoint,
        prompts: Prompts,
        run: "Callable[[Any, int, Progress | None], Tensor]",
        more: dict[str, Any] | None = None,
    ) -> "np.ndarray":
        """One entry of the store, or a run of the model. Raises Unmeasurable where a value is not finite."""

        def make() -> "dict[str, Tensor]":
            lengths = sorted(range(len(prompts.ids)), key=lambda index: len(prompts.ids[index]))
            probes = [prompts.ids[index] for index in (lengths[0], lengths[len(lengths) // 2], lengths[-1])]
            progress = self.progress(f"{checkpoint.spec}: {what} of {len(prompts.ids)} prompts")
            self.pool.model(checkpoint, probes)  # apart from the reading: it has errors of its own
            tensor = None
            try:
                # Under no name: a frame that an error keeps would keep the model.
                tensor = run(self.pool.model(checkpoint, probes), self.batch_tokens, progress)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if tensor is None:  # out here that error is gone, and with it the tensors of the forward that failed
                raise BatchTooLarge(checkpoint.spec, self.batch_tokens, [len(prompt) for prompt in prompts.ids])
            self.recorded_prompts += len(prompts.ids)
            return {what: tensor}

        tensor = self.store.get(self._provenance(what, checkpoint, prompts) | (more or {}), make)[what]
        if not tensor.isfinite().all():
            raise Unmeasurable(f"{checkpoint.spec}: {what} are not finite on {int((~tensor.isfinite()).sum()):,} values")
        return tensor.numpy()

    def _provenance(self, what: str, checkpoint: Checkpoint, prompts: Prompts) -> dict[str, Any]:
        """Everything that can change the numbers."""
        return {
            "what": what,
            "engine": ENGINE,
            "checkpoint": checkpoint.digests,
            "prompts": prompts.digest(),
            "dtype": self.pool.dtype,
            "attention": ATTENTION,
            "device": self.pool.device_kind(),
            "batch_tokens": self.batch_tokens,
            "versions": {package: version(package) for package in ("torch", "transformers")},
        }


def require_same_tokens(base: Prompts, post: Prompts) -> None:
    """Raise Unmeasurable unless both tokenizers read every prompt and answer alike: else the two are not asked the same."""
    pairs = list(zip(base.ids, post.ids, base.positions, post.positions, base.answers, post.answers, strict=True))
    differing = [number for number, (a, b, i, j, s, t) in enumerate(pairs) if a != b or i != j or s != t]
    if differing:
        raise Unmeasurable(
            f"token ids differ between base and post on {len(differing)} of {len(pairs)} prompts, first prompt {differing[0]}: "
            "compare checkpoints of one tokenizer"
        )
