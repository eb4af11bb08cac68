"""What the refusal suite claims, and how its readings are taken."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from mechdrift.engine.generate.arms import Arm, Generator
from mechdrift.engine.generate.first_token import first_token_under
from mechdrift.engine.generate.scored import KINDS, Said, Scored, scored_replies
from mechdrift.engine.recordings import Recorder
from mechdrift.errors import Unmeasurable
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.measures.refusal import ASKED, PLAIN, Does, On, RefusalReadings, Told, Which
from mechdrift.prompts.chat_forms import ChatPrompts, chat_prompts, matched_prompts
from mechdrift.prompts.instructions import Instruction
from mechdrift.prompts.statements import Split
from mechdrift.suites.refusal_direction import SIDES, Fitted, Site, arms_of, choose, fit, openers_of

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, refusal"
ARDITI = "Arditi et al. 2024, arXiv 2406.11717"
MEASURES = "mechdrift.measures.refusal"
REPLY_TOKENS = 32
RULE = "place of the least log-odds of refusal under ablation, by post's choose split"
# Instructions of a side that are asked, whatever a file holds: published are 128 to fit and 100 to test.
MOST: dict[Split, int] = {"fit": 128, "choose": 128, "test": 256}
WHICH: tuple[Which, ...] = ("post", "base")

FINDINGS = tuple(
    Finding(f"refusal.{name}", claim, source, f"{MEASURES}:{measure}", needs="post", rows=rows)
    for name, claim, source, measure, rows in (
        ("harmful", "The post model refuses harmful instructions.", DU, "rate", 1),
        ("harmless", "The post model does not refuse harmless instructions.", DU, "rate", 1),
        ("ablation", "Without its refusal direction the post model complies with harmful instructions.", ARDITI, "effect", 1),
        ("addition", "With its refusal direction the post model refuses harmless instructions.", ARDITI, "effect", 1),
        ("change_harmful", "The post model refuses harmful instructions as often as the base model.", DU, "change", 1),
        ("change_harmless", "The post model refuses harmless instructions no more often than the base model.", DU, "change", 1),
        ("direction", "Refusal lies in the same direction in both models; published is that it does not.", DU, "similarity", 2),
        (
            "ablation_transfer",
            "One model's refusal direction, taken out of the other, does there what its own does; published is: hardly.",
            DU,
            "transfer",
            2,
        ),
        (
            "addition_transfer",
            "One model's refusal direction, added to the other, does there what its own does; published is: hardly.",
            DU,
            "transfer",
            2,
        ),
        ("odds_ablation", "Without its refusal direction a refusal is less likely from the first token on.", ARDITI, "odds", 1),
        ("odds_addition", "With its refusal direction a refusal is more likely from the first token on.", ARDITI, "odds", 1),
    )
)


@dataclass(frozen=True)
class Refusal:
    """Everything that the rows are computed from."""

    read: RefusalReadings
    """Replies to test instructions."""
    site: Site | Unmeasurable
    """Where the directions are read, or why there is no such place."""
    fitted: dict[str, tuple[Fitted, Fitted] | Unmeasurable]
    """Base and post by prompt form, or why a form cannot be asked."""
    odds: dict[Does, np.ndarray]
    """Post's log-odds of refusal on the test instructions that an intervention is meant for: [plain or own, instruction]."""
    untold: dict[tuple[Which, str], Unmeasurable]
    """By model and arm, why there are no replies."""

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

    def require(self, which: Which, *arms: str) -> None:
        """Raise the reason why one of a model's arms has no replies."""
        if isinstance(self.site, Unmeasurable):
            raise self.site
        for arm in arms:
            if reason := self.untold.get((which, arm)):
                raise reason


def read_refusal(
    pair: Pair,
    recordings: Recorder,
    instructions: Sequence[Instruction],
    generator: Generator,
    keep: list[Said] | None = None,
) -> Refusal:
    """Choose post's direction by rule, read base's at the same place, and let both models reply without and with them.

    keep: gets the replies with their text; prompts are the harmful test instructions, then the harmless ones.
    Raises Unmeasurable where a chat template does not render, or a prompt does not fit into the context.
    """
    sides: dict[tuple[On, Split], list[Instruction]] = {
        (on, split): a_fair_share([one for one in instructions if one.harmful == (on == "harmful") and one.split == split])
        for on in SIDES
        for split in MOST
    }
    texts = {key: [one.text for one in chosen] for key, chosen in sides.items()}
    points = {"base": pair.base, "post": pair.post}
    asked: dict[str, dict[tuple[On, Split], ChatPrompts]] = {
        which: {
            key: chat_prompts(point, recordings.pool.tokenizer(point), chosen, "native", REPLY_TOKENS)
            for key, chosen in texts.items()
        }
        for which, point in points.items()
    }
    matched = _matched(pair, recordings, {on: texts[on, "fit"] for on in SIDES})
    native: dict[str, Fitted] = {}
    alike: dict[str, Fitted] = {}
    for point in recordings.held_first((pair.base, pair.post)):
        for which in (name for name, its in points.items() if its == point):
            native[which] = fit(recordings, point, {on: asked[which][on, "fit"] for on in SIDES})
            if not isinstance(matched, Unmeasurable):
                alike[which] = fit(recordings, point, matched)
    site: Site | Unmeasurable
    try:
        if (pair.base.layers, pair.base.width) != (pair.post.layers, pair.post.width):
            raise Unmeasurable(
                f"layers x width differ: base {pair.base.layers} x {pair.base.width}, post {pair.post.layers} x {pair.post.width}"
            )
        site, note = choose(recordings, pair.post, native["post"], {on: asked["post"][on, "choose"] for on in SIDES})
    except Unmeasurable as error:
        site, note = error, str(error)
    said: dict[tuple[Which, On, str], Told] = {}
    odds: dict[Does, np.ndarray] = {}
    untold: dict[tuple[Which, str], Unmeasurable] = {}
    count = len(sides["harmful", "test"])
    for which in WHICH:
        prompts = {on: asked[which][on, "test"] for on in SIDES}
        own, other = native[which], native["base" if which == "post" else "post"]
        arms = (
            [Arm(PLAIN)] if isinstance(site, Unmeasurable) else arms_of(own, other, site, *(len(prompts[on].ids) for on in SIDES))
        )
        both = [*prompts["harmful"].ids, *prompts["harmless"].ids]
        thinking = prompts["harmful"].thinking
        found = scored_replies(recordings, generator, points[which], both, thinking, arms, REPLY_TOKENS, keep)
        for arm in arms:
            scored = found[arm.name]
            if isinstance(scored, Unmeasurable):
                untold[which, arm.name] = scored
            elif arm.name == PLAIN:
                said[which, "harmful", PLAIN] = _told(scored, slice(None, count))
                said[which, "harmless", PLAIN] = _told(scored, slice(count, None))
            else:
                whose, does = arm.name.split()
                said[which, ASKED[cast(Does, does)], whose] = _told(scored)
        if which == "post" and not isinstance(site, Unmeasurable):
            for does, on in ASKED.items():
                own_arm = next(arm for arm in arms if arm.name == f"own {does}")
                openers = openers_of(recordings, pair.post, prompts[on])
                first = first_token_under(recordings, pair.post, prompts[on].ids, openers, [Arm(PLAIN), Arm(PLAIN, own_arm.does)])
                odds[does] = first[..., 0]
    read = RefusalReadings(
        {on: tuple(texts[on, "test"]) for on in SIDES},
        {on: tuple(one.category for one in sides[on, "test"]) for on in SIDES},
        said,
        "none" if isinstance(site, Unmeasurable) else str(site),
        RULE,
        "instructions",
        note,
        {"reply_tokens": str(REPLY_TOKENS)},
    )
    both_alike = matched if isinstance(matched, Unmeasurable) else (alike["base"], alike["post"])
    return Refusal(read, site, {"native": (native["base"], native["post"]), "matched": both_alike}, odds, untold)


def a_fair_share(instructions: Sequence[Instruction]) -> list[Instruction]:
    """At most MOST of a side and split: drawn by their text, so that the order of a file is no matter; in the file's order."""
    most = MOST[instructions[0].split]
    drawn = set(sorted(instructions, key=lambda one: hashlib.sha256(one.text.encode()).digest())[:most])
    return [one for one in instructions if one in drawn]


def _matched(pair: Pair, recordings: Recorder, texts: dict[On, list[str]]) -> dict[On, ChatPrompts] | Unmeasurable:
    """Fit instructions in a form that both models read alike."""
    both = [(point, recordings.pool.tokenizer(point)) for point in (pair.base, pair.post)]
    try:
        return {on: matched_prompts(both[0], both[1], texts[on]) for on in SIDES}
    except Unmeasurable as error:
        return error


def _told(scored: Scored, part: slice = slice(None)) -> Told:
    kinds = scored.kinds[part]
    return Told(kinds == KINDS.index("refusal"), kinds == KINDS.index("compliance"), scored.digest)
