"""What the knowledge suite claims, and how its readings are taken."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mechdrift.checkpoints.resolve import Checkpoint
from mechdrift.engine.recordings import Prompts, Recorder
from mechdrift.engine.sites import encode
from mechdrift.engine.sweep import Pairs, Sweep
from mechdrift.engine.sweeps import Columns, record_clean, sweep_through
from mechdrift.errors import Unmeasurable
from mechdrift.findings import Finding
from mechdrift.fixtures import Pair
from mechdrift.measures.drift import Drift
from mechdrift.measures.knowledge import KnowledgeReadings, Patched, Transferred
from mechdrift.measures.truthfulness import ACCURACY_MINIMUM
from mechdrift.prompts.pairs import FORMS, Form, PromptPair, table_pairs
from mechdrift.prompts.statements import Split, fact_tables
from mechdrift.stats import Proportion

DU = "Du et al. 2025 (COLM), arXiv 2504.02904, knowledge"
MEASURES = "mechdrift.measures.knowledge"
UNITS = 160  # that are swept, two pairs each as a rule; the published procedure has 238 pairs

FINDINGS = tuple(
    Finding(f"knowledge.{name}", claim, source, f"{MEASURES}:{measure}", needs="base", rows=len(FORMS))
    for name, claim, source, measure in (
        (
            "location",
            "What the model knows is read at the same tokens and blocks before and after post-training.",
            f"{DU}, claim 1, on the tokens that carry it and across disjoint entities",
            "location",
        ),
        (
            "depth_shift",
            "What the model knows is as deep in the network after post-training as before.",
            "ours, beside the location",
            "depth_shift",
        ),
        (
            "accuracy",
            "The post model answers what the base model answered.",
            f"{DU}; the absolute row beside the maps",
            "accuracy",
        ),
        (
            "clean_gap",
            "The post model tells the two answers apart by as wide a margin as the base model.",
            f"{DU}; the absolute row beside the maps",
            "clean_gap",
        ),
        ("location_all", "The whole map, last token included, is what it was.", f"{DU}, claim 1", "location"),
        ("published", "The binned maps are what they were.", f"{DU}, claim 1, as published", "published"),
        (
            "recovery_forward",
            "The base model's representations bring back the post model's answer as well as its own do.",
            f"{DU}, claim 1, forward patching",
            "cross_recovery",
        ),
        (
            "recovery_backward",
            "The post model's representations bring back the base model's answer as well as its own do.",
            f"{DU}, claim 1, backward patching",
            "cross_recovery",
        ),
        (
            "recovery_asymmetry",
            "Representations work as well in one direction as in the other.",
            f"{DU}, claim 1; published is that backward works less",
            "asymmetry",
        ),
    )
)


@dataclass(frozen=True)
class Knowledge:
    """Both models' sweeps of the same pairs in one prompt form."""

    read: KnowledgeReadings
    across: Transferred | Unmeasurable
    """The sweeps across models, or why there are none."""
    asked: str
    """How many pairs of each kind were swept, out of how many."""

    @property
    def transferred(self) -> Transferred:
        """The sweeps across models. Raises Unmeasurable where the two do not fit together."""
        if isinstance(self.across, Unmeasurable):
            raise self.across
        return self.across

    def noted(self, drift: Drift) -> Drift:
        """The drift with what was asked in its note."""
        return replace(drift, note=f"{drift.note}; pairs: {self.asked}")


def read_knowledge(pair: Pair, recordings: Recorder, form: Form, seed: int) -> Knowledge:
    """Sweep both models over the same pairs, and each with the other's activations.

    Pairs are of all kinds that base knows in this form, by its choose split. Raises Unmeasurable where the two tokenizers give
    other pairs, or there are none.
    """
    tables = [table.kind for table in fact_tables()]
    known = [kind for kind in tables if _known(recordings, pair.base, form, seed, kind)] or tables
    possible = _pairs(recordings, pair.base, form, seed, known, "test")
    asked = a_fair_share(possible)
    if asked != a_fair_share(_pairs(recordings, pair.post, form, seed, known, "test")):
        raise Unmeasurable("base and post read the pairs as other tokens: compare checkpoints of one tokenizer")
    if not asked:
        raise Unmeasurable(f"no {form} pairs of equal token layout")
    prompts = _prompts(asked)
    own: dict[str, Patched] = {}
    clean: dict[str, Columns] = {}
    for point in recordings.held_first((pair.base, pair.post)):
        clean[point.short] = record_clean(recordings, point, prompts)
        own[point.short] = _patched(sweep_through(recordings, point, prompts))
    crossed: dict[str, Sweep] = {}
    across: Transferred | Unmeasurable
    try:
        for point in recordings.held_first((pair.post, pair.base)):
            other = pair.base if point == pair.post else pair.post
            crossed[point.short] = sweep_through(recordings, point, prompts, clean[other.short])
        across = Transferred(crossed[pair.post.short].patched.numpy(), crossed[pair.base.short].patched.numpy())
    except Unmeasurable as error:
        across = error
    read = KnowledgeReadings(own[pair.base.short], own[pair.post.short], asked, form)
    return Knowledge(read, across, _by_kind(tables, possible, asked))


def a_fair_share(pairs: Sequence[PromptPair]) -> tuple[PromptPair, ...]:
    """The pairs of at most UNITS units: from every kind in turn, in the order that the seed drew.

    A sweep costs by the pair, and an interval is narrow enough long before the tables are used up.
    """
    units: dict[str, list[str]] = {}
    for pair in pairs:
        of_kind = units.setdefault(pair.kind, [])
        if pair.unit not in of_kind:
            of_kind.append(pair.unit)
    ranked = sorted((rank, kind, unit) for kind, of_kind in units.items() for rank, unit in enumerate(of_kind))
    chosen = {(kind, unit) for _, kind, unit in ranked[:UNITS]}
    return tuple(pair for pair in pairs if (pair.kind, pair.unit) in chosen)


def _by_kind(kinds: Sequence[str], possible: Sequence[PromptPair], asked: Sequence[PromptPair]) -> str:
    """How many pairs each kind gave, and how many of them were swept; a kind that base does not know gave none."""
    given, taken = (Counter(pair.kind for pair in pairs) for pairs in (possible, asked))
    left_out = [kind for kind in kinds if not given[kind]]
    return ", ".join(f"{kind} {taken[kind]} of {given[kind]}" for kind in kinds if given[kind]) + (
        f"; none of {', '.join(left_out)}" if left_out else ""
    )


def _pairs(
    recordings: Recorder, point: Checkpoint, form: Form, seed: int, kinds: Sequence[str], split: Split
) -> tuple[PromptPair, ...]:
    """The pairs of some kinds as the checkpoint's tokenizer reads them."""
    tokens = partial(encode, recordings.pool.tokenizer(point))
    tables = [table for table in fact_tables() if table.kind in kinds]
    return tuple(pair for table in tables for pair in table_pairs(table, tokens, form, seed, split).pairs)


def _prompts(pairs: Sequence[PromptPair]) -> Pairs:
    return Pairs(
        [pair.corrupt for pair in pairs],
        [pair.clean for pair in pairs],
        [pair.answers for pair in pairs],
        [pair.first for pair in pairs],
    )


def _patched(sweep: Sweep) -> Patched:
    return Patched(sweep.patched.numpy(), sweep.clean.numpy(), sweep.corrupt.numpy())


def _known(recordings: Recorder, base: Checkpoint, form: Form, seed: int, kind: str) -> bool:
    """Whether base answers a kind's choose split well enough: as judged_kinds decides for statements."""
    asked = _pairs(recordings, base, form, seed, [kind], "choose")
    if not asked:
        return False
    prompts = [list(pair.clean) for pair in asked] + [list(pair.corrupt) for pair in asked]
    logits = recordings.logits(
        base, Prompts(prompts, [len(ids) - 1 for ids in prompts], [tuple(pair.answers) for pair in asked] * 2)
    )
    clean, corrupt = np.split(logits[:, 0] - logits[:, 1], 2)
    right = ((clean > 0).astype(float) + (corrupt < 0)) / 2
    units = sorted({pair.unit for pair in asked})
    means = [float(np.mean([right[i] for i, pair in enumerate(asked) if pair.unit == unit])) for unit in units]
    return Proportion(sum(means), len(means)).interval().low > ACCURACY_MINIMUM
