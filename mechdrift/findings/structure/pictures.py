"""What structure shows: the numbers of the matrices, by block and kind."""

from collections.abc import Iterable, Sequence

from mechdrift.findings.figures import Figure, HeatMap, Matrices, Pictures, Shown

DRAWN = ("change", "scale", "gap", "gap_ratio", "uniformity")
"""Numbers that are drawn; the file beside the record has all."""


class StructurePictures(Pictures):
    """Heat maps."""

    matrices = ".structure.safetensors"

    def of_family(self, rows: Sequence[Shown], matrices: Sequence[Matrices]) -> Iterable[Figure]:
        """A map a number."""
        del rows
        for found in matrices:
            for name in DRAWN:
                if name in found.numbers:
                    yield HeatMap(f"structure: {name}", found.kinds, found.numbers[name])


PICTURES = StructurePictures()
