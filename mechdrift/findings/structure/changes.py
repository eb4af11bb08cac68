"""What a change of weights is made of: one scale and one rotation for both sides of every matrix (He & Cao 2025), or anything.

Singular values s and singular vectors U, V of a matrix before (b) and after (p). Any small change leaves the scale near 1 and the
rotation gap near 0, so both are held against a null: changes of the same size and spectrum, R_L dW R_R, turned at random.

Weights are not sampled: every number is exact, but for the null's draws. Rows are medians over a model's blocks, and where others
print an interval they print the range of the blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from mechdrift.engine.weights.decompose import Spectra
from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Better, Drift, SitePoint
from mechdrift.stats import Spread

Part = Literal["attention", "mlp"]
PARTS: dict[Part, tuple[str, ...]] = {"attention": ("q", "k", "v", "o"), "mlp": ("gate", "up", "down")}
KINDS = tuple(kind for kinds in PARTS.values() for kind in kinds)
OUTPUT = "o"
STRONG = 0.01  # of the largest singular value: what is smaller carries 1e-4 of its energy, and any noise multiplies it
NUMBERS = ("change", "scale", "uniformity", "gap", "null_gap", "gap_ratio", "null_scale", "scale_z")
EQUAL = (0.0, 1.0, 0.0, 0.0) + (float("nan"),) * 4
"""NUMBERS of two matrices that are equal bit for bit: nothing changed, and nothing can be compared with a random change."""

PerMatrix = Float[np.ndarray, "layer kind"]
PerBlock = Float[np.ndarray, " block"]


def numbers_of(spectra: Spectra, shape: tuple[int, int]) -> tuple[float, ...]:
    """NUMBERS of one matrix of this shape.

    change: ||dW|| / ||W_b||. scale: alpha = <s_b, s_p> / <s_b, s_b>. uniformity: standard deviation over mean of s_p / s_b,
    where s_b is over STRONG of the largest. gap: see Spectra. gap_ratio: over null_gap, the median gap of the null's draws: where
    the smallest direction of a square matrix turns round, that alone makes a gap of 2 / sqrt(n), and a mean would be one of such
    accidents.
    scale_z: (scale - null_scale) over the null's standard deviation.

    The null's scale is 1 + c + d^2/2 - q/2 exactly, with d = change, c = <W_b, R_L dW R_R> / ||W_b||^2, whose mean is 0 and
    whose standard deviation is d / sqrt(rows x columns), and q = ||s' - s_b||^2 / ||W_b||^2, which hardly varies. So null_scale
    takes q alone from the draws, and its standard deviation is that of c: right within 10% up to d = 0.2; beyond it is too
    large, and z too small.
    """
    base = spectra.base
    length = float(base @ base)
    change = spectra.change_norm / np.sqrt(length)
    scale = float(base @ spectra.post) / length
    strong = base > STRONG * base[0]
    ratios = spectra.post[strong] / base[strong]
    null_gap = float(np.median(spectra.null_gap))
    null_scale = 1 + change**2 / 2 - float(((spectra.null_post - base) ** 2).sum(1).mean()) / (2 * length)
    uniformity = float(ratios.std() / ratios.mean())
    if change == 0 or null_gap == 0:
        return float(change), scale, uniformity, spectra.gap, *EQUAL[4:]
    scale_z = (scale - null_scale) / (change / np.sqrt(shape[0] * shape[1]))
    numbers = change, scale, uniformity, spectra.gap, null_gap, spectra.gap / null_gap, null_scale, scale_z
    return tuple(map(float, numbers))


@dataclass(frozen=True)
class StructureReadings:
    """NUMBERS of every matrix of some blocks, or of all."""

    numbers: Float[np.ndarray, "layer kind number"]
    """NaN where there is none."""
    layers: tuple[int, ...]
    """Which blocks."""
    depth: int
    """How many there are."""
    kinds: tuple[str, ...]
    """Matrices that the family has, out of KINDS."""
    reasons: dict[str, str]
    """By kind: why it cannot be measured."""
    equal: int
    """How many matrices are equal bit for bit."""
    parameters: dict[str, str]
    """How the null was drawn."""

    def of(self, number: str, kinds: Iterable[str]) -> PerMatrix:
        """One number, of some kinds. Raises Unmeasurable where a kind has none."""
        chosen = list(kinds)
        for kind in chosen:
            if kind in self.reasons:
                raise Unmeasurable(self.reasons[kind])
        return self.numbers[:, [KINDS.index(kind) for kind in chosen], NUMBERS.index(number)]

    def part(self, part: Part) -> tuple[str, ...]:
        """The kinds of a part that the family has; all of them where it has none, which then have reasons."""
        return tuple(kind for kind in PARTS[part] if kind in self.kinds) or PARTS[part]


def change(read: StructureReadings, part: Part) -> Drift:
    """The weights are what they were: relative norm of the change, ||dW|| / ||W_b||; 0 = the same, not bounded.

    Of the part's matrix that changed most in each block, median over blocks. Raises Unmeasurable where a matrix has no
    number.
    """
    return _over_part("change", read, part, "||dW|| / ||W_b||")


def uniformity(read: StructureReadings, part: Part) -> Drift:
    """All singular values of a matrix are scaled alike: standard deviation over mean of s_p / s_b; 0 = alike, not bounded.

    Over the singular values of base above a hundredth of its largest. Of the part's least uniform matrix in each block, median
    over blocks. Source: He & Cao 2025. Raises Unmeasurable where a matrix has no number.
    """
    return _over_part("uniformity", read, part, f"sd / mean of s_p / s_b where s_b > {STRONG:g} of the largest")


def rotation_gap(read: StructureReadings, part: Part) -> Drift:
    """Left and right singular vectors turn alike: ||Q_U Q_V^T - I||_F / sqrt(rank).

    0 = alike, sqrt 2 = independently, at most 2. Of the part's matrix with the largest in each block, median over blocks;
    small for any small change, so gap_ratio is what counts. Source: He & Cao 2025. Raises Unmeasurable where a matrix has no
    number.
    """
    return _over_part("rotation_gap", read, part, "||Q_U Q_V^T - I|| / sqrt(rank)", number="gap")


def gap_ratio(read: StructureReadings, kind: str) -> Drift:
    """Left and right singular vectors turn together more than under a random change of the same size and spectrum.

    Rotation gap over the null's; 1 = as at random, below 1 speaks for the published claim, 0 = one rotation. Of a change, so it
    has no "no change". Raises Unmeasurable where no matrix of the kind has changed. Source: He & Cao 2025; the null is ours.
    """
    values = read.of("gap_ratio", [kind])[:, 0]
    changed = ~np.isnan(values)
    if not changed.any():
        raise Unmeasurable(
            f"all {len(values)} {kind} matrices are what they were: there is no change to compare with a random one"
        )
    gaps, nulls = (_summary(read.of(number, [kind])[changed, 0]) for number in ("gap", "null_gap"))
    published = "as published" if _spread(values[changed]).interval().high < 1 else "unlike published"
    note = f"{published}; gap {gaps}, of random changes {nulls}"
    return _drift("gap_ratio", read, values, None, "gap / gap of random changes", "neither", note)


def scale(read: StructureReadings, kind: str) -> Drift:
    """A matrix keeps its size: alpha = <s_b, s_p> / <s_b, s_b>; 1 = the same, above 0.

    Noise alone inflates singular values: the note has the null's scale, and how many of its standard deviations alpha is from it.
    Median over blocks. Source: He & Cao 2025; the null is ours. Raises Unmeasurable where a matrix has no number.
    """
    values, z, null = (read.of(number, [kind])[:, 0] for number in ("scale", "scale_z", "null_scale"))
    changed = ~np.isnan(z)
    note = (
        f"random changes {_summary(null[changed], 6)}, z {_summary(z[changed], 1)}" if changed.any() else "no matrix has changed"
    )
    return _drift("scale", read, values, 1.0, "<s_b, s_p> / <s_b, s_b>", "neither", note)


def output_anomaly(read: StructureReadings) -> Drift:
    """Attention's output matrix is scaled as the others are: its alpha minus the median alpha of the others, in each block.

    0 = alike; published, of models distilled to reason, is more. Median over blocks. Source: He & Cao 2025. Raises Unmeasurable
    where a matrix has no number.
    """
    others = [kind for kind in read.kinds if kind != OUTPUT]
    values = read.of("scale", [OUTPUT])[:, 0] - np.median(read.of("scale", others), axis=1)
    published = "as published of models distilled to reason" if _spread(values).interval().low > 0 else "unlike published"
    note = f"{published}; others: {', '.join(others)}"
    return _drift("output_anomaly", read, values, 0.0, "alpha of W_O minus the others' median", "neither", note)


def _over_part(name: str, read: StructureReadings, part: Part, unit: str, number: str | None = None) -> Drift:
    """The largest number among a part's matrices in each block: one that changed is not hidden by others that did not."""
    kinds = read.part(part)
    values = read.of(number or name, kinds)
    medians = ", ".join(f"{kind} {np.median(column):.4g}" for kind, column in zip(kinds, values.T, strict=True))
    return _drift(name, read, values.max(1), 0.0, f"{unit}, largest in a block", "lower", f"medians: {medians}")


def _spread(values: PerBlock) -> Spread:
    return Spread(tuple(float(value) for value in values))


def _summary(values: PerBlock, digits: int = 4) -> str:
    """Median and range in words."""
    return _spread(values).words(digits)


def _drift(
    name: str, read: StructureReadings, values: PerBlock, null: float | None, unit: str, better: Better, note: str
) -> Drift:
    """The median over blocks; those without a number are left out of it and of the curve."""
    there = {layer: float(value) for layer, value in zip(read.layers, values, strict=True) if not np.isnan(value)}
    blocks = f"{len(there)} of {read.depth}" if len(there) < read.depth else str(read.depth)
    summary = f"median and range of {blocks} blocks, nothing is sampled"
    equal = f"; {read.equal} matrices of the model are equal bit for bit" if read.equal else ""
    return Drift(
        measure=f"structure.{name}",
        evidence=Spread(tuple(there.values())),
        null=null,
        unit=unit,
        better=better,
        site="all blocks" if len(read.layers) == read.depth else f"{len(read.layers)} of {read.depth} blocks",
        site_rule="median over blocks",
        data="weights",
        parameters=read.parameters,
        note=f"{note}; {summary}{equal}",
        curve=tuple(SitePoint(f"block[{layer}]", value, value, value) for layer, value in there.items()),
    )
