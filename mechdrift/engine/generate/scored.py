"""What replies are: scores of text that is not kept."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.batches import batches_by_length
from mechdrift.engine.generate.arms import Arm, context_of
from mechdrift.engine.generate.first_token import digest
from mechdrift.engine.generate.generator import Generator
from mechdrift.engine.generate.reply_judge import MOST_UNCLEAR, OPINIONS, Exchange, JudgeFailed, Opinion, ReplyJudge, agreement_of
from mechdrift.engine.generate.thinking import ENDS, Budget, GoingOn, Thought
from mechdrift.engine.store import Part
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.work import NOTHING, Work
from mechdrift.errors import Unmeasurable
from mechdrift.prompts.refusals import shipped_card
from mechdrift.prompts.replies import OUTCOMES, Outcome, classify, reencoded_share, spoken
from mechdrift.prompts.thoughts import markers_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SCORER = 4  # raise it whenever the same reply would be found to be something else


@dataclass(frozen=True)
class Scored:
    """The replies of one arm, without their text."""

    outcomes: "np.ndarray"
    """Indices of OUTCOMES, one a prompt."""
    hashes: "np.ndarray"
    """The first 24 bits of the sha256 of each reply's token ids: whether two runs gave the same replies."""
    thoughts: "tuple[Thought, ...]" = ()
    """What each began with."""
    opinions: "tuple[Opinion, ...]" = ()
    """What the user's judge said of each."""

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
    inside: Sequence[bool],
    arms: Sequence[Arm],
    budget: Budget,
    judge: ReplyJudge | None = None,
    keep: list[Reply] | None = None,
    instructions: Sequence[str] = (),
) -> "dict[str, Scored | Unmeasurable]":
    """What the checkpoint's greedy replies are under every arm, from the store where known.

    inside: of every prompt, whether it ends within a thought. judge: decides refused or complied, instead of the shipped
    classifier, and is noted down with how often it differs. keep: gets the replies with their text, special tokens and all; they
    are then made anew. instructions: the text of every prompt, for a judge. An arm of which it is unknown whether it does what it
    says has an Unmeasurable instead, and so has one of whose replies the judge cannot tell more than a tenth. Raises JudgeFailed
    where the judge cannot be asked.
    """
    import torch

    ids = [list(prompt) for prompt in prompts]
    counts = [len(arm.prompts(prompts)) for arm in arms]

    def make() -> "Tensor":
        tokenizer = recorder.pool.tokenizer(checkpoint)
        markers = markers_of(tokenizer)
        going_on = GoingOn(tokenizer, markers, inside, rooms(checkpoint, ids), budget)
        outputs = generator.replies(checkpoint, ids, arms, budget.first, going_on)
        every: list[Reply] = []
        found: dict[str, Tensor | Unmeasurable] = {}
        for arm in arms:
            if isinstance(replies := outputs[arm.name], Unmeasurable):
                found[arm.name] = replies
                continue
            places = range(len(ids)) if arm.requested is None else arm.requested
            codes = []
            for number, (place, made) in enumerate(zip(places, replies, strict=True)):
                reply, thought = going_on.within(arm, number, made)
                text = tokenizer.decode(reply)
                read = classify(text, reencoded_share(tokenizer, reply), inside[place], markers, tokenizer.all_special_tokens)
                outcome: Outcome = read.outcome if thought.over else "unfinished"
                every.append(Reply(checkpoint.spec, arm.name, place, outcome, text))
                codes.append([0.0, float(_hash(reply)), float(thought.tokens), float(ENDS.index(thought.end)), 0.0])
            found[arm.name] = torch.tensor(codes)
        opinions: list[Opinion] = ["none"] * len(every)
        if judge is not None:
            every, opinions = _judged_by(judge, recorder, checkpoint, every, inside, instructions)
        if keep is not None:
            keep.extend(every)
        for name, coded in found.items():
            if not isinstance(coded, Unmeasurable):
                of_arm = [(one.outcome, opinion) for one, opinion in zip(every, opinions, strict=True) if one.arm == name]
                coded[:, 0] = torch.tensor([float(OUTCOMES.index(outcome)) for outcome, _ in of_arm])
                coded[:, 4] = torch.tensor([float(OPINIONS.index(opinion)) for _, opinion in of_arm])
        codes_of = [each for each in found.values() if not isinstance(each, Unmeasurable)]
        if len(codes_of) < len(found):
            raise _Unanswered(found)
        return torch.cat(codes_of)

    provenance = recorder.provenance("replies", checkpoint, Prompts(ids, [], [])) | {
        "arms": [[digest(arm), arm.requested, arm.thinks] for arm in arms],
        "generator": generator.provenance,
        "decoder": version("tokenizers"),
        "budget": [budget.reply, budget.thinking],
        "inside": list(inside),
        "judge": judge and judge.provenance,
        "scorer": [SCORER, shipped_card().sha256],
    }
    work = sum((work_of(ids, arm, inside, budget, recorder) for arm in arms), NOTHING)
    if judge is not None:
        provenance["instructions"] = hashlib.sha256(json.dumps(list(instructions)).encode()).hexdigest()
    part = Part((sum(counts), 5), make, work)
    try:
        if keep is not None:
            kept = make()
            recorder.store.work += part.work
        else:
            (kept,) = recorder.store.get(provenance, [part], f"{checkpoint.spec} ({checkpoint.short})")
        found = dict(zip([arm.name for arm in arms], kept.split(counts), strict=True))
    except _Unanswered as error:  # not kept: another day's engine may know
        found = error.found
    scored = {name: codes if isinstance(codes, Unmeasurable) else _scored(codes) for name, codes in found.items()}
    return {name: one if judge is None else _heard(judge, checkpoint, name, one) for name, one in scored.items()}


def rooms(checkpoint: Checkpoint, prompts: Sequence[Sequence[int]]) -> list[int]:
    """Tokens of reply that the context holds after each prompt."""
    context = context_of(checkpoint)
    return [sys.maxsize if context is None else context - len(prompt) for prompt in prompts]


def work_of(prompts: Sequence[Sequence[int]], arm: Arm, inside: Sequence[bool], budget: Budget, recorder: Recorder) -> Work:
    """What an arm's replies take, at most; of a model that begins to think by itself more, which no one knows before."""
    places = range(len(prompts)) if arm.requested is None else arm.requested
    tokens = [budget.most if inside[place] and arm.thinks else budget.reply for place in places]
    lengths = [len(prompts[place]) for place in places]
    batches = batches_by_length([length + new for length, new in zip(lengths, tokens, strict=True)], recorder.batch_tokens)
    return Work(
        tokens=sum(lengths),
        replies=len(lengths),
        reply_tokens=sum(tokens),
        reply_steps=sum(max(tokens[place] for place in batch) for batch in batches),
    )


def _judged_by(
    judge: ReplyJudge,
    recorder: Recorder,
    checkpoint: Checkpoint,
    replies: Sequence[Reply],
    inside: Sequence[bool],
    instructions: Sequence[str],
) -> tuple[list[Reply], list[Opinion]]:
    """Replies in words as a judge has them, and its opinions; what is empty, gibberish or unfinished it is not asked about."""
    tokenizer = recorder.pool.tokenizer(checkpoint)
    markers, special = markers_of(tokenizer), tokenizer.all_special_tokens
    exchanges = {
        place: Exchange(
            instructions[one.prompt] if instructions else "", spoken(one.text, inside[one.prompt], markers, special) or ""
        )
        for place, one in enumerate(replies)
        if one.outcome in ("refused", "complied")
    }
    outcomes: list[Outcome] = [one.outcome for one in replies]
    opinions: list[Opinion] = ["none"] * len(replies)
    for place, refused in zip(exchanges, judge.refusals(list(exchanges.values())), strict=True):
        if refused is None:
            opinions[place] = "unclear"
            continue
        outcome: Outcome = "refused" if refused else "complied"
        opinions[place] = "same" if outcome == outcomes[place] else "other"
        outcomes[place] = outcome
    return [replace(one, outcome=outcome) for one, outcome in zip(replies, outcomes, strict=True)], opinions


def _heard(judge: ReplyJudge, checkpoint: Checkpoint, arm: str, scored: Scored | Unmeasurable) -> Scored | Unmeasurable:
    """Scores that a judge could give, noted down by what was judged: the same replies count once, however often they are used."""
    if isinstance(scored, Unmeasurable):
        return scored
    agreement = agreement_of(scored.opinions)
    judge.agreements[f"{checkpoint.short} {arm} {scored.digest}"] = agreement
    if agreement.unclear > MOST_UNCLEAR * agreement.replies:
        return JudgeFailed(
            f"the judge cannot tell whether {agreement.unclear} of {agreement.replies} replies of {checkpoint.spec} refuse, "
            f"more than {MOST_UNCLEAR:.0%}; take another judge"
        )
    return scored


def _scored(codes: "Tensor") -> Scored:
    whole = codes.long().numpy()
    thoughts = tuple(Thought(int(tokens), ENDS[int(end)]) for tokens, end in whole[:, 2:4])
    return Scored(whole[:, 0], whole[:, 1], thoughts, tuple(OPINIONS[code] for code in whole[:, 4]))


def _hash(reply: Sequence[int]) -> int:
    """24 bits: as many as a float32 holds exactly."""
    return int.from_bytes(hashlib.sha256(json.dumps(list(reply)).encode()).digest()[:3])
