"""What replies are: scores of text that is not kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from mechdrift.checkpoints.classifier import ReplyClassifier
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import batches_by_length
from mechdrift.engine.generate.arms import Arm, Generator
from mechdrift.engine.generate.classified import refusals
from mechdrift.engine.generate.first_token import digest
from mechdrift.engine.store import Part
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.work import Work
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.replies import OUTCOMES, Outcome, classify, reencoded_share, shipped_openings, spoken

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SCORER = 2  # raise it whenever the same reply would be found to be something else


@dataclass(frozen=True)
class Scored:
    """The replies of one arm, without their text."""

    outcomes: "np.ndarray"
    """Indices of OUTCOMES, one a prompt."""
    hashes: "np.ndarray"
    """The first 24 bits of the sha256 of each reply's token ids: whether two runs gave the same replies."""

    @property
    def digest(self) -> str:
        """Of all replies, in order."""
        return hashlib.sha256(json.dumps(self.hashes.tolist()).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Reply:
    """A reply with its text, where that is to be kept."""

    checkpoint: str
    arm: str
    prompt: int
    """Its place among the prompts."""
    outcome: Outcome
    text: str


class _Unanswered(Exception):
    """Whether an arm does what it says is unknown."""

    def __init__(self, found: "dict[str, Tensor | Unmeasurable]") -> None:
        """What was found of all arms."""
        super().__init__()
        self.found = found


def scored_replies(
    recorder: Recorder,
    generator: Generator,
    checkpoint: Checkpoint,
    prompts: Sequence[Sequence[int]],
    thinking: bool,
    arms: Sequence[Arm],
    new_tokens: int,
    classifier: ReplyClassifier | None = None,
    keep: list[Reply] | None = None,
) -> "dict[str, Scored | Unmeasurable]":
    """What the checkpoint's greedy replies are under every arm, from the store where known.

    thinking: whether prompts end inside a think block. classifier: decides refused or complied, instead of openings. keep: gets
    the replies with their text; they are then made anew. An arm of which it is unknown whether it does what it says has an
    Unmeasurable instead.
    """
    import torch

    ids = [list(prompt) for prompt in prompts]
    counts = [len(arm.prompts(prompts)) for arm in arms]

    def make() -> "Tensor":
        outputs = generator.replies(checkpoint, ids, arms, new_tokens)
        tokenizer = recorder.pool.tokenizer(checkpoint)
        every: list[Reply] = []
        for arm in arms:
            if isinstance(replies := outputs[arm.name], Unmeasurable):
                continue
            places = range(len(ids)) if arm.requested is None else arm.requested
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            for place, text, reply in zip(places, texts, replies, strict=True):
                outcome = classify(text, reencoded_share(tokenizer, reply), thinking).outcome
                every.append(Reply(checkpoint.spec, arm.name, place, outcome, text))
        if classifier is not None:
            recorder.pool.free()  # never two models in memory
            every = _classified_by(classifier, recorder.pool.device, every, thinking)
        if keep is not None:
            keep.extend(every)
        found: dict[str, Tensor | Unmeasurable] = {}
        for arm in arms:
            if isinstance(replies := outputs[arm.name], Unmeasurable):
                found[arm.name] = replies
                continue
            outcomes = [OUTCOMES.index(one.outcome) for one in every if one.arm == arm.name]
            scores = zip(outcomes, map(_hash, replies), strict=True)
            found[arm.name] = torch.tensor([[float(outcome), float(number)] for outcome, number in scores])
        codes = [each for each in found.values() if not isinstance(each, Unmeasurable)]
        if len(codes) < len(found):
            raise _Unanswered(found)
        return torch.cat(codes)

    provenance = recorder.provenance("replies", checkpoint, Prompts(ids, [], [])) | {
        "arms": [[digest(arm), arm.requested] for arm in arms],
        "generator": generator.provenance,
        "decoder": version("tokenizers"),
        "new_tokens": new_tokens,
        "thinking": thinking,
        "classifier": classifier and [classifier.digest, classifier.label],
        "scorer": [SCORER, hashlib.sha256(repr(shipped_openings()).encode()).hexdigest()],
    }
    part = Part(
        (sum(counts), 2), make, work_of([[len(prompt) for prompt in arm.prompts(ids)] for arm in arms], new_tokens, recorder)
    )
    try:
        if keep is not None:
            kept = make()
            recorder.store.work += part.work
        else:
            (kept,) = recorder.store.get(provenance, [part], f"{checkpoint.spec} ({checkpoint.short})")
        found = dict(zip([arm.name for arm in arms], kept.split(counts), strict=True))
    except _Unanswered as error:  # not kept: another day's engine may know
        found = error.found
    return {name: codes if isinstance(codes, Unmeasurable) else _scored(codes) for name, codes in found.items()}


def work_of(arms: Sequence[Sequence[int]], new_tokens: int, recorder: Recorder) -> Work:
    """What replies take, at most; arms: lengths of the prompts of each."""
    count, batch = sum(map(len, arms)), recorder.batch_tokens
    batches = sum(len(batches_by_length([length + new_tokens for length in lengths], batch)) for lengths in arms)
    tokens = sum(map(sum, arms))
    return Work(tokens=tokens, replies=count, reply_tokens=new_tokens * count, reply_steps=new_tokens * batches)


def _classified_by(classifier: ReplyClassifier, device: str, replies: Sequence[Reply], thinking: bool) -> list[Reply]:
    """Replies in words as a classifier labels them; what is empty, gibberish or unfinished is no matter of its own."""
    texts = {
        place: spoken(one.text, thinking) or "" for place, one in enumerate(replies) if one.outcome in ("refused", "complied")
    }
    found = dict(zip(texts, refusals(classifier, list(texts.values()), device), strict=True))
    outcomes: list[Outcome] = [one.outcome for one in replies]
    for place, refused in found.items():
        outcomes[place] = "refused" if refused else "complied"
    return [replace(one, outcome=outcome) for one, outcome in zip(replies, outcomes, strict=True)]


def _scored(codes: "Tensor") -> Scored:
    whole = codes.long().numpy()
    return Scored(whole[:, 0], whole[:, 1])


def _hash(reply: Sequence[int]) -> int:
    """24 bits: as many as a float32 holds exactly."""
    return int.from_bytes(hashlib.sha256(json.dumps(list(reply)).encode()).digest()[:3])
