"""What is claimed of the structure of the weight change: one table."""

from mechdrift.findings.claims import Claim, Family, over
from mechdrift.findings.structure import changes
from mechdrift.findings.structure.changes import KINDS, PARTS, StructureReadings

HE = "He & Cao 2025, arXiv 2509.17866"
BY_PART = over(part=tuple(PARTS))
BY_KIND = over(kind=KINDS)

STRUCTURE: Family[StructureReadings] = Family(
    "structure",
    (
        Claim(
            "output_anomaly",
            "Attention's output matrices are scaled as the other matrices are.",
            f"{HE}; published is: more",
            changes.output_anomaly,
            lambda read: (read,),
        ),
        Claim(
            "change",
            "Post-training leaves the weights what they were.",
            "ours, beside the rest",
            changes.change,
            lambda read, part: (read, part),
            BY_PART,
        ),
        Claim(
            "rotation_gap",
            "The left and right singular vectors of a matrix turn alike.",
            HE,
            changes.rotation_gap,
            lambda read, part: (read, part),
            BY_PART,
        ),
        Claim(
            "uniformity",
            "All singular values of a matrix are scaled alike.",
            HE,
            changes.uniformity,
            lambda read, part: (read, part),
            BY_PART,
            version=2,  # singular values that are next to nothing are left out
        ),
        Claim(
            "gap_ratio",
            "The left and right singular vectors of a matrix turn together, more than under a random change of the same size.",
            f"{HE}; the null is ours",
            changes.gap_ratio,
            lambda read, kind: (read, kind),
            BY_KIND,
        ),
        Claim(
            "scale",
            "A matrix keeps its size.",
            f"{HE}; the null is ours",
            changes.scale,
            lambda read, kind: (read, kind),
            BY_KIND,
        ),
    ),
)
FINDINGS = STRUCTURE.findings
