"""What confidence shows: the neurons that were entropy neurons before and after."""

from collections.abc import Iterable

from mechdrift.findings.figures import Figure, Pictures, Scatter, Shown


class ConfidencePictures(Pictures):
    """One scatter a row that has neurons for items."""

    def of_row(self, shown: Shown) -> Iterable[Figure]:
        """Each neuron's number in base and in post."""
        row = shown.row
        if row.finding in ("confidence.overlap", "confidence.overlap_by_direction") and shown.items:
            caption = f"{row.label}: each neuron's log LogitVar over norm, base across and post upwards"
            yield Scatter(row.label, caption, "neuron", shown.items)


PICTURES = ConfidencePictures()
