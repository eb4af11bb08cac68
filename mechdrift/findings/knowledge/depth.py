"""Around which block a part of the prompt matters."""

import numpy as np
from jaxtyping import Float

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift, Item, SitePoint
from mechdrift.findings.knowledge.location import accuracy, knowledge_drift, lost_in_post, require_knowledge, too_few_left
from mechdrift.findings.knowledge.maps import KnowledgeReadings, Maps, PerUnit
from mechdrift.prompts.pairs import SUBJECT
from mechdrift.stats import (
    Normal,
    jackknife_error,
    ratio_of_means,
)

MASS_MINIMUM = 0.10  # recovery summed over blocks: a part that carries less has no centre of mass worth the name


def depth_shift(read: KnowledgeReadings, part: str = SUBJECT) -> Drift:
    """The blocks at which a part of the prompt matters are as deep as they were.

    Centre of mass over blocks of the recovery summed over the part's tokens, post minus base, as a share of the number of
    blocks; 0 = as deep; either way is a drift. part: `subject`, `object`, `last` or `knowledge`. Where post's part carries
    nothing any more accuracy decides. Raises Unmeasurable where base does not know, or the part carries nothing there.
    Source: ours.
    """
    require_knowledge(read)
    absolute = accuracy(read)
    if (lost := too_few_left("knowledge.depth_shift", read, absolute)) is not None:
        return lost
    gains = [maps.of_part(part) for maps in read.maps]
    masses = [_mass(gain, maps.gaps) for gain, maps in zip(gains, read.maps, strict=True)]
    if not _carries(masses[0]):
        alone = read.base_alone
        if read.kept.fewer_in_post and _carries(_mass(alone.of_part(part), alone.gaps)):
            return lost_in_post("knowledge.depth_shift", read, absolute)
        raise Unmeasurable(
            f"the {part} carries {masses[0].words()} of base's recovery, summed over blocks; more than {MASS_MINIMUM:g} "
            f"needed; n = {masses[0].n} units"
        )
    (before, before_out), (after, after_out) = (_centre(gain) for gain in gains)
    evidence, influence = _shift(*gains)
    n, layers = evidence.n, gains[0].shape[1]
    items = [
        Item(unit, kind, float(n * before - (n - 1) * b), float(n * after - (n - 1) * p), float(each))
        for (kind, unit), b, p, each in zip(read.kept.units, before_out, after_out, influence, strict=True)
    ]
    return knowledge_drift(
        "knowledge.depth_shift",
        evidence,
        0.0,
        "share of the blocks, post minus base",
        read,
        f"centre of mass: base block {before:.2f}, post {after:.2f} of 0..{layers - 1}; carried: base {masses[0].words()}, "
        f"post {masses[1].words()}; {read.kept.note()}",
        items,
        {"part": part},
        better="neither",
        post_lacks=not _carries(masses[1]),
        fewer_left=read.kept.lost_in_post_alone,
        sibling=absolute,
        curve=_shift_by_column(*read.maps),
    )


def centre_of_mass(maps: Maps, part: str) -> Normal:
    """The block around which a part of the prompt matters to one model, in 0..layers-1.

    Centre of mass over blocks of the recovery summed over the part's tokens, as in depth_shift. Raises Unmeasurable where the
    part carries nothing.
    """
    gain = maps.of_part(part)
    mass = _mass(gain, maps.gaps)
    if not _carries(mass):
        raise Unmeasurable(
            f"carries {mass.words()} of the recovery, summed over blocks; more than {MASS_MINIMUM:g} needed; n = {mass.n} units"
        )
    centre, left_out = _centre(gain)
    return Normal(centre, jackknife_error(left_out), len(left_out))


def _shift(base: Float[np.ndarray, "unit layer"], post: Float[np.ndarray, "unit layer"]) -> tuple[Normal, PerUnit]:
    """How much deeper the centre of mass lies in post, as a share of the blocks, and what each unit adds to that."""
    n, layers = base.shape
    (before, before_out), (after, after_out) = _centre(base), _centre(post)
    shift, left_out = (after - before) / layers, (after_out - before_out) / layers
    evidence = Normal(shift, jackknife_error(left_out), n)
    return evidence, shift / n + (n - 1) / n * (shift - left_out)


def _shift_by_column(base: Maps, post: Maps) -> tuple[SitePoint, ...]:
    """The same for every compared column that carries something in both, over the units that have it."""
    points = []
    for name in base.of("all").columns:
        place = base.columns.index(name)
        there = ~np.isnan(base.gains[:, 0, place])
        gains = [maps.gains[there, :, place] for maps in (base, post)]
        masses = [_mass(gain, maps.gaps[there]) for gain, maps in zip(gains, (base, post), strict=True)]
        if there.sum() > 2 and all(map(_carries, masses)):
            evidence, _ = _shift(*gains)
            points.append(SitePoint(name, evidence.estimate, *evidence.interval()))
    return tuple(points)


def _mass(gain: Float[np.ndarray, "unit layer"], gaps: PerUnit) -> Normal:
    """Recovery summed over blocks."""
    return ratio_of_means(gain.sum(1), gaps) if len(gain) > 1 else Normal(float("nan"), float("nan"), len(gain))


def _carries(mass: Normal) -> bool:
    """Whether there is enough of it to have a centre."""
    return mass.interval().low > MASS_MINIMUM


def _centre(gain: Float[np.ndarray, "unit layer"]) -> tuple[float, PerUnit]:
    """Centre of mass over blocks of the mean gain, and the same with each unit left out."""
    moment, mass = gain @ np.arange(gain.shape[1]), gain.sum(1)
    return float(moment.sum() / mass.sum()), (moment.sum() - moment) / (mass.sum() - mass)
