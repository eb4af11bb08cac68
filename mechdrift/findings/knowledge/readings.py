"""What knowledge is measured on: sweeps of both models over the same pairs, and across them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mechdrift.checkpoints.pair import Pair
from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.stored_recordings import Prompts, Recorder
from mechdrift.engine.stored_sweep import Columns, record_clean, sweep_through
from mechdrift.engine.sweep import Pairs, Sweep
from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.hand_set import HAND_SET, HandSet
from mechdrift.findings.inputs import Inputs, once
from mechdrift.findings.knowledge.maps import SITE_RULE, KnowledgeReadings, Patched, kept_pairs, maps_of, share_answered
from mechdrift.findings.knowledge.pairs import PairRequest
from mechdrift.findings.knowledge.transfer import Transferred
from mechdrift.findings.minimums import ACCURACY_MINIMUM
from mechdrift.findings.tiers import ACROSS, Tier
from mechdrift.prompts.framing import ONE_TOKENIZER, what_differs
from mechdrift.prompts.pairs import Form, PromptPair
from mechdrift.prompts.written_pairs import WrittenPair

TEST_OVER_CHOOSE = 3  # how much larger the split is


@dataclass(frozen=True)
class Knowledge:
    """Both models' sweeps of the same pairs in one prompt form."""

    read: KnowledgeReadings
    across: Transferred | Unmeasurable
    """The sweeps across models, or why there are none."""
    requested: str
    """How many pairs of each kind were swept, out of how many."""

    @property
    def transferred(self) -> Transferred:
        """The sweeps across models. Raises Unmeasurable where the two do not fit together."""
        if isinstance(self.across, Unmeasurable):
            raise self.across
        return self.across

    def noted(self, drift: Drift) -> Drift:
        """The drift with what was measured in its note."""
        return replace(drift, note=f"{drift.note}; pairs: {self.requested}")


class ByForm:
    """What was read, by prompt form, each when a row first asks for it."""

    def __init__(self, inputs: Inputs) -> None:
        """Reads nothing yet."""
        self._inputs = inputs

    def read(self, form: str) -> Knowledge:
        """Both models in one form. Raises Unmeasurable."""
        return self._cloze if form == "cloze" else self._judged

    @once
    def _judged(self) -> Knowledge:
        return self._of("judged")

    @once
    def _cloze(self) -> Knowledge:
        return self._of("cloze")

    def _of(self, form: Form) -> Knowledge:
        one = self._inputs
        return one.recordings.at_one_batch(
            lambda: read_knowledge(one.pair, one.recordings, form, one.seed, one.tier, one.pairs, one.hand_set)
        )


def read_knowledge(
    pair: Pair,
    recordings: Recorder,
    form: Form,
    seed: int,
    tier: Tier,
    written: Sequence[WrittenPair] = (),
    hand_set: HandSet = HandSet(),  # noqa: B008 - it is frozen
) -> Knowledge:
    """Sweep both models over the same pairs, and each with the other's activations if the tier asks for that.

    Pairs are of all kinds that base knows in this form, by its choose split; written: the user's instead of the tables'. Raises
    Unmeasurable where the two tokenizers give other pairs, or there are none.
    """
    asking = PairRequest.of(pair, form, seed, written, hand_set)
    known = known_kinds(recordings, pair.base, asking) or asking.kinds
    found = asking.found(recordings, pair.base, known, "test")
    # What the user wrote, or joined by hand, is used as a whole.
    chosen = tuple if written or asking.by_hand else partial(a_fair_share, most=tier.units)
    requested = chosen(found.pairs)
    of_post = chosen(asking.found(recordings, pair.post, known, "test").pairs)
    if requested != of_post:
        base, post = ([pair.clean for pair in pairs] for pairs in (requested, of_post))
        why = what_differs(recordings.tokenizers(pair.points), base, post)
        raise Unmeasurable(f"base and post read the pairs as other tokens: {why or ONE_TOKENIZER}")
    if not requested:
        raise Unmeasurable(f"no {form} pairs: {found.summary()}")
    prompts = _prompts(requested)
    beside = _beside(recordings, pair.base, asking, known, chosen_units=tier.units // TEST_OVER_CHOOSE)
    own: dict[str, Patched] = {}
    clean: dict[str, Columns] = {}
    for point in recordings.held_first((pair.base, pair.post)):
        clean[point.short] = record_clean(recordings, point, prompts)
        own[point.short] = _patched(sweep_through(recordings, point, prompts))
    crossed: dict[str, Sweep] = {}
    across: Transferred | Unmeasurable
    try:
        if not any(map(tier.includes, ACROSS)):
            raise Unmeasurable(f"tier {tier.name} does not ask for it")
        for point in recordings.held_first((pair.post, pair.base)):
            other = pair.base if point == pair.post else pair.post
            crossed[point.short] = sweep_through(recordings, point, prompts, clean[other.short])
        across = Transferred(crossed[pair.post.short].patched.numpy(), crossed[pair.base.short].patched.numpy())
    except Unmeasurable as error:
        across = error
    by_hand = asking.by_hand
    rule = HAND_SET if by_hand else SITE_RULE
    read = KnowledgeReadings(own[pair.base.short], own[pair.post.short], requested, form, found.summary(), rule, beside, by_hand)
    return Knowledge(read, across, _by_kind(asking.kinds, found.pairs, requested))


def _beside(
    recordings: Recorder, base: Checkpoint, asking: PairRequest, kinds: Sequence[str], chosen_units: int
) -> tuple[str, ...]:
    """Columns through which base's own route goes beside subject and object, by the pairs of the choose split that it knows."""
    pairs = a_fair_share(asking.found(recordings, base, kinds, "choose").pairs, chosen_units)
    if not pairs:
        return ()
    swept = _patched(sweep_through(recordings, base, _prompts(pairs)))
    return maps_of(swept, kept_pairs(swept, swept, pairs, asking.form)).carrying()


def a_fair_share(pairs: Sequence[PromptPair], most: int) -> tuple[PromptPair, ...]:
    """The pairs of at most so many units: from every kind in turn, in the order that the seed drew.

    A sweep costs by the pair, and an interval is narrow enough long before the tables are used up.
    """
    units: dict[str, list[tuple[str, str]]] = {}
    for table, unit in dict.fromkeys(pair.sampled for pair in pairs):
        units.setdefault(table, []).append((table, unit))
    ranked = sorted((rank, unit) for of_table in units.values() for rank, unit in enumerate(of_table))
    chosen = {unit for _, unit in ranked[:most]}
    return tuple(pair for pair in pairs if pair.sampled in chosen)


def _by_kind(kinds: Sequence[str], possible: Sequence[PromptPair], requested: Sequence[PromptPair]) -> str:
    """How many pairs each kind gave, and how many of them were swept; a kind that base does not know gave none."""
    given, taken = (Counter(pair.kind for pair in pairs) for pairs in (possible, requested))
    left_out = [kind for kind in kinds if not given[kind]]
    return ", ".join(f"{kind} {taken[kind]} of {given[kind]}" for kind in kinds if given[kind]) + (
        f"; none of {', '.join(left_out)}" if left_out else ""
    )


def _prompts(pairs: Sequence[PromptPair]) -> Pairs:
    return Pairs(
        [pair.corrupt for pair in pairs],
        [pair.clean for pair in pairs],
        [pair.answers for pair in pairs],
        [pair.first for pair in pairs],
    )


def _patched(sweep: Sweep) -> Patched:
    return Patched(sweep.patched.numpy(), sweep.clean.numpy(), sweep.corrupt.numpy())


def known_kinds(recordings: Recorder, base: Checkpoint, asking: PairRequest) -> list[str]:
    """The kinds of which base answers enough, by the choose split; an answer is what it is on the test split."""
    return [kind for kind in asking.kinds if _known(recordings, base, asking, kind)]


def _known(recordings: Recorder, base: Checkpoint, asking: PairRequest, kind: str) -> bool:
    """Whether base answers enough of one kind."""
    requested = asking.found(recordings, base, [kind], "choose").pairs
    if not requested:
        return False
    prompts = [list(pair.clean) for pair in requested] + [list(pair.corrupt) for pair in requested]
    logits = recordings.logits(
        base, Prompts(prompts, [len(ids) - 1 for ids in prompts], [tuple(pair.answers) for pair in requested] * 2)
    )
    clean, corrupt = np.split(logits[:, 0] - logits[:, 1], 2)
    return share_answered(clean, corrupt, requested, asking.form).interval().low > ACCURACY_MINIMUM
