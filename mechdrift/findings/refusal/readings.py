"""What refusal is measured on: replies of both models under every arm, and the directions that make the arms."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import numpy as np

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.generate.arms import Arm
from mechdrift.engine.generate.falling_back import by_one_engine
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.generate.generator import Generator
from mechdrift.engine.generate.opens import opens_thoughts
from mechdrift.engine.generate.reply_judge import JudgeFailed, ReplyJudge, agreement_of
from mechdrift.engine.generate.scored import Reply, Scored, scored_replies
from mechdrift.engine.generate.thinking import Budget
from mechdrift.engine.stored_recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings.inputs import Inputs
from mechdrift.findings.refusal.direction import SIDES, Fitted, Site, arms_of, choose, fit, openers_of
from mechdrift.findings.refusal.outcomes import AT_ONCE, BORDERLINE, PLAIN, TESTED_ON, Does, On, Outcomes, RefusalReadings, Which
from mechdrift.findings.refusal.separation import Separated
from mechdrift.findings.tiers import REPLIES, Tier
from mechdrift.prompts.borderline import shipped_borderline
from mechdrift.prompts.chat_forms import ChatPrompts, chat_prompts, matched_prompts
from mechdrift.prompts.instructions import Instruction, Instructions
from mechdrift.prompts.refusals import shipped_card
from mechdrift.prompts.statements import Split
from mechdrift.prompts.texts import drawn
from mechdrift.prompts.thoughts import Block

RULE = "place of the least log-odds of refusal under ablation, by {which}'s choose split"
WHICH: tuple[Which, ...] = ("post", "base")

Points = dict[Which, Checkpoint]
Chosen = dict[tuple[On, Split], list[Instruction]]
Texts = dict[tuple[On, Split], list[str]]
RequestedRow = dict[tuple[On, Split], ChatPrompts]


@dataclass(frozen=True)
class Requested:
    """The instructions as one model is given them."""

    plain: RequestedRow
    """In its own form, as its users give them."""
    answering: RequestedRow
    """In the form in which its reply begins with the answer: where it thinks first, with a thought of no words."""
    thinks: bool
    """Whether its replies begin with a thought: where not, both are the same."""


@dataclass(frozen=True)
class Refusal:
    """Everything that the rows are computed from."""

    read: RefusalReadings
    """Replies to test instructions."""
    site: Site | Unmeasurable
    """Where the directions are read, or why there is no such place."""
    fitted: dict[str, tuple[Fitted, Fitted] | Unmeasurable]
    """Base and post by prompt form, or why a form cannot be used."""
    odds: dict[Does, np.ndarray]
    """Post's log-odds of refusal on the test instructions that an intervention is meant for: [plain or own, instruction]."""
    first: np.ndarray
    """Log-odds of refusal at the first token of the model that must refuse, on harmful test instructions; empty with replies."""
    unanswered: dict[tuple[Which, str], Unmeasurable]
    """By model and arm, why there are no replies."""
    replies: tuple[Reply, ...] = ()
    """With their text, where the user keeps it."""

    @property
    def fitted_natively(self) -> tuple[Fitted, Fitted]:
        """Base and post, each in its own form."""
        both = self.fitted["native"]
        assert not isinstance(both, Unmeasurable)
        return both

    def directions(self, form: str) -> tuple[np.ndarray, np.ndarray, str]:
        """Base's and post's contributions at the site, and a note. Raises Unmeasurable."""
        if isinstance(self.site, Unmeasurable):
            raise self.site
        if isinstance(both := self.fitted[form], Unmeasurable):
            raise both
        base, post = both
        note = f"; prompt forms: base {base.form}, post {post.form}; base {base.note}; post {post.note}"
        return base.contributions(self.site), post.contributions(self.site), note

    def by_block(self, form: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """The contributions at the site's token in every block, with the place's name. Raises as `directions`."""
        self.directions(form)
        base, post = cast(tuple[Fitted, Fitted], self.fitted[form])
        sites = [replace(cast(Site, self.site), layer=layer) for layer in range(base.outputs["harmful"].shape[1])]
        return [(str(site), base.contributions(site), post.contributions(site)) for site in sites]

    def separated(self) -> tuple[Separated, Separated]:
        """Base's and post's outputs at the site, each in its own form. Raises Unmeasurable."""
        if isinstance(self.site, Unmeasurable):
            raise self.site
        base, post = self.fitted_natively
        return base.separated(self.site), post.separated(self.site)

    def direction_file(self, pair: Pair) -> bytes | None:
        """Post's direction as safetensors: what lies beside the record. None where there is no place to read it at."""
        from safetensors.numpy import save

        if isinstance(self.site, Unmeasurable):
            return None
        use = "mechdrift bake SPEC --direction FILE --out DIR"
        direction = {"direction": self.fitted_natively[1].direction(self.site)}
        return save(direction, {"checkpoint": pair.post.pinned, "site": str(self.site), "use": use})

    def replies_file(self) -> bytes:
        """The replies as lines of JSON."""
        return "".join(json.dumps(asdict(one)) + "\n" for one in self.replies).encode()

    def require(self, which: Which, *arms: str) -> None:
        """Raise the reason why one of a model's arms has no replies."""
        if isinstance(self.site, Unmeasurable):
            raise self.site
        for arm in arms:
            if reason := self.unanswered.get((which, arm)):
                raise reason


def read(inputs: Inputs) -> Refusal:
    """Everything, in batches of one size, all replies by one engine."""
    replies: list[Reply] = []

    def attempt() -> Refusal:
        replies.clear()  # replies of a batch that did not fit
        keep = replies if inputs.keep_replies else None
        return read_refusal(
            inputs.pair,
            inputs.recordings,
            inputs.instructions,
            inputs.generator,
            inputs.tier,
            inputs.reply_judge,
            keep,
            inputs.must_refuse,
            inputs.budget,
        )

    read = by_one_engine(lambda: inputs.recordings.at_one_batch(attempt))
    return replace(read, replies=tuple(replies))


def read_refusal(
    pair: Pair,
    recordings: Recorder,
    instructions: Instructions,
    generator: Generator,
    tier: Tier,
    judge: ReplyJudge | None,
    keep: list[Reply] | None,
    must_refuse: Which,
    budget: Budget,
) -> Refusal:
    """Choose a direction by rule, read the other model's at the same place, and let both models reply without and with them.

    must_refuse: the model whose direction is chosen: it has the mechanism, or nothing is to be measured. A tier that asks for no
    row of replies gets none, only the log-odds of their first token.

    A model that thinks first is read and steered in the form in which its reply begins with the answer; its plain replies think.
    In tier nightly those under interventions do too.

    judge: decides which replies refuse, instead of the shipped classifier; where it cannot, rows of replies have its reason.
    keep: gets the replies with their text; prompts are the harmful test instructions, then the harmless ones. Raises Unmeasurable
    where a chat template does not render, or a prompt does not fit into the context.
    """
    points = points_of(pair)
    chosen, texts, requested = questions(points, recordings, instructions, tier, budget)
    native, matched = fitted_both(recordings, points, requested, texts)
    site, note = _site(recordings, points, must_refuse, native[must_refuse], requested[must_refuse].answering)
    outcomes_by: dict[tuple[Which, On, str], Outcomes] = {}
    unanswered: dict[tuple[Which, str], Unmeasurable] = {}
    odds: dict[Does, np.ndarray] = {}
    for which in WHICH:
        tests = {on: requested[which].answering[on, "test"] for on in SIDES}
        own, other = native[which], native["base" if which == "post" else "post"]
        arms = [Arm(PLAIN)]
        if not isinstance(site, Unmeasurable):
            arms = arms_of(own, other, site, *(len(tests[on].ids) for on in SIDES))
        if any(map(tier.includes, REPLIES)):
            asked = to_be_replied(requested[which], texts, arms, tier, budget)
            found = _scored(recordings, generator, points[which], asked, budget, judge, keep)
            counts = len(tests["harmful"].ids), sum(len(tests[on].ids) for on in SIDES)
            for arm, scored in found.items():
                if isinstance(scored, Unmeasurable):
                    unanswered[which, arm] = scored
                else:
                    outcomes_by |= {(which, on, whose): of_side for on, whose, of_side in _by_side(arm, scored, *counts)}
        if which == "post":
            odds = odds_of(recordings, pair.post, tests, arms)
    first = np.zeros(0)
    if (must_refuse, "harmful", PLAIN) not in outcomes_by and not isinstance(site, Unmeasurable):
        first = (
            odds["ablation"][0]
            if must_refuse == "post"
            else plain_odds(recordings, pair.base, requested["base"].answering["harmful", "test"])
        )
    parameters = {"reply_tokens": str(budget.reply), "told_by": judge.key if judge else shipped_card().key}
    if any(one.thinks for one in requested.values()):
        parameters["thinking_tokens"] = str(budget.thinking)
    read = RefusalReadings(
        {on: tuple(texts[on, split]) for on, split in texts if split == "test"},
        {on: tuple(one.category for one in chosen[on, split]) for on, split in chosen if split == "test"},
        outcomes_by,
        "none" if isinstance(site, Unmeasurable) else str(site),
        RULE.format(which=must_refuse),
        instructions.data,
        note,
        parameters,
        must_refuse,
        "; ".join(f"prompts of {which}: {note}" for which in points if (note := requested[which].plain["harmful", "test"].note)),
        unanswered,
    )
    return Refusal(read, site, {"native": (native["base"], native["post"]), "matched": matched}, odds, first, unanswered)


def points_of(pair: Pair) -> Points:
    """The two checkpoints by which they are."""
    return {"base": pair.base, "post": pair.post}


@dataclass(frozen=True)
class ToBeReplied:
    """What one model replies to."""

    prompts: list[list[int]]
    """Harmful test instructions, harmless ones; both again where some arms are to answer without a thought; borderline ones."""
    inside: list[bool]
    """Of each, whether it ends within a thought."""
    arms: list[Arm]
    """With the prompts of each."""
    instructions: list[str]
    """What the user says in each prompt."""


def to_be_replied(requested: Requested, texts: Texts, arms: Sequence[Arm], tier: Tier, budget: Budget) -> ToBeReplied:
    """The prompts of every arm: plain replies think; in tiers with `thinks_everywhere` all do. Plain ones are of borderline too.

    Else the others answer at once, and so does a further plain arm, which they are compared with.
    """
    at_once = [requested.answering[on, "test"] for on in SIDES]
    both = [requested.plain[on, "test"] for on in SIDES] if budget.thinking else at_once
    plain, *others = arms
    steered, count = [], sum(len(prompts.ids) for prompts in both)
    if both != at_once and others and not tier.thinks_everywhere:
        steered = at_once
        again = Arm(AT_ONCE, requested=tuple(range(count, 2 * count)), thinks=False)
        moved = [replace(arm, requested=tuple(count + place for place in arm.requested or ()), thinks=False) for arm in others]
        others = [again, *moved]
    as_plain = requested.plain if budget.thinking else requested.answering
    borderline = [as_plain[BORDERLINE, "test"]] if (BORDERLINE, "test") in as_plain else []
    before = count + sum(len(prompts.ids) for prompts in steered)
    last = range(before, before + sum(len(prompts.ids) for prompts in borderline))
    first = replace(plain, requested=(*range(count), *last))
    said = [text for on in SIDES for text in texts[on, "test"]]
    every = [*said, *(said if steered else ()), *texts.get((BORDERLINE, "test"), ())]
    return _replied([*both, *steered, *borderline], [first, *others], every)


def _replied(every: Sequence[ChatPrompts], arms: Sequence[Arm], instructions: list[str]) -> ToBeReplied:
    ids = [ids for prompts in every for ids in prompts.ids]
    return ToBeReplied(ids, [prompts.thinking for prompts in every for _ in prompts.ids], list(arms), instructions)


def _scored(
    recordings: Recorder,
    generator: Generator,
    point: Checkpoint,
    asked: ToBeReplied,
    budget: Budget,
    judge: ReplyJudge | None,
    keep: list[Reply] | None,
) -> dict[str, Scored | Unmeasurable]:
    """One model's replies under every arm; where the user's judge cannot be asked, its reason under each."""
    try:
        return scored_replies(
            recordings, generator, point, asked.prompts, asked.inside, asked.arms, budget, judge, keep, asked.instructions
        )
    except JudgeFailed as error:
        return {arm.name: error for arm in asked.arms}


def questions(
    points: Points, recordings: Recorder, instructions: Instructions, tier: Tier, budget: Budget
) -> tuple[Chosen, Texts, dict[Which, Requested]]:
    """What is used of each side and split: instructions, their texts, and prompts as each model's own form has them."""
    chosen: Chosen = {
        (on, split): a_fair_share(
            [one for one in instructions.all if one.harmful == (on == "harmful") and one.split == split], most
        )
        for on in SIDES
        for split, most in tier.instructions.items()
    }
    if tier.borderline:
        chosen[BORDERLINE, "test"] = [
            Instruction(one.harmless, False, one.kind, one.pair, "test") for one in shipped_borderline()[: tier.borderline]
        ]
    texts: Texts = {key: [one.text for one in of_key] for key, of_key in chosen.items()}
    return chosen, texts, {which: _requested(recordings, point, texts, budget) for which, point in points.items()}


def _requested(recordings: Recorder, point: Checkpoint, texts: Texts, budget: Budget) -> Requested:
    """The texts as one model is given them."""
    tokenizer = recordings.pool.tokenizer(point)

    def form(closed: Block | None = None) -> RequestedRow:
        return {key: chat_prompts(point, tokenizer, each, "native", budget.reply, closed) for key, each in texts.items()}

    plain = form()
    first = plain["harmless", "choose"]
    block = first.block or (None if first.form == "plain" else opens_thoughts(recordings, point, first.ids))
    return Requested(plain, form(block) if block else plain, block is not None)


def fitted_both(
    recordings: Recorder, points: Points, requested: dict[Which, Requested], texts: Texts
) -> tuple[dict[Which, Fitted], tuple[Fitted, Fitted] | Unmeasurable]:
    """Both models' directions in their own forms, and base's and post's in one form that both read alike, if there is one."""
    tokenizers = {which: (point, recordings.pool.tokenizer(point)) for which, point in points.items()}
    reason: Unmeasurable | None = None
    alike: dict[On, ChatPrompts] = {}
    try:
        alike = {on: matched_prompts(tokenizers["base"], tokenizers["post"], texts[on, "fit"]) for on in SIDES}
    except Unmeasurable as error:
        reason = error
    native: dict[Which, Fitted] = {}
    matched: dict[Which, Fitted] = {}
    for point in recordings.held_first(tuple(points.values())):  # each model is loaded once for both forms
        for which in (name for name, its in points.items() if its == point):
            answering = requested[which].answering
            found = fit(recordings, point, {on: answering[on, "fit"] for on in SIDES})
            form_note = answering["harmful", "fit"].note
            if form_note:
                found = replace(found, note=f"{form_note}; {found.note}")
            native[which] = found
            if reason is None:
                matched[which] = fit(recordings, point, alike)
    return native, reason or (matched["base"], matched["post"])


def _site(
    recordings: Recorder, points: Points, which: Which, fitted: Fitted, requested: RequestedRow
) -> tuple[Site | Unmeasurable, str]:
    """Where one model's direction works best, or why no place can be chosen; and the rule's figures in words."""
    base, post = points["base"], points["post"]
    try:
        if (base.layers, base.width) != (post.layers, post.width):
            raise Unmeasurable(f"layers x width differ: base {base.layers} x {base.width}, post {post.layers} x {post.width}")
        return choose(recordings, points[which], fitted, {on: requested[on, "choose"] for on in SIDES})
    except Unmeasurable as error:
        return error, str(error)


def _by_side(arm: str, scored: Scored, harmful: int, both: int) -> list[tuple[On, str, Outcomes]]:
    """The replies under an arm, by side: plain on both, of the others each on the side that it is meant for."""
    if arm in (PLAIN, AT_ONCE):
        parts: dict[On, slice] = {"harmful": slice(harmful), "harmless": slice(harmful, both), BORDERLINE: slice(both, None)}
        return [(on, arm, _outcomes(scored, part)) for on, part in parts.items() if len(scored.outcomes[part])]
    whose, does = arm.split()
    return [(TESTED_ON[cast(Does, does)], whose, _outcomes(scored))]


def odds_of(recordings: Recorder, post: Checkpoint, tests: dict[On, ChatPrompts], arms: Sequence[Arm]) -> dict[Does, np.ndarray]:
    """Post's log-odds of refusal at the first token, plain and under its own interventions: [plain or own, instruction]."""
    found: dict[Does, np.ndarray] = {}
    for does, on in TESTED_ON.items():
        for arm in (arm for arm in arms if arm.name == f"own {does}"):
            openers = openers_of(recordings, post, tests[on])
            both = [Arm(PLAIN), Arm(PLAIN, arm.does)]
            found[does] = first_token_under(recordings, post, tests[on].ids, openers, both)[..., 0]
    return found


def plain_odds(recordings: Recorder, point: Checkpoint, prompts: ChatPrompts) -> np.ndarray:
    """A model's log-odds of refusal at the first token of each prompt."""
    return first_token_under(recordings, point, prompts.ids, openers_of(recordings, point, prompts), [Arm(PLAIN)])[0, :, 0]


def a_fair_share(instructions: Sequence[Instruction], most: int) -> list[Instruction]:
    """At most so many: drawn by their text, so that the order of a file is no matter; in the file's order."""
    chosen = set(drawn([one.text for one in instructions], most))
    return [one for one in instructions if one.text in chosen]


def _outcomes(scored: Scored, part: slice = slice(None)) -> Outcomes:
    return Outcomes(scored.outcomes[part], scored.digest, scored.thoughts[part], agreement_of(scored.opinions[part]))
