"""Recordings by content: what a checkpoint does with prompts, read from the store where it is already known."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeVar

from mechdrift.checkpoints.config import require_known
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import Progress, batches, groups
from mechdrift.engine.pool import Pool
from mechdrift.engine.recording import (
    Edit,
    record_blocks,
    record_columns,
    record_logits,
    record_losses,
    record_under,
    record_under_whole,
)
from mechdrift.engine.selfcheck import check_adding, prefix_gap, sharing_gap, why_whole
from mechdrift.engine.steer import adding
from mechdrift.engine.store import Part, Store
from mechdrift.engine.versions import versions_for
from mechdrift.engine.work import Work, reading
from mechdrift.errors import Unmeasurable, is_out_of_memory
from mechdrift.models.load import attention_of
from mechdrift.models.memory import BatchTooLarge
from mechdrift.prompts.framing import ONE_TOKENIZER, Both, what_differs
from mechdrift.prompts.positions import encode, token_at, token_over

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


T = TypeVar("T")
ENGINE = 3  # raise it whenever the same inputs would give other numbers
PART_BATCHES = 4  # forwards between two savings: what a killed run loses at most

Run = Callable[[Any, list[int], Progress | None], "Tensor"]  # a model on the prompts of these indices


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

    def take(self, chosen: Sequence[int]) -> "Prompts":
        """Those of these indices."""
        return Prompts(
            [self.ids[index] for index in chosen],
            [self.positions[index] for index in chosen],
            [self.answers[index] for index in chosen],
        )


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

    def take(self, chosen: Sequence[int]) -> "Steering":
        """The same of the prompts of these indices."""
        return Steering(self.layers, self.shifts[list(chosen)], [self.positions[index] for index in chosen])


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
    warnings: list[str] = field(default_factory=list)
    """What a reader of the numbers should know, one sentence each."""
    slower_sweeps: dict[str, Callable[..., Any]] = field(default_factory=dict, repr=False)
    """By checkpoint how it is swept where the fast way was not exact."""
    _sharing: dict[str, bool] = field(default_factory=dict, repr=False)

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

    def tokenizers(self, points: "tuple[Checkpoint, Checkpoint]") -> Both:
        """Of base and post."""
        base, post = points
        return self.pool.tokenizer(base), self.pool.tokenizer(post)

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
            self.warnings.append(f"{found}: read again at {self.batch_tokens}, both models")

    def may_share(self, checkpoint: Checkpoint, model: Any, prompts: Prompts) -> bool:
        """Whether these prompts share beginnings, and may in this model: where not, a warning says so, once.

        Tried on the prompts with the shortest and the longest beginning.
        """
        found = groups(prompts.ids, prompts.positions)
        if found and checkpoint.short not in self._sharing:
            some = sorted(found, key=lambda group: group.shared)
            few = {index for group in (some[0], some[-1]) for index in group.prompts[:3]}
            ids = [prompts.ids[index] for index in sorted(few)]
            why = why_whole(model, "a shared beginning", lambda: sharing_gap(model, ids, self.batch_tokens))
            self._sharing[checkpoint.short] = not why
            if why:
                self.warnings.append(f"{checkpoint.spec}: {why}; read by whole forwards, slower")
        return bool(found) and self._sharing[checkpoint.short]

    def blocks(self, checkpoint: Checkpoint, prompts: Prompts) -> "np.ndarray":
        """Block outputs at the read token: float32 [prompt, layer, d_model]."""

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            part = prompts.take(chosen)
            return record_blocks(
                model, part.ids, part.positions, self.batch_tokens, progress, self.may_share(checkpoint, model, part)
            )

        return self.read("blocks", checkpoint, prompts, run, (len(prompts.ids), checkpoint.layers, checkpoint.width))

    def logits(self, checkpoint: Checkpoint, prompts: Prompts) -> "np.ndarray":
        """Logits of the answers and their log-normaliser: float32 [prompt, answers + 1]."""

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            part = prompts.take(chosen)
            return record_logits(
                model, part.ids, part.answers, self.batch_tokens, progress, share=self.may_share(checkpoint, model, part)
            )

        shape = len(prompts.ids), len(prompts.answers[0]) + 1
        return self.read("logits", checkpoint, prompts, run, shape, stream=False)

    def steered_logits(self, checkpoint: Checkpoint, prompts: Prompts, steerings: Sequence[Steering]) -> "np.ndarray":
        """The same under each of several ways to move the stream: float32 [steering, prompt, answers + 1].

        All ways share the tokens before the first one that is moved; where the model does not give the same by whole forwards,
        it is asked by those, and a warning says so. Raises InterventionFailed where a move cannot be seen on the first prompt.
        """
        import torch

        def edit(steering: Steering) -> Edit:
            shifts = torch.tensor(steering.shifts, dtype=torch.float32)

            def on(model: Any, batch: list[int], before: list[int]) -> AbstractContextManager[None]:
                places = [[place - left for place in steering.positions[i]] for i, left in zip(batch, before, strict=True)]
                return adding(model, steering.layers, shifts[batch], places)

            return on

        whole: list[bool] = []  # found on the first part: whether this model's prompts may not share a prefix

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            part, moves = prompts.take(chosen), [steering.take(chosen) for steering in steerings]
            edits = [edit(move) for move in moves]
            if not whole:
                for move in steerings:
                    check_adding(model, prompts.ids[0], move.layers, torch.tensor(move.shifts[0]).float(), move.positions[0])
                few = probes(prompts.ids)
                requested, move = prompts.take(few), steerings[0].take(few)
                edits_of_few, first = [edit(move)], _first([move])
                why = why_whole(
                    model,
                    "a shared prefix",
                    lambda: prefix_gap(model, requested.ids, requested.answers, edits_of_few, first),
                )
                whole.append(bool(why))
                if why:
                    self.warnings.append(f"{checkpoint.spec}: {why}; steered by whole forwards, slower")
            if whole[0]:
                return record_under_whole(model, part.ids, part.answers, edits, self.batch_tokens, progress)
            return record_under(model, part.ids, part.answers, edits, _first(moves), self.batch_tokens, progress)

        shared = _first(steerings)

        def takes(chosen: list[int]) -> Work:
            return reading([shared[i] + len(steerings) * (len(prompts.ids[i]) - shared[i]) for i in chosen])

        shape = len(steerings), len(prompts.ids), len(prompts.answers[0]) + 1
        moved = {"steering": [steering.digest() for steering in steerings]}
        return self.read("logits", checkpoint, prompts, run, shape, moved, axis=1, work=takes)

    def columns(self, checkpoint: Checkpoint, prompts: Sequence[Sequence[int]], first: Sequence[int]) -> "np.ndarray":
        """Block outputs at every token from first[k] on: float32 [prompt, layer, column, d_model], 0 beyond a prompt's last."""
        widest = max(len(prompt) - start for prompt, start in zip(prompts, first, strict=True))

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            import torch

            ids, starts = [prompts[index] for index in chosen], [first[index] for index in chosen]
            share = self.may_share(checkpoint, model, requested.take(chosen))
            found = record_columns(model, ids, starts, self.batch_tokens, progress, share).float()
            return torch.nn.functional.pad(found, (0, 0, 0, widest - found.shape[2]))

        requested = Prompts([list(prompt) for prompt in prompts], list(first), [()] * len(prompts))
        return self.read("columns", checkpoint, requested, run, (len(prompts), checkpoint.layers, widest, checkpoint.width))

    def losses(self, checkpoint: Checkpoint, prompts: Prompts) -> "np.ndarray":
        """Loss of every token but the first, of prompts of one length: float32 [prompt, token]."""

        def run(model: Any, chosen: list[int], progress: Progress | None) -> "Tensor":
            return record_losses(model, prompts.take(chosen).ids, self.batch_tokens, progress)

        count, length = len(prompts.ids), len(prompts.ids[0])
        step = PART_BATCHES * max(1, self.batch_tokens // length)
        cut = [list(range(start, min(start + step, count))) for start in range(0, count, step)]
        return self.read(
            "losses",
            checkpoint,
            prompts,
            run,
            (count, length - 1),
            cut=cut,
            work=lambda chosen: reading([length] * len(chosen)),
            stream=False,
        )

    def read(
        self,
        what: str,
        checkpoint: Checkpoint,
        prompts: Prompts,
        run: Run,
        shape: tuple[int, ...],
        more: dict[str, Any] | None = None,
        axis: int = 0,
        cut: list[list[int]] | None = None,
        work: Callable[[list[int]], Work] | None = None,
        stream: bool = True,
    ) -> "np.ndarray":
        """An entry of the store, or what the model says, of this shape, whose axis is the prompts'.

        cut: which prompts are run and kept together; whole batches if not given. work: what the prompts of these indices take;
        one forward of each if not given, beginnings shared. stream: whether the residual stream is read or moved. Raises
        Unmeasurable where a value is not finite, or the stream is needed and not found.
        """
        lengths = [len(prompt) for prompt in prompts.ids]

        @cache
        def progress() -> Progress | None:  # its clock starts with the first forward
            return self.progress(f"{checkpoint.spec}: {what} of {len(lengths)} prompts")

        def make(chosen: list[int], before: int) -> "Tensor":
            require_known(checkpoint, prompts.ids)
            requested = [prompts.ids[index] for index in probes(prompts.ids)]
            self.pool.model(checkpoint, requested, stream)  # apart from the reading: it has errors of its own
            say = progress()
            tensor = None
            try:
                # Under no name: a frame that an error keeps would keep the model.
                tensor = run(
                    self.pool.model(checkpoint, requested, stream),
                    chosen,
                    say and (lambda done, _: say(before + done, len(lengths))),
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if tensor is None:  # out here that error is gone, and with it the tensors of the forward that failed
                raise BatchTooLarge(checkpoint.spec, self.batch_tokens, lengths)
            self.recorded_prompts += len(chosen)
            return tensor

        cut = cut or parts_of(prompts, self.batch_tokens)
        starts = accumulate(map(len, cut), initial=0)
        takes = work or (lambda chosen: Work(prompts=len(chosen), tokens=_tokens_run(prompts.take(chosen), self.batch_tokens)))
        parts = [
            Part((*shape[:axis], len(chosen), *shape[axis + 1 :]), partial(make, chosen, start), takes(chosen))
            for chosen, start in zip(cut, starts, strict=False)
        ]
        provenance = self.provenance(what, checkpoint, prompts) | (more or {})
        return self.joined(
            shape, axis, cut, self.store.get(provenance, parts, label_of(checkpoint)), f"{checkpoint.spec}: {what}"
        )

    def joined(self, shape: tuple[int, ...], axis: int, cut: list[list[int]], parts: "list[Tensor]", name: str) -> "np.ndarray":
        """Parts put together, each in the places of its prompts. Raises Unmeasurable where a value is not finite."""
        import torch

        recorded = torch.empty(shape)
        for chosen, tensor in zip(cut, parts, strict=True):
            recorded.movedim(axis, 0)[chosen] = tensor.movedim(axis, 0)
        if not recorded.isfinite().all():
            raise Unmeasurable(f"{name} are not finite on {int((~recorded.isfinite()).sum()):,} values")
        return recorded.numpy()

    def provenance(self, what: str, checkpoint: Checkpoint, prompts: Prompts) -> dict[str, Any]:
        """Everything that can change the numbers."""
        return {
            "what": what,
            "engine": ENGINE,
            "checkpoint": checkpoint.digests,
            "prompts": prompts.digest(),
            "dtype": self.pool.dtype,
            "attention": attention_of(checkpoint),
            "device": self.pool.device_kind(),
            "batch_tokens": self.batch_tokens,
            "part_batches": PART_BATCHES,
            "versions": versions_for(checkpoint),
        }


def probes(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Indices of a shortest, a middling and a longest prompt, on which a model is checked."""
    ordered = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _first(steerings: Sequence[Steering]) -> list[int]:
    """The first token of each prompt that any of them moves."""
    return [min(map(min, places)) for places in zip(*(steering.positions for steering in steerings), strict=True)]


def parts_of(prompts: Prompts, batch_tokens: int) -> list[list[int]]:
    """Prompt indices in groups of PART_BATCHES batches, each of which is recorded by itself and kept."""
    every = [
        [index for group in batch for index in group.prompts] for batch in batches(prompts.ids, prompts.positions, batch_tokens)
    ]
    return [list(chain(*every[start : start + PART_BATCHES])) for start in range(0, len(every), PART_BATCHES)]


def _tokens_run(prompts: Prompts, batch_tokens: int) -> int:
    """Tokens that go through the model, without padding."""
    every = chain(*batches(prompts.ids, prompts.positions, batch_tokens))
    return sum(map(len, prompts.ids)) - sum(group.shared * (len(group.prompts) - 1) for group in every)


def label_of(checkpoint: Checkpoint) -> str:
    """How people know a checkpoint."""
    return f"{checkpoint.spec} ({checkpoint.short})"


def require_same_tokens(base: Prompts, post: Prompts, tokenizers: Both | None = None) -> None:
    """Raise Unmeasurable unless both tokenizers read every prompt and answer alike: else the two get different prompts.

    tokenizers: base's and post's, to name what they put around every text where only that differs.
    """
    pairs = list(zip(base.ids, post.ids, base.positions, post.positions, base.answers, post.answers, strict=True))
    differing = [number for number, (a, b, i, j, s, t) in enumerate(pairs) if a != b or i != j or s != t]
    if not differing:
        return
    on = f"on {len(differing)} of {len(pairs)} prompts"
    if tokenizers and base.answers == post.answers and (why := what_differs(tokenizers, base.ids, post.ids)):
        raise Unmeasurable(f"{why}, {on}; save post with base's tokenizer")
    raise Unmeasurable(f"token ids differ between base and post {on}, first prompt {differing[0]}: {ONE_TOKENIZER}")
