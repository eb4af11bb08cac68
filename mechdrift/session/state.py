"""The state of a run: what was requested, what it works on, and what came of it so far. No hooks."""

import time
from dataclasses import dataclass, field

import pytest

from mechdrift.engine.generate.reply_judge import Agreement
from mechdrift.report.record_file import Stamp
from mechdrift.session.inputs import RunInputs
from mechdrift.session.phases import Phase
from mechdrift.session.request import Request
from mechdrift.session.rows import RequestedRow
from mechdrift.settings import Settings
from mechdrift.verdict.limits import Profile
from mechdrift.verdict.row import Row
from mechdrift.verdict.run_verdict import RunVerdict

STATE = pytest.StashKey["State"]()
INPUTS = pytest.StashKey[RunInputs]()
ROW = pytest.StashKey[Row]()
"""Of a test: the row that it judged."""


@dataclass
class State:
    """What changes while a run goes on, and from where the rest is had."""

    config: pytest.Config
    request: Request
    rows: dict[str, Row] = field(default_factory=dict)
    """By label."""
    expected: set[RequestedRow] = field(default_factory=set)
    """What the collected tests ask."""
    never_ran: set[str] = field(default_factory=set)
    """Labels of rows whose tests did not run."""
    work: dict[str, int] = field(default_factory=dict)
    """Loads, recorded prompts, cache hits and misses, summed over workers."""
    phases: dict[str, Phase] = field(default_factory=dict)
    """Time, memory and work by family, of all workers."""
    warnings: list[str] = field(default_factory=list)
    """What a user should know and no row says; each once, whichever worker found it."""
    streams: dict[str, str] = field(default_factory=dict)
    """By spec of each model that was loaded, by any worker, where its residual stream was found."""
    agreements: dict[str, Agreement] = field(default_factory=dict)
    """By the replies that they are of: the user's judge with the shipped classifier."""
    unexpected: bool = False
    """A test, ours or a stranger's, failed otherwise than by a verdict."""
    bad_input: bool = False
    """A checkpoint turned out unusable while it was loaded."""
    record_before: Stamp | None = None
    """The stamp of what lay in the record's place when the run began."""
    started: float = field(default_factory=time.time)
    verdict: RunVerdict | None = None
    """What came of the run; none before it ends."""
    messages: list[str] = field(default_factory=list)
    """What was written, and what could not be."""

    @property
    def settings(self) -> Settings:
        """The options of the run."""
        return self.request.settings

    @property
    def profile(self) -> Profile:
        """The limits of the run."""
        return self.request.profile

    @property
    def inputs(self) -> RunInputs:
        """What the run works on. Raises KeyError before it has started, and where it could not."""
        return self.config.stash[INPUTS]

    @property
    def has_started(self) -> bool:
        """Whether its checkpoints and prompts have been read."""
        return INPUTS in self.config.stash

    @property
    def is_worker(self) -> bool:
        """Whether this process is an xdist worker."""
        return hasattr(self.config, "workerinput")
