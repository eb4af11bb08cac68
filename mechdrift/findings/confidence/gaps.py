"""How sure a model is of the next token and of its judgements, and how much of a change in that goes through entropy neurons.

Entropies are means over the tokens of a text, texts of one unit counting as one. A neuron's effect is the mean over tokens of how
far the entropy moves, either way, when its activation is replaced by its mean: total as the model then is, direct with the final
norm's scale as it was. An entropy neuron has a large total and a small direct effect (Stolfo et al. 2024), another neuron about
as much of both, so the share of the total that is not direct tells them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from mechdrift.errors import Unmeasurable
from mechdrift.findings.confidence.calibration import BINS, calibration_error, confidence_of, error_by_chance
from mechdrift.findings.drift import Better, Drift, Item
from mechdrift.findings.judging import data_name
from mechdrift.prompts.statements import Statement
from mechdrift.stats import Jackknifed, Normal

Which = Literal["base", "post"]
EXPLAINED = 0.5  # share of a gap that goes away: what is under it does not explain the gap
ENTROPY_SITE = "next token"
ENTROPY_RULE = "every token of a text but the first"
CONTROLS = "of 4 neurons nearest in norm, the nearest in norm times spread of activation"

PerUnit = Float[np.ndarray, " unit"]
Gaps = Float[np.ndarray, " statement"]


@dataclass(frozen=True)
class Moved:
    """Mean over tokens and neurons of how far the entropy moves, in nats, by unit."""

    total: PerUnit
    """As the model is without the neuron."""
    direct: PerUnit
    """With the final norm's scale as it was."""

    @property
    def through_norm(self) -> Jackknifed:
        """Share of the total effect that goes through the norm, 1 - direct / total: at most 1, under 0 where the norm dampens."""
        return Jackknifed.mean(self.total - self.direct) / Jackknifed.mean(self.total)


@dataclass(frozen=True)
class Entropies:
    """What one model's next token is like on the texts, by unit, in nats."""

    plain: PerUnit
    """Mean entropy."""
    chosen: Moved
    """By its entropy neurons, one at a time."""
    controls: Moved
    """By their controls."""
    ablated: PerUnit
    """Mean entropy without all its entropy neurons at once."""


@dataclass(frozen=True)
class Sampled:
    """The texts."""

    units: tuple[str, ...]
    """Names of the units, in the order of all arrays."""
    kinds: tuple[str, ...]
    """Their data sets."""
    members: Int[np.ndarray, " text"]
    """The unit of each text."""
    note: str
    """What a reader should know of them."""

    @property
    def data(self) -> str:
        """As it stands in a row's key."""
        return "+".join(sorted({*self.kinds}))

    def by_unit(self, rows: Sequence[Float[np.ndarray, " _"]]) -> PerUnit:
        """Mean over the tokens of each text, then over the texts of a unit."""
        means = np.array([row.mean(dtype=np.float64) for row in rows])
        return np.bincount(self.members, means) / np.bincount(self.members)


def entropies_of(rows: Sequence[Float[np.ndarray, "_ arm"]], texts: Sampled) -> Entropies:
    """Out of the entropies that were read of each text.

    Plain; then total and direct without each entropy neuron, without each control, and without all entropy neurons at once.
    """
    arms = rows[0].shape[1]
    each = (arms - 3) // 2  # total and direct of each entropy neuron, then of each control

    def moved(first: int) -> Moved:
        shifts = [np.abs(row[:, first : first + each] - row[:, :1]) for row in rows]
        return Moved(texts.by_unit([s[:, 0::2].mean(1) for s in shifts]), texts.by_unit([s[:, 1::2].mean(1) for s in shifts]))

    plain, ablated = (texts.by_unit([row[:, arm] for row in rows]) for arm in (0, arms - 2))
    return Entropies(plain, moved(1), moved(1 + each), ablated)


def neuron_effect(read: Entropies, texts: Sampled, which: Which) -> Drift:
    """A model's entropy neurons move its confidence through the final norm, more than neurons of like norm and activation do.

    Share of their effect on entropy that goes through the norm, minus the same of their controls; of one model alone, so it has
    no null; higher is better; over 0 is as published. The note has the effects in nats. Source: Stolfo et al. 2024.
    """
    evidence = _effect(read)
    word = "as published" if evidence.interval().low > 0 else "unlike published"
    parts = [
        f"{name}: total {moved.total.mean():.4f}, direct {moved.direct.mean():.4f} nats"
        for name, moved in (("entropy neurons", read.chosen), ("controls", read.controls))
    ]
    return Drift(
        measure="confidence.neuron_effect",
        evidence=evidence,
        null=None,
        unit=f"share of the effect on entropy in {which} that goes through the norm, entropy neurons minus controls",
        better="higher",
        site=ENTROPY_SITE,
        site_rule=ENTROPY_RULE,
        data=texts.data,
        parameters={"controls": CONTROLS},
        note=f"{'; '.join(parts)}: {word}; {texts.note}",
    )


def require_effect(base: Entropies) -> None:
    """Raise Unmeasurable, with n, unless base's entropy neurons do something that their controls do not."""
    evidence = _effect(base)
    if not evidence.interval().low > 0:
        raise Unmeasurable(
            f"base's entropy neurons work through the norm no more than their controls: {evidence.words()} of the effect, more "
            f"than 0 needed; n = {evidence.n}"
        )


def entropy_gap(base: PerUnit, post: PerUnit, texts: Sampled) -> Drift:
    """The post model is as sure of the next token as the base model: mean entropy, post minus base, in nats.

    0 = as sure, under 0 = surer. Source: Du et al. 2025, claim 4, the change that entropy neurons were to explain.
    """
    items = [
        Item(unit, kind, float(b), float(p), float(p - b) / len(base))
        for unit, kind, b, p in zip(texts.units, texts.kinds, base, post, strict=True)
    ]
    note = f"base {base.mean():.3f}, post {post.mean():.3f}; {texts.note}"
    return _of_texts("confidence.entropy_gap", Jackknifed.mean(post - base), "nats, post minus base", texts, note, items)


def entropy_gap_explained(base: Entropies, post: Entropies, texts: Sampled) -> Drift:
    """The change in entropy goes away without entropy neurons; published is that it does not.

    By how much the gap shrinks, in nats, when each model's own entropy neurons are ablated; 0 = not at all, under 0 = it grows.
    The note has it as a share where there is a gap. Raises Unmeasurable where base's work no more through the norm than their
    controls. Source: Du et al. 2025, claim 4.
    """
    require_effect(base)
    gap, left = (Jackknifed.mean(each) for each in (post.plain - base.plain, post.ablated - base.ablated))
    shrunk, note = explained(gap, left)
    unit = "nats by which the gap shrinks without entropy neurons"
    return _of_texts("confidence.entropy_gap_explained", shrunk, unit, texts, f"{note}; {texts.note}")


def calibration_gap(base: Gaps, post: Gaps, statements: Sequence[Statement]) -> Drift:
    """The post model's confidence in its judgements is as close to how often they are right as the base model's.

    base, post: logit(" TRUE") - logit(" FALSE") of every statement. Expected calibration error of the answers (calibration.py),
    post minus base, in [-1, 1]; 0 = as close; lower is better. The note has the error that a calibrated judge would show. Ours,
    beside the entropy.
    """
    before, after = (_error(each, statements) for each in (base, post))
    summary = [
        f"{name}: error {error.estimate:.4f} (calibrated: {error_by_chance(confidence_of(each)):.4f}), "
        f"confidence {confidence_of(each).mean():.3f}, right {_hits(each, statements).mean():.3f}"
        for name, each, error in (("base", base, before), ("post", post, after))
    ]
    unit = "expected calibration error, post minus base"
    return _of_judgements("confidence.calibration_gap", after - before, unit, statements, "; ".join(summary), "lower")


def calibration_gap_explained(
    base: tuple[Gaps, Gaps], post: tuple[Gaps, Gaps], statements: Sequence[Statement], read: Entropies
) -> Drift:
    """The change in calibration goes away without entropy neurons; published is that it does not.

    base, post: logit gaps as in calibration_gap, plain and with the model's own entropy neurons ablated; read: base's entropies.
    By how much the difference of the errors shrinks, as in entropy_gap_explained, in [-1, 1].
    """
    require_effect(read)
    gap, left = (_error(after, statements) - _error(before, statements) for before, after in zip(base, post, strict=True))
    shrunk, note = explained(gap, left)
    unit = "calibration error by which the gap shrinks without entropy neurons"
    return _of_judgements("confidence.calibration_gap_explained", shrunk, unit, statements, note, "neither")


def explained(gap: Jackknifed, left: Jackknifed) -> tuple[Jackknifed, str]:
    """By how much a gap shrinks, and in words: with the share that goes away, where the gap's interval does not hold 0.

    As published: the share's interval lies under EXPLAINED; unlike published: over it.
    """
    shrunk = (gap - left).times(float(np.sign(gap.estimate)))
    evidence = gap.evidence()
    low, high = evidence.interval()
    summary = f"gap {evidence.words(4)}, without entropy neurons {left.estimate:.4f}"
    if low <= 0 <= high:
        return shrunk, f"{summary}: no gap to explain"
    share = ((gap - left) / gap).evidence()
    least, most = share.interval()
    word = "as published" if most < EXPLAINED else "unlike published" if least > EXPLAINED else "neither as published nor unlike"
    return shrunk, f"{summary}; share that goes away {share.words()}: {word}"


def _effect(read: Entropies) -> Normal:
    """Share through the norm, entropy neurons minus controls."""
    return (read.chosen.through_norm - read.controls.through_norm).evidence()


def _hits(gaps: Gaps, statements: Sequence[Statement]) -> Bool[np.ndarray, " statement"]:
    """Which judgements are right; a tie is wrong."""
    return np.where([s.label for s in statements], 1.0, -1.0) * gaps > 0


def _error(gaps: Gaps, statements: Sequence[Statement]) -> Jackknifed:
    """Calibration error, entity by entity."""
    names = sorted({(s.kind, s.entity) for s in statements})
    place = {name: number for number, name in enumerate(names)}
    entities = np.array([place[s.kind, s.entity] for s in statements])
    return calibration_error(confidence_of(gaps), _hits(gaps, statements), entities)


def _of_texts(name: str, found: Jackknifed, unit: str, texts: Sampled, note: str, items: Sequence[Item] = ()) -> Drift:
    """A row on the next token."""
    return Drift(
        measure=name,
        evidence=found.evidence(),
        null=0.0,
        unit=unit,
        better="neither",
        site=ENTROPY_SITE,
        site_rule=ENTROPY_RULE,
        data=texts.data,
        note=note,
        items=tuple(items),
    )


def _of_judgements(name: str, found: Jackknifed, unit: str, statements: Sequence[Statement], note: str, better: Better) -> Drift:
    """A row on judgements."""
    return Drift(
        measure=name,
        evidence=found.evidence(),
        null=0.0,
        unit=unit,
        better=better,
        site="logits @ last",
        site_rule="last token of the judged prompt",
        data=data_name(statements),
        parameters={"bins": BINS, "binning": "equal mass"},
        note=note,
    )
