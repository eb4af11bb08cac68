"""What truth is measured on, each part read when a row first asks for it."""

from contextlib import suppress

import numpy as np

from mechdrift.errors import Unmeasurable
from mechdrift.findings.drift import Drift
from mechdrift.findings.inputs import Inputs, once
from mechdrift.findings.truth import probes
from mechdrift.findings.truth.recorded import TruthReadings, read_judging, read_truth
from mechdrift.findings.truth.steered import SteeringReadings, read_steering


class Truth:
    """Both models on the same statements."""

    def __init__(self, inputs: Inputs) -> None:
        """Reads nothing yet."""
        self._inputs = inputs

    @once
    def recorded(self) -> TruthReadings:
        """Their block outputs at the period, and their judgements. Raises Unmeasurable."""
        one = self._inputs
        return one.recordings.at_one_batch(lambda: read_truth(one.pair, one.recordings, one.statements, one.seed, one.hand_set))

    @once
    def steered(self) -> SteeringReadings:
        """What they say when they are steered. Raises Unmeasurable."""
        one, recorded = self._inputs, self.recorded
        return one.recordings.at_one_batch(lambda: read_steering(one.pair, one.recordings, recorded, one.seed, one.hand_set))

    @once
    def judging(self) -> tuple[np.ndarray, np.ndarray]:
        """Base's and post's block outputs at the end of the judged prompt. Raises Unmeasurable."""
        one, recorded = self._inputs, self.recorded
        return one.recordings.at_one_batch(lambda: read_judging(one.pair, one.recordings, recorded, one.seed))

    @once
    def judgement(self) -> Drift | None:
        """The absolute row that decides where post has no direction of judging left; a base that cannot judge may have one."""
        read = self.recorded
        with suppress(Unmeasurable):
            return read.noted(probes.judgement_accuracy(read.base_gap, read.post_gap, read.statements))
        return None

    @once
    def readable(self) -> Drift | None:
        """The absolute row that decides where post has no truth direction left: its own probe."""
        read = self.recorded
        with suppress(Unmeasurable):  # of base's own probe, which has its row: base may have a direction all the same
            return probes.probe_accuracy(read.base, read.post, read.statements, read.place)
        return None
